//! Records of runs: who ran what with which parameters, and which key each instance had.
//!
//! A later run uses them to explain changes, and commands use them to find results by name and to compare runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Blob, Cache, CacheError};
use crate::action::{Action, ActionKey};
use crate::digest::Digest;
use crate::fsio;
use crate::parameters::{ParameterChanges, Parameters};
use crate::protocol::Failure;
use crate::stage_kinds::StageKind;

/// Number of records to keep. Callers ask only for the newest that names an instance.
const KEPT: usize = 200;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// All that was wanted is there.
    Done,
    /// A stage failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// An error of the cache or of all workers stopped it.
    Broken,
}

/// Record of a run at its end. Records of older versions lack the fields after `failed`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the record, unique in its cache; not part of the file.
    #[serde(skip)]
    pub id: RunId,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Pipeline file as given.
    pub file: PathBuf,
    /// Profile, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Overrides from the command line, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// End of the run, RFC 3339 in UTC.
    pub at: String,
    /// Keys of the instances that were or became fresh.
    pub keys: BTreeMap<String, ActionKey>,
    /// Failed stages, with their logs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, FailedStage>,
    /// Start of the run, RFC 3339 in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Name of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Targets, as given; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Parameters in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// Parameters that the profile or the command line changed.
    #[serde(default, skip_serializing_if = "ParameterChanges::is_empty")]
    pub overridden: ParameterChanges,
    /// Commit of the repository with the pipeline file, if a stage ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RunOutcome>,
    /// Seconds that each instance ran in this run, if it did.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ran: BTreeMap<String, f64>,
    /// Number of instances whose result was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<usize>,
    /// The stages that ran when the run was stopped. A training among them may have kept its progress.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interrupted: BTreeMap<String, Interrupted>,
    /// Instances that were not tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// Instances that failed or were not tried: what they are and what they need.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unmade: BTreeMap<String, Unmade>,
    /// Stages of the pipeline in the order of its file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
    /// Files in the results folder that commands made, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shown: BTreeMap<String, ShownFile>,
    /// The results folder, if the user named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<PathBuf>,
}

/// A file in the results folder that a command made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFile {
    /// The instance.
    pub stage: String,
    /// Its output.
    pub output: String,
}

/// Name of a run's record. People see the first eight digits of its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

impl RunId {
    /// Returns the name that people use: eight hexadecimal digits.
    pub fn short(&self) -> String {
        Digest::of(self.0.as_bytes()).to_string()[..8].to_owned()
    }
}

impl RunRecord {
    /// Returns whether another record says the same but for the times: the same pipeline with the same parameters,
    /// targets and results, in the same folder.
    pub fn says_the_same(&self, other: &RunRecord) -> bool {
        let of = |run: &RunRecord| {
            let RunRecord { pipeline, file, profile, set, targets, parameters, shown, results, .. } = run.clone();
            let asked = (pipeline, file, profile, set, targets, parameters, shown, results);
            (asked, run.keys.clone(), run.failed.is_empty())
        };
        self.ran.is_empty() && self.failed.is_empty() && of(self) == of(other)
    }
}

/// Instance without a result at the end of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unmade {
    /// Kind of the stage.
    pub kind: StageKind,
    /// Instances that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// Stage that ran when its run was stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interrupted {
    /// What it was to do.
    pub record: Action,
    /// Time of the stop, RFC 3339 in UTC.
    pub at: String,
    /// Seconds that it ran.
    pub seconds: f64,
}

/// Stage that failed in a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedStage {
    /// The failure.
    pub failure: Failure,
    /// Its log.
    pub log: Blob,
    /// Time of the failure, RFC 3339 in UTC; empty in records of older versions.
    #[serde(default)]
    pub at: String,
    /// Duration in seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl Cache {
    /// Stores the record of a run, and removes all but the newest 200. Returns its name.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remember(&self, run: &RunRecord) -> Result<RunId, CacheError> {
        // Names sort by time; the process id separates two runs in the same microsecond.
        let id = RunId(format!("{:020}-{}", jiff::Timestamp::now().as_microsecond(), std::process::id()));
        let text = serde_json::to_string(run).unwrap_or_default();
        fsio::write_atomic(&self.root.join("runs").join(format!("{}.json", id.0)), &self.tmp(), text.as_bytes())?;
        let paths = self.run_paths();
        for path in paths.iter().skip(KEPT) {
            // Another process may have removed it, which is just as well.
            _ = std::fs::remove_file(path);
        }
        Ok(id)
    }

    /// Returns the records of one pipeline, or of all, newest first. Skips unreadable records.
    pub fn runs(&self, pipeline: Option<&str>) -> impl Iterator<Item = RunRecord> + use<'_> {
        let pipeline = pipeline.map(str::to_owned);
        let read = |path: PathBuf| {
            let run = serde_json::from_slice::<RunRecord>(&fsio::read_regular(&path, u64::MAX).ok()?).ok()?;
            Some(RunRecord { id: RunId(path.file_stem()?.to_string_lossy().into_owned()), ..run })
        };
        let wanted = move |run: &RunRecord| pipeline.as_ref().is_none_or(|pipeline| run.pipeline == *pipeline);
        self.run_paths().into_iter().filter_map(read).filter(wanted)
    }

    fn run_paths(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("runs")).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort_unstable_by(|a, b| b.cmp(a));
        paths
    }
}
