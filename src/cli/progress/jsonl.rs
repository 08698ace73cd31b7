//! One JSON object a line on standard output. The names are fixed: other tools rely on them. `atflow schema run` prints
//! their schema.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use atflow::event::{Assembled, RemoteCount, RunEstimate, RunEvent, RunSummary, Status};
use atflow::protocol::{Failure, StageProgress};
use atflow::spec::Warning;
use atflow::stage_kinds::StageKind;
use atflow::verify::reproduce::Reproduction;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use crate::report::eprint;
use crate::ui;

/// The display for programs.
#[derive(Default)]
pub(crate) struct JsonLines {
    so_far: SoFar,
}

/// How far a run is, for its last line when it has to end without a word of its own.
#[derive(Clone)]
pub(crate) struct SoFar {
    started: Instant,
    /// How many stages there are, and how those have ended that have.
    stages: Arc<Mutex<(usize, HashMap<String, Status>)>>,
}

impl Default for SoFar {
    fn default() -> Self {
        SoFar { started: Instant::now(), stages: Arc::default() }
    }
}

impl SoFar {
    fn note(&self, event: &RunEvent) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, ended) = &mut *stages;
        match event {
            RunEvent::RunStarted { wanted: count } => *wanted = *count,
            RunEvent::StageFinished { stage, status, .. } => _ = ended.insert(stage.clone(), *status),
            RunEvent::StageReopened { stage, .. } => _ = ended.remove(stage),
            _ => {}
        }
    }

    /// What a run has come to that is stopped here.
    pub(crate) fn summary(&self) -> RunSummary {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, ended) = &*stages;
        let count = |status| ended.values().filter(|how| **how == status).count();
        let (ran, cached, failed) = (count(Status::Ran), count(Status::Cached), count(Status::Failed));
        let skipped = wanted.saturating_sub(ran + cached + failed);
        let seconds = self.started.elapsed().as_secs_f64();
        RunSummary { ran, cached, failed, skipped, seconds, interrupted: true, ..RunSummary::default() }
    }
}

/// What is told of a run beside its counts.
#[derive(Default)]
pub(crate) struct RunFacts<'a> {
    /// How results that were made anew compare with the published ones.
    pub reproduced: Option<&'a Reproduction>,
    /// Results that do not count for want of a signature, by the reason.
    pub passed_over: Option<serde_json::Value>,
    /// The results folder, its files of this run, and those that are outdated.
    pub results: Option<serde_json::Value>,
}

/// A line, with the time at which it was printed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Line<'a> {
    #[serde(flatten)]
    what: What<'a>,
    /// RFC 3339 in UTC.
    time: String,
}

/// A fact of a run. Numbers are in the units that their names or descriptions say.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
enum What<'a> {
    /// The first line.
    RunStarted {
        /// Number of stage instances that the targets reach.
        stages: usize,
    },
    /// How long the run may take, by the durations of earlier runs; once, before the first stage runs.
    RunEstimated {
        /// Seconds of work of the instances that may run.
        work: f64,
        /// Seconds of the run.
        wall: f64,
        /// Number of instances that never ran at this size: their time is in neither.
        never_ran: usize,
    },
    /// An instance begins to run.
    StageStarted {
        stage: &'a str,
        /// Kind of the stage.
        #[schemars(with = "String")]
        kind: StageKind,
        /// Reason for which it runs.
        reason: &'a str,
    },
    /// An instance is left to another run that is making the same.
    StageWaiting {
        stage: &'a str,
        /// Machine and process of the other run, if known.
        host: Option<&'a str>,
        pid: Option<i32>,
        /// Longest wait without a sign of life of it, in seconds; null if its end will be seen.
        patience: Option<f64>,
    },
    /// How far a running instance is; at most a few times a second.
    StageProgress {
        stage: &'a str,
        #[serde(flatten)]
        progress: &'a StageProgress,
    },
    /// A line of a running instance's log.
    StageLog { stage: &'a str, line: &'a str },
    /// An instance is done with.
    StageFinished {
        stage: &'a str,
        status: Status,
        /// Seconds that it ran; 0 if it did not.
        seconds: f64,
        /// What came out, in a line for people.
        #[serde(skip_serializing_if = "str::is_empty")]
        summary: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<&'a Failure>,
    },
    /// An instance was done with, and an output of it is gone: it is made again and ends once more.
    StageReopened { stage: &'a str, output: &'a str },
    /// A file of an instance has come from the remote cache.
    Fetched { stage: &'a str, bytes: u64 },
    /// Something that the user should know and that does not stop the run.
    Warning {
        message: &'a str,
        /// Name of a likely mistake in the pipeline, as in `allow`.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        help: Option<&'a str>,
        /// Where it is: `FILE:LINE:COLUMN`.
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// The last line.
    RunFinished {
        outcome: Outcome,
        /// Number of instances that ran.
        ran: usize,
        /// Number of instances whose result was there.
        cached: usize,
        /// Number of instances that failed.
        failed: usize,
        /// Number of instances that were not tried.
        skipped: usize,
        /// Seconds of the run.
        seconds: f64,
        #[serde(flatten)]
        more: More<'a>,
    },
}

/// How a run ended.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Done,
    /// A stage failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// An error that is no stage's stopped it.
    Broken,
}

