//! Records of runs: which key each instance had. They let a later run say what changed, and commands find the results
//! of a name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Blob, Cache, CacheError};
use crate::action::ActionKey;
use crate::fsio;
use crate::protocol::Failure;

/// How many records are kept. Only the newest that names an instance is ever asked for.
const KEPT: usize = 200;

/// What one run knew when it ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file as it was given.
    pub file: PathBuf,
    /// The profile, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What the command line overrode, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// When the run ended, RFC 3339 in UTC.
    pub at: String,
    /// The key of each instance that was fresh or became so.
    pub keys: BTreeMap<String, ActionKey>,
    /// What failed, and its log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, FailedStage>,
}

/// A stage that failed in a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedStage {
    /// Why.
    pub failure: Failure,
    /// Its log.
    pub log: Blob,
    /// When it failed, RFC 3339 in UTC; empty in the records of older versions.
    #[serde(default)]
    pub at: String,
    /// How long it ran, in seconds.
    #[serde(default)]
    pub seconds: f64,
}

impl Cache {
    /// Keeps the record of a run, and drops the oldest beyond the newest 200.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remember(&self, run: &RunRecord) -> Result<(), CacheError> {
        // Names sort by time; the process tells two runs of one microsecond apart.
        let name = format!("{:020}-{}.json", jiff::Timestamp::now().as_microsecond(), std::process::id());
        let text = serde_json::to_string(run).unwrap_or_default();
        fsio::write_atomic(&self.root.join("runs").join(name), &self.tmp(), text.as_bytes())?;
        let paths = self.run_paths();
        for path in paths.iter().skip(KEPT) {
            // Somebody else may have removed it: the aim is reached either way.
            _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Records of runs, newest first; of one pipeline, or of any. Those that cannot be read are left out.
    pub fn runs(&self, pipeline: Option<&str>) -> impl Iterator<Item = RunRecord> + use<'_> {
        let pipeline = pipeline.map(str::to_owned);
        let read = |path: PathBuf| serde_json::from_slice::<RunRecord>(&fsio::read_regular(&path, u64::MAX).ok()?).ok();
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
