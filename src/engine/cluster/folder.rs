//! The folder of a run that agents share, `CACHE/cluster/RUN`: its paths, and the notes in it.
//!
//! Where machines share no folder, what agents read and write is in a bucket under the same names, and the folder of
//! the machine that submits agents holds the rest. Every note is a file that appears whole. A note that cannot be read
//! counts as absent: another version wrote it, or a file system lost it. Notes are for people, for agents that would
//! repeat a failure, and for whoever submits agents. No result depends on them.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::news;
pub use super::notes::{AgentNote, AgentStage, ExitNote, ExitReason, FailureNote, JobLine, RunEnd};
use super::shared_notes::{SharedNotes, names};
use crate::action::ActionKey;
use crate::cache::remote::{Remote, RemoteError, RemoteNotes};
use crate::cache::{CLUSTER_FOLDER, Cache, CacheError, ENDED, RunId, RunOutcome, WANTED, Wanted};
use crate::fetch::Patience;
use crate::fsio::{self, Context, FileError};

/// Largest list of submissions that is read.
const LARGEST_LIST: u64 = 16 << 20;

/// Largest plan that is read. A plan of 50,000 instances has some 10 MB.
const LARGEST_PLAN: u64 = 1 << 30;

/// Name of the file with the plan.
const PLAN: &str = "plan.json";
/// Name of the file with the submissions.
const JOBS: &str = "jobs.jsonl";
/// Name of the file with the bucket that agents share, where they share no folder.
const BUCKET: &str = "bucket";
/// Name of the file that stops all agents.
const CANCEL: &str = "cancel";
const AGENTS: &str = "agents";
const EXITS: &str = "exit";
const FAILED: &str = "failed";
const NEWS: &str = "news";

/// Reason why a run is not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No run has this name.
    #[error("the cache {} has no run `{name}` for agents", cache.display())]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Root of the cache.
        cache: PathBuf,
        /// Short names of the runs that there are, newest first.
        known: Vec<String>,
    },
    /// Several runs have this name.
    #[error("`{name}` may be any of {}", known.join(", "))]
    Ambiguous {
        /// The name that was asked for.
        name: String,
        /// Full names of the runs.
        known: Vec<String>,
    },
    /// The bucket cannot be asked.
    #[error(transparent)]
    Bucket(#[from] RemoteError),
}

/// Folder of a run that agents share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    id: RunId,
    path: PathBuf,
    /// Folder for unfinished files, on the same file system.
    scratch: PathBuf,
    /// What agents read and write.
    shared: SharedNotes,
}

impl RunFolder {
    /// Returns the folder of a run, which need not exist. Its notes are in the bucket through which the cache shares
    /// work, if it does.
    pub fn of(cache: &Cache, id: &RunId) -> Self {
        Self::with_notes(cache, id, cache.shared().and_then(|remote| remote.notes()))
    }

    fn with_notes(cache: &Cache, id: &RunId, notes: Option<RemoteNotes>) -> Self {
        let path = cache.root().join(CLUSTER_FOLDER).join(&id.0);
        let scratch = cache.root().join("tmp");
        let shared = match notes {
            Some(notes) => SharedNotes::in_bucket(notes, &id.0),
            None => SharedNotes::Folder { path: path.clone(), scratch: scratch.clone() },
        };
        RunFolder { id: id.clone(), path, scratch, shared }
    }

    /// Returns the folder of a run that was submitted with this cache.
    fn submitted(cache: &Cache, id: &RunId) -> Self {
        let folder = Self::of(cache, id);
        match folder.bucket().map(|name| Remote::named(&name, Patience::default())) {
            Some(Ok(remote)) => Self::with_notes(cache, id, remote.notes()),
            Some(Err(_)) | None => folder,
        }
    }

