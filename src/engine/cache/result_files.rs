//! Records a result: its blobs and its manifest go to the disk together and get their names after that, the manifest
//! last.
//!
//! A disk takes many files in the time of one. So nothing of a result is waited for before all of it is written, and
//! the results of several threads share what the disk does.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Blob, Cache, CacheError, IngestError, Manifest};
use crate::action::ActionKey;
use crate::digest::Digest;
use crate::fsio::{self, Context, FileError};

/// What a crash of the machine may take of the results that a run has reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing: the folders are synced as well, so that the names are on the disk, too.
    Strict,
    /// The newest, as a whole: the bytes of all files of a result are on the disk before their names are.
    #[default]
    Group,
    /// Whatever the system has not written yet. Files may be there in part; who reads one notices that.
    None,
}

/// Files of a result that are complete and have no names yet. Dropped, they are gone.
#[derive(Debug)]
pub struct ResultFiles<'a> {
    cache: &'a Cache,
    /// Whether the files are on another file system than the cache.
    are_elsewhere: bool,
    blobs: Vec<Unnamed>,
    /// New paths of corrupt blobs that had the same names.
    rotten: Vec<PathBuf>,
}

/// Complete file with the name that it is to get.
#[derive(Debug)]
pub(super) struct Unnamed {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// What the file is a copy of, or itself: errors name it.
    pub(super) of: PathBuf,
    /// Open, so that it need not be opened again to be synced.
    pub(super) open: Option<File>,
    /// Removes a file of the cache's own that gets no name.
    pub(super) scratch: Option<tempfile::TempPath>,
}

impl Unnamed {
    /// Gives the file its name.
    pub(super) fn name(self) -> Result<(), FileError> {
        fsio::rename(&self.from, &self.to)?;
        // Nothing is left under its first name that could be removed.
        _ = self.scratch.map(tempfile::TempPath::keep);
        Ok(())
    }
}

impl Cache {
    /// Returns the same cache, which syncs results as told.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Cache { durability, ..self }
    }

    /// Starts the files of a result.
    pub fn result_files(&self) -> ResultFiles<'_> {
        ResultFiles { cache: self, are_elsewhere: false, blobs: Vec::new(), rotten: Vec::new() }
    }
}

/// So many files of a result stay open until they are synced.
const MOST_OPEN: usize = 32;

