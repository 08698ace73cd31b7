//! News of a shared run: which keys are done or failed, as empty files that an agent finds with one or two listings.
//!
//! Without news, an agent that waits for a thousand results would have to open a thousand files again and again. The
//! files lie in folders by the minute, `news/MINUTE/KEY.done`, so a listing has little that is old. Creating a file is
//! atomic on NFS; appending to one is not. In a bucket they are empty objects, of which one request lists the last
//! minutes. News are hints: an agent that misses some finds the results later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::shared_notes::{SharedNotes, names};
use crate::action::ActionKey;
use crate::cache::remote::RemoteNotes;
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

/// Where the news of a run are.
#[derive(Debug, Clone)]
pub(super) enum NewsPlace {
    Folder(PathBuf),
    Bucket(RemoteNotes, String),
}

/// Reader of what is new.
#[derive(Debug)]
pub(super) struct NewsBoard {
    place: NewsPlace,
    /// Names seen, by minute, with the minute of the last listing.
    seen: BTreeMap<u64, (u64, BTreeSet<String>)>,
    /// News from before this minute were read from the cache itself.
    from: u64,
}

fn minute() -> u64 {
    clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 60)
}

impl NewsPlace {
    /// Returns the place of a name among the notes of a run.
    pub(super) fn new(notes: &SharedNotes, name: &str) -> Self {
        match notes {
            SharedNotes::Folder { path, .. } => NewsPlace::Folder(path.join(name)),
            SharedNotes::Bucket { notes, folder } => NewsPlace::Bucket(notes.clone(), format!("{folder}/{name}")),
        }
    }

    /// Adds a piece of news. A failure to do so delays the others, nothing else.
    pub(super) fn tell(&self, item: Item) {
        let name = match item {
            Item::Done(key) => format!("{key}.done"),
            Item::Failed(key) => format!("{key}.failed"),
            Item::Cancelled => CANCEL.to_owned(),
        };
        let minute = minute().to_string();
        match self {
            NewsPlace::Folder(folder) => {
                let minute = folder.join(minute);
                if File::create(minute.join(&name)).is_err() && fs::create_dir_all(&minute).is_ok() {
                    _ = File::create(minute.join(&name));
                }
            }
            NewsPlace::Bucket(notes, folder) => _ = notes.write(&format!("{folder}/{minute}/{name}"), Vec::new()),
        }
    }

    /// Lists names by minute. `is_wanted` says of a minute whether it is; `from` is the first that may be.
    fn list(&self, from: u64, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, Vec<String>)> {
        match self {
            NewsPlace::Folder(folder) => {
                let minutes = names(folder).into_iter().filter_map(|name| name.parse::<u64>().ok());
                minutes
                    .filter(|minute| is_wanted(*minute))
                    .map(|minute| (minute, names(&folder.join(minute.to_string()))))
                    .collect()
            }
            NewsPlace::Bucket(notes, folder) => {
                let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
                for path in notes.list(folder, Some(&from.to_string())) {
                    let Some((minute, name)) = path.split_once('/') else { continue };
                    let Ok(minute) = minute.parse::<u64>() else { continue };
                    if is_wanted(minute) {
                        found.entry(minute).or_default().push(name.to_owned());
                    }
                }
                found.into_iter().collect()
            }
        }
    }
}

impl NewsBoard {
    /// Creates a reader of the news from now on.
    pub(super) fn new(place: NewsPlace) -> Self {
        NewsBoard { place, seen: BTreeMap::new(), from: minute().saturating_sub(SKEW) }
    }

    /// Returns what is new since the last call.
    pub(super) fn read(&mut self) -> Vec<Item> {
        self.read_at(minute())
    }

    fn read_at(&mut self, now: u64) -> Vec<Item> {
        // What was listed after its time is over has nothing new.
        let is_over = |minute: u64| self.seen.get(&minute).is_some_and(|(listed, _)| *listed > minute + SKEW);
        let last = self.seen.values().map(|(listed, _)| listed.saturating_sub(SKEW)).max();
        let from = last.unwrap_or(self.from).max(self.from);
        let found = self.place.list(from, |minute| minute >= self.from && !is_over(minute));
        let mut items = Vec::new();
        for (minute, found) in found {
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

    fn key(word: &str) -> ActionKey {
        ActionKey(Digest::of(word.as_bytes()))
    }

    fn by_name(mut items: Vec<Item>) -> Vec<Item> {
        items.sort_by_key(|item| format!("{item:?}"));
        items
    }

    #[test]
    fn news_are_read_once_in_a_folder_and_in_a_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let folder = NewsPlace::Folder(dir.path().join("news"));
        let bucket = NewsPlace::Bucket(RemoteNotes::in_memory(), "cluster/7/news".to_owned());
        for place in [folder, bucket] {
            let mut board = NewsBoard::new(place.clone());
            assert_eq!(board.read(), []);
            place.tell(Item::Done(key("a")));
            place.tell(Item::Cancelled);
            assert_eq!(by_name(board.read()), [Item::Cancelled, Item::Done(key("a"))]);
            assert_eq!(board.read(), []);
            place.tell(Item::Failed(key("b")));
            assert_eq!(board.read(), [Item::Failed(key("b"))]);
            assert_eq!(NewsBoard::new(place).read().len(), 3, "the last minutes are news to who comes later");
        }
    }

    #[test]
    fn a_bucket_is_asked_for_the_last_minutes_alone() {
        let notes = RemoteNotes::in_memory();
        let now = minute();
        for (minute, word) in [(now - SKEW - 5, "old"), (now - 1, "new"), (now + 1, "of a fast clock")] {
            notes.write(&format!("news/{minute}/{}.done", key(word)), Vec::new()).unwrap();
        }
        let place = NewsPlace::Bucket(notes.clone(), "news".to_owned());
        let from = now - SKEW;
        assert_eq!(
            place.list(from, |_| true).iter().map(|(minute, _)| *minute).collect::<Vec<_>>(),
            [now - 1, now + 1]
        );
        let mut board = NewsBoard::new(place);
        assert_eq!(board.read_at(now).len(), 2);
        // Much later, the minutes that were listed are asked for no more.
        let late = now + 100;
        notes.write(&format!("news/{late}/{}.done", key("late")), Vec::new()).unwrap();
        assert_eq!(board.read_at(late), [Item::Done(key("late"))]);
        notes.write(&format!("news/{now}/{}.done", key("too late")), Vec::new()).unwrap();
        assert_eq!(board.read_at(late), []);
    }

    #[test]
    fn old_folders_are_not_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("news");
        let place = NewsPlace::Folder(folder.clone());
        let mut board = NewsBoard::new(place.clone());
        place.tell(Item::Done(key("a")));
        fs::write(folder.join("other"), "").unwrap();
        assert_eq!(board.read(), [Item::Done(key("a"))]);
        // A late piece of news is found within the skew of clocks, and not after it.
        let (last, late) = (minute(), minute() + SKEW + 1);
        assert_eq!(board.read_at(late), []);
        fs::write(folder.join(last.to_string()).join(format!("{}.done", key("c"))), "").unwrap();
        assert_eq!(board.read_at(late), [], "it was listed after its time");
        assert!(board.seen[&last].1.is_empty());
        // Who comes later does not read what is in the cache.
        let mut newcomer = NewsBoard { from: late, ..NewsBoard::new(place) };
        assert_eq!(newcomer.read(), []);
    }
}
