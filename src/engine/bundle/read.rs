//! Reads a bundle as hostile input: checks every name, size and digest, and unpacks only what is in the index.
//!
//! The headers are read as they are. So no long name, link or sparse map of an archive is ever followed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::{CACHE, FORMAT, INDEX, Index, PackedFile};
use crate::cache::Manifest;
use crate::digest::Digest;
use crate::fsio::{self, Context, FileError};

/// The longest index and manifest that are read, in bytes.
const LONGEST: u64 = 64 << 20;

/// Reason why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file is no archive, or is damaged or cut off.
    #[error("it is no bundle, or it is damaged or cut off")]
    Damaged(#[source] io::Error),
    /// It does not begin with an index.
    #[error("it is no bundle: it does not begin with {INDEX}")]
    NoIndex,
    /// The index cannot be read.
    #[error("its {INDEX} cannot be read")]
    Index(#[source] serde_json::Error),
    /// Another version wrote it.
    #[error("it has the format `{found}`; this version of atflow reads `{FORMAT}`")]
    Format {
        /// What it says.
        found: String,
    },
    /// An entry is refused.
    #[error("its entry `{name}` {reason}")]
    Entry {
        /// Name in the archive.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A file of the index is not in the archive.
    #[error("it lacks `{name}`, which its index lists")]
    Lacks {
        /// Path in the bundle.
        name: String,
    },
    /// It unfolds to more than fits.
    #[error("it unfolds to {needed} bytes, and {free} are free")]
    Space {
        /// Sum of the sizes in its index.
        needed: u64,
        /// Bytes free in the folder's file system.
        free: u64,
    },
    /// It cannot be unpacked.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A bundle all of whose files are as its index says.
#[derive(Debug)]
pub struct Checked {
    /// What it holds.
    pub index: Index,
    /// Number of manifests in its cache.
    pub manifests: usize,
    /// Number of blobs in its cache.
    pub blobs: usize,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// Checks a bundle; unpacks it into a folder if one is given. The folder must be new; on an error, what was unpacked so
/// far is the caller's to remove.
///
/// # Errors
/// [`BundleError`] at the first thing that is not as it should be.
pub fn read(bundle: impl Read, to: Option<&Path>) -> Result<Checked, BundleError> {
    let mut archive = Archive::new(zstd::Decoder::new(bundle).map_err(BundleError::Damaged)?);
    let mut entries = archive.entries().map_err(BundleError::Damaged)?.raw(true);
    let mut first = entries.next().ok_or(BundleError::NoIndex)?.map_err(BundleError::Damaged)?;
    let name = name_of(&first)?;
    let (top, index) = match name.split_once('/') {
        Some((top, INDEX)) => (top.to_owned(), index(&mut first)?),
        _ => return Err(BundleError::NoIndex),
    };
    if let Some(folder) = to {
        check_space(&index, folder)?;
        let text = serde_json::to_string_pretty(&index).unwrap_or_default() + "\n";
        write(&folder.join(INDEX), &mut text.as_bytes())?;
    }
    let mut checked = Checked { index, manifests: 0, blobs: 0, bytes: 0 };
    let mut seen = BTreeSet::new();
    for entry in entries {
        let mut entry = entry.map_err(BundleError::Damaged)?;
        let name = name_of(&entry)?;
        let refused = |reason| BundleError::Entry { name: name.clone(), reason };
        let path = name.strip_prefix(&top).and_then(|rest| rest.strip_prefix('/'));
        let path = path.ok_or_else(|| refused("lies outside of its folder"))?;
        let packed = *checked.index.files.get(path).ok_or_else(|| refused("is not in its index"))?;
        if !seen.insert(path.to_owned()) {
            return Err(refused("comes twice"));
        }
        if entry.size() != packed.size {
            return Err(refused("has another size than its index says"));
        }
        take(&mut entry, path, packed, to, &mut checked).map_err(|problem| match problem {
            Problem::Reason(reason) => refused(reason),
            Problem::Other(error) => error,
        })?;
    }
    match checked.index.files.keys().find(|path| !seen.contains(*path)) {
        Some(name) => Err(BundleError::Lacks { name: name.clone() }),
        None => Ok(checked),
    }
}

/// Checks that all of a bundle fits, before any of it is written: no entry is longer than the index says.
fn check_space(index: &Index, folder: &Path) -> Result<(), BundleError> {
    let needed = index.files.values().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    let above = fsio::folder_of(folder);
    let free = fsio::free_space(above).on("look at", above)?;
    if needed > free { Err(BundleError::Space { needed, free }) } else { Ok(()) }
}

/// What is wrong with an entry.
enum Problem {
    Reason(&'static str),
    Other(BundleError),
}

impl From<BundleError> for Problem {
    fn from(error: BundleError) -> Self {
        Problem::Other(error)
    }
}

/// Checks one file, and unpacks it if a folder is given.
fn take(
    entry: &mut impl Read,
    path: &str,
    packed: PackedFile,
    to: Option<&Path>,
    checked: &mut Checked,
) -> Result<(), Problem> {
    let in_cache = path.strip_prefix(CACHE).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let digest = if in_cache.starts_with("actions/") {
        if packed.size > LONGEST {
            return Err(Problem::Reason("is too long for a manifest"));
        }
        let bytes = fsio::read_at_most(entry, LONGEST).map_err(BundleError::Damaged)?;
        if !is_manifest_of(path, &bytes) {
            return Err(Problem::Reason("is no manifest of the key in its name"));
        }
        checked.manifests += 1;
        if let Some(folder) = to {
            write(&folder.join(path), &mut bytes.as_slice())?;
        }
        Digest::of(&bytes)
    } else if let Some(folder) = to {
        let place = folder.join(path);
        write(&place, entry)?;
        Digest::of_file(&place).on("read", &place).map_err(BundleError::File)?
    } else {
        Digest::of_reader(entry).map_err(BundleError::Damaged)?.0
    };
    if digest != packed.blake3 {
        return Err(Problem::Reason("has other bytes than its index says"));
    }
    if in_cache.starts_with("objects/") {
        if path.rsplit('/').next() != Some(digest.to_string().as_str()) {
            return Err(Problem::Reason("has other bytes than its name says"));
        }
        checked.blobs += 1;
    }
    checked.bytes += packed.size;
    Ok(())
}

/// Whether a file is a manifest whose action gives the key that the file is named by.
fn is_manifest_of(path: &str, bytes: &[u8]) -> bool {
    let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json"));
    let manifest = serde_json::from_slice::<Manifest>(bytes);
    manifest.is_ok_and(|manifest| name == Some(manifest.record.key().to_string().as_str()))
}

/// Returns the path of an entry. Only regular files with plain relative paths are taken.
fn name_of(entry: &Entry<'_, impl Read>) -> Result<String, BundleError> {
    let bytes = entry.path_bytes();
    let name = crate::plain::plain(&String::from_utf8_lossy(&bytes)).into_owned();
    let refused = |reason| BundleError::Entry { name: name.clone(), reason };
    if entry.header().entry_type() != EntryType::Regular {
        return Err(refused("is no regular file"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("has a name that is not UTF-8"))?;
    let is_plain = PathBuf::from(text).components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || text.split('/').any(str::is_empty) || text.contains(['\\', '\0']) {
        return Err(refused("has a name that leads out of the archive"));
    }
    Ok(text.to_owned())
}

fn index(entry: &mut impl Read) -> Result<Index, BundleError> {
    let bytes = fsio::read_at_most(entry, LONGEST).map_err(BundleError::Damaged)?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(BundleError::Index)?;
    match value["format"].as_str() {
        Some(FORMAT) => serde_json::from_value(value).map_err(BundleError::Index),
        found => Err(BundleError::Format { found: found.unwrap_or("none").chars().take(40).collect() }),
    }
}

fn write(path: &Path, from: &mut impl Read) -> Result<(), BundleError> {
    fsio::create_dir(fsio::folder_of(path))?;
    // Nothing is there: the folder is new, and no entry comes twice.
    let mut file = File::create_new(path).on("write", path)?;
    io::copy(from, &mut file).on("write", path)?;
    Ok(file.flush().on("write", path)?)
}
