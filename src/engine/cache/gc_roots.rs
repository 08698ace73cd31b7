//! Notes of runs in progress: what each run may still need, so that a collection keeps it.
//!
//! A run that runs any stage leaves a note `leases/RUN.run`, which lives and dies like its leases. Stages with unknown
//! inputs have no key yet. The note holds the shapes of their actions instead.
//!
//! A run that agents share has one such list for all of them, `cluster/RUN/wanted.json`. It counts until the run's end
//! is noted beside it, because its agents may all be waiting for a machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::lease_file::{LeaseFile, LeaseLock};
use super::lease_holder::{Holder, is_over};
use super::{Cache, CacheError, Lease, Leases};
use crate::digest::Digest;
use crate::fsio;
use crate::host::tag;

/// Folder with the runs that agents share.
pub(crate) const CLUSTER_FOLDER: &str = "cluster";
/// Name of the file in the folder of such a run that says what the run may need.
pub(crate) const WANTED: &str = "wanted.json";
/// Name of the file in the folder of such a run that says that it has ended.
pub(crate) const ENDED: &str = "ended.json";

/// Time without a change after which the folder of such a run is abandoned: nobody noted the end of the run, or it was
/// long ago.
const ABANDONED_AFTER: Duration = Duration::from_secs(14 * 24 * 3600);

/// Whether nothing in the folder of a shared run has changed for two weeks. Its agents rewrite their notes there.
pub(crate) fn is_abandoned(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut changed = entries.filter_map(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
    // A time in the future means a wrong clock: keep the folder.
    let is_late = |at: SystemTime| SystemTime::now().duration_since(at).map_or(true, |age| age < ABANDONED_AFTER);
    !changed.any(is_late)
}

/// What runs may need, independent of the outputs of their stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Shapes of the actions of all stages ([`crate::action::Action::shape`]).
    pub shapes: BTreeSet<Digest>,
    /// Identities of the files that they may fetch (`sha256:…`).
    pub fetched: BTreeSet<String>,
}

/// Runs in progress on a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InProgress {
    /// Number of runs.
    pub runs: usize,
    /// Owners of the runs: tags of machines, and process ids.
    pub(super) owners: Vec<(String, i32)>,
    /// Number of runs whose note cannot be read, because another version wrote it.
    pub unknown: usize,
    /// What the other runs may need.
    pub wanted: Wanted,
}

#[derive(Serialize, Deserialize)]
struct Note {
    holder: Holder,
    wanted: Wanted,
}

impl Leases {
    /// Publishes what this run may need, for as long as the note is held.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be written.
    pub fn announce(&mut self, wanted: &Wanted) -> Result<Option<Lease>, CacheError> {
        let (holder, wanted) = (self.next(), wanted.clone());
        let path = self.cache().root().join("leases").join(format!("{}.run", holder.run));
        let bytes = serde_json::to_vec(&Note { holder, wanted }).unwrap_or_default();
        self.create(&path, bytes)
    }
}

impl Cache {
    /// Returns the runs in progress, here and on other machines that share the cache.
    pub fn in_progress(&self) -> InProgress {
        let mut all = InProgress::default();
        for (path, found) in self.left_by_runs(".run") {
            let note = serde_json::from_slice::<Note>(&found.bytes).ok();
            if is_over(&path, note.as_ref().map(|note| &note.holder)) {
                continue;
            }
            all.runs += 1;
            match note {
                Some(Note { wanted, holder }) => {
                    all.owners.push((tag(&holder.machine), holder.pid));
                    all.wanted.shapes.extend(wanted.shapes);
                    all.wanted.fetched.extend(wanted.fetched);
                }
                None => all.unknown += 1,
            }
        }
        for folder in std::fs::read_dir(self.root().join(CLUSTER_FOLDER)).into_iter().flatten().flatten() {
            let Ok(bytes) = fsio::read_regular(&folder.path().join(WANTED), u64::MAX) else { continue };
            if folder.path().join(ENDED).exists() || is_abandoned(&folder.path()) {
                continue;
            }
            all.runs += 1;
            match serde_json::from_slice::<Wanted>(&bytes) {
                Ok(wanted) => {
                    all.wanted.shapes.extend(wanted.shapes);
                    all.wanted.fetched.extend(wanted.fetched);
                }
                Err(_) => all.unknown += 1,
            }
        }
        all
    }

