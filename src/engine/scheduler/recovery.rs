//! Recovers from lost blobs and broken attempts: producers of lost blobs run again, and broken stages are tried again.

use std::collections::HashMap;

use super::{Scheduler, State};
use crate::cache::CacheError;
use crate::event::RunEvent;
use crate::graph::Graph;
use crate::spec::{InstanceId, PerInstance};

/// Maximum number of attempts of a stage that kills its worker or gets corrupt input.
pub(super) const MAX_ATTEMPTS: u32 = 2;

/// Instances that run again, and those that wait for them.
pub(super) struct Recovery {
    /// Attempts that did not succeed.
    attempts: PerInstance<u32>,
    /// Instances that run again because this output was lost, until it exists again.
    lost: HashMap<InstanceId, String>,
    /// Producers that run again because an output was lost, with the instances that wait for them. All other consumers
    /// have counted them as done before.
    rebuilding: HashMap<InstanceId, Vec<InstanceId>>,
}

impl Recovery {
    pub(super) fn new(graph: &Graph) -> Self {
        Recovery { attempts: graph.per_instance(0), lost: HashMap::new(), rebuilding: HashMap::new() }
    }

    /// Counts an attempt that did not succeed.
    pub(super) fn count_attempt(&mut self, id: InstanceId) {
        self.attempts[id] += 1;
    }

    /// Whether an instance may be tried again.
    pub(super) fn may_retry(&self, id: InstanceId) -> bool {
        self.attempts[id] < MAX_ATTEMPTS
    }

    /// Returns the lost output for which an instance runs again.
    pub(super) fn lost_output(&self, id: InstanceId) -> Option<&str> {
        self.lost.get(&id).map(String::as_str)
    }

    /// Notes that an instance has its outputs; returns the instances that waited for them.
    ///
    /// `None` if it did not run again: then all its consumers wait.
    pub(super) fn finish(&mut self, id: InstanceId) -> Option<Vec<InstanceId>> {
        self.lost.remove(&id);
        self.rebuilding.remove(&id)
    }
}

impl Scheduler<'_> {
    /// Sends an instance back to waiting for producers that run again.
    pub(super) fn wait_for(&mut self, id: InstanceId, producers: &[InstanceId]) {
        self.states.set(id, State::Waiting(producers.len()));
        for producer in producers {
            self.recovery.rebuilding.entry(*producer).or_default().push(id);
        }
    }

    /// Sends an instance back to waiting if an input blob is gone, and makes its producer run again.
    pub(super) fn revive_producers(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let mut lost: Vec<(InstanceId, String)> = Vec::new();
        let mut awaited: Vec<InstanceId> = Vec::new();
        let graph = self.context.graph;
        let are_here = self.fetch_inputs(id)?;
        for (need, is_here) in graph.instance(id).needs.iter().zip(are_here) {
            if is_here || awaited.contains(&need.from) {
                continue;
            }
            awaited.push(need.from);
            // A producer that is not done already runs again for another consumer.
            if self.states.outputs(need.from).is_some_and(|outputs| outputs.contains_key(&need.output)) {
                lost.push((need.from, need.output.clone()));
            }
        }
        if awaited.is_empty() {
            return Ok(false);
        }
        if self.interrupt.requests() > 0 {
            // A blob that was not fetched because the user stopped the run is not lost.
            return Ok(true);
        }
        self.wait_for(id, &awaited);
        for (producer, output) in lost {
            self.states.reopen(producer);
            let stage = self.name(producer);
            self.emit(RunEvent::StageReopened { stage, output: output.clone() });
            self.recovery.lost.insert(producer, output);
            self.settle(vec![producer])?;
        }
        Ok(true)
    }
}
