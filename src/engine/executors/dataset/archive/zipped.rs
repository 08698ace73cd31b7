//! Members of a zip archive. Windows programs write `\` between folders: it is read as `/`, as they mean it.

use std::io::Read;

use zip::ZipArchive;
use zip::result::ZipError;

use super::tree::{Content, Place, Tree};
use super::{ArchiveError, MAX_ENTRIES, Shared, plain};

/// The longest target of a symbolic link, as on Linux.
const MAX_TARGET: u64 = 4096;

/// Puts the members of an archive into a tree.
pub(super) fn list(file: Shared, tree: &mut Tree) -> Result<ZipArchive<Shared>, ArchiveError> {
    let damaged = |error: ZipError| ArchiveError::Damaged { reason: error.to_string() };
    let mut zip = ZipArchive::new(file).map_err(damaged)?;
    if zip.len() > MAX_ENTRIES {
        return Err(ArchiveError::Entries);
    }
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.replace('\\', "/");
        let (size, is_link, is_encrypted) = (entry.size(), entry.is_symlink(), entry.encrypted());
        drop(entry);
        if name.ends_with('/') {
            if let Some(path) = plain(&name).filter(|path| !path.is_empty()) {
                tree.folder(&path);
            }
            continue;
        }
        if is_encrypted {
            return Err(ArchiveError::Encrypted { name });
        }
        let path = plain(&name).ok_or(ArchiveError::Escape { name })?;
        if is_link {
            let mut target = Vec::new();
            let mut entry = zip.by_index(index).map_err(damaged)?.take(MAX_TARGET);
            entry.read_to_end(&mut target).map_err(|error| damaged(error.into()))?;
            tree.link(&path, super::tape::text(&target));
        } else {
            tree.file(&path, Content { size, place: Place::At(index as u64) });
        }
    }
    Ok(zip)
}
