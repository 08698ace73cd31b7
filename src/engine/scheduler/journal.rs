//! What a run writes down for later runs: the keys of its results, its failures, and the state of its source code.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::Options;
use crate::action::{Action, ActionKey};
use crate::cache::{Cache, CacheError, FailedStage, Interrupted, RunId, RunOutcome, RunRecord, Unmade};
use crate::environment;
use crate::event::{RunSummary, Status};
use crate::fsio;
use crate::plan::History;

/// Record of a run, and the runs before it.
pub(super) struct Journal<'a> {
    pub(super) history: History<'a>,
    run: RunRecord,
    /// Keys that this run made: another instance of the same key need not run.
    made: HashSet<ActionKey>,
    /// Commit of the pipeline file, once somebody asked for it.
    commit: Option<Option<String>>,
}

impl<'a> Journal<'a> {
    pub(super) fn new(cache: &'a Cache, options: &Options) -> Self {
        let run = RunRecord { started: Some(jiff::Timestamp::now().to_string()), ..options.about.clone() };
        // The planner of a shared run has asked once for all agents.
        let commit = options.part.as_ref().map(|_| options.about.commit.clone());
        Journal { history: History::new(cache, &options.about.pipeline), run, made: HashSet::new(), commit }
    }

    /// Notes the key of an instance that has its result.
    pub(super) fn note_result(&mut self, name: String, key: ActionKey) {
        self.run.keys.insert(name, key);
    }

    /// Notes that this run made the result of a key.
    pub(super) fn note_made(&mut self, key: ActionKey) {
        self.made.insert(key);
    }

    pub(super) fn note_failure(&mut self, name: String, failed: FailedStage) {
        self.run.failed.insert(name, failed);
    }

    /// Notes a stage that ran when the user stopped the run.
    pub(super) fn note_interrupted(&mut self, name: String, action: Action, seconds: f64) {
        let at = jiff::Timestamp::now().to_string();
        self.run.interrupted.insert(name, Interrupted { record: action, at, seconds });
    }

    /// Notes an instance that failed or was not tried.
    pub(super) fn note_unmade(&mut self, name: String, unmade: Unmade, status: Status) {
        if status == Status::Skipped {
            self.run.skipped.push(name.clone());
        }
        self.run.unmade.insert(name, unmade);
    }

    /// Whether this run made the result of a key.
    pub(super) fn has_made(&self, key: ActionKey) -> bool {
        self.made.contains(&key)
    }

    /// Returns the keys of the results, by the name of their instance.
    pub(super) fn keys(&self) -> &BTreeMap<String, ActionKey> {
        &self.run.keys
    }

    /// Returns the commit of the pipeline file, determined once per run.
    pub(super) fn commit(&mut self) -> Option<String> {
        let folder = fsio::folder_of(&self.run.file);
        self.commit.get_or_insert_with(|| commit_of(folder)).clone()
    }

    /// Notes the seconds that an instance ran.
    pub(super) fn note_time(&mut self, name: String, seconds: f64) {
        self.run.ran.insert(name, seconds);
    }

    /// Writes the record of the run into the cache, unless it says the same as that of the last run. Returns the name
    /// of the record; `None` on a cache that cannot be written.
    ///
    /// # Errors
    /// [`CacheError`] if a stage ran and the cache cannot be written. If nothing ran, on a read-only shared cache, the
    /// record does not matter.
    pub(super) fn write(
        &mut self,
        cache: &Cache,
        summary: &RunSummary,
        is_broken: bool,
    ) -> Result<Option<RunId>, CacheError> {
        let outcome = match summary {
            _ if is_broken => RunOutcome::Broken,
            RunSummary { interrupted: true, .. } => RunOutcome::Interrupted,
            RunSummary { failed: 1.., .. } => RunOutcome::Failed,
            _ => RunOutcome::Done,
        };
        self.run.at = jiff::Timestamp::now().to_string();
        (self.run.outcome, self.run.cached) = (Some(outcome), Some(summary.cached));
        self.run.commit = self.commit.clone().flatten();
        let last = cache.runs(Some(&self.run.pipeline)).next();
        if let Some(last) = last.filter(|last| outcome == RunOutcome::Done && self.run.says_the_same(last)) {
            return Ok(Some(last.id));
        }
        match cache.remember(&self.run) {
            Ok(id) => Ok(Some(id)),
            Err(error) if summary.ran + summary.failed > 0 => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// Returns the commit of the repository that a folder is in, with `-dirty` if files in it have changed.
pub(crate) fn commit_of(folder: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        // Variables such as `GIT_DIR`, which git hooks set, would select another repository.
        git.env_clear().envs(environment::passed(&[])).env("GIT_OPTIONAL_LOCKS", "0");
        let output = git.arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if clean { commit } else { format!("{commit}-dirty") })
}
