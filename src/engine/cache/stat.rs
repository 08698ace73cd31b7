//! Digests of source files, remembered by size and time stamps so that unchanged files are not read again. It is a hint
//! and no more: it may be lost or out of date on another machine, and then files are read once more.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cache, CacheError};
use crate::digest::Digest;
use crate::fsio;

/// A file changed so shortly before it was read may have changed again within the same time stamp.
const SETTLED_NANOSECONDS: i128 = 2_000_000_000;

/// The digests of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDigests {
    /// BLAKE3.
    pub blake3: Digest,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// MD5, in hexadecimal.
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

/// What is remembered of source files on this machine.
#[derive(Debug)]
pub struct StatMemo {
    path: PathBuf,
    tmp: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
    changed: bool,
}

impl StatMemo {
    /// Reads what is remembered; nothing if there is nothing.
    pub fn open(cache: &Cache) -> Self {
        // Inodes and time stamps mean something on one machine only.
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let path = cache.root.join("stat").join(format!("{host}.json"));
        let entries = fsio::read_regular(&path, u64::MAX)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        StatMemo { path, tmp: cache.tmp(), entries, changed: false }
    }

    /// The digests of files, in their order: remembered, or computed by `read`, on all cores, where a file is new or
    /// changed.
    ///
    /// # Errors
    /// For each file what the file system or `read` gives.
    pub fn digests(
        &mut self,
        paths: &[PathBuf],
        read: impl Fn(&Path) -> io::Result<SourceDigests> + Sync,
    ) -> Vec<io::Result<SourceDigests>> {
        let look = |path: &PathBuf| -> io::Result<(PathBuf, Entry)> {
            let absolute = std::path::absolute(path)?;
            // Stamped before it is read: a change meanwhile is seen the next time.
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

    /// Writes what was learnt.
    ///
    /// # Errors
    /// [`CacheError`]; nothing is lost but time.
    pub fn save(&self) -> Result<(), CacheError> {
        if self.changed {
            let text = serde_json::to_string(&self.entries).unwrap_or_default();
            fsio::write_atomic(&self.path, &self.tmp, text.as_bytes())?;
        }
        Ok(())
    }
}