    /// Returns the address of the bucket that the agents of a run share, if the run was submitted with this cache and
    /// agents share no folder.
    pub fn bucket(&self) -> Option<String> {
        let bytes = fsio::read_regular(&self.path.join(BUCKET), 64 << 10).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Whether agents of the run share a bucket, not a folder.
    pub fn is_in_bucket(&self) -> bool {
        self.shared.is_in_bucket()
    }

    /// Returns a cache that has the results of the run: `cache`, with the bucket behind it that the agents share.
    ///
    /// # Errors
    /// [`CacheError`] if the bucket cannot be asked.
    pub fn cache(&self, cache: &Cache) -> Result<Cache, CacheError> {
        match self.bucket().filter(|_| cache.shared().is_none()) {
            Some(bucket) => cache.clone().read_through(&bucket, Patience::default())?.sharing_work(),
            None => Ok(cache.clone()),
        }
    }

    /// Returns a new name for a run. Names sort by time.
    pub fn new_id() -> RunId {
        RunId(format!("{:020}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id()))
    }

    /// Returns the folders of all runs of a cache that have a plan, newest first. If the cache shares work through a
    /// bucket, these are the runs in the bucket.
    ///
    /// # Errors
    /// [`FindError::Bucket`].
    fn known(cache: &Cache) -> Result<Vec<RunFolder>, FindError> {
        let mut all = match cache.shared().and_then(|remote| remote.notes()) {
            Some(notes) => {
                let names = notes.folders(CLUSTER_FOLDER)?;
                names.into_iter().map(|name| RunFolder::of(cache, &RunId(name))).collect()
            }
            None => Self::all(cache),
        };
        all.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        Ok(all)
    }

    /// Returns the folders of all runs that were submitted with a cache and have a plan, newest first.
    pub fn all(cache: &Cache) -> Vec<RunFolder> {
        let names = names(&cache.root().join(CLUSTER_FOLDER));
        let mut all: Vec<RunFolder> = names.into_iter().map(|name| Self::submitted(cache, &RunId(name))).collect();
        all.retain(|folder| folder.plan_path().is_file());
        all.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        all
    }

    /// Finds a run by its full name, its short name or a beginning of either.
    ///
    /// # Errors
    /// [`FindError`] if no run or several runs have the name.
    pub fn find(cache: &Cache, name: &str) -> Result<RunFolder, FindError> {
        // The usual case: an agent is given the full name, and reads nothing else.
        let is_plain = Path::new(name).file_name().is_some_and(|file| file == name);
        if is_plain {
            let exact = RunFolder::submitted(cache, &RunId(name.to_owned()));
            let is_there = if exact.is_in_bucket() { exact.shared.has(PLAN) } else { exact.plan_path().is_file() };
            if is_there {
                return Ok(exact);
            }
        }
        let all = Self::known(cache)?;
        let begins = |folder: &&RunFolder| folder.id.0.starts_with(name) || folder.id.short().starts_with(name);
        let mut fits: Vec<&RunFolder> = if name.is_empty() { Vec::new() } else { all.iter().filter(begins).collect() };
        let name = name.to_owned();
        match fits.pop() {
            None => {
                let known = all.iter().map(|folder| folder.id.short()).collect();
                Err(FindError::Unknown { name, cache: cache.root().to_owned(), known })
            }
            Some(one) if fits.is_empty() => Ok(one.clone()),
            Some(last) => {
                let known = fits.iter().chain([&last]).map(|folder| folder.id.0.clone()).collect();
                Err(FindError::Ambiguous { name, known })
            }
        }
    }

    /// Returns the name of the run.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the plan.
    pub fn plan_path(&self) -> PathBuf {
        self.path.join(PLAN)
    }

    /// Returns where agents find the plan, for messages.
    pub(super) fn plan_place(&self) -> PathBuf {
        self.shared.place(PLAN)
    }

    /// Writes the plan, and with it the run is there. `bucket` is the address that the agents share.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn write_plan(&self, plan: &[u8], bucket: Option<&str>) -> Result<(), FileError> {
        if let Some(bucket) = bucket {
            fsio::write_atomic(&self.path.join(BUCKET), &self.scratch, bucket.as_bytes())?;
        }
        if self.is_in_bucket() {
            self.shared.write(PLAN, plan.to_vec())?;
        }
        fsio::write_atomic(&self.plan_path(), &self.scratch, plan)
    }

    /// Reads the plan as agents do.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn read_plan(&self) -> Result<Vec<u8>, FileError> {
        self.shared.read_up_to(PLAN, LARGEST_PLAN)
    }

    /// Whether agents may still work on the run: nobody has noted its end.
    pub fn is_live(&self) -> bool {
        self.ended().is_none()
    }

    /// Notes what the run may need of the cache: a collection keeps it until the run has ended.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_wanted(&self, wanted: &Wanted) -> Result<(), FileError> {
        self.own().write(WANTED, to_bytes(wanted))
    }

