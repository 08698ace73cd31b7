//! Writes a bundle from a folder that holds its files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::{About, FORMAT, INDEX, Index, PackedFile};
use crate::digest::Digest;
use crate::fsio::{Context, FileError};

/// Strength of the compression. Most bytes are weights and images, which hardly compress.
const LEVEL: i32 = 9;

/// Reason why a bundle cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Archive(#[from] io::Error),
    /// A path is longer than the archive's headers hold.
    #[error("the path {path} is too long for an archive")]
    Path {
        /// The path in the bundle.
        path: String,
    },
    /// The folder has something that is no file.
    #[error("{path} is no regular file")]
    Irregular {
        /// Its path in the folder.
        path: String,
    },
}

/// Returns the index of a folder: every file below it.
///
/// # Errors
/// [`WriteError`].
pub fn index_of(folder: &Path, about: About) -> Result<Index, WriteError> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.map_err(io::Error::from).on("list", folder)?;
        if entry.file_type().is_dir() {
            continue;
        }
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let name = relative.to_string_lossy().into_owned();
        if !entry.file_type().is_file() || relative.to_str().is_none() {
            return Err(WriteError::Irregular { path: name });
        }
        let file = File::open(entry.path()).on("read", entry.path())?;
        let (blake3, size) = Digest::of_reader(file).on("read", entry.path())?;
        files.insert(name, PackedFile { blake3, size });
    }
    Ok(Index { format: FORMAT.to_owned(), about, files })
}

/// Writes the files of an index from a folder, all below a folder called `name`. The index comes first.
///
/// # Errors
/// [`WriteError`].
pub fn write(folder: &Path, index: &Index, name: &str, to: impl Write) -> Result<(), WriteError> {
    let mut archive = Builder::new(zstd::Encoder::new(to, LEVEL)?);
    let text = serde_json::to_string_pretty(index).unwrap_or_default() + "\n";
    append(&mut archive, &format!("{name}/{INDEX}"), text.len() as u64, text.as_bytes())?;
    for (path, packed) in &index.files {
        let place = folder.join(path);
        let file = File::open(&place).on("read", &place)?;
        append(&mut archive, &format!("{name}/{path}"), packed.size, file)?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

fn append(archive: &mut Builder<impl Write>, path: &str, size: u64, bytes: impl io::Read) -> Result<(), WriteError> {
    let mut header = Header::new_ustar();
    header.set_path(path).map_err(|_| WriteError::Path { path: path.to_owned() })?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header.set_cksum();
    Ok(archive.append(&header, bytes)?)
}
