//! The folder of a run that agents share, `CACHE/cluster/RUN`: its paths, and the notes in it.
//!
//! Every note is a file that appears whole. A note that cannot be read counts as absent: another version wrote it, or a
//! file system lost it. Notes are for people, for agents that would repeat a failure, and for whoever submits agents.
//! No result depends on them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::news;
pub use super::notes::{AgentNote, AgentStage, ExitNote, ExitReason, FailureNote, JobLine, RunEnd};
use crate::action::ActionKey;
use crate::cache::{CLUSTER_FOLDER, Cache, ENDED, RunId, RunOutcome, WANTED, Wanted};
use crate::fsio::{self, Context, FileError};

/// Largest note that is read.
const LARGEST_NOTE: u64 = 16 << 20;

/// Name of the file with the plan.
const PLAN: &str = "plan.json";
/// Name of the file with the submissions.
const JOBS: &str = "jobs.jsonl";
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
}

/// Folder of a run that agents share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    id: RunId,
    path: PathBuf,
    /// Folder for unfinished files, on the same file system.
    scratch: PathBuf,
}

impl RunFolder {
    /// Returns the folder of a run, which need not exist.
    pub fn of(cache: &Cache, id: &RunId) -> Self {
        let path = cache.root().join(CLUSTER_FOLDER).join(&id.0);
        RunFolder { id: id.clone(), path, scratch: cache.root().join("tmp") }
    }

    /// Returns a new name for a run. Names sort by time.
    pub fn new_id() -> RunId {
        RunId(format!("{:020}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id()))
    }

    /// Returns the folders of all runs of a cache that have a plan, newest first.
    pub fn all(cache: &Cache) -> Vec<RunFolder> {
        let entries = fs::read_dir(cache.root().join(CLUSTER_FOLDER)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<RunFolder> = names.map(|name| RunFolder::of(cache, &RunId(name))).collect();
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
        let exact = RunFolder::of(cache, &RunId(name.to_owned()));
        if is_plain && exact.plan_path().is_file() {
            return Ok(exact);
        }
        let all = Self::all(cache);
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

    /// Whether agents may still work on the run: nobody has noted its end.
    pub fn is_live(&self) -> bool {
        self.ended().is_none()
    }

    /// Notes what the run may need of the cache: a collection keeps it until the run has ended.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_wanted(&self, wanted: &Wanted) -> Result<(), FileError> {
        self.write(&self.path.join(WANTED), wanted)
    }

    /// Notes the end of the run.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn end(&self, outcome: RunOutcome) -> Result<(), FileError> {
        self.write(&self.path.join(ENDED), &RunEnd { at: jiff::Timestamp::now().to_string(), outcome })
    }

    /// Returns the end of the run, if it was noted.
    pub fn ended(&self) -> Option<RunEnd> {
        read(&self.path.join(ENDED))
    }

    /// Returns the folder with news for agents.
    pub(super) fn news_path(&self) -> PathBuf {
        self.path.join(NEWS)
    }

    /// Asks all agents to stop.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn cancel(&self) -> Result<(), FileError> {
        fsio::write_atomic(&self.path.join(CANCEL), &self.scratch, b"")?;
        news::tell(&self.news_path(), news::Item::Cancelled);
        Ok(())
    }

    /// Whether the agents are asked to stop. Opens the file: on NFS, the attributes of a missing file may be old.
    pub fn is_cancelled(&self) -> bool {
        fs::File::open(self.path.join(CANCEL)).is_ok()
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
        lines(&self.path.join(JOBS), LARGEST_NOTE)
    }

    /// Rewrites the note of an agent.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_agent(&self, note: &AgentNote) -> Result<(), FileError> {
        self.write(&self.note_path(AGENTS, &note.name), note)
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
        self.write(&self.note_path(EXITS, &note.name), note)
    }

    /// Returns the last words of the agents that ended by themselves, by name.
    pub fn exits(&self) -> Vec<ExitNote> {
        self.notes(EXITS)
    }

    /// Returns the last words of one agent.
    pub fn exit_of(&self, agent: &str) -> Option<ExitNote> {
        read(&self.note_path(EXITS, agent))
    }

    /// Removes the last words of an agent of this name: a job that was put back into the queue starts again under it.
    pub fn forget_exit(&self, agent: &str) {
        _ = fs::remove_file(self.note_path(EXITS, agent));
    }

    /// Notes a failure.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_failure(&self, note: &FailureNote) -> Result<(), FileError> {
        self.write(&self.note_path(FAILED, &note.key.to_string()), note)
    }

    /// Returns the failures, by key.
    pub fn failures(&self) -> Vec<FailureNote> {
        self.notes(FAILED)
    }

    /// Returns the keys that have a note of a failure. Lists one folder and opens no file.
    pub fn failed_keys(&self) -> Vec<ActionKey> {
        let key = |name: String| name.strip_suffix(".json")?.parse().ok().map(ActionKey);
        names(&self.path.join(FAILED)).into_iter().filter_map(key).collect()
    }

    /// Returns the failure of a key.
    pub fn failure_of(&self, key: ActionKey) -> Option<FailureNote> {
        read(&self.note_path(FAILED, &key.to_string()))
    }

    fn note_path(&self, folder: &str, name: &str) -> PathBuf {
        self.path.join(folder).join(format!("{name}.json"))
    }

    fn notes<T: DeserializeOwned>(&self, folder: &str) -> Vec<T> {
        let folder = self.path.join(folder);
        let mut names = names(&folder);
        names.sort_unstable();
        names.iter().filter(|name| name.ends_with(".json")).filter_map(|name| read(&folder.join(name))).collect()
    }

    fn write(&self, path: &Path, note: &impl Serialize) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(note).unwrap_or_default();
        let mut file = fsio::scratch_file(&self.scratch)?;
        file.write_all(&bytes).on("write", file.path())?;
        // Not synced: a crash of the machine may take a note with it, and a note must be left even where syncing fails.
        fsio::publish(file.into_temp_path(), path)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fsio::read_regular(path, LARGEST_NOTE).ok()?).ok()
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
