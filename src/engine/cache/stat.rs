//! Digests of source files, remembered by size and time stamps so that unchanged files are not read again. It is a hint and no more: it may be lost
//! or out of date on another machine, and then files are read once more.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    fn of(path: &Path) -> std::io::Result<Self> {
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
        let entries =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        StatMemo { path, tmp: cache.tmp(), entries, changed: false }
    }

    /// The digests of a file: remembered, or computed by `read` if the file is new or changed.
    ///
    /// # Errors
    /// What the file system or `read` gives.
    pub fn digests(
        &mut self,
        path: &Path,
        read: impl FnOnce(&Path) -> std::io::Result<SourceDigests>,
    ) -> std::io::Result<SourceDigests> {
        let absolute = std::path::absolute(path)?;
        let stamp = Stamp::of(path)?;
        if let Some(entry) = self.entries.get(&absolute)
            && entry.stamp == stamp
        {
            return Ok(entry.digests.clone());
        }
        let digests = read(path)?;
        let now = jiff::Timestamp::now().as_nanosecond();
        let settled = now - stamp.modified.max(stamp.changed) > SETTLED_NANOSECONDS;
        // Stamped before it was read: a change meanwhile is seen the next time.
        if settled {
            self.entries.insert(absolute, Entry { stamp, digests: digests.clone() });
            self.changed = true;
        }
        Ok(digests)
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
