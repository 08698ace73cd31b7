//! Collects what nobody reaches any more in a cache: first a survey, which changes nothing, then, if somebody says so,
//! the removal of just that. What is kept: the results of given keys with their logs, the fetched files that their
//! records name, and everything young.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::action::ActionKey;
use crate::cache::{Blob, Cache, CacheError, InProgress, Manifest, SIGNATURE};
use crate::digest::Digest;

/// A run that is going on may need what no record names yet: nothing younger than this is collected. A run writes or
/// touches all that it uses.
const GRACE: Duration = Duration::from_secs(3600);

/// Corrupt blobs are kept so long for who wants to look at them.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a file of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileClass {
    /// The manifest of a result.
    Manifest,
    /// A blob.
    Blob,
    /// The note which blob a fetched file became.
    Fetched,
    /// Something that was put aside.
    Quarantine,
    /// A folder with the progress of a training, or with the state that a longer one would go on from.
    Partial,
    /// Something half fetched or otherwise half done that nobody has come back to; what killed runs left in their own
    /// name goes with the next run.
    Temporary,
}

/// What a collection keeps, beside what is young.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Results.
    pub keys: HashSet<ActionKey>,
    /// Logs of failed stages that are still asked for.
    pub logs: Vec<Blob>,
    /// Progress of trainings that a pipeline may go on from; nothing if that cannot be told, and then all of it stays.
    pub partials: Option<HashSet<ActionKey>>,
    /// Progress, and what is half done, that was touched within this time stays, too.
    pub age: Duration,
    /// Whatever runs in progress may need.
    pub in_progress: InProgress,
}

/// A file that nobody reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it is.
    pub sort: FileClass,
    /// Where.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// A number of files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FileCount {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

impl FileCount {
    fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }
}

/// What a collection would remove and what it would keep.
#[derive(Debug, Default)]
pub struct Survey {
    /// To be removed, in the order in which it is: manifests before the blobs that they name.
    pub garbage: Vec<Garbage>,
    /// What stays.
    pub kept: BTreeMap<FileClass, FileCount>,
}

impl Survey {
    /// What is to be removed, by sort.
    pub fn freed(&self) -> BTreeMap<FileClass, FileCount> {
        let mut freed: BTreeMap<FileClass, FileCount> = BTreeMap::new();
        for garbage in &self.garbage {
            freed.entry(garbage.sort).or_default().add(garbage.size);
        }
        freed
    }
}

/// Whether somebody may be working on what a key names, or with it.
fn is_worked_on(cache: &Cache, key: ActionKey, manifest: &Path) -> bool {
    is_young(manifest, GRACE) || cache.is_leased(key)
}

fn is_young(path: &Path, limit: Duration) -> bool {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        // A time in the future is a clock that goes wrong: better safe.
        Ok(at) => SystemTime::now().duration_since(at).map_or(true, |age| age < limit),
        // Gone: somebody else collected it.
        Err(_) => false,
    }
}

