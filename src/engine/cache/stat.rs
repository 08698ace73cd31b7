//! Memo of source digests by size and time stamps, so that unchanged files are not read again.
//!
//! It is only a hint: if it is lost, or out of date on another machine, the files are read again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cache, CacheError};
use crate::digest::Digest;
use crate::folder::{Folder, FolderError, FolderFile};
use crate::fsio;

/// Minimum age of a change, in nanoseconds. A more recent file may change again within the same time stamp.
const SETTLED_NANOSECONDS: i128 = 2_000_000_000;

/// Digests of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDigests {
    /// BLAKE3 digest.
    pub blake3: Digest,
    /// SHA-256 digest, in hexadecimal.
    pub sha256: String,
    /// MD5 digest, in hexadecimal.
    pub md5: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    digests: SourceDigests,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    size: u64,
    inode: u64,
    modified: i128,
    changed: i128,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Ok(Stamp {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Stamp {
    /// Whether the file is old enough at a time, in nanoseconds, for its stamp to tell the next change.
    pub(super) fn is_settled(&self, now: i128) -> bool {
        now - self.modified.max(self.changed) > SETTLED_NANOSECONDS
    }
}

/// Remembered digests of source files, and of the files of source folders, on this machine.
#[derive(Debug)]
pub struct StatMemo {
    path: PathBuf,
    tmp: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    changed: bool,
    /// Loaded with the first folder: most pipelines have none.
    folders: Option<Folders>,
    folders_path: PathBuf,
}

/// Stamps and digests of the files of each folder, by the folder's path and the file's name.
type Folders = BTreeMap<PathBuf, BTreeMap<String, (Stamp, Digest)>>;

impl StatMemo {
    /// Loads the memo of this machine; an unreadable or missing one is empty.
    pub fn open(cache: &Cache) -> Self {
        // Inodes and time stamps are valid on one machine only.
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let folder = cache.root.join("stat");
        let path = folder.join(format!("{host}.json"));
        let folders_path = folder.join(format!("{host}.folders.json"));
        StatMemo { entries: load(&path), path, tmp: cache.tmp(), changed: false, folders: None, folders_path }
    }

    /// Returns the digest of a folder; reads only files that are new or changed.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn folder(&mut self, folder: &Folder) -> Result<Digest, FolderError> {
        let failed = |path: PathBuf| move |source| FolderError::Io { path, source };
        let absolute = std::path::absolute(&folder.path).map_err(failed(folder.path.clone()))?;
        let known = self.folders.get_or_insert_with(|| load(&self.folders_path));
        let before = known.get(&absolute);
        let look = |file: &FolderFile| -> Result<(Stamp, Digest), FolderError> {
            let path = folder.path_of(file);
            // Stamped before reading, as in `digests`.
            let stamp = Stamp::of(&path).map_err(failed(path.clone()))?;
            match before.and_then(|files| files.get(&file.name)) {
                Some((known, digest)) if *known == stamp => Ok((stamp, *digest)),
                _ => Ok((stamp, Digest::of_file(&path).map_err(failed(path))?)),
            }
        };
        let found: Vec<(Stamp, Digest)> = folder.files.par_iter().map(look).collect::<Result<_, _>>()?;
        let digests: Vec<Digest> = found.iter().map(|(_, digest)| *digest).collect();
        let now = jiff::Timestamp::now().as_nanosecond();
        let settled = folder.files.iter().zip(found).filter(|(_, (stamp, _))| stamp.is_settled(now));
        let files: BTreeMap<String, _> = settled.map(|(file, found)| (file.name.clone(), found)).collect();
        if before != Some(&files) {
            known.insert(absolute, files);
            self.changed = true;
        }
        Ok(folder.digest_of(&digests))
    }

    /// Returns the digests of files, in order.
    ///
    /// They come from the memo, or from `read`, on all cores, for new or changed files.
    ///
    /// # Errors
    /// The error of the file system or of `read`, for each file.
    pub fn digests(
        &mut self,
        paths: &[PathBuf],
        read: impl Fn(&Path) -> io::Result<SourceDigests> + Sync,
    ) -> Vec<io::Result<SourceDigests>> {
        let look = |path: &PathBuf| -> io::Result<(PathBuf, Entry)> {
            let absolute = std::path::absolute(path)?;
            // Stamped before reading: the next call notices a change during the read.
            let stamp = Stamp::of(path)?;
            if let Some(entry) = self.entries.get(&absolute).filter(|entry| entry.stamp == stamp) {
                return Ok((absolute, entry.clone()));
            }
            Ok((absolute, Entry { stamp, digests: read(path)? }))
        };
        let found: Vec<io::Result<(PathBuf, Entry)>> = paths.par_iter().map(look).collect();
        let now = jiff::Timestamp::now().as_nanosecond();
        let mut out = Vec::with_capacity(found.len());
        for file in found {
            out.push(file.map(|(path, entry)| {
                let digests = entry.digests.clone();
                if entry.stamp.is_settled(now) && self.entries.get(&path) != Some(&entry) {
                    self.entries.insert(path, entry);
                    self.changed = true;
                }
                digests
            }));
        }
        out
    }

    /// Saves the memo if it has changed.
    ///
    /// # Errors
    /// [`CacheError`]; only time is lost.
    pub fn save(&self) -> Result<(), CacheError> {
        if self.changed {
            let text = serde_json::to_string(&self.entries).unwrap_or_default();
            fsio::write_atomic(&self.path, &self.tmp, text.as_bytes())?;
            if let Some(folders) = &self.folders {
                let text = serde_json::to_string(folders).unwrap_or_default();
                fsio::write_atomic(&self.folders_path, &self.tmp, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn load<T: DeserializeOwned + Default>(path: &Path) -> T {
    let bytes = fsio::read_regular(path, u64::MAX).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
