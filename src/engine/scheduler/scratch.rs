//! Folders of running stages in the cache's `tmp/`, each used for one stage after another.
//!
//! File systems take their time to make and to delete a folder. ext4 does not use the place of a deleted one for
//! minutes and looks at every such place for each new file: after a thousand trivial stages that cost more than the
//! stages. So a folder that a stage leaves is emptied and kept for the next.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cache::{Cache, CacheError};
use crate::executors::PROGRAM_FOLDER;
use crate::fsio::{self, Context};

/// Folder of the outputs, within that of the stage.
const OUTPUTS: &str = "out";

/// Folders of the stages of a run.
pub(super) struct ScratchFolders {
    cache: Cache,
    idle: Arc<Mutex<Vec<Folder>>>,
}

/// Folder of a running stage. Dropped, it is emptied and serves another one.
pub(super) struct Scratch {
    folder: Option<Folder>,
    idle: Arc<Mutex<Vec<Folder>>>,
}

/// A folder with the folders within it, from the outside in.
struct Folder {
    dir: tempfile::TempDir,
    within: Vec<Layer>,
}

/// A folder as it was made.
struct Layer {
    path: PathBuf,
    mode: u32,
    owner: u32,
}

impl ScratchFolders {
    pub(super) fn new(cache: &Cache) -> Self {
        ScratchFolders { cache: cache.clone(), idle: Arc::default() }
    }

    /// Returns an empty folder, an old one if there is one.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(super) fn take(&self) -> Result<Scratch, CacheError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let folder = match idle {
            Some(folder) => folder,
            None => Folder::create(&self.cache)?,
        };
        Ok(Scratch { folder: Some(folder), idle: Arc::clone(&self.idle) })
    }
}

impl Scratch {
    /// Returns the path of the folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.as_ref().expect("there is one until it is dropped").dir.path()
    }

    /// Returns the folder for the outputs, within it.
    pub(super) fn outputs(&self) -> PathBuf {
        self.path().join(OUTPUTS)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take()
            && folder.empty().is_ok()
        {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
    }
}

impl Folder {
    fn create(cache: &Cache) -> Result<Self, CacheError> {
        let dir = cache.scratch()?;
        let mut within = vec![dir.path().to_owned(), dir.path().join(OUTPUTS)];
        within.extend(PROGRAM_FOLDER.iter().scan(within[1].clone(), |path, name| {
            path.push(name);
            Some(path.clone())
        }));
        fsio::create_dir(&within[within.len() - 1])?;
        let layer = |path: PathBuf| {
            let made = fs::symlink_metadata(&path).on("read", &path)?;
            Ok(Layer { mode: made.mode(), owner: made.uid(), path })
        };
        let within = within.into_iter().map(layer).collect::<Result<_, fsio::FileError>>()?;
        Ok(Folder { dir, within })
    }

    /// Removes everything but the folders that were there at first. Fails if those are not what they were: the stage's
    /// program may have done anything with them.
    fn empty(&self) -> io::Result<()> {
        for (layer, inner) in self.within.iter().zip(self.within.iter().skip(1).map(Some).chain([None])) {
            let found = fs::symlink_metadata(&layer.path)?;
            if !layer.is(&found) {
                return Err(io::ErrorKind::Other.into());
            }
            for entry in fs::read_dir(&layer.path)? {
                let entry = entry?;
                match inner {
                    Some(inner) if inner.path.file_name() == Some(&entry.file_name()) => {}
                    _ if entry.file_type()?.is_dir() => fs::remove_dir_all(entry.path())?,
                    _ => fs::remove_file(entry.path())?,
                }
            }
        }
        Ok(())
    }
}

impl Layer {
    fn is(&self, found: &Metadata) -> bool {
        found.is_dir() && found.mode() == self.mode && found.uid() == self.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_empty_whatever_the_stage_before_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ScratchFolders::new(&Cache::open(dir.path()).unwrap());
        let scratch = folders.take().unwrap();
        let first = scratch.path().to_owned();
        let program = PROGRAM_FOLDER.iter().fold(scratch.outputs(), |path, name| path.join(name));
        for folder in [&first, &scratch.outputs(), &program] {
            fs::write(folder.join("left"), "behind").unwrap();
            fs::create_dir_all(folder.join("more/and more")).unwrap();
        }
        drop(scratch);
        let scratch = folders.take().unwrap();
        assert_eq!(scratch.path(), first);
        let names = |path: &Path| -> Vec<_> { fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect() };
        assert_eq!((names(&first), names(&program)), (vec![OUTPUTS.into()], vec![]));
        assert_eq!(names(&scratch.outputs()), [PROGRAM_FOLDER[0]]);
    }

    #[test]
    fn a_folder_that_is_no_longer_what_it_was_serves_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ScratchFolders::new(&Cache::open(dir.path()).unwrap());
        let spoil: [fn(&Path); 3] = [
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap(),
            |path| fs::remove_dir(path).unwrap(),
            |path| {
                fs::remove_dir(path).unwrap();
                std::os::unix::fs::symlink("/", path).unwrap();
            },
        ];
        for spoil in spoil {
            let scratch = folders.take().unwrap();
            let first = scratch.path().to_owned();
            spoil(&PROGRAM_FOLDER.iter().fold(scratch.outputs(), |path, name| path.join(name)));
            drop(scratch);
            assert!(!first.exists());
        }
    }
}
