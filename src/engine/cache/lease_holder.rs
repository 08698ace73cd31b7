//! The run that holds a lease, and what can be known about its life.
//!
//! Opens no lease and removes none.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::host::{boot, is_gone, machine, started, system};

/// Time without a touch after which a lease of another machine is stale. Its holder touches it every 30 seconds, and
/// NFS may show a touch a minute late.
pub(super) const OTHER_MACHINE_PATIENCE: Duration = Duration::from_secs(180);

/// Time without a touch after which an unreadable lease is stale: a crash cut it, or another version wrote it. A live
/// one on a local file system is touched four times in this time; on a network file system, the time above counts.
pub(super) const UNREADABLE_PATIENCE: Duration = Duration::from_secs(20);

/// Time without a touch after which a lease of another machine is ignored by readers that cannot watch it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Holder of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of the machine, for people.
    pub host: String,
    /// Process id.
    pub pid: i32,
    /// Identifies the machine, and separates processes that cannot see one another. Empty where the system does not
    /// tell.
    pub machine: String,
    /// Identifies the installation of the system across reboots. Empty where the system does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// Start time of the process, in the system's own units: a reused process id is not the same process.
    pub started: Option<u64>,
    /// Identifies the run; with `number`, it makes the bytes of each file unique.
    pub run: String,
    /// Number of the file within the run. All leases of keys are names of one file.
    pub number: u64,
}

impl Holder {
    /// Returns this process as the holder of no lease yet.
    pub(super) fn of_this_process() -> Self {
        let pid = std::process::id().cast_signed();
        Holder {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid,
            machine: machine().to_owned(),
            system: system().to_owned(),
            started: started(pid).ok(),
            run: format!("{}-{pid}", jiff::Timestamp::now().as_nanosecond()),
            number: 0,
        }
    }
}

/// What is known about the holder of a lease or a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Dead,
    Alive,
    /// It is not observable; it counts as dead after this time without a sign of life.
    Unseen(Duration),
}

/// Returns what is known about a holder.
pub(super) fn life(holder: Option<&Holder>) -> Life {
    match holder {
        None => Life::Unseen(UNREADABLE_PATIENCE),
        Some(holder) if holder.machine == machine() => {
            if is_dead(holder) {
                Life::Dead
            } else {
                Life::Alive
            }
        }
        Some(holder) if is_of_earlier_boot(holder) => Life::Dead,
        Some(_) => Life::Unseen(OTHER_MACHINE_PATIENCE),
    }
}

/// Whether the run that left a file is over: its holder is dead, or is unobservable and has not touched the file for a
/// day.
pub(super) fn is_over(path: &Path, holder: Option<&Holder>) -> bool {
    match life(holder) {
        Life::Dead => true,
        Life::Alive => false,
        Life::Unseen(_) => is_forgotten(path),
    }
}

/// Whether a file was not touched for a day, by the clock of the file system (`ctime`), not that of its holder.
pub(super) fn is_forgotten(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fs::metadata(path).is_ok_and(|metadata| {
        let touched = Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
        now.saturating_sub(touched) > FORGOTTEN_AFTER
    })
}

/// Whether a holder ran on this installation before its last boot.
///
/// Two copies of one installation with one host name could be confused if they share a cache: then a stage runs twice.
fn is_of_earlier_boot(holder: &Holder) -> bool {
    let is_same = !holder.system.is_empty() && holder.system == system();
    let host = gethostname::gethostname();
    is_same
        && *holder.host == *host
        && boot(&holder.machine).is_some_and(|then| boot(machine()).is_some_and(|now| then != now))
}

/// Whether the holder's process, on this machine, is gone.
fn is_dead(holder: &Holder) -> bool {
    match started(holder.pid) {
        Ok(now) => holder.started.is_some_and(|then| then != now),
        Err(_) => is_gone(holder.pid),
    }
}
