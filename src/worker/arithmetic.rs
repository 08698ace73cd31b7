//! How this process does arithmetic on the CPU: which instruction set and which libraries, and whether that is what its
//! numerics ask for. Every library reads its switches once, when it is first used or even loaded, so a process whose
//! environment is not right starts itself again.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use atflow::numerics::{self, Arithmetic, Numerics};
use tch::{Kind, TchError, Tensor};

use crate::system::{self, LibraryText};

/// Why a CPU cannot compute as it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum NoNumerics {
    /// The processor has not what portable numerics take.
    #[error(
        "portable numerics need an x86-64 processor with AVX2 and FMA, which {cpu} is not; \
         `numerics: native` in the pipeline computes with what it has, and its results have other keys"
    )]
    Processor {
        /// The processor.
        cpu: String,
    },
    /// A library did not take its switch.
    #[error("libtorch computes with its kernels for `{found}` although `ATEN_CPU_CAPABILITY` asks for others")]
    Switch {
        /// What it computes with.
        found: String,
    },
}

/// Starts this program again, with the same arguments, if its environment has switches of arithmetic that its numerics
/// do not ask for, or lacks one. Does not come back if it does so.
///
/// # Errors
/// What the system says if the program cannot be started again.
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

/// What this process computes with on the CPU.
///
/// # Errors
/// [`NoNumerics`] if that is not what the numerics ask for.
pub fn of_cpu(numerics: Numerics) -> Result<Arithmetic, NoNumerics> {
    let isa = instruction_set();
    let isa = match numerics {
        Numerics::Native => isa,
        Numerics::Portable if LEVELS.iter().any(|(name, _)| *name == isa) => LOWEST.to_owned(),
        Numerics::Portable => return Err(NoNumerics::Processor { cpu: system::cpu_name() }),
    };
    let aten = system::library_text(LibraryText::AtenKernels);
    if numerics == Numerics::Portable && aten != "AVX2" {
        return Err(NoNumerics::Switch { found: aten });
    }
    let onednn = version(&system::library_text(LibraryText::OneDnn));
    let mkl = version(&system::library_text(LibraryText::Mkl));
    Ok(Arithmetic { isa, aten, onednn, mkl, libc: system::libc_version() })
}

/// The same where a GPU computes what matters: nothing is asked of the processor.
pub fn beside_gpu(numerics: Numerics) -> Arithmetic {
    of_cpu(numerics).or_else(|_| of_cpu(Numerics::Native)).unwrap_or_default()
}

/// The square root of a tensor of 32-bit floats, with the same bits on every processor. libtorch hands `sqrt` to MKL,
/// which for 32-bit floats starts from an approximation that each maker of processors defines for itself, even where
/// `MKL_CBWR` asks for compatible results; for 64-bit floats it does not. The same is true of `asin`, `acos` and
/// `atan`, which nothing here uses.
///
/// # Errors
/// What libtorch says.
pub fn square_root(of: &Tensor) -> Result<Tensor, TchError> {
    of.f_to_kind(Kind::Double)?.f_sqrt()?.f_to_kind(of.f_kind()?)
}

/// The level that portable numerics hold the libraries to.
const LOWEST: &str = "avx2";

/// Instruction sets that oneDNN has kernels for, highest first, each with the flags of `/proc/cpuinfo` that it takes.
const LEVELS: [(&str, &[&str]); 7] = [
    ("amx_fp16", &["amx_tile", "amx_fp16"]),
    ("amx_bf16", &["amx_tile", "amx_bf16"]),
    ("avx512_fp16", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_fp16"]),
    ("avx512_bf16", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"]),
    ("avx512_vnni", &["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"]),
    ("avx512", &["avx512f", "avx512bw", "avx512vl", "avx512dq"]),
    (LOWEST, &["avx2", "fma"]),
];

/// The highest instruction set of this processor; its architecture where it has none of them.
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

/// The number in what a library says of itself: `Intel(R) MKL-DNN v3.10.2 (Git Hash …)`.
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
