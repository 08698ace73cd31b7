//! Checks all of a cache: every blob's bytes against its name, every manifest against its key. Changes nothing but what
//! it is told to put aside.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::{Cache, CacheError, MANIFEST_FORMAT, Manifest};
use crate::digest::Digest;
use crate::fsio::{self, Context};

/// Something in a cache that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: FlawKind,
    /// What the system or the parser said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What is wrong with a file of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlawKind {
    /// A blob with other bytes than its name says.
    Corrupt,
    /// A manifest that cannot be read as one.
    BrokenManifest,
    /// A manifest whose record gives another key than its name.
    OtherKey,
    /// A file whose name is not that of a blob or a manifest.
    Stray,
    /// A file that cannot be read.
    Unreadable,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Outputs that manifests name and that are not there. That is no flaw: they are made again when they are needed.
    pub absent: u64,
    /// What is not as it should be.
    pub flaws: Vec<Flaw>,
}

/// The end of the name of a manifest's signature.
pub(crate) const SIGNATURE: &str = ".json.minisig";

impl Cache {
    /// Checks everything. `progress` hears of bytes read and bytes in all, from several threads.
    ///
    /// # Errors
    /// [`CacheError`] if a folder cannot be listed.
    pub fn check(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Checked, CacheError> {
        let blobs = self.files("objects")?;
        let mut manifests = self.files("actions")?;
        // Signatures are checked by those who trust their keys.
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

    /// Puts a file with a flaw aside, so that what it stood for is made again.
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

    /// The files under a folder of the cache, and their sizes; none if there is no such folder.
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
                // One that went away meanwhile shows when it is read.
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
