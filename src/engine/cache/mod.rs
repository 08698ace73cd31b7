//! The cache: blobs by their digest, manifests by the key of the stage that made them. Knows no graph and runs nothing.
//! `docs/cache-format.md` tells the layout; nothing half-written is ever visible in it ([`crate::fsio::write_atomic`]).

mod check;
mod manifest;
mod objects;
mod runs;
mod stat;

use std::path::{Path, PathBuf};

use crate::fsio::{self, Context, FileError};
use crate::record::Key;

pub use check::{Checked, Flaw, FlawKind};
pub use manifest::{MANIFEST_FORMAT, Made, Manifest, OutputBlob};
pub use runs::{FailedStage, RunRecord};
pub use stat::{SourceDigests, StatMemo};

/// Version of the layout. A cache of another version is refused, never changed.
pub const CACHE_FORMAT: u32 = 1;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache was made by another version.
    #[error("the cache {} has format {found}; this version of atflow reads format {CACHE_FORMAT}", path.display())]
    Format {
        /// The cache.
        path: PathBuf,
        /// What its VERSION file says.
        found: String,
    },
}

/// An open cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens the cache in a folder, making it if it is not there.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let version = root.join("VERSION");
        match std::fs::read_to_string(&version) {
            Ok(text) if text.trim() == CACHE_FORMAT.to_string() => {}
            Ok(text) => return Err(CacheError::Format { path: root.to_owned(), found: text.trim().to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fsio::create_dir(&root.join("tmp"))?;
                fsio::write_atomic(&version, &root.join("tmp"), format!("{CACHE_FORMAT}\n").as_bytes())?;
            }
            Err(error) => return Err(Err::<(), _>(error).on("read", &version).unwrap_err().into()),
        }
        for folder in ["objects", "actions", "runs", "tmp"] {
            fsio::create_dir(&root.join(folder))?;
        }
        // Absolute, because programs run by stages work in folders of their own.
        let root = std::path::absolute(root).on("find", root)?;
        Ok(Cache { root })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A fresh folder for the files of one stage while it runs; removed when dropped.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn scratch(&self) -> Result<tempfile::TempDir, CacheError> {
        let tmp = self.tmp();
        let prefix = format!("{}{}-", scratch_prefix(), std::process::id());
        Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(&tmp).on("make a folder in", &tmp)?)
    }

    /// Removes the scratch folders that killed runs of this machine left behind.
    pub fn clear_abandoned(&self) {
        let prefix = scratch_prefix();
        for entry in walkdir::WalkDir::new(self.tmp()).min_depth(1).max_depth(1).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            let owner =
                name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
            let is_gone = |pid: i32| {
                rustix::process::Pid::from_raw(pid)
                    .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
            };
            if owner.is_some_and(is_gone) {
                // Another run may be at the same: what matters is that it goes.
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn action_path(&self, key: Key) -> PathBuf {
        let name = key.to_string();
        self.root.join("actions").join(&name[..2]).join(format!("{name}.json"))
    }
}

/// Scratch folders are named by machine and process, so that those of the dead are known.
fn scratch_prefix() -> String {
    let host: String = gethostname::gethostname().to_string_lossy().replace('-', "_");
    format!("stage-{host}-")
}