    /// Notes the end of the run.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn end(&self, outcome: RunOutcome) -> Result<(), FileError> {
        let end = RunEnd { at: jiff::Timestamp::now().to_string(), outcome };
        self.shared.write(ENDED, to_bytes(&end))?;
        // Collections look here.
        if self.is_in_bucket() { self.own().write(ENDED, to_bytes(&end)) } else { Ok(()) }
    }

    /// Returns the end of the run, if it was noted.
    pub fn ended(&self) -> Option<RunEnd> {
        let here = if self.is_in_bucket() { parsed(self.own().read(ENDED)) } else { None };
        here.or_else(|| parsed(self.shared.read(ENDED)))
    }

    /// Returns the folder with the notes of failures, where machines share one.
    pub(super) fn failed_path(&self) -> PathBuf {
        self.path.join(FAILED)
    }

    /// Returns the notes that stay on the machine that submits agents.
    fn own(&self) -> SharedNotes {
        SharedNotes::Folder { path: self.path.clone(), scratch: self.scratch.clone() }
    }

    /// Returns the news for agents.
    pub(super) fn news(&self) -> news::NewsPlace {
        news::NewsPlace::new(&self.shared, NEWS)
    }

    /// Asks all agents to stop.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn cancel(&self) -> Result<(), FileError> {
        self.shared.write(CANCEL, Vec::new())?;
        self.news().tell(news::Item::Cancelled);
        Ok(())
    }

    /// Whether the agents are asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.shared.has(CANCEL)
    }

    /// Adds a submission to the list.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn add_job(&self, job: &JobLine) -> Result<(), FileError> {
        add_line(&self.path.join(JOBS), job)
    }

    /// Returns the submissions, in their order. Skips lines that cannot be read.
    pub fn jobs(&self) -> Vec<JobLine> {
        lines(&self.path.join(JOBS), LARGEST_LIST)
    }

    /// Rewrites the note of an agent.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_agent(&self, note: &AgentNote) -> Result<(), FileError> {
        self.shared.write(&note_name(AGENTS, &note.name), to_bytes(note))
    }

    /// Returns the notes of the agents, by name. Agents that ended have a note, too.
    pub fn agents(&self) -> Vec<AgentNote> {
        self.notes(AGENTS)
    }

    /// Notes the last words of an agent.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_exit(&self, note: &ExitNote) -> Result<(), FileError> {
        self.shared.write(&note_name(EXITS, &note.name), to_bytes(note))
    }

    /// Returns the last words of the agents that ended by themselves, by name.
    pub fn exits(&self) -> Vec<ExitNote> {
        self.notes(EXITS)
    }

    /// Returns the last words of one agent.
    pub fn exit_of(&self, agent: &str) -> Option<ExitNote> {
        parsed(self.shared.read(&note_name(EXITS, agent)))
    }

    /// Returns the names of the agents that left last words. Lists one folder and opens no file.
    pub fn ended_agents(&self) -> HashSet<String> {
        let name = |file: String| file.strip_suffix(".json").map(str::to_owned);
        self.shared.names(EXITS).into_iter().filter_map(name).collect()
    }

    /// Removes the last words of an agent of this name: a job that was put back into the queue starts again under it.
    pub fn forget_exit(&self, agent: &str) {
        self.shared.remove(&note_name(EXITS, agent));
    }

    /// Notes a failure.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_failure(&self, note: &FailureNote) -> Result<(), FileError> {
        self.shared.write(&note_name(FAILED, &note.key.to_string()), to_bytes(note))
    }

    /// Returns the failures, by key.
    pub fn failures(&self) -> Vec<FailureNote> {
        self.notes(FAILED)
    }

    /// Returns the keys that have a note of a failure. Lists one folder and opens no file.
    pub fn failed_keys(&self) -> Vec<ActionKey> {
        let key = |name: String| name.strip_suffix(".json")?.parse().ok().map(ActionKey);
        self.shared.names(FAILED).into_iter().filter_map(key).collect()
    }

    /// Returns the failure of a key.
    pub fn failure_of(&self, key: ActionKey) -> Option<FailureNote> {
        parsed(self.shared.read(&note_name(FAILED, &key.to_string())))
    }

    fn notes<T: DeserializeOwned>(&self, folder: &str) -> Vec<T> {
        let mut names = self.shared.names(folder);
        names.retain(|name| name.ends_with(".json"));
        self.shared.read_all(folder, &names).into_iter().filter_map(|bytes| parsed(Some(bytes))).collect()
    }
}

fn note_name(folder: &str, name: &str) -> String {
    format!("{folder}/{name}.json")
}

fn to_bytes(note: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(note).unwrap_or_default()
}

fn parsed<T: DeserializeOwned>(bytes: Option<Vec<u8>>) -> Option<T> {
    serde_json::from_slice(&bytes?).ok()
}

/// Adds a line to a list of notes, and syncs it.
pub(super) fn add_line(path: &Path, note: &impl Serialize) -> Result<(), FileError> {
    let line = format!("{}\n", serde_json::to_string(note).unwrap_or_default());
    fsio::create_dir(fsio::folder_of(path))?;
    let add = || -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    add().on("write", path)
}

