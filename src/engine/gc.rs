//! Garbage collection of a cache: a survey, which changes nothing, then the removal of exactly what it found.
//!
//! It keeps the results of given keys with their logs, the fetched files that their actions name, and everything
//! recent.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::action::ActionKey;
use crate::cache::{Blob, CLUSTER_FOLDER, Cache, CacheError, InProgress, Manifest, SIGNATURE, is_abandoned};
use crate::digest::Digest;

/// Minimum age of garbage. A run in progress may need files that no action names yet; it writes or touches all that it
/// uses.
const GRACE: Duration = Duration::from_secs(3600);

/// Time for which corrupt blobs are kept for inspection.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Class of a file in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileClass {
    /// Manifest of a result, or its signature.
    Manifest,
    /// Blob.
    Blob,
    /// Entry that maps a fetched file to its blob.
    Fetched,
    /// File in quarantine.
    Quarantine,
    /// Folder with the progress of a training, or with the state that a longer training resumes from.
    Partial,
    /// Abandoned temporary file, such as a partial fetch. The next run removes the files that killed runs left under
    /// their own names.
    Temporary,
    /// Folder of a run that agents shared.
    SharedRun,
}

/// What a collection keeps, besides recent files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Keys of results.
    pub keys: HashSet<ActionKey>,
    /// Logs of failed stages that commands may still show.
    pub logs: Vec<Blob>,
    /// Keys of trainings that a pipeline may resume. `None` if they cannot be determined: then all progress stays.
    pub partials: Option<HashSet<ActionKey>>,
    /// Progress and temporary files that were touched within this time stay, too.
    pub age: Duration,
    /// What the runs in progress may need.
    pub in_progress: InProgress,
}

/// Unreachable file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Class of the file.
    pub sort: FileClass,
    /// Path of the file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

/// Number of files, with their total size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FileCount {
    /// Number of files.
    pub files: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl FileCount {
    fn add(&mut self, size: u64) {
        self.files += 1;
        self.bytes += size;
    }
}

/// What a collection would remove and keep.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files to remove, in order: manifests before the blobs that they name.
    pub garbage: Vec<Garbage>,
    /// Files to keep, by class.
    pub kept: BTreeMap<FileClass, FileCount>,
}

impl Survey {
    /// Returns what is to be removed, by class.
    pub fn freed(&self) -> BTreeMap<FileClass, FileCount> {
        let mut freed: BTreeMap<FileClass, FileCount> = BTreeMap::new();
        for garbage in &self.garbage {
            freed.entry(garbage.sort).or_default().add(garbage.size);
        }
        freed
    }
}

/// Whether a run may be using or making the result of a key.
fn is_worked_on(cache: &Cache, key: ActionKey, manifest: &Path) -> bool {
    is_young(manifest, GRACE) || cache.is_leased(key)
}

fn is_young(path: &Path, limit: Duration) -> bool {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        // A time in the future means a wrong clock: keep the file.
        Ok(at) => SystemTime::now().duration_since(at).map_or(true, |age| age < limit),
        // Another process has removed it.
        Err(_) => false,
    }
}

/// Finds all files that no kept result and no recent file reaches.
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
            // A recent result made from an old one is a sign that a run uses the old one.
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
            // The wanted keys are unknown, or the folder is not named after a key.
            (Some(_), None) | (None, _) => true,
        };
        take(&mut survey, FileClass::Partial, path, size, is_kept);
    }
    for (path, (size, is_late)) in folders(cache, "tmp", keep.age)? {
        take(&mut survey, FileClass::Temporary, path, size, is_late || runs.runs > 0);
    }
    for (path, (size, _)) in folders(cache, CLUSTER_FOLDER, keep.age)? {
        let is_kept = !is_abandoned(&path);
        take(&mut survey, FileClass::SharedRun, path, size, is_kept);
    }
    Ok(survey)
}

/// Returns the entries of a cache folder, with their total size, and whether any file in them is younger than `age`.
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

/// Adds everything that is needed to use and inspect a result.
fn reach(manifest: &Manifest, blobs: &mut HashSet<Digest>, identities: &mut HashSet<String>) {
    blobs.extend(manifest.outputs.values().map(|blob| blob.digest));
    blobs.extend(manifest.made.log.stored().map(|log| log.digest));
    for identity in manifest.record.inputs.values() {
        if !identity.starts_with("blake3:") {
            identities.insert(identity.clone());
        }
    }
}

/// Removes what a survey found, except files that were touched since.
///
/// Returns what was removed, and the files that could not be removed, with the errors.
pub fn collect(survey: &Survey) -> (FileCount, Vec<(PathBuf, std::io::Error)>) {
    let mut freed = FileCount::default();
    let mut failed = Vec::new();
    for garbage in &survey.garbage {
        // A run may have reused the file meanwhile: it touches what it reuses.
        if !matches!(
            garbage.sort,
            FileClass::Quarantine | FileClass::Partial | FileClass::Temporary | FileClass::SharedRun
        ) && is_young(&garbage.path, GRACE)
        {
            continue;
        }
        let removed = match garbage.sort {
            FileClass::Partial | FileClass::Temporary | FileClass::SharedRun if garbage.path.is_dir() => {
                fs::remove_dir_all(&garbage.path)
            }
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
