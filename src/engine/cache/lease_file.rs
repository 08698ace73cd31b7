//! The file of a lease, and the lock under which it is checked and removed: no run removes the lease of another.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::lease_holder::Holder;
use crate::fsio;

/// Content of a lease file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeaseFile {
    pub(super) bytes: Vec<u8>,
    touched: Option<SystemTime>,
}

impl LeaseFile {
    pub(super) fn at(path: &Path) -> Option<Self> {
        let (bytes, found) = fsio::read_own(path, u64::MAX).ok()?;
        Some(LeaseFile { bytes, touched: found.modified().ok() })
    }

    /// Parses the holder. `None` if another version wrote the file or a crash cut it: then only touches show life.
    pub(super) fn holder(&self) -> Option<Holder> {
        serde_json::from_slice(&self.bytes).ok()
    }
}

/// The lock that makes check and removal of a lease atomic. Its file stays open for the next lease.
#[derive(Debug, Default)]
pub(super) struct LeaseLock(Mutex<Option<File>>);

impl LeaseLock {
    /// Removes a lease if `is_meant` accepts its content.
    ///
    /// Returns `true` if the lease does not exist afterwards, or is another one.
    pub(super) fn remove(&self, path: &Path, is_meant: impl Fn(&LeaseFile) -> bool) -> bool {
        // The system's lock does not exclude the threads of a process that share the file.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A file without a name excludes nobody.
        if !kept.as_ref().is_some_and(|file| file.metadata().is_ok_and(|found| found.nlink() > 0)) {
            *kept = File::create(path.with_file_name("lock")).ok();
        }
        // Without locks, at worst some work is done twice.
        if let Some(Err(fs::TryLockError::WouldBlock)) = kept.as_ref().map(File::try_lock) {
            return false;
        }
        let is_gone = match LeaseFile::at(path) {
            Some(found) if is_meant(&found) => fs::remove_file(path).is_ok(),
            Some(_) | None => true,
        };
        if let Some(file) = &*kept {
            _ = file.unlock();
        }
        is_gone
    }
}
