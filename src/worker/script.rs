//! TorchScript modules: loading, running and copying them, through `script.cpp`.
//!
//! tch has modules of its own, but they list no buffers and cannot be copied. Knows nothing about networks.
#![allow(unsafe_code, reason = "C++ has no safe interface")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

/// A module in C++; never seen from within.
#[repr(C)]
struct Module {
    _private: [u8; 0],
}

type Take = unsafe extern "C" fn(*mut c_void, *const c_char, *mut C_tensor);

unsafe extern "C" {
    fn atflow_script_load(data: *const c_char, size: usize, gpu: c_int, error: *mut *mut c_char) -> *mut Module;
    fn atflow_script_copy(module: *const Module, error: *mut *mut c_char) -> *mut Module;
    fn atflow_script_free(module: *mut Module);
    fn atflow_script_set_training(module: *mut Module, on: c_int, error: *mut *mut c_char) -> c_int;
    fn atflow_script_tensors(
        module: *const Module,
        buffers: c_int,
        take: Take,
        to: *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    fn atflow_script_forward(module: *mut Module, input: *const C_tensor, error: *mut *mut c_char) -> *mut C_tensor;
}

/// A loaded TorchScript module. Every call runs its operators as they are written; nothing is fused or recompiled.
#[derive(Debug)]
pub struct Script(NonNull<Module>);

impl Script {
    /// Loads what `torch.jit.save` wrote onto a device.
    ///
    /// # Errors
    /// libtorch's message, if the bytes are no such file or use an operator that this libtorch lacks.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, TchError> {
        let gpu = match device {
            Device::Cuda(number) => c_int::try_from(number).unwrap_or(c_int::MAX),
            _ => -1,
        };
        // SAFETY: the function reads `bytes.len()` bytes and keeps no pointer to them.
        let module = asked(|error| unsafe { atflow_script_load(bytes.as_ptr().cast(), bytes.len(), gpu, error) })?;
        Script::of(module)
    }

    /// Copies the module with all its tensors. Under a no-grad guard, the copies require no gradient.
    ///
    /// # Errors
    /// libtorch's message.
    pub fn copy(&self) -> Result<Self, TchError> {
        // SAFETY: the module lives as long as `self`.
        Script::of(asked(|error| unsafe { atflow_script_copy(self.0.as_ptr(), error) })?)
    }

    fn of(module: *mut Module) -> Result<Self, TchError> {
        NonNull::new(module).map(Script).ok_or_else(|| TchError::Torch("no module came back".to_owned()))
    }

    /// Switches the module and all within it to training mode or to evaluation mode.
    ///
    /// # Errors
    /// libtorch's message.
    pub fn set_training(&self, on: bool) -> Result<(), TchError> {
        // SAFETY: the module lives as long as `self`, which no other thread has.
        asked(|error| unsafe { atflow_script_set_training(self.0.as_ptr(), c_int::from(on), error) }).map(|_| ())
    }

    /// Returns the parameters by name. They share their storage with the module.
    ///
    /// # Errors
    /// libtorch's message.
    pub fn parameters(&self) -> Result<Vec<(String, Tensor)>, TchError> {
        self.tensors(false)
    }

    /// Returns the buffers by name, as [`Script::parameters`].
    ///
    /// # Errors
    /// libtorch's message.
    pub fn buffers(&self) -> Result<Vec<(String, Tensor)>, TchError> {
        self.tensors(true)
    }

    fn tensors(&self, buffers: bool) -> Result<Vec<(String, Tensor)>, TchError> {
        let mut list: Vec<(String, Tensor)> = Vec::new();
        let to = (&raw mut list).cast();
        // SAFETY: the module lives as long as `self`. `take` gets `to` during this call only.
        asked(|error| unsafe { atflow_script_tensors(self.0.as_ptr(), c_int::from(buffers), take, to, error) })?;
        Ok(list)
    }

    /// Returns what the module's `forward` makes of one tensor.
    ///
    /// # Errors
    /// libtorch's message, or one that tells what came back if that is no tensor.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        // SAFETY: module and input live during the call. The tensor that comes back is owned by nobody else.
        unsafe {
            let output = asked(|error| atflow_script_forward(self.0.as_ptr(), input.as_ptr(), error))?;
            Ok(Tensor::from_ptr(output))
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: the module came from `new` in C++, and nothing uses it after this.
        unsafe { atflow_script_free(self.0.as_ptr()) }
    }
}

/// Adds a tensor to the list of [`Script::tensors`].
unsafe extern "C" fn take(to: *mut c_void, name: *const c_char, tensor: *mut C_tensor) {
    // SAFETY: `to` is the list, `name` a C string, and `tensor` a new tensor that is given away.
    unsafe {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        (*to.cast::<Vec<(String, Tensor)>>()).push((name, Tensor::from_ptr(tensor)));
    }
}

/// Calls a function of `script.cpp`; what it writes as error becomes one.
fn asked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, TchError> {
    let mut error: *mut c_char = ptr::null_mut();
    let value = call(&raw mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: the text is a C string from `strdup`, freed here and nowhere else.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        text
    };
    Err(TchError::Torch(text))
}
