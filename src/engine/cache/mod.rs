//! The cache: blobs by their digest, manifests by the key of the stage that made them. Knows no graph and runs nothing.
//! `docs/cache-format.md` tells the layout; nothing half-written is ever visible in it ([`crate::fsio::write_atomic`]).

mod cas;
mod check;
mod gc_roots;
mod lease;
mod manifest;
mod origin;
mod partial;
mod read_through;
pub mod remote;
mod runs;
mod stat;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::action::ActionKey;
use crate::cache::remote::{Remote, RemoteError};
use crate::digest::ReadError;
use crate::fetch::Patience;
use crate::fsio::{self, Context, FileError};
use crate::host::{is_gone, machine, made_by, owner, tag};

use lease::is_forgotten;

pub use cas::IngestError;
pub(crate) use check::SIGNATURE;
pub use check::{Checked, Flaw, FlawKind};
pub use gc_roots::{InProgress, Wanted};
pub use lease::{Attempt, Held, Holder, Lease, Leases};
pub(crate) use manifest::longest_manifest;
pub use manifest::{Blob, MANIFEST_FORMAT, Made, Manifest};
pub use origin::Origin;
pub use read_through::Obtained;
pub use runs::{FailedStage, RunRecord};
pub use stat::{SourceDigests, StatMemo};

/// Version of the layout. A cache of another version is refused, never changed.
pub const CACHE_FORMAT: u32 = 1;

/// What every cache has.
const FOLDERS: [&str; 4] = ["objects", "actions", "runs", "tmp"];

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// A blob cannot be read, or has other bytes than its digest says.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The remote cache that is read through failed.
    #[error("the remote cache failed")]
    Remote(#[from] RemoteError),
    /// The cache can be read but not written, and something has to be.
    #[error("the cache {} cannot be written, and this run has stages to run", path.display())]
    ReadOnly {
        /// The cache.
        path: PathBuf,
        /// What the system said.
        source: FileError,
    },
    /// A manifest does not have an output that results of its kind have: it was not written by a run.
    #[error("the manifest {} of {stage} has no output `{output}`", path.display())]
    NoOutput {
        /// The manifest.
        path: PathBuf,
        /// The stage.
        stage: String,
        /// The output.
        output: String,
    },
    /// There is no cache, and something was to be read from it.
    #[error("there is no cache at {}: {}", path.display(), if path.is_dir() { "the folder has no VERSION file" } else { "there is no such folder" })]
    NoCache {
        /// Where it was to be.
        path: PathBuf,
    },
    /// The cache was made by another version.
    #[error("the cache {} has format {found}; this version of atflow reads format {CACHE_FORMAT}", path.display())]
    Format {
        /// The cache.
        path: PathBuf,
        /// What its VERSION file says.
        found: String,
    },
}

/// What a cache is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To see what is known, perhaps nothing: one that is not there is as an empty one, and is not made.
    Look,
    /// To read what is in it: it has to be there.
    Read,
    /// To write: it is made if it is not there.
    Write,
}

/// An open cache, and perhaps a remote one that is read through it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    remote: Option<Arc<Remote>>,
    offline: bool,
    /// Says which results from elsewhere count; without it all do.
    guard: Option<Arc<origin::Guard>>,
}

impl Cache {
    /// Opens the cache in a folder to write in it.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        Self::open_to(Access::Write, root)
    }

    /// Opens the cache in a folder. Only who writes makes anything there.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open_to(access: Access, root: &Path) -> Result<Self, CacheError> {
        let version = root.join("VERSION");
        match fsio::read_regular(&version, 4096).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) if text.trim() == CACHE_FORMAT.to_string() => {
                if access == Access::Write {
                    // A copy may lack folders that were empty. One that cannot be made matters to those who write into
                    // it, not to readers.
                    FOLDERS.iter().for_each(|folder| _ = fsio::create_dir(&root.join(folder)));
                }
            }
            Ok(text) => return Err(CacheError::Format { path: root.to_owned(), found: text.trim().to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match access {
                Access::Look => {}
                Access::Read => return Err(CacheError::NoCache { path: root.to_owned() }),
                Access::Write => {
                    for folder in FOLDERS {
                        fsio::create_dir(&root.join(folder))?;
                    }
                    fsio::write_atomic(&version, &root.join("tmp"), format!("{CACHE_FORMAT}\n").as_bytes())?;
                }
            },
            Err(error) => return Err(Err::<(), _>(error).on("read", &version).unwrap_err().into()),
        }
        // Absolute, because programs run by stages work in folders of their own.
        let root = std::path::absolute(root).on("find", root)?;
        Ok(Cache { root, remote: None, offline: false, guard: None })
    }

    /// The same cache with a remote one behind it: what is not here is looked for there.
    ///
    /// # Errors
    /// [`CacheError`] if there is no cache at `remote`.
    pub fn read_through(self, remote: &str, patience: Patience) -> Result<Self, CacheError> {
        let remote = Remote::open(remote, patience)?;
        Ok(Cache { remote: Some(Arc::new(remote)), ..self })
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
        let prefix = format!("stage-{}{}-", owner(), std::process::id());
        // A copy of a cache may lack it.
        fsio::create_dir(&tmp)?;
        Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(&tmp).on("make a folder in", &tmp)?)
    }

    /// Removes what killed runs left behind: their temporary files and folders, their leases, and the progress of
    /// trainings that were finished. Of runs on other machines, what was not touched for a day.
    pub fn clear_abandoned(&self) {
        let own = tag(machine());
        let mut living = None;
        for entry in std::fs::read_dir(self.tmp()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let is_folder = name.starts_with("stage-");
            let made_by = made_by(&name, "stage-").or_else(|| made_by(&name, "file-"));
            let is_abandoned = made_by.is_some_and(|(tag, pid)| match tag == own {
                true => is_gone(pid),
                // Processes of other machines cannot be looked at. A run touches its note, whatever takes it so long.
                false => {
                    let living: &Vec<(String, i32)> = living.get_or_insert_with(|| self.in_progress().owners);
                    is_forgotten(&path) && !living.iter().any(|owner| (owner.0.as_str(), owner.1) == (tag, pid))
                }
            });
            // Another run may be at the same: what matters is that it goes.
            match (is_abandoned, is_folder) {
                (false, _) => {}
                (true, true) => _ = std::fs::remove_dir_all(path),
                (true, false) => _ = std::fs::remove_file(path),
            }
        }
        self.clear_finished_partials();
        self.clear_dead_leases();
    }

    /// A failed write as an error of the cache as a whole, where nothing can be written at all.
    fn unwritable(&self, source: FileError) -> CacheError {
        match source.source.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                CacheError::ReadOnly { path: self.root.clone(), source }
            }
            _ => source.into(),
        }
    }

    /// The same cache with nothing fetched for it.
    #[must_use]
    pub fn offline(self) -> Self {
        Cache { remote: None, offline: true, ..self }
    }

    /// Whether nothing may be fetched.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Whether there is a remote cache behind this one.
    pub fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn action_path(&self, key: ActionKey) -> PathBuf {
        let name = key.to_string();
        self.root.join("actions").join(&name[..2]).join(format!("{name}.json"))
    }
}
