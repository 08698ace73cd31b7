//! The part of a graph that a run does, where several runs share one graph on purpose: agents of a cluster.
//!
//! Such a run starts some instances and waits for the results of the others. It looks at the files of others rarely,
//! and less and less while nothing happens: a thousand of them may share a file system.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::action::ActionKey;
use crate::cache::FailedStage;
use crate::digest::Digest;
use crate::graph::Graph;
use crate::protocol::Failure;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

/// Time left that a stage must have, as a multiple of the time that it took before.
const TIME_MARGIN: f64 = 1.3;

/// Share of a graph that a run does.
#[derive(Debug)]
pub struct Part {
    /// Marks the instances that this run may start. It waits for the results of the others.
    pub starts: PerInstance<bool>,
    /// Seconds that each instance takes, if that is known.
    pub seconds: PerInstance<Option<f64>>,
    /// Time at which the run stops.
    pub until: Option<Instant>,
    /// Longest time that the run has nothing to do while others work.
    pub idle: Duration,
    /// Name of this run among those that share the graph. Each prefers other instances among the equally urgent.
    pub name: String,
    /// Folder for the files of running stages; in the cache if there is none. One of this machine spares a network file
    /// system the operations on them.
    pub scratch: Option<PathBuf>,
    /// The other runs.
    pub neighbours: Arc<dyn Neighbours>,
}

/// What the runs that share a graph tell one another, beside the cache.
pub trait Neighbours: Debug + Send + Sync {
    /// Returns what the others did since the last call. `is_rare` allows it to miss a cancellation until the next call.
    fn news(&self, is_rare: bool) -> News;

    /// Whether the run is cancelled. Costs less than the news.
    fn is_cancelled(&self) -> bool;

    /// Returns how a key failed for good in another run, if it did. Unlike news, this is never late: a run that holds
    /// the key's lease sees what the earlier holders noted.
    fn failure_of(&self, key: ActionKey) -> Option<Failure>;

    /// Tells the others that a key has its result. Called from several threads.
    fn note_done(&self, key: ActionKey);

    /// Tells the others that an instance failed for good. Called before its lease is released.
    fn note_failure(&self, failed: &FailedInstance<'_>);

    /// Takes note of a worker that is ready: its device, and the instructions that it uses.
    fn note_worker(&self, device: &str, isa: &str);
}

/// An instance that failed for good.
#[derive(Debug)]
pub struct FailedInstance<'a> {
    /// Its key.
    pub key: ActionKey,
    /// Its name.
    pub stage: &'a str,
    /// Kind of its stage.
    pub kind: StageKind,
    /// What happened.
    pub failed: &'a FailedStage,
}

/// What other runs did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Keys that have a result.
    pub done: Vec<ActionKey>,
    /// Keys that failed for good.
    pub failed: Vec<(ActionKey, Failure)>,
    /// Whether the run is cancelled.
    pub is_cancelled: bool,
}

/// Why a run that does a part of a graph ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartEnd {
    /// Every instance that it may start has ended.
    Finished,
    /// It had nothing to do for long.
    Idle,
    /// Its time is over, or is too short for any stage that is left.
    OutOfTime,
    /// The run was cancelled.
    Cancelled,
}

impl Part {
    /// Returns the order of ready instances: by urgency in coarse steps, then by a draw of this run's own.
    ///
    /// In one strict order, all runs would ask for the same leases.
    pub(super) fn urgency(&self, graph: &Graph) -> PerInstance<f64> {
        let mut urgency = graph.urgency();
        for (id, value) in graph.ids().zip(urgency.values_mut()) {
            let draw = Digest::of(format!("{} {}", self.name, graph.instance(id).name).as_bytes()).to_string();
            let draw = u32::from_str_radix(&draw[..8], 16).map_or(0.0, f64::from) / (f64::from(u32::MAX) + 1.0);
            // Two steps for each doubling.
            *value = (2.0 * (1.0 + *value).log2()).floor() + draw;
        }
        urgency
    }

    /// Whether a stage that starts now is likely to end in time, or to save progress.
    pub(super) fn has_time_for(&self, graph: &Graph, id: InstanceId, now: Instant) -> bool {
        let (Some(until), Some(seconds)) = (self.until, self.seconds[id]) else { return true };
        let left = until.saturating_duration_since(now).as_secs_f64();
        let instance = graph.instance(id);
        let epochs = instance.params.pointer("/epochs").and_then(serde_json::Value::as_f64);
        let unit = match (instance.kind, epochs) {
            (StageKind::Train, Some(epochs)) if epochs >= 1.0 => seconds / epochs,
            _ => seconds,
        };
        unit * TIME_MARGIN <= left
    }
}

/// Whether a failure is that of a file system, not of the stage: another machine may have more luck.
pub(super) fn is_of_storage(failure: &Failure) -> bool {
    // The numbers of EIO, ENOSPC, ESTALE and EDQUOT, as the texts of errors end in them.
    let errors = ["(os error 5)", "(os error 28)", "(os error 116)", "(os error 122)"];
    let texts = || failure.causes.iter().chain([&failure.message]);
    texts().any(|text| errors.iter().any(|error| text.contains(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::FailureCode;

    #[test]
    fn failures_of_the_storage_are_told_from_those_of_the_stage() {
        let failure = |message: &str, cause: &str| Failure {
            code: FailureCode::Broken,
            message: message.to_owned(),
            causes: vec![cause.to_owned()],
        };
        assert!(is_of_storage(&failure("cannot write x", "No space left on device (os error 28)")));
        assert!(is_of_storage(&failure("Stale file handle (os error 116)", "")));
        assert!(!is_of_storage(&failure("cannot read x", "No such file or directory (os error 2)")));
    }
}
