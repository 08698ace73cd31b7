//! Checks a whole cache: the bytes of every blob against its name, every manifest against its key.
//!
//! Changes nothing, except that [`Cache::put_aside`] moves a file to quarantine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::{Cache, CacheError, MANIFEST_FORMAT, Manifest};
use crate::digest::Digest;
use crate::fsio::{self, Context};

/// Fault in a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// Path of the file.
    pub path: PathBuf,
    /// Kind of the fault.
    pub what: FlawKind,
    /// Message of the system or the parser.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Kind of a fault in a cache file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlawKind {
    /// The bytes of a blob do not match its name.
    Corrupt,
    /// The file cannot be parsed as a manifest of this version.
    BrokenManifest,
    /// The action in a manifest gives another key than its name.
    OtherKey,
    /// The name of the file is neither that of a blob nor that of a manifest.
    Stray,
    /// The file cannot be read.
    Unreadable,
}

/// Result of a check.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    /// Number of blobs read.
    pub blobs: u64,
    /// Total bytes of those blobs.
    pub bytes: u64,
    /// Number of manifests read.
    pub manifests: u64,
    /// Number of outputs that manifests name and that are absent. This is no fault: they are made again when needed.
    pub absent: u64,
    /// Faults.
    pub flaws: Vec<Flaw>,
}

/// Suffix of the file name of a manifest's signature.
pub(crate) const SIGNATURE: &str = ".json.minisig";

impl Cache {
    /// Checks every blob and manifest. `progress` receives the bytes read and the total, from several threads.
    ///
    /// # Errors
    /// [`CacheError`] if a folder cannot be listed.
    pub fn check(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Checked, CacheError> {
        let blobs = self.files("objects")?;
        let mut manifests = self.files("actions")?;
        // Signatures are checked where their keys are trusted.
        manifests.retain(|(path, _)| named(path, SIGNATURE).is_none());
        let bytes = blobs.iter().map(|(_, size)| size).sum();
        let done = AtomicU64::new(0);
        let check_blob = |(path, size): &(PathBuf, u64)| {
            let flaw = check_blob(path);
            progress(done.fetch_add(*size, Ordering::Relaxed) + size, bytes);
            flaw
        };
        let mut flaws: Vec<Flaw> = blobs.par_iter().filter_map(check_blob).collect();
        let read: Vec<Result<u64, Flaw>> =
            manifests.par_iter().map(|(path, _)| Ok(self.absent(&read_manifest(path)?))).collect();
        let mut absent = 0;
        for manifest in read {
            match manifest {
                Ok(count) => absent += count,
                Err(flaw) => flaws.push(flaw),
            }
        }
        flaws.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Checked { blobs: blobs.len() as u64, bytes, manifests: manifests.len() as u64, absent, flaws })
    }

    /// Moves a faulty file to quarantine, so that its content is made again.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn put_aside(&self, flaw: &Flaw) -> Result<PathBuf, CacheError> {
        let folder = self.root.join("quarantine");
        fsio::create_dir(&folder)?;
        let name = flaw.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = folder.join(format!("{name}-{}", jiff::Timestamp::now().as_millisecond()));
        std::fs::rename(&flaw.path, &to).on("move away", &flaw.path)?;
        Ok(to)
    }

    /// Lists the files under a folder of the cache with their sizes; none if the folder does not exist.
    ///
    /// # Errors
    /// [`CacheError`] if a folder cannot be listed.
    pub(crate) fn files(&self, folder: &str) -> Result<Vec<(PathBuf, u64)>, CacheError> {
        let folder = self.root.join(folder);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(&folder).sort_by_file_name() {
            let entry = entry.map_err(std::io::Error::from).on("list", &folder)?;
            if !entry.file_type().is_dir() {
                // A file that disappears meanwhile is noticed when it is read.
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                files.push((entry.into_path(), size));
            }
        }
        Ok(files)
    }

    fn absent(&self, manifest: &Manifest) -> u64 {
        manifest.outputs.values().filter(|blob| !self.has(**blob)).count() as u64
    }
}

fn named(path: &Path, ending: &str) -> Option<Digest> {
    path.file_name()?.to_str()?.strip_suffix(ending)?.parse().ok()
}

fn flaw(path: &Path, what: FlawKind, detail: impl ToString) -> Flaw {
    Flaw { path: path.to_owned(), what, detail: detail.to_string() }
}

fn check_blob(path: &Path) -> Option<Flaw> {
    let Some(name) = named(path, "") else { return Some(flaw(path, FlawKind::Stray, "")) };
    match Digest::of_file(path) {
        Ok(found) if found == name => None,
        Ok(found) => Some(flaw(path, FlawKind::Corrupt, format!("its bytes have the digest {found}"))),
        // Another process may have collected it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(flaw(path, FlawKind::Unreadable, error)),
    }
}

fn read_manifest(path: &Path) -> Result<Manifest, Flaw> {
    let Some(name) = named(path, ".json") else { return Err(flaw(path, FlawKind::Stray, "")) };
    let bytes = fsio::read_regular(path, u64::MAX).map_err(|error| flaw(path, FlawKind::Unreadable, error))?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| flaw(path, FlawKind::BrokenManifest, error))?;
    if manifest.format != MANIFEST_FORMAT {
        let detail = format!("its format is {}, this version reads {MANIFEST_FORMAT}", manifest.format);
        return Err(flaw(path, FlawKind::BrokenManifest, detail));
    }
    let key = manifest.record.key();
    if key.0 == name { Ok(manifest) } else { Err(flaw(path, FlawKind::OtherKey, format!("its record gives {key}"))) }
}
