//! External inputs: files beside a pipeline file, and files to fetch.
//!
//! Checks them before anything runs. Gives each its identity for the action key of the stage that reads it, and makes
//! it available once that stage runs ([`obtain`]).

mod kept_folder;
mod obtain;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::cache::{Blob, SourceDigests, StatMemo};
use crate::digest::Digest;
use crate::fetch;
use crate::folder::{Folder, FolderError};
use crate::graph::Graph;
pub(crate) use kept_folder::FolderList;
pub use obtain::{Available, obtain};

use crate::spec::{ExternalInput, Instance, InstanceId, PerInstance, Place, Problem, Problems};
use crate::stage_kinds::{Source, StageKind};

/// What to do about a folder where an archive should be.
const FOLDER_OF_IMAGES: &str = "images in a folder have the key `folder` in place of `archive`: `folder: PATH`";

/// Checked external file.
#[derive(Debug, Clone)]
pub enum CheckedSource {
    /// File on this machine.
    Local {
        /// Path of the file.
        path: PathBuf,
        /// Digest of its bytes.
        digest: Digest,
    },
    /// Folder of files on this machine.
    Folder {
        /// Path of the folder.
        path: PathBuf,
        /// Digest of the names and contents of its files.
        digest: Digest,
    },
    /// File to fetch; its identity is the publisher's digest.
    Remote {
        /// Address and digest, as the pipeline gives them.
        source: Source,
    },
    /// File that a person has to fetch.
    ///
    /// Its identity is the publisher's digest, whether or not it exists. Without one, its identity is the digest of its
    /// bytes. Nothing downstream has a key until it exists.
    ByHand {
        /// Expected path.
        path: PathBuf,
        /// Description in the pipeline.
        source: Source,
        /// Digest of its bytes, if it exists.
        digest: Option<Digest>,
    },
    /// File of another machine, whose bytes are in the cache.
    Kept {
        /// Path on the machine that the plan was made on.
        path: PathBuf,
        /// Its identity there.
        identity: String,
        /// Its bytes.
        blob: Blob,
    },
    /// Folder of another machine, whose files are in the cache.
    KeptFolder {
        /// Path on the machine that the plan was made on.
        path: PathBuf,
        /// Digest of the names and contents of its files.
        digest: Digest,
        /// Blob with the list of its files.
        list: Blob,
    },
}

impl CheckedSource {
    /// Returns the identity of the file in an action.
    pub fn identity(&self) -> String {
        match self {
            CheckedSource::Local { digest, .. }
            | CheckedSource::Folder { digest, .. }
            | CheckedSource::KeptFolder { digest, .. } => format!("blake3:{digest}"),
            CheckedSource::Kept { identity, .. } => identity.clone(),
            // The pipeline reader rejects a remote source without a digest. A manual one without a digest is then a
            // local file or missing: no action with this identity is ever recorded.
            CheckedSource::Remote { source } | CheckedSource::ByHand { source, .. } => {
                source.published().unwrap_or_else(|| "missing".to_owned())
            }
        }
    }

