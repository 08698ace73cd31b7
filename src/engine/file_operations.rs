//! Notes the operations on files that decide what a crash of the machine leaves, for tests that replay them. In the
//! program itself it does nothing.

#[cfg(test)]
pub(crate) use noted::{Operation, note_folder_sync, note_rename, note_sync, take, watch};
#[cfg(not(test))]
pub(crate) use nothing::{note_folder_sync, note_rename, note_sync};

#[cfg(not(test))]
mod nothing {
    use std::path::Path;

    /// Notes that the bytes of a file are on the disk.
    #[inline]
    pub(crate) fn note_sync(_: &Path) {}

    /// Notes that a file has another name.
    #[inline]
    pub(crate) fn note_rename(_: &Path, _: &Path) {}

    /// Notes that the names in a folder are on the disk.
    #[inline]
    pub(crate) fn note_folder_sync(_: &Path) {}
}

#[cfg(test)]
mod noted {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Operation on a file of a folder that is watched.
    #[derive(Debug, Clone)]
    pub(crate) enum Operation {
        Sync(PathBuf),
        /// From, to, and the bytes of the file.
        Rename(PathBuf, PathBuf, Vec<u8>),
        SyncFolder(PathBuf),
    }

    /// Operations by the folder that they are in.
    static NOTED: Mutex<Option<HashMap<PathBuf, Vec<Operation>>>> = Mutex::new(None);

    fn lock() -> MutexGuard<'static, Option<HashMap<PathBuf, Vec<Operation>>>> {
        NOTED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes operations in a folder from now on.
    pub(crate) fn watch(root: &Path) {
        lock().get_or_insert_default().insert(root.to_owned(), Vec::new());
    }

    /// Returns what was noted so far.
    pub(crate) fn take(root: &Path) -> Vec<Operation> {
        lock().as_mut().and_then(|all| all.get_mut(root)).map(std::mem::take).unwrap_or_default()
    }

    fn note(path: &Path, operation: impl FnOnce() -> Operation) {
        let mut all = lock();
        let mut roots = all.iter_mut().flatten();
        if let Some((_, operations)) = roots.find(|(root, _)| path.starts_with(root)) {
            operations.push(operation());
        }
    }

    pub(crate) fn note_sync(path: &Path) {
        note(path, || Operation::Sync(path.to_owned()));
    }

    pub(crate) fn note_rename(from: &Path, to: &Path) {
        note(to, || Operation::Rename(from.to_owned(), to.to_owned(), std::fs::read(to).unwrap_or_default()));
    }

    pub(crate) fn note_folder_sync(path: &Path) {
        note(path, || Operation::SyncFolder(path.to_owned()));
    }
}
