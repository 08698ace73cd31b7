//! Small files of a shared run in a bucket: what a folder of the cache holds where machines share a file system.
//!
//! Files appear whole, and are replaced whole. Knows nothing of what is in them.

use std::path::PathBuf;
use std::sync::Arc;

use super::bucket::Bucket;
use super::error::RemoteError;
use crate::address::Address;
use crate::fsio::{Context, FileError};

/// Notes of runs in a bucket.
#[derive(Debug, Clone)]
pub(crate) struct RemoteNotes {
    bucket: Arc<Bucket>,
    name: Address,
}

impl RemoteNotes {
    pub(super) fn new(bucket: Arc<Bucket>, name: Address) -> Self {
        RemoteNotes { bucket, name }
    }

    /// Returns the notes of an empty bucket in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        RemoteNotes::new(Arc::new(Bucket::in_memory()), Address::new("memory://lab"))
    }

    /// Reads a note; `None` if there is none.
    ///
    /// # Errors
    /// [`RemoteError`], also for a note longer than `at_most` bytes.
    pub(crate) fn read(&self, path: &str, at_most: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        self.bucket.read(path, at_most)
    }

    /// Whether there is a note, as far as the bucket tells.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.bucket.size(path).is_ok_and(|size| size.is_some())
    }

    /// Writes a note, and replaces an earlier one.
    ///
    /// # Errors
    /// [`FileError`], as for a file: its place is the address of the note.
    pub(crate) fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), FileError> {
        let written = self.bucket.write(path, bytes);
        written.map_err(std::io::Error::other).on("write", &self.place(path))
    }

    /// Returns the paths of the notes in a folder that come after `after`, relative to the folder; none if they cannot
    /// be listed.
    pub(crate) fn list(&self, folder: &str, after: Option<&str>) -> Vec<String> {
        self.bucket.list(folder, after).unwrap_or_default()
    }

    /// Returns the names of the folders in a folder.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub(crate) fn folders(&self, folder: &str) -> Result<Vec<String>, RemoteError> {
        self.bucket.folders(folder)
    }

    /// Removes a note, if it is there.
    pub(crate) fn remove(&self, path: &str) {
        _ = self.bucket.remove(path);
    }

    /// Returns the address of a note, for messages.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(self.name.join(path).to_string())
    }
}

impl PartialEq for RemoteNotes {
    fn eq(&self, other: &Self) -> bool {
        self.name.to_string() == other.name.to_string()
    }
}

impl Eq for RemoteNotes {}
