//! Lays the results that people look at (tables, figures, pictures) in a folder of their choice, under the names of the
//! instances that made them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{Cache, CacheError, Manifest};
use crate::fsio;
use crate::spec::Instance;

/// Copies the results of an instance into `folder`; a file that is there with the same bytes is left alone. Gives the
/// files' paths.
///
/// # Errors
/// [`CacheError`] if a blob cannot be read or has other bytes than its digest says, or if the folder cannot be written.
pub fn export(
    cache: &Cache,
    instance: &Instance,
    manifest: &Manifest,
    folder: &Path,
) -> Result<Vec<PathBuf>, CacheError> {
    let mut paths = Vec::new();
    for output in &instance.outputs {
        let (Some(name), Some(blob)) = (&output.result, manifest.outputs.get(&output.name)) else { continue };
        let path = folder.join(name);
        let bytes = cache.read(blob.digest)?;
        if !fs::read(&path).is_ok_and(|there| there == bytes) {
            fsio::create_dir(folder)?;
            fsio::write_atomic(&path, folder, &bytes)?;
        }
        paths.push(path);
    }
    Ok(paths)
}
