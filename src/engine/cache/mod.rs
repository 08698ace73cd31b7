//! The cache: blobs by digest, manifests by action key. Knows no graph and runs nothing.
//!
//! `docs/cache-format.md` describes the layout. Readers never see a partly written file
//! ([`crate::fsio::write_atomic`]).

mod cas;
mod check;
mod gc_roots;
mod heart_beat;
mod lease;
mod lease_file;
mod lease_holder;
mod live;
mod manifest;
mod noop_memo;
mod origin;
mod partial;
mod rates;
mod read_through;
pub mod remote;
mod result_files;
mod runs;
mod stat;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::action::ActionKey;
use crate::cache::remote::{Remote, RemoteError};
use crate::digest::ReadError;
use crate::fetch::{FetchError, Patience};
use crate::fsio::{self, Context, FileError};
use crate::host::{is_gone, machine, made_by, owner, tag};

use lease_holder::is_forgotten;

pub use cas::IngestError;
pub(crate) use check::SIGNATURE;
pub use check::{Checked, Flaw, FlawKind};
pub(crate) use gc_roots::{CLUSTER_FOLDER, ENDED, WANTED, is_abandoned};
pub use gc_roots::{InProgress, Wanted};
pub use lease::{Attempt, Held, Lease, Leases};
pub use lease_holder::Holder;
pub(crate) use live::LiveFolder;
pub use live::{FoundRun, LIVE_FORMAT, LiveRun, LiveStage, LiveWait, Sign};
pub(crate) use manifest::longest_manifest;
pub use manifest::{Blob, Log, MANIFEST_FORMAT, Made, Manifest};
pub use noop_memo::NoOpMemo;
pub use origin::Origin;
pub use rates::{FileRates, MachineRates, PassRate};
pub use read_through::{Obtained, SharedProgress};
pub use result_files::{Durability, ResultFiles};
pub use runs::{FailedStage, Interrupted, RunId, RunOutcome, RunRecord, ShownFile, Unmade};
pub use stat::{SourceDigests, StatMemo};

/// Version of the layout. A cache of another version is refused, never changed.
pub const CACHE_FORMAT: u32 = 1;

/// Usual name of a cache's folder.
pub const USUAL_FOLDER: &str = "cache";

/// Folders that every cache has.
const FOLDERS: [&str; 4] = ["objects", "actions", "runs", "tmp"];

/// Reason why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A blob cannot be read, or is corrupt.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The remote cache behind this one failed.
    #[error("the remote cache failed")]
    Remote(#[from] RemoteError),
    /// The cache is readable but not writable, and a stage has to run.
    #[error("the cache {} cannot be written, and this run has stages to run", path.display())]
    ReadOnly {
        /// Root of the cache.
        path: PathBuf,
        /// Error of the system.
        source: FileError,
    },
    /// A manifest lacks an output of its kind: no run wrote it.
    #[error("the manifest {} of {stage} has no output `{output}`", path.display())]
    NoOutput {
        /// Path of the manifest.
        path: PathBuf,
        /// Name of the stage.
        stage: String,
        /// Name of the output.
        output: String,
    },
    /// There is no cache to read from.
    #[error("there is no cache at {}: {}", path.display(), if path.is_dir() { "the folder has no VERSION file" } else { "there is no such folder" })]
    NoCache {
        /// Expected root of the cache.
        path: PathBuf,
    },
    /// Another version made the cache.
    #[error("the cache {} has format {found}; this version of atflow reads format {CACHE_FORMAT}", path.display())]
    Format {
        /// Root of the cache.
        path: PathBuf,
        /// Content of its VERSION file.
        found: String,
    },
}

impl CacheError {
    /// Whether the caller stopped a fetch, and nothing failed.
    pub fn is_stopped(&self) -> bool {
        matches!(self, CacheError::Remote(RemoteError::Fetch(FetchError::Stopped)))
    }
}

/// Purpose of opening a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look up results. A missing cache counts as empty and is not created.
    Look,
    /// Read its content. The cache must exist.
    Read,
    /// Write. A missing cache is created.
    Write,
}

/// An open cache, perhaps with a remote cache behind it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    remote: Option<Arc<Remote>>,
    /// Whether runs share work through the remote cache.
    shares_work: bool,
    offline: bool,
    /// Decides which remote results are trusted; without it, all are.
    guard: Option<Arc<origin::Guard>>,
    durability: Durability,
    /// Whether many manifests at once are looked for by listing folders.
    lists: bool,
}

