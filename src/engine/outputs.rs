//! What a stage left where its output belongs: whether it can become a blob, and whether its bytes are the stage's
//! alone. Knows files, neither stages nor the cache.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why what stands at an output's place is no output. An output is a file of its own that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("was not written")]
    Missing,
    #[error(
        "is a folder, and an output is one file: pack it, as with `tar -cf FILE FOLDER`, or declare the files in it"
    )]
    Folder,
    #[error("is a link to `{}`, and an output is a file of its own: write it there, or copy it, as with `cp -L`", to.display())]
    Link { to: PathBuf },
    #[error("is {0}, and an output is a file: write what comes out of it into one")]
    Special(&'static str),
    #[error("cannot be read: its mode is {mode:04o}, and its owner must be able to read it, as after `chmod u+r`")]
    Unreadable { mode: u32 },
    #[error(
        "says that it is {size} bytes long, and the whole file system holds {holds}: it is sparse, and cannot be kept"
    )]
    TooLong { size: u64, holds: u64 },
    #[error("cannot be looked at: {0}")]
    Unknown(String),
}

/// Looks at the place of an output.
pub(crate) fn look(path: &Path) -> Result<Metadata, Unfit> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Unfit::Missing);
        }
        Err(error) => return Err(Unfit::Unknown(error.to_string())),
    };
    let is = found.file_type();
    if is.is_symlink() {
        return Err(Unfit::Link { to: fs::read_link(path).unwrap_or_default() });
    }
    if is.is_dir() {
        return Err(Unfit::Folder);
    }
    if let Some(what) = special(is) {
        return Err(Unfit::Special(what));
    }
    // The system lets root read it all the same: what is refused must not depend on who runs.
    if found.mode() & 0o400 == 0 {
        return Err(Unfit::Unreadable { mode: found.mode() & 0o7777 });
    }
    if found.blocks().saturating_mul(512) < found.len()
        && let Ok(space) = rustix::fs::statvfs(path)
    {
        let holds = space.f_blocks.saturating_mul(space.f_frsize);
        // Some file systems do not say how much they hold.
        if holds > 0 && found.len() > holds {
            return Err(Unfit::TooLong { size: found.len(), holds });
        }
    }
    Ok(found)
}

fn special(is: FileType) -> Option<&'static str> {
    match is {
        is if is.is_fifo() => Some("a named pipe"),
        is if is.is_socket() => Some("a socket"),
        is if is.is_block_device() || is.is_char_device() => Some("a device"),
        is if is.is_file() => None,
        _ => Some("no file"),
    }
}

/// Whether nobody else has the file: it has one name, and is this user's. A file with another name would be changed
/// under the cache, or made read-only for its owner.
pub(crate) fn is_ours_alone(found: &Metadata) -> bool {
    found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_file_of_its_own_that_can_be_read_is_an_output() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(look(&at("none")).unwrap_err(), Unfit::Missing);
        fs::write(at("file"), b"x").unwrap();
        assert!(is_ours_alone(&look(&at("file")).unwrap()));
        fs::hard_link(at("file"), at("same")).unwrap();
        assert!(!is_ours_alone(&look(&at("file")).unwrap()) && !is_ours_alone(&look(&at("same")).unwrap()));
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert_eq!(look(&at("link")).unwrap_err(), Unfit::Link { to: "file".into() });
        fs::create_dir(at("folder")).unwrap();
        assert_eq!(look(&at("folder")).unwrap_err(), Unfit::Folder);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(look(&at("socket")).unwrap_err(), Unfit::Special("a socket"));
        fs::write(at("closed"), b"x").unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o200)).unwrap();
        assert_eq!(look(&at("closed")).unwrap_err(), Unfit::Unreadable { mode: 0o200 });
        assert_eq!(look(Path::new("/dev/null")).unwrap_err(), Unfit::Special("a device"));
        assert_eq!(look(&at("file/below")).unwrap_err(), Unfit::Missing);
    }
}