    /// Removes the notes and leases of runs that were killed.
    pub(super) fn clear_dead_leases(&self) {
        let lock = LeaseLock::default();
        for (path, found) in self.left_by_runs("") {
            let holder = match path.extension().is_some_and(|ending| ending == "run") {
                true => serde_json::from_slice::<Note>(&found.bytes).ok().map(|note| note.holder),
                false => found.holder(),
            };
            if is_over(&path, holder.as_ref()) {
                // Another run may have taken it over meanwhile: then it is not the file that was checked.
                _ = lock.remove(&path, |now| *now == found);
            }
        }
    }

    fn left_by_runs(&self, ending: &str) -> Vec<(std::path::PathBuf, LeaseFile)> {
        let entries = std::fs::read_dir(self.root().join("leases")).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name != "lock" && name.to_string_lossy().ends_with(ending))
        });
        paths.filter_map(|path| Some((path.clone(), LeaseFile::at(&path)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(word: &str) -> Wanted {
        Wanted { shapes: BTreeSet::from([Digest::of(word.as_bytes())]), fetched: BTreeSet::from([word.to_owned()]) }
    }

    #[test]
    fn notes_tell_of_runs_in_progress_and_go_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.in_progress(), InProgress::default());
        let (mut one, mut other) = (Leases::new(&cache), Leases::new(&cache));
        let first = one.announce(&wanted("a")).unwrap().unwrap();
        let second = other.announce(&wanted("b")).unwrap().unwrap();
        let both = cache.in_progress();
        assert_eq!((both.runs, both.unknown, both.wanted.shapes.len()), (2, 0, 2));
        drop(second);
        assert_eq!(cache.in_progress().wanted, wanted("a"));
        drop(first);
        assert_eq!(cache.in_progress().runs, 0);
    }

    #[test]
    fn the_dead_are_not_in_progress_and_the_unknown_are() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut leases = Leases::new(&cache);
        let leave = |name: &str, holder: Holder| {
            let note = Note { holder, wanted: wanted(name) };
            std::fs::write(dir.path().join("leases").join(name), serde_json::to_vec(&note).unwrap()).unwrap();
        };
        std::fs::create_dir_all(dir.path().join("leases")).unwrap();
        leave("dead.run", Holder { started: Some(1), ..leases.next() });
        leave("far.run", Holder { machine: "elsewhere".to_owned(), pid: i32::MAX, ..leases.next() });
        std::fs::write(dir.path().join("leases/newer.run"), "{\"format\": 9}").unwrap();
        let all = cache.in_progress();
        assert_eq!((all.runs, all.unknown, all.wanted), (2, 1, wanted("far.run")));
        cache.clear_dead_leases();
        assert!(!dir.path().join("leases/dead.run").exists());
        assert_eq!(cache.in_progress().runs, 2);
    }

    #[test]
    fn a_shared_run_is_in_progress_until_its_end_is_noted_or_nothing_happens_for_two_weeks() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let folder = dir.path().join(CLUSTER_FOLDER).join("0001-7");
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(cache.in_progress().runs, 0, "its plan is not there yet");
        let file = folder.join(WANTED);
        std::fs::write(&file, serde_json::to_vec(&wanted("a")).unwrap()).unwrap();
        assert_eq!((cache.in_progress().runs, cache.in_progress().wanted), (1, wanted("a")));
        let touch = |days: u64| {
            let at = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        };
        touch(15);
        assert_eq!(cache.in_progress().runs, 0);
        touch(13);
        assert_eq!(cache.in_progress().runs, 1);
        std::fs::write(folder.join(ENDED), "{}").unwrap();
        assert_eq!(cache.in_progress().runs, 0);
    }
}
