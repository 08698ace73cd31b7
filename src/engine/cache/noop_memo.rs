//! Memo of runs that had nothing to do: what such a run looked at, by size and time stamps, and what it said.
//!
//! While nothing of that has changed, the same run has nothing to do again, and need not read a pipeline or a manifest
//! to know. It is only a hint: whoever doubts it deletes the folder `noop` of the cache, or runs with `--check`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Cache;
use super::stat::Stamp;
use crate::digest::Digest;
use crate::fsio;

/// Value of `format` that this version writes and reads.
const FORMAT: &str = "noop/1";

/// Number of memos to keep, those last written. Each is of one command line in one folder.
const KEPT: usize = 64;

/// Longest memo that is read, in bytes.
const MAX_MEMO: u64 = 256 << 20;

/// From so many paths on, all cores look.
const MANY: usize = 4096;

/// Memo of one command.
#[derive(Debug)]
pub struct NoOpMemo {
    path: PathBuf,
    command: Digest,
    /// When the command started, in nanoseconds.
    started: i128,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    /// Digest of the command, which may hold a password.
    command: Digest,
    /// Every path that was looked at, with its state then; `None` if nothing was there.
    seen: Vec<(PathBuf, Option<Stamp>)>,
    answer: String,
}

impl NoOpMemo {
    /// Returns the memo of a command with the cache in a folder, which need not exist.
    ///
    /// `command` tells all that the outcome depends on and that is no file: arguments, working folder, user, machine.
    /// `started` is the time at which the command began to look, in nanoseconds since 1970.
    pub fn new(cache: &Path, command: &str, started: i128) -> Self {
        let command = Digest::of(command.as_bytes());
        NoOpMemo { path: cache.join("noop").join(format!("{command}.json")), command, started }
    }

    /// Returns what the command said when it had nothing to do, if all that it looked at is as it was.
    pub fn answer(&self) -> Option<String> {
        let bytes = fsio::read_regular(&self.path, MAX_MEMO).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        let is_so = |(path, stamp): &(PathBuf, Option<Stamp>)| Stamp::of(path).ok() == *stamp;
        let are_so = |seen: &[(PathBuf, Option<Stamp>)]| match seen.len() {
            ..MANY => seen.iter().all(is_so),
            MANY.. => seen.par_iter().all(is_so),
        };
        (stored.format == FORMAT && stored.command == self.command && are_so(&stored.seen)).then_some(stored.answer)
    }

    /// Keeps what the command said, and the state of all that it looked at.
    ///
    /// Keeps nothing if a path changed shortly before the command started, or since then: its time stamp may not tell
    /// the next change. Neither if one is on a network file system, where stamps of other machines come late.
    pub fn keep(&self, cache: &Cache, looked_at: BTreeSet<PathBuf>, answer: String) {
        let folders: BTreeSet<&Path> = looked_at.iter().map(|path| fsio::folder_of(path)).collect();
        if folders.into_iter().any(fsio::is_on_network) {
            return;
        }
        let seen: Vec<(PathBuf, Option<Stamp>)> =
            looked_at.into_par_iter().map(|path| (path.clone(), Stamp::of(&path).ok())).collect();
        if !seen.iter().all(|(_, stamp)| stamp.as_ref().is_none_or(|stamp| stamp.is_settled(self.started))) {
            return;
        }
        let stored = Stored { format: FORMAT.to_owned(), command: self.command, seen, answer };
        let Ok(text) = serde_json::to_string(&stored) else { return };
        let folder = fsio::folder_of(&self.path);
        // A cache that can only be read does without it.
        if fsio::create_dir(folder).is_ok() && fsio::write_atomic(&self.path, &cache.tmp(), text.as_bytes()).is_ok() {
            forget_the_oldest(folder);
        }
    }

    /// Removes the memo.
    pub fn forget(&self) {
        _ = std::fs::remove_file(&self.path);
    }
}

impl Cache {
    /// Returns the paths whose time stamps tell whether a result was added to the cache or removed from it.
    pub fn watched(&self) -> Vec<PathBuf> {
        let mut watched = vec![self.root.join("VERSION"), self.root.join("runs")];
        for folder in ["actions", "objects"] {
            let folder = self.root.join(folder);
            let shards = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            watched.extend(shards);
            watched.push(folder);
        }
        watched
    }
}

fn forget_the_oldest(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut memos: Vec<_> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    if memos.len() > KEPT {
        memos.sort_unstable();
        for (_, path) in &memos[..memos.len() - KEPT] {
            _ = std::fs::remove_file(path);
        }
    }
}
