//! Memo of source digests by size and time stamps, so that unchanged files are not read again.
//!
//! It is only a hint: if it is lost, or out of date on another machine, the files are read again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cache, CacheError};
use crate::digest::Digest;
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
struct Stamp {
    size: u64,
    inode: u64,
    modified: i128,
    changed: i128,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
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

/// Remembered digests of source files on this machine.
#[derive(Debug)]
pub struct StatMemo {
    path: PathBuf,
    tmp: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    changed: bool,
}

impl StatMemo {
    /// Loads the memo of this machine; an unreadable or missing one is empty.
    pub fn open(cache: &Cache) -> Self {
        // Inodes and time stamps are valid on one machine only.
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let path = cache.root.join("stat").join(format!("{host}.json"));
        let entries = fsio::read_regular(&path, u64::MAX)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        StatMemo { path, tmp: cache.tmp(), entries, changed: false }
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
                let settled = now - entry.stamp.modified.max(entry.stamp.changed) > SETTLED_NANOSECONDS;
                if settled && self.entries.get(&path) != Some(&entry) {
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
        }
        Ok(())
    }
}