    /// Returns the path of a file that a person still has to fetch.
    pub fn awaited(&self) -> Option<&Path> {
        match self {
            CheckedSource::ByHand { path, digest: None, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether a local file or folder still has the contents that it had when it was checked; reads it.
    pub fn is_unchanged(&self) -> bool {
        match (self, self.local()) {
            (_, None) => true,
            (CheckedSource::Folder { .. }, Some((path, digest))) => {
                Folder::list(path).and_then(|folder| folder.read_digest()).is_ok_and(|now| now == digest)
            }
            (_, Some((path, digest))) => Digest::of_file(path).is_ok_and(|now| now == digest),
        }
    }

    /// Returns the local file or folder and its digest; `None` for a file that has to be fetched.
    pub fn local(&self) -> Option<(&Path, Digest)> {
        match self {
            CheckedSource::Local { path, digest } | CheckedSource::Folder { path, digest } => Some((path, *digest)),
            CheckedSource::ByHand { path, digest, .. } => digest.map(|digest| (path.as_path(), digest)),
            CheckedSource::Remote { .. } | CheckedSource::Kept { .. } | CheckedSource::KeptFolder { .. } => None,
        }
    }
}

/// External files of the wanted instances of a pipeline.
#[derive(Debug, Default)]
pub struct ExternalInputs {
    by_slot: HashMap<(InstanceId, String), CheckedSource>,
    awaited: Vec<Problem>,
}

impl ExternalInputs {
    /// Checks the external files of the wanted instances: every local file exists, is readable, and matches its digest.
    ///
    /// Files that a person has to fetch may be missing ([`ExternalInputs::awaited`]).
    ///
    /// # Errors
    /// A [`Problem`] at its place for each faulty file.
    pub fn check(graph: &Graph, wanted: &PerInstance<bool>, memo: &mut StatMemo) -> Result<Self, Problems> {
        let of = |id: InstanceId| graph.instance(id).sources.iter().map(move |need| (id, need));
        let needs: Vec<(InstanceId, &ExternalInput)> = graph.ids().filter(|id| wanted[*id]).flat_map(of).collect();
        let (mut paths, mut folders) = (Paths::default(), Paths::default());
        let mut local = Vec::with_capacity(needs.len());
        for (id, need) in &needs {
            let path = graph.instance(*id).source_file(need);
            local.push(path.map(|path| if need.source.is_folder { folders.add(path) } else { paths.add(path) }));
        }
        let read = |path: &Path| -> io::Result<SourceDigests> {
            let sums = fetch::checksums(path)?;
            Ok(SourceDigests { blake3: sums.blake3, sha256: sums.sha256, md5: sums.md5 })
        };
        let files = memo.digests(&paths.list, read);
        let mut digest = |path: &PathBuf| Folder::list(path).and_then(|folder| memo.folder(&folder));
        let trees: Vec<Result<Digest, FolderError>> = folders.list.iter().map(&mut digest).collect();
        let mut sources = ExternalInputs::default();
        let mut problems: Vec<Problem> = Vec::new();
        for ((id, need), local) in needs.into_iter().zip(local) {
            let checked = match local {
                None => Ok(CheckedSource::Remote { source: need.source.clone() }),
                Some(at) if need.source.is_folder => {
                    check_folder(graph.instance(id), need, &folders.list[at], &trees[at])
                }
                Some(at) => check(graph.instance(id), need, &paths.list[at], &files[at]),
            };
            match checked {
                Ok(checked) => {
                    if let Some(path) = checked.awaited().filter(|_| need.source.published().is_none()) {
                        sources.awaited.push(missing(graph.instance(id), need, path));
                    }
                    sources.by_slot.insert((id, need.slot.clone()), checked);
                }
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(sources) } else { Err(Problems(problems)) }
    }

    /// Takes over files that were checked before, each with its instance and its slot.
    pub fn checked_before(checked: impl IntoIterator<Item = (InstanceId, String, CheckedSource)>) -> Self {
        let by_slot = checked.into_iter().map(|(id, slot, source)| ((id, slot), source)).collect();
        ExternalInputs { by_slot, awaited: Vec::new() }
    }

    /// Returns a problem for each missing file that a person has to fetch and that has no published digest.
    ///
    /// The stages that read it have no key, so a run fails on it sooner or later.
    pub fn awaited(&self) -> &[Problem] {
        &self.awaited
    }

    /// Returns a checked file.
    ///
    /// # Panics
    /// If the file was not checked: callers may ask for wanted instances only.
    pub fn get(&self, id: InstanceId, need: &ExternalInput) -> &CheckedSource {
        &self.by_slot[&(id, need.slot.clone())]
    }
}

/// Paths, each once: many instances may read one file, and it is read once.
#[derive(Default)]
struct Paths {
    list: Vec<PathBuf>,
    position: HashMap<PathBuf, usize>,
}

impl Paths {
    fn add(&mut self, path: PathBuf) -> usize {
        *self.position.entry(path).or_insert_with_key(|path| {
            self.list.push(path.clone());
            self.list.len() - 1
        })
    }
}

fn check_folder(
    instance: &Instance,
    need: &ExternalInput,
    path: &Path,
    digest: &Result<Digest, FolderError>,
) -> Result<CheckedSource, Problem> {
    match digest {
        Ok(digest) => Ok(CheckedSource::Folder { path: path.to_owned(), digest: *digest }),
        Err(error) if error.is_missing() && !path.exists() => Err(missing(instance, need, path)),
        Err(error) => {
            let problem = Problem::at(path_place(instance, need), error.to_string(), "cannot be read");
            Err(if path.is_file() { problem.help("a file is an `archive: {path: …}`") } else { problem })
        }
    }
}

fn check(
    instance: &Instance,
    need: &ExternalInput,
    path: &Path,
    digests: &io::Result<SourceDigests>,
) -> Result<CheckedSource, Problem> {
    let source = &need.source;
    let place = |field| instance.source_place(need, field);
    let digests = match digests {
        Ok(digests) => digests,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if source.by_hand.is_some() {
                return Ok(CheckedSource::ByHand { path: path.to_owned(), source: source.clone(), digest: None });
            }
            return Err(missing(instance, need, path));
        }
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            let problem = Problem::at(path_place(instance, need), message, "cannot be read");
            let is_image_folder = path.is_dir() && need.slot.ends_with("archive");
            return Err(if is_image_folder { problem.help(FOLDER_OF_IMAGES) } else { problem });
        }
    };
    for (field, wanted, found) in [("sha256", &source.sha256, &digests.sha256), ("md5", &source.md5, &digests.md5)] {
        if let Some(wanted) = wanted
            && !wanted.eq_ignore_ascii_case(found)
        {
            let message = format!("{} has another {field} than the pipeline says", path.display());
            let problem = Problem::at(place(Some(field)), message, format!("found {found}"));
            return Err(
                problem.help("the file is not the one meant, or is damaged: get it again, or correct the digest")
            );
        }
    }
    let (path, digest) = (path.to_owned(), digests.blake3);
    Ok(match (&source.by_hand, source.published()) {
        (Some(_), Some(_)) => CheckedSource::ByHand { path, source: source.clone(), digest: Some(digest) },
        _ => CheckedSource::Local { path, digest },
    })
}

/// Returns the place of a source's path in the pipeline.
///
/// The files of a command, and folders, are bare names; other sources are mappings with a `path`.
fn path_place(instance: &Instance, need: &ExternalInput) -> Place {
    let is_bare = instance.kind == StageKind::Command || need.source.is_folder;
    instance.source_place(need, if is_bare { None } else { Some("path") })
}

/// Returns the problem of a missing file.
fn missing(instance: &Instance, need: &ExternalInput, path: &Path) -> Problem {
    let what = if need.source.is_folder { "folder" } else { "file" };
    let message = format!("there is no {what} {}", path.display());
    Problem::at(path_place(instance, need), message, "not found").help(match &need.source.by_hand {
        Some(text) => by_hand(text),
        None => {
            let folder = shown_folder(instance.folder());
            format!("paths are relative to the pipeline file, in {folder}{}", of_a_link(instance.written_in()))
        }
    })
}

/// Returns a hint if the pipeline file is a link: paths are relative to the folder of the link, not of its target.
fn of_a_link(file: &Path) -> String {
    match std::fs::read_link(file) {
        Ok(_) => {
            let real = std::fs::canonicalize(file).unwrap_or_default();
            let (file, real) = (file.display(), real.display());
            format!("; {file} is a link to {real}, and the folder of the link counts, not that of the file")
        }
        Err(_) => String::new(),
    }
}

fn by_hand(text: &str) -> String {
    format!("no program may fetch it, a person has to: {}", text.trim())
}

fn shown_folder(base: &Path) -> String {
    if base.as_os_str().is_empty() { "the current folder".to_owned() } else { base.display().to_string() }
}

/// Returns the messages of an error and its causes, outermost first.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}
