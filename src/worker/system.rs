//! Operating-system and dynamic-linker functions: locating CUDA's half of libtorch, reserving standard output for the
//! protocol, ignoring Ctrl-C. All unsafe code of the worker is here and in `script`. Knows nothing about stages.
#![allow(unsafe_code, reason = "dlopen, signal dispositions and C++ have no safe interface in std")]

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The CUDA half of libtorch exists, but the dynamic linker rejects it.
#[derive(Debug, thiserror::Error)]
#[error("{} is there but cannot be loaded: {reason}", library.display())]
pub struct CudaLibraryError {
    /// The library that was tried.
    pub library: PathBuf,
    /// The error from the dynamic linker.
    pub reason: String,
}

/// Prepares the process; call this first, while the process has a single thread.
///
/// Ctrl-C reaches every process of the terminal, and a batch system's termination request every process of the job. The
/// worker ignores both: the engine stops it by a message or by closing its input, so a finished epoch is saved before
/// it exits.
pub fn prepare_process() {
    // SAFETY: the process has one thread, so no other thread changes signal dispositions meanwhile.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}

/// Reserves standard output for the protocol; anything a library prints there later goes to standard error.
///
/// # Errors
/// Returns the error from the system, if the process has no standard output or error.
pub fn claim_stdout() -> io::Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both descriptors stay open for the whole life of the process; nothing owns descriptor 1 exclusively.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(own))
}

/// Loads `libtorch_cuda.so` if it is next to the `libtorch_cpu.so` of this process.
///
/// The worker references none of its symbols, so the linker omits it, and without this call CUDA would be silently
/// missing. Call this before creating the first tensor. Returns the library's path, or `None` if libtorch is CPU-only.
///
/// # Errors
/// [`CudaLibraryError`] if the library exists but cannot be loaded.
pub fn load_cuda_library() -> Result<Option<PathBuf>, CudaLibraryError> {
    // The folder may consist of symbolic links, with or without the CUDA half.
    let folders = libtorch_folder().into_iter().flat_map(|folder| {
        let real = fs::canonicalize(folder.join("libtorch_cpu.so")).ok();
        [Some(folder), real.and_then(|library| Some(library.parent()?.to_owned()))]
    });
    let mut libraries = folders.flatten().map(|folder| folder.join("libtorch_cuda.so"));
    let Some(library) = libraries.find(|path| path.exists()) else { return Ok(None) };
    let failed = |reason: String| CudaLibraryError { library: library.clone(), reason };
    let name = CString::new(library.as_os_str().as_bytes()).map_err(|error| failed(error.to_string()))?;
    // SAFETY: the name is a C string. The library's constructors only register operators with libtorch_cpu.so, which is
    // loaded. dlerror returns a string that is valid until this thread's next call of it, and it is copied here.
    unsafe {
        if libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            let reason = libc::dlerror();
            let reason = if reason.is_null() { c"no reason given" } else { CStr::from_ptr(reason) };
            return Err(failed(reason.to_string_lossy().into_owned()));
        }
    }
    Ok(Some(library))
}

/// Returns the version of the loaded libtorch, such as `2.11.0`.
pub fn libtorch_version() -> String {
    let symbol = version_symbol();
    if symbol.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: libtorch declares the symbol as `uint64_t aoti_torch_abi_version()`
    // (torch/csrc/inductor/aoti_torch/c/shim.h), part of its stable ABI.
    let version = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(symbol)() };
    format!("{}.{}.{}", version >> 56, (version >> 48) & 0xff, (version >> 40) & 0xff)
}

/// Returns the folder from which the dynamic linker loaded `libtorch_cpu.so`.
pub fn libtorch_folder() -> Option<PathBuf> {
    let symbol = version_symbol();
    if symbol.is_null() {
        return None;
    }
    // SAFETY: dladdr fills the structure, whose fields may all be null, or returns 0 if it did not. The name it points
    // to lives as long as the library, and is copied here.
    let library = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(symbol, &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        Path::new(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes())).to_owned()
    };
    Some(library.parent()?.to_owned())
}

/// Returns a symbol that only libtorch_cpu.so defines; null if that is not loaded.
fn version_symbol() -> *mut libc::c_void {
    // SAFETY: the name is a C string.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"aoti_torch_abi_version".as_ptr()) }
}

