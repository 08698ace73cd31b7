//! News of a shared run: which keys are done or failed, as empty files that an agent finds with one or two listings.
//!
//! Without news, an agent that waits for a thousand results would have to open a thousand files again and again. The
//! files lie in folders by the minute, `news/MINUTE/KEY.done`, so a listing has little that is old. Creating a file is
//! atomic on NFS; appending to one is not. News are hints: an agent that misses some finds the results later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::action::ActionKey;
use crate::clock;

/// Name of the file that tells of a cancellation.
const CANCEL: &str = "cancel";

/// Minutes that clocks may differ, and that a listing may be late.
const SKEW: u64 = 2;

/// A piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A key has its result.
    Done(ActionKey),
    /// A key failed for good.
    Failed(ActionKey),
    /// The run is cancelled.
    Cancelled,
}

/// Writer of news, and reader of what is new.
#[derive(Debug)]
pub(super) struct NewsBoard {
    folder: PathBuf,
    /// Names seen, by minute, with the minute of the last listing.
    seen: BTreeMap<u64, (u64, BTreeSet<String>)>,
    /// News from before this minute were read from the cache itself.
    from: u64,
}

fn minute() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60)
}

/// Adds a piece of news to the folder of a run. A failure to do so delays the others, nothing else.
pub(super) fn tell(folder: &Path, item: Item) {
    let name = match item {
        Item::Done(key) => format!("{key}.done"),
        Item::Failed(key) => format!("{key}.failed"),
        Item::Cancelled => CANCEL.to_owned(),
    };
    let minute = folder.join(minute().to_string());
    if File::create(minute.join(&name)).is_err() && fs::create_dir_all(&minute).is_ok() {
        _ = File::create(minute.join(&name));
    }
}

impl NewsBoard {
    /// Creates a reader of the news from now on.
    pub(super) fn new(folder: PathBuf) -> Self {
        NewsBoard { folder, seen: BTreeMap::new(), from: minute().saturating_sub(SKEW) }
    }

    /// Returns what is new since the last call.
    pub(super) fn read(&mut self) -> Vec<Item> {
        self.read_at(minute())
    }

    fn read_at(&mut self, now: u64) -> Vec<Item> {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
        };
        let mut items = Vec::new();
        for minute in names(&self.folder).iter().filter_map(|name| name.parse::<u64>().ok()) {
            // What was listed after its time is over has nothing new.
            let is_over = self.seen.get(&minute).is_some_and(|(listed, _)| *listed > minute + SKEW);
            if minute < self.from || is_over {
                continue;
            }
            let found = names(&self.folder.join(minute.to_string()));
            let (listed, seen) = self.seen.entry(minute).or_default();
            *listed = now;
            for name in found {
                if let Some(item) = item(&name)
                    && seen.insert(name)
                {
                    items.push(item);
                }
            }
        }
        // The names of old news need not be kept; that they were listed does.
        for (minute, (_, seen)) in &mut self.seen {
            if minute + SKEW < now {
                seen.clear();
            }
        }
        items
    }
}

fn item(name: &str) -> Option<Item> {
    if name == CANCEL {
        return Some(Item::Cancelled);
    }
    let (key, ending) = name.split_once('.')?;
    let key = ActionKey(key.parse().ok()?);
    match ending {
        "done" => Some(Item::Done(key)),
        "failed" => Some(Item::Failed(key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn news_are_read_once_and_old_folders_are_not_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("news");
        let mut board = NewsBoard::new(folder.clone());
        assert_eq!(board.read(), []);
        let key = |word: &str| ActionKey(Digest::of(word.as_bytes()));
        tell(&folder, Item::Done(key("a")));
        tell(&folder, Item::Cancelled);
        fs::write(folder.join("other"), "").unwrap();
        let mut read = board.read();
        read.sort_by_key(|item| format!("{item:?}"));
        assert_eq!(read, [Item::Cancelled, Item::Done(key("a"))]);
        assert_eq!(board.read(), []);
        tell(&folder, Item::Failed(key("b")));
        assert_eq!(board.read(), [Item::Failed(key("b"))]);
        // A late piece of news is found within the skew of clocks, and not after it.
        let (last, late) = (minute(), minute() + SKEW + 1);
        assert_eq!(board.read_at(late), []);
        fs::write(folder.join(last.to_string()).join(format!("{}.done", key("c"))), "").unwrap();
        assert_eq!(board.read_at(late), [], "it was listed after its time");
        assert!(board.seen[&last].1.is_empty());
        // Who comes later does not read what is in the cache.
        let mut newcomer = NewsBoard { from: late, ..NewsBoard::new(folder) };
        assert_eq!(newcomer.read(), []);
    }
}
