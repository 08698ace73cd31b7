//! Files that are read as a whole or to their end, so that reading them ends: regular ones, up to a size. Knows nothing
//! of what they hold.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Room that is made at once for the bytes of a file, whatever its length is said to be.
const ROOM: u64 = 1 << 20;

/// Opens a regular file to read. Reading anything else may wait for ever: a pipe without a writer, a device without an
/// end.
///
/// # Errors
/// Whatever opening the file gives; [`io::ErrorKind::InvalidInput`] if it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Before it is opened: opening a device can do something.
    check_regular(path)?;
    // What was put in its place since is opened without waiting, and looked at once more.
    Ok(open_at_once(path, OFlags::empty())?.0)
}

/// Opens a regular file in a folder of one's own to read, and returns what it is. As [`open_regular`], but with one
/// operation on the name: nobody puts a device into such a folder.
///
/// # Errors
/// As [`open_regular`].
pub(crate) fn open_own(path: &Path) -> io::Result<(File, Metadata)> {
    open_at_once(path, OFlags::empty())
}

/// Like [`open_own`], for a name that may not be a link.
///
/// # Errors
/// As [`open_regular`].
pub(crate) fn open_own_file(path: &Path) -> io::Result<(File, Metadata)> {
    open_at_once(path, OFlags::NOFOLLOW)
}

/// Opens without waiting, whatever it is.
fn open_at_once(path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | flags).bits();
    let file = File::options().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let found = file.metadata()?;
    regular(&found)?;
    Ok((file, found))
}

/// Checks that a path leads to a regular file.
///
/// # Errors
/// As [`open_regular`].
pub fn check_regular(path: &Path) -> io::Result<()> {
    regular(&fs::metadata(path)?)
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        // In the words of the system, which readers of folders know.
        _ if kind.is_dir() => return Err(rustix::io::Errno::ISDIR.into()),
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and only regular files are read")))
}

/// The bytes of a regular file that is no longer than `at_most`.
///
/// # Errors
/// As [`open_regular`]; [`io::ErrorKind::FileTooLarge`] if it is longer.
pub fn read_regular(path: &Path, at_most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let found = file.metadata()?;
    read_all(file, &found, at_most)
}

/// The bytes of a regular file in a folder of one's own, and what it is. As [`read_regular`], but with one operation on
/// the name.
///
/// # Errors
/// As [`read_regular`].
pub(crate) fn read_own(path: &Path, at_most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let (file, found) = open_own(path)?;
    Ok((read_all(file, &found, at_most)?, found))
}

fn read_all(file: File, found: &Metadata, at_most: u64) -> io::Result<Vec<u8>> {
    // One byte more than expected, so that one read finds the end of most files.
    let room = found.len().min(at_most).saturating_add(1).min(ROOM);
    read_into(Vec::with_capacity(usize::try_from(room).unwrap_or_default()), file, at_most)
}

/// All that a reader gives, if it is no longer than `at_most`.
///
/// # Errors
/// Whatever the reader gives; [`io::ErrorKind::FileTooLarge`] if it gives more.
pub fn read_at_most(from: impl Read, at_most: u64) -> io::Result<Vec<u8>> {
    read_into(Vec::new(), from, at_most)
}

fn read_into(mut bytes: Vec<u8>, from: impl Read, at_most: u64) -> io::Result<Vec<u8>> {
    from.take(at_most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= at_most {
        return Ok(bytes);
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {at_most} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_up_to_a_size() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe, socket) = (dir.path().join("file"), dir.path().join("pipe"), dir.path().join("socket"));
        fs::write(&file, b"abc").unwrap();
        assert_eq!(read_regular(&file, 3).unwrap(), b"abc");
        assert_eq!(read_regular(&file, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in
            [(pipe.as_path(), "a named pipe"), (&socket, "a socket"), (Path::new("/dev/zero"), "a device")]
        {
            let error = read_regular(path, 10).unwrap_err();
            assert!(error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains(what), "{error}");
            assert!(read_own(path, 10).is_err(), "{what} in a folder of one's own");
        }
        assert_eq!(read_regular(dir.path(), 10).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(read_own(dir.path(), 10).is_err());
        assert_eq!(read_own(&file, 3).unwrap().0, b"abc");
        std::os::unix::fs::symlink(&file, dir.path().join("link")).unwrap();
        assert!(open_own(&dir.path().join("link")).is_ok() && open_own_file(&dir.path().join("link")).is_err());
    }
}
