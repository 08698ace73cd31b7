//! What came of a stage in the last runs: its newest failure, where nothing went well after it, and its newest result.

use std::path::PathBuf;

use atflow::cache::{Cache, FailedStage, Manifest, OutputBlob};
use atflow::protocol::Failure;

use super::not_found;
use crate::args::FindArgs;
use crate::report::CliError;
use crate::ui;

/// What came of a stage; at least one of the two.
pub(crate) struct Tries {
    /// It failed when it was last tried.
    pub failed: Option<Failed>,
    /// Its newest result.
    pub made: Option<Manifest>,
}

impl Tries {
    /// Looks through the runs, the newest first.
    pub(crate) fn of(cache: &Cache, stage: &str, args: &FindArgs) -> Result<Self, CliError> {
        let mut tries = Tries { failed: None, made: None };
        let mut known: Vec<String> = Vec::new();
        for mut run in cache.runs(args.pipeline.as_deref()) {
            if let Some(failed) = run.failed.remove(stage) {
                tries.failed.get_or_insert(Failed::of(failed, run.at));
            } else if let Some(manifest) = run.keys.get(stage).and_then(|key| cache.lookup(*key)) {
                tries.made = Some(manifest);
                break;
            } else if tries.failed.is_none() {
                known.extend(run.keys.into_keys().chain(run.failed.into_keys()));
            }
        }
        match tries {
            Tries { failed: None, made: None } => Err(not_found(stage, known, args)),
            tries => Ok(tries),
        }
    }

    /// The log of the newest try; an error for people where it is gone.
    pub(crate) fn log(&self, cache: &Cache) -> Result<String, String> {
        let made = self.made.as_ref().map(|manifest| manifest.made.log);
        let Some(log) = self.failed.as_ref().map(|failed| failed.log).or(made) else { return Ok(String::new()) };
        let bytes = cache.read(log.digest).map_err(|error| format!("the log cannot be read: {error}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A try that failed.
pub(crate) struct Failed {
    failure: Failure,
    at: String,
    seconds: f64,
    log: OutputBlob,
}

impl Failed {
    fn of(failed: FailedStage, run_ended: String) -> Self {
        let FailedStage { failure, log, at, seconds } = failed;
        Failed { failure, at: if at.is_empty() { run_ended } else { at }, seconds, log }
    }

    /// When, and after how long.
    pub(crate) fn when(&self) -> String {
        let after = if self.seconds > 0.0 { format!(" after {}", ui::duration(self.seconds)) } else { String::new() };
        format!("{}{after}", ui::moment(&self.at))
    }

    /// What happened.
    pub(crate) fn message(&self) -> &str {
        &self.failure.message
    }

    /// What caused that.
    pub(crate) fn causes(&self) -> &[String] {
        &self.failure.causes
    }

    /// Where the whole log is.
    pub(crate) fn log_file(&self, cache: &Cache) -> PathBuf {
        cache.object_path(self.log.digest)
    }

    /// All of it for programs, but for the log's text.
    pub(crate) fn json(&self, cache: &Cache) -> serde_json::Value {
        serde_json::json!({
            "at": self.at, "seconds": self.seconds, "failure": self.failure, "log": self.log, "log_file": self.log_file(cache),
        })
    }
}
