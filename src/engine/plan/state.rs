//! States of instances in a plan, and the reasons for them.
//!
//! [`Staleness`] is of an instance whose inputs are all known: a run has these only. [`CacheStatus`] is of an instance
//! in a plan, where an input may have to be made first. [`PlannedState`] is that in a word, as it is shown and saved.

use serde::{Deserialize, Serialize};

use super::rerun_from::RerunFrom;
use crate::action::{Action, ActionKey};
use crate::cache::Manifest;
use crate::spec::{InstanceId, PerInstance};

/// State of an instance in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedState {
    /// Its result is in the cache.
    Fresh,
    /// It has to run.
    Stale,
    /// A producer is not fresh. The instance turns out fresh if that producer makes the same bytes as before.
    Pending,
}

/// State of an instance, with its manifest, its action, or the producer that it waits for.
#[derive(Debug)]
pub enum CacheStatus {
    /// Its result is in the cache.
    Fresh(ActionKey, Box<Manifest>),
    /// It has to run.
    Stale(Box<Action>, StaleReason),
    /// It needs this instance, which is not fresh.
    Pending(InstanceId),
}

impl CacheStatus {
    /// Returns the plain state.
    pub fn state(&self) -> PlannedState {
        match self {
            CacheStatus::Fresh(..) => PlannedState::Fresh,
            CacheStatus::Stale(..) => PlannedState::Stale,
            CacheStatus::Pending(_) => PlannedState::Pending,
        }
    }
}

/// States of the instances of a pipeline; `None` for those that nobody wants.
pub type CacheStatuses = PerInstance<Option<CacheStatus>>;

/// Staleness of an instance whose inputs are all known.
#[derive(Debug)]
pub enum Staleness {
    /// The result is in the cache.
    Fresh(ActionKey, Box<Manifest>),
    /// The result is not in the cache, or may not be used.
    Stale(Box<Action>, StaleReason),
}

/// Reason why an instance is stale.
#[derive(Debug)]
pub enum StaleReason {
    /// The cache has no manifest for the key.
    Unknown,
    /// The manifest exists, but this required output is missing.
    Output(String),
    /// A rerun was requested.
    Forced(RerunRequest),
}

/// Request to rerun an instance although it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunRequest {
    /// The user named the instance.
    Force,
    /// The user chose a rerun level that includes the instance.
    From(RerunFrom),
    /// The result came from a remote cache, and its inputs are obtainable: assemble it locally.
    Assemble,
}

impl RerunRequest {
    /// Describes the request in a few words.
    pub fn words(self) -> String {
        match self {
            RerunRequest::Force => "asked for with --force".to_owned(),
            RerunRequest::From(depth) => format!("made anew with --from {}", depth.name()),
            RerunRequest::Assemble => "assembled here: its result came from elsewhere".to_owned(),
        }
    }
}
