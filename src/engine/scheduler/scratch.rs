//! Folders of running stages, each used for one stage after another: in the cache's `tmp/`, or where the run is told.
//!
//! File systems take their time to make and to delete a folder. ext4 does not use the place of a deleted one for
//! minutes and looks at every such place for each new file: after a thousand trivial stages that cost more than the
//! stages. So a folder that a stage leaves is emptied and kept for the next. It stays open, because on a network file
//! system each opening is a request.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Dir, FileType};

use crate::cache::{Cache, CacheError};
use crate::executors::PROGRAM_FOLDER;
use crate::fsio::Context;

/// Name of the log of a stage, if it is long.
const LOG: &str = "log";

/// Folders of the stages of a run.
pub(super) struct ScratchFolders {
    cache: Cache,
    /// Where they are, if not in the cache.
    elsewhere: Option<PathBuf>,
    idle: Arc<Mutex<Vec<Folder>>>,
}

/// Folder of a running stage. Dropped, it is emptied and serves another one.
pub(super) struct Scratch {
    folder: Option<Folder>,
    is_elsewhere: bool,
    idle: Arc<Mutex<Vec<Folder>>>,
}

/// A folder for outputs, with the one within it that programs run in.
struct Folder {
    dir: tempfile::TempDir,
    outer: Layer,
    inner: Layer,
}

/// A folder as it was made.
struct Layer {
    path: PathBuf,
    open: File,
    list: Dir,
    made: Metadata,
}

impl ScratchFolders {
    /// `elsewhere` is a folder to use instead of the cache's.
    pub(super) fn new(cache: &Cache, elsewhere: Option<&Path>) -> Self {
        ScratchFolders { cache: cache.clone(), elsewhere: elsewhere.map(Path::to_owned), idle: Arc::default() }
    }

    /// Returns an empty folder, an old one if there is one.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(super) fn take(&self) -> Result<Scratch, CacheError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let folder = match idle {
            Some(folder) => folder,
            None => Folder::create(match &self.elsewhere {
                Some(elsewhere) => Cache::scratch_in(elsewhere)?,
                None => self.cache.scratch()?,
            })?,
        };
        Ok(Scratch { folder: Some(folder), is_elsewhere: self.elsewhere.is_some(), idle: Arc::clone(&self.idle) })
    }
}

impl Scratch {
    /// Returns the path of the folder, which is for the outputs.
    pub(super) fn path(&self) -> &Path {
        self.folder.as_ref().expect("there is one until it is dropped").dir.path()
    }

    /// Returns the path for a long log.
    pub(super) fn log(&self) -> PathBuf {
        self.path().join(LOG)
    }