impl ResultFiles<'_> {
    /// Returns the same files, to be added from another file system than the cache's: they are copied.
    #[must_use]
    pub fn from_elsewhere(self, are_elsewhere: bool) -> Self {
        ResultFiles { are_elsewhere, ..self }
    }

    /// Adds a finished file as a blob. The file is the cache's from now on.
    ///
    /// # Errors
    /// As [`Cache::ingest`].
    pub fn add(&mut self, file: &Path) -> Result<Blob, IngestError> {
        let found = fs::symlink_metadata(file).on("read", file)?;
        self.add_found(file, &found)
    }

    /// The same for a file that was looked at.
    ///
    /// # Errors
    /// As [`Cache::ingest`].
    pub fn add_found(&mut self, file: &Path, found: &Metadata) -> Result<Blob, IngestError> {
        let (blob, mut unnamed, rotten) = self.cache.prepare(file, found, self.are_elsewhere)?;
        if let Some(unnamed) = unnamed.as_mut().filter(|_| self.blobs.len() >= MOST_OPEN) {
            unnamed.open = None;
        }
        self.blobs.extend(unnamed);
        self.rotten.extend(rotten);
        Ok(blob)
    }

    /// Adds bytes as a blob.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn add_bytes(&mut self, bytes: &[u8]) -> Result<Blob, CacheError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        if self.cache.is_here_and_good(blob)? {
            return Ok(blob);
        }
        let (open, scratch) = self.write(bytes)?;
        let (from, to) = (scratch.to_path_buf(), self.cache.object_path(blob.digest));
        self.blobs.push(Unnamed { of: from.clone(), from, to, open: Some(open), scratch: Some(scratch) });
        Ok(blob)
    }

    fn write(&self, bytes: &[u8]) -> Result<(File, tempfile::TempPath), FileError> {
        let mut file = fsio::scratch_file(&self.cache.tmp())?;
        file.write_all(bytes).on("write", file.path())?;
        Ok(file.into_parts())
    }

    /// Brings the files and the manifest that names them to the disk, then gives them their names. Returns the new
    /// paths of corrupt blobs that had the same names.
    ///
    /// # Errors
    /// [`IngestError::File`] if a file that was added cannot be brought to the disk. No file has its name then.
    pub fn commit(self, manifest: &Manifest) -> Result<Vec<PathBuf>, IngestError> {
        let key: ActionKey = manifest.record.key();
        let text = serde_json::to_string_pretty(manifest).unwrap_or_default() + "\n";
        let (open, scratch) = self.write(text.as_bytes()).map_err(CacheError::from)?;
        let ResultFiles { cache, mut blobs, rotten, .. } = self;
        let to = cache.action_path(key);
        if cache.durability != Durability::None {
            let files = blobs.iter().map(|blob| (blob.from.as_path(), blob.open.as_ref()));
            let files: Vec<(&Path, Option<&File>)> = files.chain([(&*scratch, Some(&open))]).collect();
            let mut outcomes = fsio::sync_together(&files);
            let of_manifest = outcomes.pop();
            // What could not be written may be gone from memory, too: nothing is tried twice, the stage fails.
            for (blob, outcome) in blobs.iter().zip(outcomes) {
                outcome.on("write", &blob.of)?;
            }
            of_manifest.unwrap_or(Ok(())).on("write", &to).map_err(CacheError::from)?;
        }
        // A network file system may keep bytes back until a file is closed.
        drop(open);
        blobs.iter_mut().for_each(|blob| blob.open = None);
        let folders: BTreeSet<PathBuf> = blobs.iter().map(|blob| fsio::folder_of(&blob.to).to_owned()).collect();
        // The bytes are on the disk before they get their name: after a crash, a blob is complete or absent.
        for blob in blobs {
            blob.name().map_err(CacheError::from)?;
        }
        if cache.durability == Durability::Strict {
            for folder in folders {
                sync_names(&folder)?;
            }
        }
        fsio::publish(scratch, &to).map_err(CacheError::from)?;
        if cache.durability == Durability::Strict {
            sync_names(fsio::folder_of(&to))?;
        }
        Ok(rotten)
    }
}