/// What the last line tells beside its counts, where there is such a thing.
#[derive(Serialize, JsonSchema)]
struct More<'a> {
    /// Number of results, and of signed ones, by the remote cache that they came from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, usize>>")]
    elsewhere: &'a BTreeMap<String, RemoteCount>,
    /// Tables and figures that a remote cache has and that were assembled here.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schemars(with = "Vec<Value>")]
    assembled: &'a [Assembled],
    /// Results that do not count for want of a signature, by the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_over: Option<&'a Value>,
    /// The results folder, its files of this run, and those that are outdated.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<&'a Value>,
    /// How results that were made anew compare with the published ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    reproduced: Option<&'a Reproduction>,
    /// The error that stopped the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Returns the schema of what is written of a type: fields that may be left out are not required.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

/// Returns the schema of a line of `atflow run --json`.
pub(crate) fn line_schema() -> Value {
    schema_of::<Line<'_>>()
}

/// Prints the last line of a run, which says how it ended.
pub(crate) fn run_finished(summary: &RunSummary, error: Option<&str>, told: &RunFacts<'_>) {
    let RunSummary { ran, cached, failed, skipped, seconds, .. } = *summary;
    let outcome = match (error, summary) {
        (Some(_), _) => Outcome::Broken,
        (None, RunSummary { interrupted: true, .. }) => Outcome::Interrupted,
        (None, RunSummary { failed: 1.., .. }) => Outcome::Failed,
        (None, _) => Outcome::Done,
    };
    let more = More {
        elsewhere: &summary.elsewhere,
        assembled: &summary.assembled,
        passed_over: told.passed_over.as_ref(),
        results: told.results.as_ref(),
        reproduced: told.reproduced,
        error,
    };
    print(What::RunFinished { outcome, ran, cached, failed, skipped, seconds, more });
}

/// Prints the likely mistakes in a pipeline, before its run starts.
pub(crate) fn likely_mistakes(warnings: &[Warning]) {
    for Warning { lint, problem } in warnings {
        let at = problem.place.as_ref().map(ToString::to_string);
        print(What::Warning { message: &problem.message, name: Some(lint.name()), help: problem.help.as_deref(), at });
    }
}

fn print(what: What<'_>) {
    let line = serde_json::to_string(&Line { what, time: jiff::Timestamp::now().to_string() }).unwrap_or_default();
    if ui::print_data(&format!("{line}\n")).is_err() {
        eprint("cannot write to standard output\n");
    }
}

impl JsonLines {
    /// How far the run is, at any time and on any thread.
    pub(super) fn so_far(&self) -> SoFar {
        self.so_far.clone()
    }

    pub(super) fn event(&mut self, event: &RunEvent) {
        self.so_far.note(event);
        print(match event {
            RunEvent::RunStarted { wanted } => What::RunStarted { stages: *wanted },
            RunEvent::RunEstimated(RunEstimate { stages, wall }) => What::RunEstimated {
                // `sum` of nothing is negative zero.
                work: stages.values().flatten().fold(0.0, |sum, seconds| sum + seconds),
                wall: *wall,
                never_ran: stages.values().filter(|seconds| seconds.is_none()).count(),
            },
            RunEvent::StageStarted { stage, kind, reason } => What::StageStarted { stage, kind: *kind, reason },
            RunEvent::StageWaiting { stage, holder, patience } => {
                let (host, pid) = holder.as_ref().map(|holder| (holder.host.as_str(), holder.pid)).unzip();
                What::StageWaiting { stage, host, pid, patience: patience.map(|patience| patience.as_secs_f64()) }
            }
            RunEvent::StageFinished { stage, status, seconds, summary, failure } => {
                What::StageFinished { stage, status: *status, seconds: *seconds, summary, failure: failure.as_ref() }
            }
            RunEvent::StageProgress { stage, progress } => What::StageProgress { stage, progress },
            RunEvent::StageLog { stage, line } => What::StageLog { stage, line },
            RunEvent::Fetching { stage, done, total } if done == total => What::Fetched { stage, bytes: *total },
            RunEvent::Fetching { .. } => return,
            RunEvent::StageReopened { stage, output } => What::StageReopened { stage, output },
            RunEvent::Warning(message) => What::Warning { message, name: None, help: None, at: None },
        });
    }
}
