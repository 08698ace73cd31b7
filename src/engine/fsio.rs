//! File operations whose errors say which file, and the one way in which a finished file becomes visible. Knows nothing
//! of what the files hold.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::file_operations::{note_folder_sync, note_rename, note_sync};
use crate::host;
pub use crate::regular::{check_regular, open_regular, read_at_most, read_regular};
pub(crate) use crate::regular::{open_own, open_own_file, read_own};

/// Mode of a file that is only read, before the user's umask.
const READ_ONLY: u32 = 0o444;

/// So many files are brought to the disk at once.
const MOST_AT_ONCE: usize = 32;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct FileError {
    /// What was being done: `read`, `write`.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Puts the path and the operation on an [`io::Error`].
pub trait Context<T> {
    /// `doing` is a verb that is read before the path.
    ///
    /// # Errors
    /// The same error with its path.
    fn on(self, doing: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> Context<T> for io::Result<T> {
    fn on(self, doing: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { doing, path: path.to_owned(), source })
    }
}

/// The bytes that can still be written to the file system of a path.
///
/// # Errors
/// Whatever the system gives.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Whether a path is on a file system that other machines may write to: NFS, SMB, FUSE, Lustre and the like. One that
/// cannot be asked counts as such.
pub fn is_on_network(path: &Path) -> bool {
    // Numbers of statfs(2) and of the file systems' own sources.
    const NETWORK: [u32; 13] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xfe53_4d42, // SMB2
        0xff53_4d42, // CIFS
        0x6573_5546, // FUSE
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x00c3_6400, // Ceph
        0x5346_414f, // AFS
        0x6b41_4653, // AFS of the kernel
        0x1983_0326, // BeeGFS
        0x0102_1997, // 9P
        0xaad7_aaea, // PanFS
    ];
    match rustix::fs::statfs(path) {
        Ok(system) => NETWORK.contains(&(system.f_type as u32)),
        // What is not there yet will be where the folder above it is.
        Err(rustix::io::Errno::NOENT) if folder_of(path) != path => is_on_network(folder_of(path)),
        Err(_) => true,
    }
}

/// Returns the folder that a path is in: `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`FileError`].
pub fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).on("make the folder", path)
}

/// Writes a file that is either there as a whole or not at all. `scratch` is a folder of the same file system.
///
/// What survives: the bytes are on the disk before the name is, so after a crash the name leads to the old file, to the
/// new one, or nowhere; never to half of it. The name itself may be lost in a crash of the machine (the folder is not
/// synchronised): then the work is done again.
///
/// # Errors
/// [`FileError`]; the final name is untouched then.
pub fn write_atomic(path: &Path, scratch: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = scratch_file(scratch)?;
    file.write_all(bytes).on("write", file.path())?;
    file.as_file().sync_all().on("write", file.path())?;
    note_sync(file.path());
    publish(file.into_temp_path(), path)
}

/// A file of this process in a folder, to be written and then named; gone when dropped. Its own name tells whose it is
/// ([`host::owner`]).
///
/// # Errors
/// [`FileError`].
pub fn scratch_file(folder: &Path) -> Result<tempfile::NamedTempFile, FileError> {
    // Readable by whom the user's umask lets read: caches and results are shared.
    scratch_file_of(folder, 0o666)
}

/// The same for a file that is only read once it is closed.
///
/// # Errors
/// [`FileError`].
pub(crate) fn read_only_scratch_file(folder: &Path) -> Result<tempfile::NamedTempFile, FileError> {
    scratch_file_of(folder, READ_ONLY)
}

fn scratch_file_of(folder: &Path, mode: u32) -> Result<tempfile::NamedTempFile, FileError> {
    let prefix = format!("file-{}{}-", host::owner(), std::process::id());
    let mode = Permissions::from_mode(mode);
    tempfile::Builder::new().prefix(&prefix).permissions(mode).tempfile_in(folder).on("write in", folder)
}

/// Gives a finished file, already on the disk, its final name.
///
/// # Errors
/// [`FileError`].
pub fn publish(file: tempfile::TempPath, path: &Path) -> Result<(), FileError> {
    rename(&file, path)?;
    // It has another name now, under which it stays.
    _ = file.keep();
    Ok(())
}

/// Renames a file within a file system, and makes the folder that it goes to if there is none.
///
/// # Errors
/// [`FileError`].
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let renamed = match fs::rename(from, to) {
        // Most folders are there: looking first would cost more. Another thread may be making it at the same time.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir(folder_of(to))?;
            fs::rename(from, to).on("write", to)
        }
        renamed => renamed.on("write", to),
    };
    if renamed.is_ok() {
        note_rename(from, to);
    }
    renamed
}

/// Makes an open file one that is only read, by whom the user's umask lets read. Nothing else of its mode stays:
/// whoever made it, it is no program.
///
/// # Errors
/// [`FileError`].
pub fn make_read_only(file: &File, path: &Path) -> Result<(), FileError> {
    let mode = READ_ONLY & !umask();
    if file.metadata().is_ok_and(|found| found.permissions().mode() & 0o7777 == mode) {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode)).on("change the permissions of", path)
}

/// The mode that this process leaves out of its files. Asking for it otherwise would change it for a moment.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        // The owner must be able to read, whatever he leaves out.
        umask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022) & 0o077
    })
}

/// Brings a file's bytes to the disk.
///
/// # Errors
/// [`FileError`].
pub fn sync(path: &Path) -> Result<(), FileError> {
    sync_file(path).on("write", path)
}

fn sync_file(path: &Path) -> io::Result<()> {
    sync_open(path, &File::open(path)?)
}

fn sync_open(path: &Path, file: &File) -> io::Result<()> {
    file.sync_all()?;
    note_sync(path);
    Ok(())
}

/// Brings the bytes of several files to the disk at once: the file system then does the work for all of them in one
/// go. Returns what came of each. A file that is open need not be opened again.
///
/// Not by `syncfs`, which also waits for what everybody else has written: on a busy machine, seconds.
pub fn sync_together(files: &[(&Path, Option<&File>)]) -> Vec<io::Result<()>> {
    let sync = |file: &(&Path, Option<&File>)| match file {
        (path, Some(open)) => sync_open(path, open),
        (path, None) => sync_file(path),
    };
    let Some((last, others)) = files.split_last() else { return Vec::new() };
    let mut outcomes = Vec::with_capacity(files.len());
    let mut last_outcome = None;
    std::thread::scope(|scope| {
        for some in others.chunks(MOST_AT_ONCE) {
            let threads: Vec<_> = some.iter().map(|file| scope.spawn(|| sync(file))).collect();
            last_outcome.get_or_insert_with(|| sync(last));
            let broken = || Err(io::Error::other("the thread broke"));
            outcomes.extend(threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| broken())));
        }
    });
    outcomes.push(last_outcome.unwrap_or_else(|| sync(last)));
    outcomes
}

/// Brings the names of the files in a folder to the disk.
///
/// # Errors
/// [`FileError`].
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        // Some file systems have nothing to sync there.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
        synced => synced.on("write", path)?,
    }
    note_folder_sync(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_make_the_folder_of_their_files_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for turn in 0..50 {
            let folder = dir.path().join(turn.to_string());
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let (folder, scratch) = (&folder, dir.path());
                    scope.spawn(move || {
                        let file = scratch_file(scratch).unwrap().into_temp_path();
                        publish(file, &folder.join(number.to_string())).unwrap();
                    });
                }
            });
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 8);
        }
    }
}