/// Brings the names in a folder to the disk, and the name of the folder, which may be new.
fn sync_names(folder: &Path) -> Result<(), CacheError> {
    fsio::sync_folder(folder)?;
    Ok(fsio::sync_folder(fsio::folder_of(folder))?)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use crate::action::Action;
    use crate::cache::{Log, MANIFEST_FORMAT, Made};
    use crate::file_operations::{self, Operation};

    /// Numbers that look random and are the same each time (SplitMix64).
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }
    }

    /// Results of a run as they were made, and what was done for them in order.
    struct Run {
        root: PathBuf,
        operations: Vec<Operation>,
        /// Manifests, and the number of operations after which each was reported.
        reported: Vec<(Manifest, usize)>,
        bytes: HashMap<Digest, Vec<u8>>,
    }

    const RESULTS: usize = 6;

    /// Records results of one to three outputs and of short and long logs; some outputs are alike.
    fn run(root: &Path, durability: Durability) -> Run {
        let cache = Cache::open(root).unwrap().with_durability(durability);
        file_operations::watch(root);
        let mut run = Run { root: root.to_owned(), operations: vec![], reported: vec![], bytes: HashMap::new() };
        let json = serde_json::json!({
            "format": 1, "kind": "command", "version": 1, "params": {}, "inputs": {},
            "stage": "s", "pipeline": "p", "at": "", "seconds": 0.5, "host": "", "device": "engine", "threads": 1,
            "atflow": "0", "summary": "", "log": {"digest": Digest::of(b""), "size": 0},
        });
        let record: Action = serde_json::from_value(json.clone()).unwrap();
        let made: Made = serde_json::from_value(json).unwrap();
        for number in 0..RESULTS {
            let mut files = cache.result_files();
            let mut outputs = BTreeMap::new();
            for output in 0..1 + number % 3 {
                let bytes =
                    format!("output {output} of {}", if output == 2 { 0 } else { number }).repeat(20).into_bytes();
                let path = cache.tmp().join(format!("{number}-{output}"));
                fs::write(&path, &bytes).unwrap();
                run.bytes.insert(Digest::of(&bytes), bytes);
                outputs.insert(output.to_string(), files.add(&path).unwrap());
            }
            let text = "a line of a log\n".repeat(100 * (number % 2) + 1).into_bytes();
            let log = match Log::short(&text) {
                Some(log) => log,
                None => files.add_bytes(&text).unwrap().into(),
            };
            run.bytes.insert(log.blob.digest, text);
            let record = Action { seed: Some(number as u64), ..record.clone() };
            let made = Made { log, ..made.clone() };
            let manifest = Manifest { format: MANIFEST_FORMAT, record, outputs, made, from: None };
            files.commit(&manifest).unwrap();
            run.operations.extend(file_operations::take(root));
            run.reported.push((manifest, run.operations.len()));
        }
        run
    }

    impl Run {
        /// Makes what a power cut after the first `count` operations may leave. What was not synced is there, or in
        /// part, or not; in any order.
        fn after_power_cut(&self, count: usize, root: &Path, draws: &mut Draws) {
            let operations = &self.operations[..count];
            let is_synced = |path: &Path, at: usize| {
                operations[..at].iter().any(|operation| matches!(operation, Operation::Sync(synced) if synced == path))
            };
            let has_name = |path: &Path, at: usize| {
                let synced = |folder: &Path| {
                    operations[at..].iter().any(|op| matches!(op, Operation::SyncFolder(other) if other == folder))
                };
                let folder = fsio::folder_of(path);
                synced(folder) && synced(fsio::folder_of(folder))
            };
            fs::create_dir_all(root).unwrap();
            fs::write(root.join("VERSION"), "1\n").unwrap();
            for (at, operation) in operations.iter().enumerate() {
                let Operation::Rename(from, to, bytes) = operation else { continue };
                if !has_name(to, at) && draws.below(2) == 0 {
                    continue;
                }
                let mut bytes = bytes.clone();
                if !is_synced(from, at) {
                    match draws.below(4) {
                        0 => bytes.clear(),
                        1 => bytes.truncate(bytes.len() / 2),
                        2 => bytes.fill(0),
                        _ => {}
                    }
                }
                let to = root.join(to.strip_prefix(&self.root).unwrap());
                fs::create_dir_all(fsio::folder_of(&to)).unwrap();
                fs::write(to, bytes).unwrap();
            }
        }

        /// Checks that nothing in a cache is wrong. Returns how many files are damaged, which no reader takes.
        fn check(&self, cache: &Cache) -> usize {
            let mut damaged = 0;
            for (manifest, _) in &self.reported {
                let key = manifest.record.key();
                match cache.lookup(key) {
                    Some(found) => assert_eq!(found, *manifest),
                    None => damaged += usize::from(cache.action_path(key).exists()),
                }
                for blob in manifest.outputs.values().chain(manifest.made.log.stored()) {
                    match cache.read(blob.digest) {
                        Ok(read) => assert_eq!(read, self.bytes[&blob.digest]),
                        Err(_) => damaged += usize::from(cache.object_path(blob.digest).exists()),
                    }
                }
            }
            damaged
        }
    }

    #[test]
    fn a_power_cut_leaves_whole_results_and_under_strict_all_that_were_reported() {
        let mut draws = Draws(11);
        for durability in [Durability::Strict, Durability::Group, Durability::None] {
            let dir = tempfile::tempdir().unwrap();
            let run = run(&dir.path().join("cache"), durability);
            assert!(run.operations.len() >= 2 * RESULTS, "{:?}", run.operations.len());
            assert_eq!(run.check(&Cache::open(&run.root).unwrap()), 0);
            let mut damaged = 0;
            for count in 0..=run.operations.len() {
                for turn in 0..3 {
                    let root = dir.path().join(format!("{count}-{turn}"));
                    run.after_power_cut(count, &root, &mut draws);
                    let cache = Cache::open(&root).unwrap();
                    damaged += run.check(&cache);
                    let reported = run.reported.iter().filter(|(_, at)| *at <= count);
                    for (manifest, _) in reported.filter(|_| durability == Durability::Strict) {
                        assert!(cache.lookup(manifest.record.key()).is_some(), "{count}");
                        let mut blobs = manifest.outputs.values().chain(manifest.made.log.stored());
                        assert!(blobs.all(|blob| cache.has(*blob)), "{count}");
                    }
                    fs::remove_dir_all(root).unwrap();
                }
            }
            // That without syncs there is damage shows that the replay could find it.
            assert_eq!(damaged > 0, durability == Durability::None, "{durability:?}: {damaged} files");
        }
    }
}