unsafe extern "C" {
    safe fn atflow_make_repeatable() -> libc::c_int;
    safe fn atflow_switches() -> libc::c_int;
    safe fn atflow_use_onednn(use_it: libc::c_int) -> libc::c_int;
    fn atflow_arithmetic(which: libc::c_int, out: *mut libc::c_char, room: usize);
}

/// libtorch's switches for GPU arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    /// cuDNN uses deterministic kernels.
    pub deterministic_cudnn: bool,
    /// cuDNN benchmarks kernels and picks the fastest.
    pub benchmark_cudnn: bool,
    /// Convolutions round their inputs to TF32.
    pub tf32_cudnn: bool,
    /// Matrix products round their inputs to TF32.
    pub tf32_cublas: bool,
}

/// Sets libtorch's switches for deterministic GPU results and full 32-bit floats. Returns whether libtorch accepted
/// them.
pub fn make_repeatable() -> bool {
    atflow_make_repeatable() == 1
}

/// Returns the current switches, if libtorch reports them.
pub fn switches() -> Option<Switches> {
    let bits = u32::try_from(atflow_switches()).ok()?;
    let bit = |index: u32| bits >> index & 1 == 1;
    Some(Switches { deterministic_cudnn: bit(0), benchmark_cudnn: bit(1), tf32_cudnn: bit(2), tf32_cublas: bit(3) })
}

/// A text about libtorch's CPU arithmetic.
#[derive(Debug, Clone, Copy)]
pub enum LibraryText {
    /// The selected ATen kernels.
    AtenKernels,
    /// The version of oneDNN.
    OneDnn,
    /// The version of MKL.
    Mkl,
}

/// Returns libtorch's text about its arithmetic; empty if it has none.
pub fn library_text(what: LibraryText) -> String {
    let mut bytes = [0_u8; 256];
    // SAFETY: the function writes at most as many bytes as the given length, the last of them 0.
    unsafe { atflow_arithmetic(what as libc::c_int, bytes.as_mut_ptr().cast(), bytes.len()) };
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    text.map(|text| text.into_owned()).unwrap_or_default()
}

/// Returns the version of the C library; empty if it is unknown.
pub fn libc_version() -> String {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function returns a C string that lives as long as the process.
    let version = format!("glibc {}", unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy());
    #[cfg(not(target_env = "gnu"))]
    let version = String::new();
    version
}

/// Number of live [`WithoutOneDnn`] values: libtorch has one switch for the whole process.
static WITHOUT_ONEDNN: Mutex<usize> = Mutex::new(0);

/// Guard: while one is alive, libtorch computes CPU convolutions without oneDNN.
#[derive(Debug)]
pub struct WithoutOneDnn(());

/// Switches oneDNN off until the guard is dropped.
pub fn without_onednn() -> WithoutOneDnn {
    let mut alive = WITHOUT_ONEDNN.lock().unwrap_or_else(PoisonError::into_inner);
    *alive += 1;
    atflow_use_onednn(0);
    WithoutOneDnn(())
}

impl Drop for WithoutOneDnn {
    fn drop(&mut self) {
        let mut alive = WITHOUT_ONEDNN.lock().unwrap_or_else(PoisonError::into_inner);
        *alive -= 1;
        if *alive == 0 {
            atflow_use_onednn(1);
        }
    }
}

/// Exits without running the libraries' exit handlers, because other threads may be inside libtorch.
pub fn leave_at_once() -> ! {
    // SAFETY: _exit ends the process and touches none of its memory.
    unsafe { libc::_exit(0) }
}

/// Returns the processor time of this process so far.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a structure of the right type, which lives until the call returns. A failed call
    // leaves it as it is.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Returns the distinct NVIDIA GPU models that the driver reports; empty without a driver.
pub fn gpu_models() -> Vec<String> {
    let Ok(folder) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let infos = folder.flatten().filter_map(|gpu| fs::read_to_string(gpu.path().join("information")).ok());
    let model = |info: String| Some(info.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned());
    let mut models: Vec<String> = infos.filter_map(model).collect();
    models.sort();
    models.dedup();
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU-only libtorch has the switches, too, and stores them. cuDNN's TF32 is on by default.
    #[test]
    fn the_switches_for_repeatable_arithmetic_are_set_and_stay() {
        assert!(make_repeatable());
        let expected =
            Switches { deterministic_cudnn: true, benchmark_cudnn: false, tf32_cudnn: false, tf32_cublas: false };
        assert_eq!(switches(), Some(expected));
    }
}
