//! Tasks of a run: which ready instances will run, which must run although they are fresh, and which may not run.

use std::collections::{HashMap, HashSet};

use crate::action::{Action, ActionKey};
use crate::plan::{RerunRequest, StaleReason};
use crate::spec::{InstanceId, PerInstance};

/// What a ready instance is to run.
pub(super) struct Task {
    pub(super) action: Action,
    pub(super) key: ActionKey,
    /// Why it runs, in a few words.
    pub(super) reason: String,
    pub(super) wants: Satisfaction,
}

/// What a concurrent run must provide for this instance to be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Satisfaction {
    /// A recorded result.
    Result,
    /// A recorded result, with the bytes of its outputs.
    Blobs,
    /// Nothing is enough: this instance was forced to rerun.
    Rerun,
}

impl Satisfaction {
    /// Returns what is enough for an instance that is stale for this reason.
    pub(super) fn of(reason: &StaleReason) -> Self {
        match reason {
            StaleReason::Unknown => Satisfaction::Result,
            StaleReason::Output(_) => Satisfaction::Blobs,
            StaleReason::Forced(_) => Satisfaction::Rerun,
        }
    }
}

/// Tasks of the ready instances, and the user's wishes that they have to respect.
pub(super) struct Tasks {
    ready: HashMap<InstanceId, Task>,
    /// Marks the instances that may not run.
    forbidden: PerInstance<bool>,
    /// Rerun requests that are not fulfilled yet.
    forced: PerInstance<Option<RerunRequest>>,
}

impl Tasks {
    pub(super) fn new(forbidden: PerInstance<bool>, forced: PerInstance<Option<RerunRequest>>) -> Self {
        Tasks { ready: HashMap::new(), forbidden, forced }
    }

    /// Sets what an instance is to run once it is started.
    pub(super) fn add(&mut self, id: InstanceId, task: Task) {
        self.ready.insert(id, task);
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<&Task> {
        self.ready.get(&id)
    }

    /// Returns the instances with a task.
    pub(super) fn ids(&self) -> impl Iterator<Item = InstanceId> {
        self.ready.keys().copied()
    }

    /// Returns the instances with a task under one of the keys.
    pub(super) fn with_keys(&self, keys: &HashSet<ActionKey>) -> Vec<InstanceId> {
        let has = |(_, task): &(&InstanceId, &Task)| keys.contains(&task.key);
        if keys.is_empty() { Vec::new() } else { self.ready.iter().filter(has).map(|(id, _)| *id).collect() }
    }

    /// Removes the task of an instance that starts, or that need not run any more.
    pub(super) fn take(&mut self, id: InstanceId) -> Option<Task> {
        self.ready.remove(&id)
    }

    pub(super) fn may_run(&self, id: InstanceId) -> bool {
        !self.forbidden[id]
    }

    /// Returns the request to rerun an instance, until it is fulfilled.
    pub(super) fn forced(&self, id: InstanceId) -> Option<RerunRequest> {
        self.forced[id]
    }

    /// Notes that an instance has its result: a request to rerun it is fulfilled.
    pub(super) fn fulfil(&mut self, id: InstanceId) {
        self.forced[id] = None;
    }
}
