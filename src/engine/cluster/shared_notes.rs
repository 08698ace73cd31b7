//! Where the notes of a shared run are: in its folder of the cache, or in a bucket where machines share no folder.
//!
//! A note is a small file that appears whole. One that cannot be read counts as absent.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cache::CLUSTER_FOLDER;
use crate::cache::remote::{RemoteNotes, at_once};
use crate::fsio::{self, Context, FileError};

/// Largest note that is read.
const LARGEST_NOTE: u64 = 16 << 20;

/// Place of the notes that the agents of a run share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SharedNotes {
    /// Folder that all machines see. Unfinished files are in `scratch`, on the same file system.
    Folder { path: PathBuf, scratch: PathBuf },
    /// Bucket, and the folder in it.
    Bucket { notes: RemoteNotes, folder: String },
}

impl SharedNotes {
    /// Returns the notes of a run in a bucket.
    pub(super) fn in_bucket(notes: RemoteNotes, run: &str) -> Self {
        SharedNotes::Bucket { notes, folder: format!("{CLUSTER_FOLDER}/{run}") }
    }

    /// Whether the notes are in a bucket.
    pub(super) fn is_in_bucket(&self) -> bool {
        matches!(self, SharedNotes::Bucket { .. })
    }

    /// Returns the place of a note, for messages.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        match self {
            SharedNotes::Folder { path, .. } => path.join(name),
            SharedNotes::Bucket { notes, folder } => notes.place(&format!("{folder}/{name}")),
        }
    }

    /// Reads a note; `None` if there is none, or if it cannot be read.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.read_up_to(name, LARGEST_NOTE).ok()
    }

    /// Reads a file of at most so many bytes.
    ///
    /// # Errors
    /// [`FileError`] if there is none, or if it cannot be read.
    pub(super) fn read_up_to(&self, name: &str, at_most: u64) -> Result<Vec<u8>, FileError> {
        let read = match self {
            SharedNotes::Folder { path, .. } => fsio::read_regular(&path.join(name), at_most),
            SharedNotes::Bucket { notes, folder } => match notes.read(&format!("{folder}/{name}"), at_most) {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => Err(std::io::ErrorKind::NotFound.into()),
                Err(error) => Err(std::io::Error::other(error)),
            },
        };
        read.on("read", &self.place(name))
    }

    /// Writes a note, and replaces an earlier one.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), FileError> {
        match self {
            SharedNotes::Folder { path, scratch } => {
                let mut file = fsio::scratch_file(scratch)?;
                file.write_all(&bytes).on("write", file.path())?;
                // Not synced: a crash of the machine may take a note with it, and a note must be left even where
                // syncing fails.
                fsio::publish(file.into_temp_path(), &path.join(name))
            }
            SharedNotes::Bucket { notes, folder } => notes.write(&format!("{folder}/{name}"), bytes),
        }
    }

    /// Removes a note, if it is there.
    pub(super) fn remove(&self, name: &str) {
        match self {
            SharedNotes::Folder { path, .. } => _ = fs::remove_file(path.join(name)),
            SharedNotes::Bucket { notes, folder } => notes.remove(&format!("{folder}/{name}")),
        }
    }

    /// Whether there is a note. Opens the file: on NFS, the attributes of a missing file may be old.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            SharedNotes::Folder { path, .. } => File::open(path.join(name)).is_ok(),
            SharedNotes::Bucket { notes, folder } => notes.has(&format!("{folder}/{name}")),
        }
    }

    /// Returns the names of the notes in a folder, in their order.
    pub(super) fn names(&self, of: &str) -> Vec<String> {
        match self {
            SharedNotes::Folder { path, .. } => names(&path.join(of)),
            SharedNotes::Bucket { notes, folder } => notes.list(&format!("{folder}/{of}"), None),
        }
    }

    /// Reads several notes of a folder, in order; skips those that cannot be read.
    pub(super) fn read_all(&self, of: &str, names: &[String]) -> Vec<Vec<u8>> {
        let read = |name: &String| self.read(&format!("{of}/{name}"));
        match self {
            SharedNotes::Folder { .. } => names.iter().filter_map(read).collect(),
            SharedNotes::Bucket { .. } => at_once(names, read).into_iter().flatten().collect(),
        }
    }
}

/// Returns the names in a folder, in their order; none if it cannot be listed.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_in_a_folder_and_in_a_bucket_are_alike() {
        let dir = tempfile::tempdir().unwrap();
        let (path, scratch) = (dir.path().join("cluster/7"), dir.path().join("tmp"));
        fs::create_dir(&scratch).unwrap();
        let folder = SharedNotes::Folder { path, scratch };
        let bucket = SharedNotes::in_bucket(RemoteNotes::in_memory(), "7");
        for notes in [folder, bucket] {
            assert!(notes.names("agents").is_empty() && !notes.has("cancel") && notes.read("plan.json").is_none());
            let error = notes.read_up_to("plan.json", 10).unwrap_err();
            assert_eq!(error.source.kind(), std::io::ErrorKind::NotFound);
            notes.write("cancel", Vec::new()).unwrap();
            for name in ["b", "a", "a"] {
                notes.write(&format!("agents/{name}.json"), name.as_bytes().to_vec()).unwrap();
            }
            assert!(notes.has("cancel"));
            let names = notes.names("agents");
            assert_eq!(names, ["a.json", "b.json"]);
            assert_eq!(notes.read_all("agents", &names), [b"a", b"b"]);
            assert!(notes.read_up_to("agents/a.json", 0).is_err());
            notes.remove("agents/a.json");
            notes.remove("agents/a.json");
            assert_eq!(notes.names("agents"), ["b.json"]);
            let place = notes.place("cancel").display().to_string();
            assert!(place.ends_with("cluster/7/cancel"), "{place}");
        }
    }
}