impl Cache {
    /// Opens the cache in a folder for writing.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        Self::open_to(Access::Write, root)
    }

    /// Opens the cache in a folder. Only [`Access::Write`] creates anything.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn open_to(access: Access, root: &Path) -> Result<Self, CacheError> {
        let version = root.join("VERSION");
        match fsio::read_regular(&version, 4096).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) {
            Ok(text) if text.trim() == CACHE_FORMAT.to_string() => {
                if access == Access::Write {
                    // A copy may lack empty folders. A failure to create them matters to writers only.
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
        // Absolute, because the programs of stages run in folders of their own.
        let root = std::path::absolute(root).on("find", root)?;
        let durability = Durability::default();
        Ok(Cache { root, remote: None, shares_work: false, offline: false, guard: None, durability, lists: false })
    }

    /// Puts a remote cache behind this one: it serves results that are not here.
    ///
    /// # Errors
    /// [`CacheError`] if there is no cache at `remote`.
    pub fn read_through(self, remote: &str, patience: Patience) -> Result<Self, CacheError> {
        let remote = Remote::open(remote, patience)?;
        Ok(Cache { remote: Some(Arc::new(remote)), ..self })
    }

    /// Returns the same cache, sharing work with other runs through its remote cache: each takes leases there before
    /// it runs a stage.
    ///
    /// # Errors
    /// [`CacheError`] if there is no remote cache, or it holds no leases.
    pub fn sharing_work(self) -> Result<Self, CacheError> {
        match self.remote.as_ref().map(|remote| (remote, remote.leases())) {
            Some((_, Some(_))) => Ok(Cache { shares_work: true, ..self }),
            Some((remote, None)) => Err(RemoteError::NoLeases { name: remote.name().clone() }.into()),
            None => Err(RemoteError::NoLeases { name: "this run".into() }.into()),
        }
    }

    /// Returns the remote cache through which runs share work, if they do.
    pub fn shared(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref().filter(|_| self.shares_work)
    }

    /// Forgets that the remote cache lacked a key, where runs share work through it: another may have made it
    /// meanwhile.
    pub(crate) fn forget_absence(&self, key: ActionKey) {
        if let Some(remote) = self.shared() {
            remote.forget_absence(key);
        }
    }

    /// Returns the root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a temporary folder for the files of one running stage; dropping it removes it.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn scratch(&self) -> Result<tempfile::TempDir, CacheError> {
        // A copy of a cache may lack it.
        fsio::create_dir(&self.tmp())?;
        Self::scratch_in(&self.tmp())
    }

    /// The same in another folder.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn scratch_in(folder: &Path) -> Result<tempfile::TempDir, CacheError> {
        let prefix = format!("stage-{}{}-", owner(), std::process::id());
        Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).on("make a folder in", folder)?)
    }

    /// Removes leftovers of killed runs: temporary files and folders, leases, states, and progress of finished
    /// trainings.
    ///
    /// Leftovers of other machines are removed if they were not touched for a day.
    pub fn clear_abandoned(&self) {
        self.clear_abandoned_in(&self.tmp());
        self.clear_finished_partials();
        self.clear_dead_leases();
        self.clear_dead_live_runs();
    }

    /// Removes temporary files and folders of killed runs from a folder.
    pub(crate) fn clear_abandoned_in(&self, folder: &Path) {
        let own = tag(machine());
        let mut living = None;
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let is_folder = name.starts_with("stage-");
            let made_by = made_by(&name, "stage-").or_else(|| made_by(&name, "file-"));
            let is_abandoned = made_by.is_some_and(|(tag, pid)| match tag == own {
                true => is_gone(pid),
                // Processes of other machines are not observable. A live run touches its note, however long it takes.
                false => {
                    let living: &Vec<(String, i32)> = living.get_or_insert_with(|| self.in_progress().owners);
                    is_forgotten(&path) && !living.iter().any(|owner| (owner.0.as_str(), owner.1) == (tag, pid))
                }
            });
            // Another run may remove the same: only the removal matters.
            match (is_abandoned, is_folder) {
                (false, _) => {}
                (true, true) => _ = std::fs::remove_dir_all(path),
                (true, false) => _ = std::fs::remove_file(path),
            }
        }
    }

    /// Turns a failed write into [`CacheError::ReadOnly`] if the cache is not writable at all.
    fn unwritable(&self, source: FileError) -> CacheError {
        match source.source.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                CacheError::ReadOnly { path: self.root.clone(), source }
            }
            _ => source.into(),
        }
    }

    /// Returns the same cache, offline: it fetches nothing.
    #[must_use]
    pub fn offline(self) -> Self {
        Cache { remote: None, shares_work: false, offline: true, ..self }
    }

    /// Returns the same cache, which lists folders before it looks for many manifests at once. On a network file system
    /// that costs less than to open a file that is not there for each.
    #[must_use]
    pub fn listing(self) -> Self {
        Cache { lists: true, ..self }
    }

    /// Whether folders are listed before many manifests are looked for.
    pub(crate) fn lists_first(&self) -> bool {
        self.lists
    }

    /// Whether fetching is forbidden.
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