/// Returns the lines of a list of notes, in their order. Skips lines that cannot be read.
pub(super) fn lines<T: DeserializeOwned>(path: &Path, at_most: u64) -> Vec<T> {
    let bytes = fsio::read_regular(path, at_most).unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Returns the name of this process as an agent: that of its job, where the site's scheduler gives one.
///
/// `variable` reads a variable of the environment. Whoever submits an agent may name it in `ATFLOW_AGENT`. Slurm names
/// an element of an array `ARRAY_TASK`.
pub fn agent_name(variable: impl Fn(&str) -> Option<String>) -> (String, Option<String>) {
    let word = |name: &str| {
        let is_word = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        variable(name).filter(is_word)
    };
    let job = match (word("SLURM_ARRAY_JOB_ID"), word("SLURM_ARRAY_TASK_ID"), word("SLURM_JOB_ID")) {
        (Some(array), Some(task), _) => Some(format!("{array}_{task}")),
        (_, _, job) => job,
    };
    let job = word("ATFLOW_AGENT").or(job);
    let host = gethostname::gethostname().to_string_lossy().replace(['/', '\0'], "_");
    (job.clone().unwrap_or_else(|| format!("{host}-{}", std::process::id())), job)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cache::Blob;
    use crate::digest::Digest;
    use crate::protocol::{Failure, FailureCode};
    use crate::stage_kinds::StageKind;

    fn folder(cache: &Cache, name: &str) -> RunFolder {
        let folder = RunFolder::of(cache, &RunId(name.to_owned()));
        fs::create_dir_all(folder.path()).unwrap();
        fs::write(folder.plan_path(), "{}").unwrap();
        folder
    }

    #[test]
    fn runs_are_found_by_full_and_short_name() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(matches!(RunFolder::find(&cache, "1"), Err(FindError::Unknown { known, .. }) if known.is_empty()));
        let (first, second) = (folder(&cache, "0001-7"), folder(&cache, "0002-7"));
        assert_eq!(RunFolder::find(&cache, "0001-7").unwrap(), first);
        assert_eq!(RunFolder::find(&cache, &second.id().short()).unwrap(), second);
        assert!(matches!(RunFolder::find(&cache, "000"), Err(FindError::Ambiguous { known, .. }) if known.len() == 2));
        let other = RunFolder::find(&cache, "../0001-7").unwrap_err();
        assert!(matches!(other, FindError::Unknown { known, .. } if known.len() == 2));
        assert!(RunFolder::find(&cache, "").is_err());
        assert_eq!(RunFolder::all(&cache), [second, first], "the newest comes first");
    }

    #[test]
    fn notes_are_read_as_they_were_written_and_others_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let folder = folder(&cache, "0001-7");
        let failed = FailureNote {
            key: ActionKey(Digest::of(b"a")),
            stage: "a/x".to_owned(),
            kind: StageKind::Command,
            failure: Failure { code: FailureCode::Broken, message: "no".to_owned(), causes: Vec::new() },
            log: Blob { digest: Digest::of(b"log"), size: 3 },
            agent: "12_3".to_owned(),
            host: "node1".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            seconds: 1.5,
        };
        folder.write_failure(&failed).unwrap();
        fs::write(folder.path().join("failed/other.json"), "{").unwrap();
        assert_eq!((folder.failures(), folder.failed_keys()), (vec![failed.clone()], vec![failed.key]));
        assert_eq!(folder.failure_of(failed.key), Some(failed));
        let note = AgentNote { name: "12_3".to_owned(), ..AgentNote::default() };
        folder.write_agent(&note).unwrap();
        folder.write_agent(&AgentNote { ran: 2, ..note.clone() }).unwrap();
        assert_eq!(folder.agents(), [AgentNote { ran: 2, ..note }]);
        let job = |job: &str| JobLine {
            at: String::new(),
            class: "gpu".to_owned(),
            job: job.to_owned(),
            count: 4,
            why: "start".to_owned(),
            memory: Some(512),
            agent: None,
        };
        folder.add_job(&job("12")).unwrap();
        // A submitter that was killed leaves half a line.
        OpenOptions::new().append(true).open(folder.path().join(JOBS)).unwrap().write_all(b"{\"at\"\n").unwrap();
        folder.add_job(&job("13")).unwrap();
        assert_eq!(folder.jobs(), [job("12"), job("13")]);
        assert!(folder.is_live() && !folder.is_cancelled());
        folder.cancel().unwrap();
        folder.end(RunOutcome::Interrupted).unwrap();
        assert!(!folder.is_live() && folder.is_cancelled());
    }

    #[test]
    fn an_agent_is_named_after_its_job() {
        let of = |set: &[(&str, &str)]| {
            agent_name(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        let array = [("SLURM_JOB_ID", "8"), ("SLURM_ARRAY_JOB_ID", "7"), ("SLURM_ARRAY_TASK_ID", "2")];
        assert_eq!(of(&array), ("7_2".to_owned(), Some("7_2".to_owned())));
        assert_eq!(of(&array[..1]).0, "8");
        let (name, job) = of(&[("SLURM_JOB_ID", "../8")]);
        assert!(job.is_none() && name.ends_with(&format!("-{}", std::process::id())), "{name}");
    }
}
