//! Device selection: the device requested on the command line, and the available one. Knows nothing about stages.

use std::fmt;
use std::str::FromStr;

use atflow::numerics::{Arithmetic, Numerics};
use tch::{Cuda, Device};

use crate::arithmetic::{self, NoNumerics};
use crate::system::{self, CudaLibraryError};

/// The device that `--device` requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedDevice {
    /// The first GPU if it can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU, by its number from 0.
    Cuda(usize),
}

/// The text names no device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected `auto`, `cpu` or `cuda:N`, found `{0}`")]
pub struct ParseDeviceError(String);

impl FromStr for RequestedDevice {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cuda = |rest: &str| match rest.strip_prefix(':') {
            None if rest.is_empty() => Some(0),
            None => None,
            Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => number.parse().ok(),
            Some(_) => None,
        };
        match text {
            "auto" => Ok(RequestedDevice::Auto),
            "cpu" => Ok(RequestedDevice::Cpu),
            _ => text
                .strip_prefix("cuda")
                .and_then(cuda)
                .map(RequestedDevice::Cuda)
                .ok_or_else(|| ParseDeviceError(text.to_owned())),
        }
    }
}

impl fmt::Display for RequestedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestedDevice::Auto => f.write_str("auto"),
            RequestedDevice::Cpu => f.write_str("cpu"),
            RequestedDevice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Why a GPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoCuda {
    /// This libtorch has no CUDA half.
    #[error("this libtorch is for the CPU only: no libtorch_cuda.so in {folder}")]
    CpuOnly {
        /// The folder of libtorch.
        folder: String,
    },
    /// The CUDA half exists but cannot be loaded.
    #[error(transparent)]
    Library(#[from] CudaLibraryError),
    /// No driver is loaded.
    #[error("libtorch has CUDA, but this machine has no NVIDIA driver (no /proc/driver/nvidia)")]
    NoDriver,
    /// The driver is loaded, but libtorch finds no usable GPU.
    #[error(
        "libtorch has CUDA and the NVIDIA driver is loaded, but no GPU can be used; \
         the driver may be too old for this libtorch, or CUDA_VISIBLE_DEVICES hides the GPUs"
    )]
    NoGpu,
    /// There are GPUs, but not the requested one.
    #[error("there is no cuda:{number}: this process sees {count} GPU(s)")]
    NoSuchGpu {
        /// The requested GPU.
        number: usize,
        /// The number of GPUs.
        count: i64,
    },
}

impl NoCuda {
    /// Returns whether CUDA was meant to work here: such a failure is reported even if the CPU suffices.
    fn is_defect(&self) -> bool {
        matches!(self, NoCuda::NoGpu | NoCuda::Library(_))
    }
}

/// Why this machine cannot compute as requested.
#[derive(Debug, thiserror::Error)]
pub enum NoDevice {
    /// The requested GPU is not available.
    #[error(transparent)]
    Cuda(#[from] NoCuda),
    /// The processor cannot.
    #[error(transparent)]
    Numerics(#[from] NoNumerics),
}

/// The selected device.
#[derive(Debug)]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// Its name in commands and messages: `cpu`, `cuda:0`.
    pub name: String,
    /// Its model, for display.
    pub model: String,
    /// The requested numerics of the CPU.
    pub numerics: Numerics,
    /// The resulting arithmetic on this machine.
    pub arithmetic: Arithmetic,
    /// A warning to show before any computation: CUDA is installed and does not work.
    pub warning: Option<String>,
}

/// Selects the requested device. Call it after [`arithmetic::hold`], before creating the first tensor.
///
/// # Errors
/// [`NoDevice`] if the requested GPU cannot be used, or if the CPU is selected and does not support these numerics.
pub fn choose(wanted: RequestedDevice, numerics: Numerics) -> Result<ChosenDevice, NoDevice> {
    let cpu = |warning| -> Result<ChosenDevice, NoDevice> {
        let arithmetic = arithmetic::of_cpu(numerics)?;
        let (name, model) = ("cpu".to_owned(), atflow::host::cpu_name());
        Ok(ChosenDevice { device: Device::Cpu, name, model, numerics, arithmetic, warning })
    };
    match wanted {
        RequestedDevice::Cpu => cpu(None),
        RequestedDevice::Cuda(number) => Ok(cuda(number, numerics)?),
        RequestedDevice::Auto => match cuda(0, numerics) {
            Ok(chosen) => Ok(chosen),
            Err(why) if why.is_defect() => cpu(Some(format!("computing on the CPU: {why}"))),
            Err(_) => cpu(None),
        },
    }
}

fn cuda(number: usize, numerics: Numerics) -> Result<ChosenDevice, NoCuda> {
    if system::load_cuda_library()?.is_none() {
        let folder = system::libtorch_folder();
        return Err(NoCuda::CpuOnly { folder: folder.map_or("?".to_owned(), |folder| folder.display().to_string()) });
    }
    let count = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    let models = system::gpu_models();
    match count {
        0 if models.is_empty() => return Err(NoCuda::NoDriver),
        0 => return Err(NoCuda::NoGpu),
        count if number as i64 >= count => return Err(NoCuda::NoSuchGpu { number, count }),
        _ => {}
    }
    // Different kernels give different low bits: disable selection by benchmark, and nondeterministic kernels.
    let warning = match system::make_repeatable() {
        true => None,
        false => Some(
            "this libtorch does not take the switches for repeatable arithmetic: results may differ from run to run"
                .to_owned(),
        ),
    };
    let name = format!("cuda:{number}");
    // The driver and CUDA may order GPUs differently: the model is certain only if all GPUs share it.
    let model = if let [model] = &models[..] { model.clone() } else { name.clone() };
    Ok(ChosenDevice {
        device: Device::Cuda(number),
        name,
        model,
        numerics,
        arithmetic: arithmetic::beside_gpu(numerics),
        warning,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("auto", RequestedDevice::Auto),
            ("cpu", RequestedDevice::Cpu),
            ("cuda:1", RequestedDevice::Cuda(1)),
            ("cuda", RequestedDevice::Cuda(0)),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda0", "CPU"] {
            assert_eq!(text.parse::<RequestedDevice>(), Err(ParseDeviceError(text.to_owned())), "{text}");
        }
    }
}
