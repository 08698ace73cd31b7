//! CPU arithmetic of this process: the instruction set and libraries in use, checked against the requested numerics.
//!
//! Every library reads its switches once, on first use or even when loaded. A process with the wrong environment
//! therefore restarts itself.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use atflow::numerics::{self, Arithmetic, Numerics};
use tch::{Kind, TchError, Tensor};

use crate::system::{self, LibraryText};

/// Why a CPU cannot compute as requested.
#[derive(Debug, thiserror::Error)]
pub enum NoNumerics {
    /// The processor lacks instructions that portable numerics need.
    #[error(
        "portable numerics need an x86-64 processor with AVX2 and FMA, which {cpu} is not; \
         `numerics: native` in the pipeline computes with what it has, and its results have other keys"
    )]
    Processor {
        /// The processor.
        cpu: String,
    },
    /// A library ignored its switch.
    #[error("libtorch computes with its kernels for `{found}` although `ATEN_CPU_CAPABILITY` asks for others")]
    Switch {
        /// The kernels it uses.
        found: String,
    },
}

/// Restarts this program with the same arguments if its environment has other arithmetic switches than the numerics
/// request.
///
/// Does not return in that case.
///
/// # Errors
/// Returns the error from the system if the program cannot be restarted.
pub fn hold(numerics: Numerics) -> io::Result<()> {
    let is_switch = |name: &OsString| name.to_str().is_some_and(numerics::is_switch);
    let mut found: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| is_switch(name)).collect();
    let mut wanted: Vec<(OsString, OsString)> =
        numerics.switches().map(|(name, value)| (name.into(), value.into())).collect();
    found.sort();
    wanted.sort();
    if found == wanted {
        return Ok(());
    }
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in found {
        command.env_remove(name);
    }
    Err(command.args(std::env::args_os().skip(1)).envs(wanted).exec())
}

/// Returns the CPU arithmetic of this process.
///
/// # Errors
/// [`NoNumerics`] if it differs from the requested numerics.
pub fn of_cpu(numerics: Numerics) -> Result<Arithmetic, NoNumerics> {
    let isa = instruction_set();
    let isa = match numerics {
        Numerics::Native => isa,
        Numerics::Portable if LEVELS.iter().any(|(name, _)| *name == isa) => LOWEST.to_owned(),
        Numerics::Portable => return Err(NoNumerics::Processor { cpu: atflow::host::cpu_name() }),
    };
    let aten = system::library_text(LibraryText::AtenKernels);
    if numerics == Numerics::Portable && aten != "AVX2" {
        return Err(NoNumerics::Switch { found: aten });
    }
    let onednn = version(&system::library_text(LibraryText::OneDnn));
    let mkl = version(&system::library_text(LibraryText::Mkl));
    Ok(Arithmetic { isa, aten, onednn, mkl, libc: system::libc_version() })
}

/// Returns the CPU arithmetic when a GPU does the main computation; places no requirements on the processor.
pub fn beside_gpu(numerics: Numerics) -> Arithmetic {
    of_cpu(numerics).or_else(|_| of_cpu(Numerics::Native)).unwrap_or_default()
}

/// Computes the square root of a tensor of 32-bit floats, with the same bits on every processor.
///
/// libtorch passes `sqrt` to MKL. For 32-bit floats MKL starts from an approximation that differs between processor
/// makers, even if `MKL_CBWR` requests compatible results; for 64-bit floats it does not. The same is true of `asin`,
/// `acos` and `atan`, which this program does not use.
///
/// # Errors
/// Returns the error from libtorch.
pub fn square_root(of: &Tensor) -> Result<Tensor, TchError> {
    of.f_to_kind(Kind::Double)?.f_sqrt()?.f_to_kind(of.f_kind()?)
}

/// The instruction-set level of portable numerics.
const LOWEST: &str = "avx2";

/// Instruction sets with oneDNN kernels, highest first, each with the `/proc/cpuinfo` flags that it requires.
const LEVELS: [(&str, &[&str]); 7] = [
    ("amx_fp16", &["amx_tile", "amx_fp16"]),
    ("amx_bf16", &["amx_tile", "amx_bf16"]),
    ("avx512_fp16", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_fp16"]),
    ("avx512_bf16", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"]),
    ("avx512_vnni", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"]),
    ("avx512", &["avx512f", "avx512bw", "avx512vl", "avx512dq"]),
    (LOWEST, &["avx2", "fma"]),
];

/// Returns the highest instruction set of this processor, or its architecture if it has none of them.
fn instruction_set() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    highest(flags.map_or("", |(_, flags)| flags)).unwrap_or(std::env::consts::ARCH).to_owned()
}

fn highest(flags: &str) -> Option<&'static str> {
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let level = LEVELS.iter().find(|(_, needed)| needed.iter().all(|flag| flags.contains(flag)));
    level.map(|(name, _)| *name)
}

/// Extracts the version number from a library's description: `Intel(R) MKL-DNN v3.10.2 (Git Hash …)`.
fn version(text: &str) -> String {
    let is_version = |word: &&str| {
        let digits = word.strip_prefix('v').unwrap_or(word);
        digits.contains('.') && digits.starts_with(|first: char| first.is_ascii_digit())
    };
    let word = text.split_whitespace().find(is_version).unwrap_or(text);
    word.trim_start_matches('v').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_instruction_set_is_found() {
        assert_eq!(highest("fpu sse2 fma avx avx2"), Some("avx2"));
        assert_eq!(highest("fpu sse2 avx avx2"), None);
        assert_eq!(highest("fma avx2 avx512f avx512bw avx512vl avx512dq avx512_vnni"), Some("avx512_vnni"));
        assert_eq!(highest("avx512f amx_tile amx_bf16 avx2 fma"), Some("amx_bf16"));
    }

    #[test]
    fn versions_are_found_in_what_libraries_say() {
        assert_eq!(version("Intel(R) MKL-DNN v3.10.2 (Git Hash 0f0b3f2)"), "3.10.2");
        assert_eq!(
            version("Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64"),
            "2024.2-Product"
        );
        assert_eq!(version("MKL not found"), "MKL not found");
    }
}
