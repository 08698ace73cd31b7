//! Files from outside the cache: those beside a pipeline file, and those fetched. Finds what is wrong with them before
//! anything runs, gives each its identity for the key of the stage that reads it, and brings it in when that stage
//! runs.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::cache::{Cache, SourceDigests, StatMemo};
use crate::digest::Digest;
use crate::executors::Reporter;
use crate::fetch::{self, FetchError, Patience};
use crate::graph::Graph;
use crate::protocol::{Failure, FailureCode};
use crate::spec::{ExternalInput, Instance, InstanceId, Place, Problem, Problems};
use crate::stage_kinds::{Source, StageKind};

/// A source that was checked.
#[derive(Debug, Clone)]
pub enum CheckedSource {
    /// A file of this machine.
    Local {
        /// Where it is.
        path: PathBuf,
        /// The digest of its bytes.
        digest: Digest,
    },
    /// A file to fetch; its publisher's digest is its identity.
    Remote {
        /// Where, and with which digest.
        source: Source,
    },
    /// A file that a person has to fetch. Its publisher's digest is its identity, whether it is there or not; without
    /// one, only its bytes are, and until it is there nothing that comes of it can be known.
    ByHand {
        /// Where it is to be.
        path: PathBuf,
        /// What the pipeline says of it.
        source: Source,
        /// The digest of its bytes, if it is there.
        digest: Option<Digest>,
    },
}

impl CheckedSource {
    /// What stands for the source in a record.
    pub fn identity(&self) -> String {
        match self {
            CheckedSource::Local { digest, .. } => format!("blake3:{digest}"),
            // Without a digest a remote source is refused when the pipeline is read. One by hand is then a local file,
            // or is missing: nothing is ever recorded under that name.
            CheckedSource::Remote { source } | CheckedSource::ByHand { source, .. } => {
                source.published().unwrap_or_else(|| "missing".to_owned())
            }
        }
    }

    /// The file that a person still has to bring, if that is what it is.
    pub fn awaited(&self) -> Option<&Path> {
        match self {
            CheckedSource::ByHand { path, digest: None, .. } => Some(path),
            _ => None,
        }
    }

    /// The file of this machine that it is, and the digest of its bytes; nothing for a file that has to be fetched.
    pub fn local(&self) -> Option<(&Path, Digest)> {
        match self {
            CheckedSource::Local { path, digest } => Some((path, *digest)),
            CheckedSource::ByHand { path, digest, .. } => digest.map(|digest| (path.as_path(), digest)),
            CheckedSource::Remote { .. } => None,
        }
    }
}

/// All sources of a pipeline that a run needs.
#[derive(Debug, Default)]
pub struct ExternalInputs {
    by_slot: HashMap<(InstanceId, String), CheckedSource>,
    awaited: Vec<Problem>,
}