/// Finds what neither anything that is to be kept nor anything young reaches.
///
/// # Errors
/// [`CacheError`] if a folder cannot be listed.
pub fn survey(cache: &Cache, keep: &Keep) -> Result<Survey, CacheError> {
    let mut survey = Survey::default();
    let mut blobs: HashSet<Digest> = keep.logs.iter().map(|blob| blob.digest).collect();
    let runs = &keep.in_progress;
    let mut identities: HashSet<String> = runs.wanted.fetched.iter().cloned().collect();
    let is_wanted = |manifest: &Manifest| runs.runs > 0 && runs.wanted.shapes.contains(&manifest.record.shape());
    let take = |survey: &mut Survey, sort, path: PathBuf, size, keep: bool| {
        if keep {
            survey.kept.entry(sort).or_default().add(size);
        } else {
            survey.garbage.push(Garbage { sort, path, size });
        }
    };
    for (path, size) in cache.files("actions")? {
        // A signature stays with its manifest.
        let key = name(&path, ".json").or_else(|| name(&path, SIGNATURE)).map(ActionKey);
        let worked_on = key.is_some_and(|key| is_worked_on(cache, key, &path));
        let mut is_kept = worked_on || key.is_some_and(|key| keep.keys.contains(&key));
        let manifest = if is_kept || runs.runs > 0 { key.and_then(|key| cache.lookup(key)) } else { None };
        is_kept |= manifest.as_ref().is_some_and(is_wanted);
        if is_kept && let Some(manifest) = manifest {
            reach(&manifest, &mut blobs, &mut identities);
            // What was just made from something old is a sign that a run is using that.
            let inputs = manifest.record.inputs.values().filter(|_| worked_on);
            blobs.extend(inputs.filter_map(|input| input.strip_prefix("blake3:")?.parse::<Digest>().ok()));
        }
        take(&mut survey, FileClass::Manifest, path, size, is_kept);
    }
    for (path, size) in cache.files("fetched")? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().replacen('-', ":", 1);
        let is_kept = identities.contains(&stem) || is_young(&path, GRACE);
        if is_kept && let Some(blob) = cache.fetched(&stem) {
            blobs.insert(blob.digest);
        }
        take(&mut survey, FileClass::Fetched, path, size, is_kept);
    }
    for (path, size) in cache.files("objects")? {
        let is_kept = name(&path, "").is_some_and(|digest| blobs.contains(&digest)) || is_young(&path, GRACE);
        take(&mut survey, FileClass::Blob, path, size, is_kept);
    }
    for (path, size) in cache.files("quarantine")? {
        let is_kept = is_young(&path, QUARANTINE);
        take(&mut survey, FileClass::Quarantine, path, size, is_kept);
    }
    for (path, (size, is_late)) in folders(cache, "partial", keep.age)? {
        let is_kept = match (name(&path, "").map(ActionKey), &keep.partials) {
            (Some(key), Some(wanted)) => is_late || wanted.contains(&key) || cache.is_leased(key) || runs.runs > 0,
            // It cannot be told, or is none of ours.
            (Some(_), None) | (None, _) => true,
        };
        take(&mut survey, FileClass::Partial, path, size, is_kept);
    }
    for (path, (size, is_late)) in folders(cache, "tmp", keep.age)? {
        take(&mut survey, FileClass::Temporary, path, size, is_late || runs.runs > 0);
    }
    Ok(survey)
}

/// What lies directly in a folder of the cache, with the bytes in it, and whether any of it was touched within some
/// time.
fn folders(cache: &Cache, folder: &str, age: Duration) -> Result<BTreeMap<PathBuf, (u64, bool)>, CacheError> {
    let root = cache.root().join(folder);
    let mut folders: BTreeMap<PathBuf, (u64, bool)> = BTreeMap::new();
    for (path, size) in cache.files(folder)? {
        let Some(first) = path.strip_prefix(&root).ok().and_then(|rest| rest.components().next()) else { continue };
        let (bytes, is_late) = folders.entry(root.join(first)).or_default();
        *bytes += size;
        *is_late |= is_young(&path, age);
    }
    Ok(folders)
}

fn name(path: &Path, ending: &str) -> Option<Digest> {
    path.file_name()?.to_str()?.strip_suffix(ending)?.parse().ok()
}

/// Everything that a result needs to be used and looked at.
fn reach(manifest: &Manifest, blobs: &mut HashSet<Digest>, identities: &mut HashSet<String>) {
    blobs.extend(manifest.outputs.values().map(|blob| blob.digest));
    blobs.insert(manifest.made.log.digest);
    for identity in manifest.record.inputs.values() {
        if !identity.starts_with("blake3:") {
            identities.insert(identity.clone());
        }
    }
}

/// Removes what a survey found, but for what became young since. Gives what was removed, and what could not be with the
/// reason.
pub fn collect(survey: &Survey) -> (FileCount, Vec<(PathBuf, std::io::Error)>) {
    let mut freed = FileCount::default();
    let mut failed = Vec::new();
    for garbage in &survey.garbage {
        // A run may have come upon it meanwhile: what it uses again it touches.
        if !matches!(garbage.sort, FileClass::Quarantine | FileClass::Partial | FileClass::Temporary)
            && is_young(&garbage.path, GRACE)
        {
            continue;
        }
        let removed = match garbage.sort {
            FileClass::Partial | FileClass::Temporary if garbage.path.is_dir() => fs::remove_dir_all(&garbage.path),
            _ => fs::remove_file(&garbage.path),
        };
        match removed {
            Ok(()) => freed.add(garbage.size),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => failed.push((garbage.path.clone(), error)),
        }
    }
    (freed, failed)
}
