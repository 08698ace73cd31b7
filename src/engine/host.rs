//! Which machine this is, and which of its processes are alive, so that what the dead left behind is known for what it
//! is. Knows nothing of what that is.
//!
//! A name is not enough: containers may share one, and a kernel, and still see none of each other's processes.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::digest::Digest;

/// This machine since it was started, as processes see it that see one another.
pub(crate) fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let processes = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        if boot.is_empty() {
            return gethostname::gethostname().to_string_lossy().into_owned();
        }
        format!("{} {}", boot.trim(), processes.display())
    })
}

/// The installation of the system, whatever its boot; empty where it does not tell. As a digest, because the system's
/// own name for it is to stay there.
pub(crate) fn system() -> &'static str {
    static SYSTEM: OnceLock<String> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let read = |path| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let id = read("/etc/machine-id");
        // A text that is no such name, `uninitialized`, stands there while the system starts.
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { tag(&format!("atflow {id}")) } else { String::new() }
    })
}

/// Returns the name of the processor; its architecture if the system does not tell.
pub fn cpu_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Whether there is a driver for GPUs of the one maker whose GPUs workers use.
pub(crate) fn has_gpu() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
}

/// Whether the processor has instructions for 16-bit floats with 8 bits of exponent.
pub(crate) fn computes_in_16_bits() -> bool {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.split_whitespace().any(|flag| flag == "avx512_bf16" || flag == "amx_bf16")
}

/// Returns the peak resident memory of this process in bytes; 0 if the system does not report it.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The boot of a [`machine`]; nothing where it is only known by a name.
pub(crate) fn boot(machine: &str) -> Option<&str> {
    machine.split_once(' ').map(|(boot, _)| boot)
}

/// What stands between the sort and the process in the names of temporary files and folders: the machine, for people
/// and for programs.
pub fn owner() -> &'static str {
    static OWNER: OnceLock<String> = OnceLock::new();
    OWNER.get_or_init(|| {
        let host = gethostname::gethostname().to_string_lossy().replace('-', "_");
        format!("{host}-{}-", tag(machine()))
    })
}

/// A machine in few letters.
pub(crate) fn tag(machine: &str) -> String {
    Digest::of(machine.as_bytes()).short()[..8].to_owned()
}

/// Who made a temporary file or folder of a sort: the tag of its machine, and its process. Nothing for names of other
/// forms.
pub(crate) fn made_by<'a>(name: &'a str, sort: &str) -> Option<(&'a str, i32)> {
    let mut parts = name.strip_prefix(sort)?.split('-').skip(1);
    Some((parts.next()?, parts.next()?.parse().ok()?))
}

/// Why a process' start is not known.
pub(crate) enum StartUnknown {
    /// There is none, or it only waits for its parent to notice its end.
    Dead,
    /// This system does not tell.
    Unknown,
}

/// When a process of this machine started, in ticks since the machine did.
pub(crate) fn started(pid: i32) -> Result<u64, StartUnknown> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(_) if Path::new("/proc/self/stat").exists() => return Err(StartUnknown::Dead),
        Err(_) => return Err(StartUnknown::Unknown),
    };
    // The name, in parentheses, may hold anything; the state follows it, and 19 fields later the start.
    let mut fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    match fields.next() {
        Some("Z" | "X") => Err(StartUnknown::Dead),
        _ => fields.nth(18).and_then(|field| field.parse().ok()).ok_or(StartUnknown::Unknown),
    }
}

/// Whether there is no process of this number on this machine any more, but for one that only waits for its parent to
/// notice its end.
pub(crate) fn is_gone(pid: i32) -> bool {
    match started(pid) {
        Ok(_) => false,
        Err(StartUnknown::Dead) => true,
        Err(StartUnknown::Unknown) => rustix::process::Pid::from_raw(pid)
            .is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_tell_machine_and_process() {
        let own = format!("stage-{}4711-Xy-Z", owner());
        assert_eq!(made_by(&own, "stage-"), Some((tag(machine()).as_str(), 4711)));
        assert_eq!(made_by("file-far-0a1b2c3d-12-q", "file-"), Some(("0a1b2c3d", 12)));
        for name in ["stage-vm-12-q", "stage-", "file-far-0a1b2c3d-12-q", "fetch-sha256-ab"] {
            assert_eq!(made_by(name, "stage-"), None, "{name}");
        }
    }

    #[test]
    fn the_living_are_told_from_the_dead() {
        assert!(!is_gone(std::process::id().cast_signed()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        let waited = std::time::Instant::now();
        // Ended, and not waited for.
        while !is_gone(pid) {
            assert!(waited.elapsed().as_secs() < 20);
        }
        child.wait().unwrap();
        assert!(is_gone(pid));
    }
}