impl ExternalInputs {
    /// Checks the sources of the wanted instances: every local file is there, can be read, and has the digest that the
    /// pipeline names. Files that a person has to fetch may be missing ([`ExternalInputs::awaited`]).
    ///
    /// # Errors
    /// A [`Problem`] at its place for each source that is not right.
    pub fn check(graph: &Graph, wanted: &[bool], memo: &mut StatMemo) -> Result<Self, Problems> {
        let of = |id: InstanceId| graph.instance(id).sources.iter().map(move |need| (id, need));
        let needs: Vec<(InstanceId, &ExternalInput)> = graph.ids().filter(|id| wanted[id.0]).flat_map(of).collect();
        // Many instances may read one file: it is looked at once.
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut position: HashMap<PathBuf, usize> = HashMap::new();
        let mut local = Vec::with_capacity(needs.len());
        for (id, need) in &needs {
            local.push(graph.instance(*id).source_file(need).map(|path| {
                *position.entry(path).or_insert_with_key(|path| {
                    paths.push(path.clone());
                    paths.len() - 1
                })
            }));
        }
        let read = |path: &Path| -> io::Result<SourceDigests> {
            let sums = fetch::checksums(path)?;
            Ok(SourceDigests { blake3: sums.blake3, sha256: sums.sha256, md5: sums.md5 })
        };
        let files = memo.digests(&paths, read);
        let mut sources = ExternalInputs::default();
        let mut problems: Vec<Problem> = Vec::new();
        for ((id, need), local) in needs.into_iter().zip(local) {
            let checked = match local {
                None => Ok(CheckedSource::Remote { source: need.source.clone() }),
                Some(at) => check(graph.instance(id), need, &paths[at], &files[at]),
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

    /// Files that a person has to fetch, that are not there, and without which nothing can be known of the stages that
    /// read them: a problem at its place for each. A run ends with them sooner or later.
    pub fn awaited(&self) -> &[Problem] {
        &self.awaited
    }

    /// A source that was checked.
    ///
    /// # Panics
    /// If it was not: only wanted instances are ever asked for.
    pub fn get(&self, id: InstanceId, need: &ExternalInput) -> &CheckedSource {
        &self.by_slot[&(id, need.slot.clone())]
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
            return Err(Problem::at(path_place(instance, need), message, "cannot be read"));
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

/// Where the path of a source is written. The files of a command are bare names, other sources are mappings with a
/// `path`.
fn path_place(instance: &Instance, need: &ExternalInput) -> Place {
    instance.source_place(need, if instance.kind == StageKind::Command { None } else { Some("path") })
}

/// The problem of a file that is not there.
fn missing(instance: &Instance, need: &ExternalInput, path: &Path) -> Problem {
    let message = format!("there is no file {}", path.display());
    Problem::at(path_place(instance, need), message, "not found").help(match &need.source.by_hand {
        Some(text) => by_hand(text),
        None => {
            let folder = shown_folder(instance.folder());
            format!("paths are relative to the pipeline file, in {folder}{}", of_a_link(instance.written_in()))
        }
    })
}

/// What to add where the pipeline file is a link, or its folder is reached by one: what it leads to does not count.
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

/// Brings a source to this machine and gives its file and digest: a local one is where it is, a remote one is fetched
/// into the cache unless it is there.
///
/// # Errors
/// A [`Failure`] of the stage that needs it.
pub fn obtain(source: &CheckedSource, cache: &Cache, reporter: &dyn Reporter) -> Result<(PathBuf, Digest), Failure> {
    if let Some((path, digest)) = source.local() {
        return Ok((path.to_owned(), digest));
    }
    let failed = |message: String, causes: Vec<String>| Failure { code: FailureCode::Broken, message, causes };
    let source = match source {
        CheckedSource::Remote { source } => source,
        CheckedSource::Local { path, .. } => return Err(failed(format!("{} is gone", path.display()), Vec::new())),
        CheckedSource::ByHand { path, source, .. } => {
            let text = by_hand(source.by_hand.as_deref().unwrap_or_default());
            return Err(failed(format!("there is no file {}", path.display()), vec![text]));
        }
    };
    let identity = source.published().unwrap_or_default();
    if let Some(blob) = cache.fetched(&identity).filter(|blob| cache.has(*blob)) {
        return Ok((cache.object_path(blob.digest), blob.digest));
    }
    let url = Address::new(source.url.as_deref().unwrap_or_default());
    if cache.is_offline() {
        return Err(failed(format!("{url} has to be fetched, and this run is offline"), Vec::new()));
    }
    // A place of its own by identity, so that a fetch that was cut off goes on where it stopped; locked, so that two
    // runs do not write into it at once.
    let stopped = || Failure { code: FailureCode::Cancelled, message: "stopped".to_owned(), causes: Vec::new() };
    let place = cache.fetch_place(&identity, &mut || {
        reporter.progress(0, 0, "waiting for another run, which fetches the same");
        reporter.cancelled()
    });
    let place = place.map_err(|error| failed(format!("could not fetch {url}"), causes(&error)))?;
    let Some((file, _lock)) = place else { return Err(stopped()) };
    if let Some(blob) = cache.fetched(&identity).filter(|blob| cache.has(*blob)) {
        return Ok((cache.object_path(blob.digest), blob.digest));
    }
    let progress = &mut |done: u64, total: Option<u64>| {
        let of = total.map(|total| format!(" of {:.1}", total as f64 / 1e6)).unwrap_or_default();
        reporter.progress(done, total.unwrap_or(0), &format!("fetching {:.1}{of} MB", done as f64 / 1e6));
        if reporter.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let trying = &mut |url: &Address, failed: Option<&FetchError>| {
        if let Some(error) = failed {
            reporter.log(&format!("that failed: {}", causes(error).join(": ")));
        }
        reporter.log(&format!("fetching {url}"));
    };
    fetch::fetch(source, &file, &Patience::default(), trying, progress).map_err(|error| match error {
        FetchError::Stopped => stopped(),
        error => failed(format!("could not fetch {url}"), causes(&error)),
    })?;
    let blob = cache.ingest(&file).map_err(|error| failed(format!("could not keep {url}"), causes(&error)))?;
    cache.remember_fetched(&identity, blob).map_err(|error| failed(format!("could not keep {url}"), causes(&error)))?;
    cache.leave_fetch_place(&file);
    Ok((cache.object_path(blob.digest), blob.digest))
}

/// An error and what caused it, outermost first.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}
