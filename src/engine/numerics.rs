//! How a worker does arithmetic on a CPU, and the environment that holds it to that. The libraries under libtorch
//! choose their kernels by the processor and by variables of the environment, and other kernels round otherwise. Which
//! choice counts is declared in the pipeline and is part of the key; a worker takes none from the environment of
//! whoever started the run.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which kernels a worker computes with on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Numerics {
    /// The same bytes on every x86-64 processor with AVX2: every library is held to one code path.
    #[default]
    Portable,
    /// The fastest kernels that the processor has: bytes are the same on processors of one kind only.
    Native,
}

/// Switches of every worker: whole 32-bit floats, and the same sums each time on a GPU.
const ALWAYS: [(&str, &str); 3] =
    [("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT"), ("NVIDIA_TF32_OVERRIDE", "0"), ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")];

/// One code path for each library: oneDNN (convolutions), ATen (everything elementwise, reductions), MKL (products of
/// matrices, Fourier transforms). MKL's `AVX2` branch is for Intel's processors alone; `COMPATIBLE` is the one that it
/// has for those of every maker.
const PORTABLE: [(&str, &str); 3] =
    [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "COMPATIBLE")];

/// Variables that a worker may have from whoever starts it: where programs, libraries and scratch space are, and which
/// GPUs may be used. None of them changes a result.
const PASSED_ON: [&str; 22] = [
    "ATFLOW_HOME",
    "CUDA_CACHE_DISABLE",
    "CUDA_CACHE_PATH",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "CUDA_MODULE_LOADING",
    "CUDA_MPS_LOG_DIRECTORY",
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "DYLD_LIBRARY_PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "RUST_BACKTRACE",
    "TMPDIR",
    "USER",
];

impl Numerics {
    /// Both, in the order of the documentation.
    pub const ALL: [Numerics; 2] = [Numerics::Portable, Numerics::Native];

    /// The name, as a pipeline file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Numerics::Portable => "portable",
            Numerics::Native => "native",
        }
    }

    /// The one of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Numerics::ALL.into_iter().find(|numerics| numerics.name() == name)
    }

    /// The variables that hold the libraries to it, with their values.
    pub fn switches(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let own: &[_] = if self == Numerics::Portable { &PORTABLE } else { &[] };
        ALWAYS.iter().chain(own).copied()
    }

    /// Returns the command that starts a worker for a device, held to this arithmetic by its environment. Requests go
    /// to its standard input, events come from its standard output.
    pub(crate) fn worker(self, program: &Path, device: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["--device", device, "--numerics", self.name()]);
        command.env_clear().envs(self.environment(std::env::vars_os()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// The whole environment of a worker: what of `ours` it may have, and the switches.
    pub fn environment(
        self,
        ours: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> impl Iterator<Item = (OsString, OsString)> {
        let passed_on = |name: &OsStr| PASSED_ON.iter().any(|known| *known == name);
        let switches = self.switches().map(|(name, value)| (name.into(), value.into()));
        ours.into_iter().filter(move |(name, _)| passed_on(name)).chain(switches)
    }
}

/// Beginnings of variables that libtorch and the libraries under it read, and that may change bytes or how many threads
/// compute.
const SWITCHES: [&str; 14] = [
    "ATEN_",
    "CUBLAS_",
    "CUBLASLT_",
    "CUDNN_",
    "DNNL_",
    "GLIBC_TUNABLES",
    "GOMP_",
    "KMP_",
    "MKL_",
    "NVIDIA_TF32_",
    "OMP_",
    "ONEDNN_",
    "PYTORCH_",
    "TORCH_",
];

/// Whether a variable may change what a worker computes.
pub fn is_switch(name: &str) -> bool {
    name == "LD_PRELOAD" || SWITCHES.iter().any(|start| name.starts_with(start))
}

impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What computed a result, as far as its bytes may depend on it beyond its record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arithmetic {
    /// The instruction set that the kernels may use: `avx2`, `avx512`, `avx512_bf16`, `amx_bf16`; of a processor that
    /// is no x86-64, its architecture.
    pub isa: String,
    /// Which of ATen's kernels were chosen, as libtorch tells: `AVX2`, `AVX512`.
    pub aten: String,
    /// Version of oneDNN.
    pub onednn: String,
    /// Version of MKL.
    pub mkl: String,
    /// Version of the C library, whose functions round in their own way.
    pub libc: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_declared_variables_only() {
        let ours = [("PATH", "/bin"), ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"), ("MKL_CBWR", "AVX2"), ("SECRET", "x")];
        let ours = ours.map(|(name, value)| (name.into(), value.into()));
        let environment = |numerics: Numerics| -> Vec<String> {
            let text = |(name, value): (OsString, OsString)| format!("{}={}", name.display(), value.display());
            numerics.environment(ours.clone()).map(text).collect()
        };
        let always = ["PATH=/bin", "ONEDNN_DEFAULT_FPMATH_MODE=STRICT", "NVIDIA_TF32_OVERRIDE=0"];
        let always: Vec<&str> = always.into_iter().chain(["CUBLAS_WORKSPACE_CONFIG=:4096:8"]).collect();
        assert_eq!(environment(Numerics::Native), always);
        let held = ["ONEDNN_MAX_CPU_ISA=AVX2", "ATEN_CPU_CAPABILITY=avx2", "MKL_CBWR=COMPATIBLE"];
        assert_eq!(environment(Numerics::Portable), [always, held.to_vec()].concat());
    }
}
