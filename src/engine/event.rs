//! What happens in a run, one fact at a time: all that a display or a log may know. Plain data; knows neither who makes
//! it nor who shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::action::ActionKey;
use crate::cache::{Holder, RunId};
use crate::protocol::{Failure, StageProgress};
use crate::stage_kinds::StageKind;

/// One fact of a run.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// The run begins.
    RunStarted {
        /// Instances that the targets reach.
        wanted: usize,
    },
    /// How long the stages that have no result would take; told once, before the first of them runs.
    RunEstimated(RunEstimate),
    /// An instance begins to run.
    StageStarted {
        /// Its name.
        stage: String,
        /// What it does.
        kind: StageKind,
        /// Why it runs.
        reason: String,
    },
    /// An instance is left to another run that is at the same; told again when that is yet another one.
    StageWaiting {
        /// Its name.
        stage: String,
        /// The other run; nothing if it cannot be told.
        holder: Option<Holder>,
        /// How long it is waited for at most without a sign of life of it; nothing if its end will be seen.
        patience: Option<Duration>,
    },
    /// How far a running instance is.
    StageProgress {
        /// Its name.
        stage: String,
        /// How far it is.
        progress: StageProgress,
    },
    /// A line of a running instance's log.
    StageLog {
        /// Its name.
        stage: String,
        /// The line.
        line: String,
    },
    /// An instance is done with, one way or another.
    StageFinished {
        /// Its name.
        stage: String,
        /// Which way.
        status: Status,
        /// How long it ran; 0 if it did not.
        seconds: f64,
        /// A line on what came out.
        summary: String,
        /// Why it failed.
        failure: Option<Failure>,
    },
    /// An instance was done with, and an output of it turned out to be gone when it was to be read: its end does not
    /// count any more, it is made again and ends once more.
    StageReopened {
        /// Its name.
        stage: String,
        /// The output.
        output: String,
    },
    /// Files that an instance reads or has as outputs are being fetched from the remote cache.
    Fetching {
        /// Its name.
        stage: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something that the user should know and that does not stop the run.
    Warning(String),
}

/// Estimate of a run at its start, by the durations of earlier runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunEstimate {
    /// Seconds of each instance that may run, by name; `None` if it never ran at this size.
    pub stages: BTreeMap<String, Option<f64>>,
    /// Wall time of the run in seconds, without the instances that never ran.
    pub wall: f64,
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It ran.
    Ran,
    /// Its result was there.
    Cached,
    /// It failed.
    Failed,
    /// It was not tried, because something it needs failed or the run was stopped.
    Skipped,
}

/// How many results came from a remote cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RemoteCount {
    /// All of them.
    pub results: usize,
    /// Those that a trusted key signed.
    pub signed: usize,
}

/// A table or a figure that a remote cache has and that was assembled here from what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assembled {
    /// The instance.
    pub stage: String,
    /// The remote cache.
    pub remote: String,
    /// The outputs that the remote cache has with other bytes.
    pub different: Vec<String>,
}

/// The counts at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunSummary {
    /// Instances that ran.
    pub ran: usize,
    /// Instances whose result was there.
    pub cached: usize,
    /// Instances that failed.
    pub failed: usize,
    /// Instances that were not tried.
    pub skipped: usize,
    /// How long it all took.
    pub seconds: f64,
    /// Results that were not computed here, by the remote cache that they came from.
    #[serde(skip)]
    pub elsewhere: BTreeMap<String, RemoteCount>,
    /// Results from elsewhere that were assembled here again.
    #[serde(skip)]
    pub assembled: Vec<Assembled>,
    /// Whether the user stopped it.
    #[serde(skip)]
    pub interrupted: bool,
    /// The key of each instance whose result is known, by name.
    #[serde(skip)]
    pub keys: BTreeMap<String, ActionKey>,
    /// The name of the run's record, or of the record of an earlier run that says the same.
    #[serde(skip)]
    pub run: Option<RunId>,
}