    /// Whether it may be on another file system than the cache.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Removes everything but the log. The folder serves no other stage then.
    pub(super) fn clear_but_log(&self) {
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if entry.file_name() != LOG {
                // What cannot be removed now is tried once more with the folder.
                _ = remove(&entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(mut folder) = self.folder.take()
            && folder.empty().is_ok()
        {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
    }
}

impl Folder {
    fn create(dir: tempfile::TempDir) -> Result<Self, CacheError> {
        let path = dir.path().join(PROGRAM_FOLDER);
        fs::create_dir(&path).on("make the folder", &path)?;
        let layer = |path: PathBuf| Layer::open(&path).on("read", &path);
        let (outer, inner) = (layer(dir.path().to_owned())?, layer(path.clone())?);
        Ok(Folder { dir, outer, inner })
    }

    /// Removes everything but the folders that were there at first. Fails if those are not what they were: the stage's
    /// program may have done anything with them.
    fn empty(&mut self) -> io::Result<()> {
        let outer = fs::symlink_metadata(&self.outer.path)?;
        if !is_same(&outer, &self.outer.made) {
            return Err(io::ErrorKind::Other.into());
        }
        self.outer.empty(Some(&self.inner))?;
        self.inner.empty(None)
    }
}

impl Layer {
    fn open(path: &Path) -> io::Result<Self> {
        let open = File::open(path)?;
        Ok(Layer { path: path.to_owned(), made: open.metadata()?, list: Dir::read_from(&open)?, open })
    }

    /// Removes everything but `kept`, which must be there as it was made.
    fn empty(&mut self, kept: Option<&Layer>) -> io::Result<()> {
        let found = self.open.metadata()?;
        if found.mode() != self.made.mode() || found.uid() != self.made.uid() {
            return Err(io::ErrorKind::Other.into());
        }
        let mut is_kept = kept.is_none();
        let mut left = Vec::new();
        self.list.rewind();
        while let Some(entry) = self.list.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = self.path.join(std::ffi::OsStr::from_bytes(name));
            match kept.filter(|kept| kept.path == path) {
                // Some file systems list other numbers than they give for the folder itself.
                Some(kept) => {
                    let is_listed = entry.file_type() == FileType::Directory && entry.ino() == kept.made.ino();
                    is_kept = is_listed || kept.is_at_its_path();
                }
                None => left.push((path, entry.file_type())),
            }
        }
        if !is_kept {
            return Err(io::ErrorKind::Other.into());
        }
        for (path, kind) in left {
            let is_folder = match kind {
                FileType::Unknown => fs::symlink_metadata(&path)?.is_dir(),
                kind => kind == FileType::Directory,
            };
            remove(&path, is_folder)?;
        }
        Ok(())
    }

    fn is_at_its_path(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| is_same(&found, &self.made))
    }
}

/// Whether both are of one folder.
fn is_same(found: &Metadata, made: &Metadata) -> bool {
    found.is_dir() && found.ino() == made.ino() && found.dev() == made.dev()
}

fn remove(path: &Path, is_folder: bool) -> io::Result<()> {
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_is_empty_whatever_the_stage_before_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        for elsewhere in [None, Some(elsewhere.path())] {
            let folders = ScratchFolders::new(&Cache::open(dir.path()).unwrap(), elsewhere);
            let scratch = folders.take().unwrap();
            assert_eq!(scratch.is_elsewhere(), elsewhere.is_some());
            let first = scratch.path().to_owned();
            assert_eq!(first.parent().unwrap(), elsewhere.unwrap_or(&dir.path().join("tmp")));
            let program = first.join(PROGRAM_FOLDER);
            for folder in [&first, &program] {
                fs::write(folder.join("left"), "behind").unwrap();
                fs::create_dir_all(folder.join("more/and more")).unwrap();
                std::os::unix::fs::symlink("more", folder.join("link")).unwrap();
            }
            drop(scratch);
            // More than once: the open folder must not remember what was in it.
            for _ in 0..2 {
                let scratch = folders.take().unwrap();
                assert_eq!(scratch.path(), first);
                let names =
                    |path: &Path| -> Vec<_> { fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect() };
                assert_eq!((names(&first), names(&program)), (vec![PROGRAM_FOLDER.into()], vec![]));
                fs::write(program.join("left"), "behind").unwrap();
            }
        }
    }

    #[test]
    fn what_a_failed_stage_left_goes_before_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = ScratchFolders::new(&Cache::open(dir.path()).unwrap(), None).take().unwrap();
        fs::write(scratch.log(), "its last words").unwrap();
        fs::write(scratch.path().join("0"), "an output").unwrap();
        scratch.clear_but_log();
        let names: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [LOG]);
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists(), "it has lost its inner folder");
    }

    #[test]
    fn a_folder_that_is_no_longer_what_it_was_serves_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ScratchFolders::new(&Cache::open(dir.path()).unwrap(), None);
        let spoil: [fn(&Path); 5] = [
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap(),
            |path| fs::remove_dir(path).unwrap(),
            |path| {
                fs::remove_dir(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            |path| {
                fs::remove_dir(path).unwrap();
                std::os::unix::fs::symlink("/", path).unwrap();
            },
            |path| {
                let (outer, away) = (path.parent().unwrap(), path.parent().unwrap().with_extension("away"));
                fs::rename(outer, &away).unwrap();
                std::os::unix::fs::symlink(&away, outer).unwrap();
            },
        ];
        for spoil in spoil {
            let scratch = folders.take().unwrap();
            let first = scratch.path().to_owned();
            spoil(&first.join(PROGRAM_FOLDER));
            drop(scratch);
            assert_ne!(folders.take().unwrap().path(), first);
        }
    }
}
