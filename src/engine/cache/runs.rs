//! Records of runs: which key each instance had.
//!
//! A later run uses them to explain changes, and commands use them to find results by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Blob, Cache, CacheError};
use crate::action::ActionKey;
use crate::fsio;
use crate::protocol::Failure;

/// Number of records to keep. Callers ask only for the newest that names an instance.
const KEPT: usize = 200;

/// Record of a run at its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunRecord {
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
    /// Stores the record of a run, and removes all but the newest 200.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remember(&self, run: &RunRecord) -> Result<(), CacheError> {
        // Names sort by time; the process id separates two runs in the same microsecond.
        let name = format!("{:020}-{}.json", jiff::Timestamp::now().as_microsecond(), std::process::id());
        let text = serde_json::to_string(run).unwrap_or_default();
        fsio::write_atomic(&self.root.join("runs").join(name), &self.tmp(), text.as_bytes())?;
        let paths = self.run_paths();
        for path in paths.iter().skip(KEPT) {
            // Another process may have removed it, which is just as well.
            _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Returns the records of one pipeline, or of all, newest first. Skips unreadable records.
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
