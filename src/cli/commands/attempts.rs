//! Attempts at a stage in recent runs: its newest result, and its newest interruption and failure if no success
//! followed them.

use std::io::Read;
use std::path::PathBuf;

use atflow::cache::{Blob, Cache, FailedStage, FoundRun, Interrupted, LiveRun, Manifest};
use atflow::digest::verify;
use atflow::plan::Resumption;
use atflow::protocol::Failure;
use atflow::results_folder::{default_folder, folder_of_run};
use atflow::spec::Overrides;

use super::not_found;
use crate::args::FindArgs;
use crate::report::CliError;
use crate::ui;

/// What came of a stage; at least one of the three.
#[derive(Default)]
pub(crate) struct Tries {
    /// It was running when the user stopped the newest run that tried it.
    pub interrupted: Option<Interrupted>,
    /// It failed when it was last tried.
    pub failed: Option<Failed>,
    /// Its newest result.
    pub made: Option<Manifest>,
    /// The results folder of the run that has that result.
    pub folder: PathBuf,
    /// The pipeline of these runs: a stage of the same name in another one is another stage.
    pub pipeline: String,
    /// Further pipelines whose last runs have a stage of this name.
    others: Vec<String>,
}

/// So many runs are looked through for other pipelines.
const LOOKED_THROUGH: usize = 20;

impl Tries {
    /// Looks through the runs, the newest first.
    pub(crate) fn of(cache: &Cache, stage: &str, args: &FindArgs) -> Result<Self, CliError> {
        let mut tries = made_now(cache, stage, args).unwrap_or_default();
        let mut known: Vec<String> = Vec::new();
        for (at, mut run) in cache.runs(args.pipeline.as_deref()).enumerate() {
            let has =
                [run.failed.contains_key(stage), run.keys.contains_key(stage), run.interrupted.contains_key(stage)]
                    .contains(&true);
            if has && !tries.pipeline.is_empty() && tries.pipeline != run.pipeline {
                if !tries.others.contains(&run.pipeline) {
                    tries.others.push(run.pipeline);
                }
            } else if tries.made.is_some() {
                // Its last result is found; only other pipelines are still looked for.
            } else if let Some(failed) = run.failed.remove(stage) {
                tries.pipeline = run.pipeline;
                tries.failed.get_or_insert(Failed::of(failed, run.at));
            } else if let Some(interrupted) = run.interrupted.remove(stage) {
                tries.pipeline = run.pipeline;
                // A failure after it tells more.
                if tries.failed.is_none() {
                    tries.interrupted.get_or_insert(interrupted);
                }
            } else if let Some(manifest) = run.keys.get(stage).and_then(|key| cache.lookup(*key)) {
                tries.folder = folder_of_run(&run);
                tries.pipeline = run.pipeline;
                tries.made = Some(manifest);
            } else if tries.failed.is_none() {
                known.extend(run.keys.into_keys().chain(run.failed.into_keys()));
            }
            if tries.made.is_some() && (args.pipeline.is_some() || at + 1 >= LOOKED_THROUGH) {
                break;
            }
        }
        match tries {
            Tries { interrupted: None, failed: None, made: None, .. } => Err(not_found(cache, stage, known, args)),
            tries => Ok(tries),
        }
    }

    /// The log of the newest try, checked and ready to be read; an error for people where it is gone.
    pub(crate) fn log(&self, cache: &Cache) -> Result<Option<Box<dyn Read>>, String> {
        let made = self.made.as_ref().map(|manifest| manifest.made.log.clone());
        let Some(log) = self.failed.as_ref().map(|failed| failed.log.into()).or(made) else { return Ok(None) };
        if let Some(stored) = log.stored() {
            let verified = verify(&cache.object_path(stored.digest), stored.digest);
            verified.map_err(|error| format!("the log cannot be read: {error}"))?;
        }
        cache.open_log(&log).map(Some).map_err(|error| format!("the log cannot be read: {error}"))
    }

    /// When the stage was interrupted, after how long, and where it goes on.
    pub(crate) fn interrupted_words(&self, cache: &Cache) -> Option<String> {
        let Interrupted { record, at, seconds } = self.interrupted.as_ref()?;
        let goes_on = Resumption::of(cache, record, false).map(|goes_on| format!("; {}", goes_on.words()));
        Some(format!("{} after {}{}", ui::moment(at), ui::duration(*seconds), goes_on.unwrap_or_default()))
    }

    /// The same for programs.
    pub(crate) fn interrupted_json(&self, cache: &Cache) -> Option<serde_json::Value> {
        let Interrupted { record, at, seconds } = self.interrupted.as_ref()?;
        let goes_on = Resumption::of(cache, record, false);
        Some(serde_json::json!({"at": at, "seconds": seconds, "key": record.key(), "goes_on": goes_on}))
    }

    /// Whose log or result this is, in a line, and a second one where another pipeline has a stage of the name.
    pub(crate) fn whose(&self, stage: &str) -> String {
        format!("{stage} of pipeline {}\n{}", self.pipeline, self.elsewhere(stage))
    }

    /// What to say of other pipelines that have a stage of the name.
    pub(crate) fn elsewhere(&self, stage: &str) -> String {
        match self.others.as_slice() {
            [] => String::new(),
            [other] => format!("pipeline {other} has a stage {stage}, too: --pipeline {other} shows it\n"),
            others => format!("pipelines {} have a stage {stage}, too: --pipeline NAME shows it\n", others.join(", ")),
        }
    }
}

/// The result that a run in progress has made, or one that was killed since the last run ended.
fn made_now(cache: &Cache, stage: &str, args: &FindArgs) -> Option<Tries> {
    let (run, manifest) = found_now(cache, stage, args)?;
    let LiveRun { pipeline, profile, set, .. } = run;
    let folder = default_folder(&pipeline, &Overrides { profile, set });
    Some(Tries { made: Some(manifest), folder, pipeline, ..Tries::default() })
}

/// The newest run that is not recorded yet and has a result of the instance, and that result.
pub(super) fn found_now(cache: &Cache, stage: &str, args: &FindArgs) -> Option<(LiveRun, Manifest)> {
    let is_asked_for = |found: &FoundRun| args.pipeline.as_ref().is_none_or(|name| found.run.pipeline == *name);
    cache.live_runs().into_iter().filter(is_asked_for).find_map(|found| {
        let manifest = cache.lookup(found.made(stage)?)?;
        Some((found.run, manifest))
    })
}

/// A try that failed.
pub(crate) struct Failed {
    failure: Failure,
    at: String,
    seconds: f64,
    log: Blob,
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
