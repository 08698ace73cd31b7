//! States of instances during a run, and the one function that changes them.
//!
//! Knows nothing about the reasons for a change.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::dense_map::DenseMap;
use crate::event::Status;
use crate::graph::Outputs;
use crate::spec::{InstanceId, PerInstance};

/// State of an instance during a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// No target needs it.
    Unwanted,
    /// This many of its producers are not done.
    Waiting(usize),
    /// All producers are done and its result is missing: it starts once a slot is free.
    Ready,
    /// All producers are done and its result is missing: another run of those that share the graph makes it.
    Elsewhere,
    /// A worker or the engine runs it.
    Running,
    /// Its outputs are known.
    Done(Outputs),
    /// It failed.
    Failed,
    /// It is not tried: a producer failed, or the run was stopped.
    Skipped,
}

/// Order of ready instances: most urgent first, then by id. Urgencies are not negative, so their bits sort like their
/// values.
type ReadyOrder = (Reverse<u64>, InstanceId);

/// States of all instances, by id, with the order of the ready ones.
#[derive(Debug)]
pub(super) struct States {
    states: PerInstance<State>,
    /// Ready instances, in order.
    ready: BTreeSet<ReadyOrder>,
    urgency: PerInstance<f64>,
    /// How instances ended, if they did.
    ended: PerInstance<Option<Status>>,
    /// Instances whose end does not count any more, because their outputs were lost.
    reopened: PerInstance<bool>,
}

impl States {
    pub(super) fn new(urgency: PerInstance<f64>) -> Self {
        let count = urgency.len();
        States {
            states: DenseMap::filled(count, State::Unwanted),
            ready: BTreeSet::new(),
            urgency,
            ended: DenseMap::filled(count, None),
            reopened: DenseMap::filled(count, false),
        }
    }

    pub(super) fn get(&self, id: InstanceId) -> &State {
        &self.states[id]
    }

    /// Returns the outputs of an instance that is done.
    pub(super) fn outputs(&self, id: InstanceId) -> Option<&Outputs> {
        match &self.states[id] {
            State::Done(outputs) => Some(outputs),
            _ => None,
        }
    }

    /// Changes the state of an instance. Every transition goes through this function.
    pub(super) fn set(&mut self, id: InstanceId, state: State) {
        let turn = self.turn(id);
        if self.states[id] == State::Ready {
            self.ready.remove(&turn);
        }
        if state == State::Ready {
            self.ready.insert(turn);
        }
        self.states[id] = state;
    }

    /// Returns what ready instances are sorted by.
    pub(super) fn order_of(&self, id: InstanceId) -> impl Ord + use<> {
        self.turn(id)
    }

    fn turn(&self, id: InstanceId) -> ReadyOrder {
        (Reverse(self.urgency[id].to_bits()), id)
    }

    /// Returns the first ready instance after `before` in order, or the very first. `before` need not be ready any
    /// more.
    pub(super) fn next_ready(&self, before: Option<InstanceId>) -> Option<InstanceId> {
        let from = before.map_or(Bound::Unbounded, |id| Bound::Excluded(self.turn(id)));
        self.ready.range((from, Bound::Unbounded)).next().map(|(_, id)| *id)
    }

    /// Takes back the end of an instance whose outputs were lost. It will end once more.
    pub(super) fn reopen(&mut self, id: InstanceId) {
        self.reopened[id] = true;
    }

    /// Records how an instance ended; returns the status that counts. `None` if it had ended and was not reopened.
    pub(super) fn end(&mut self, id: InstanceId, status: Status) -> Option<Status> {
        let counts = match self.ended[id] {
            None => status,
            Some(_) if !self.reopened[id] => return None,
            // It did run here, even if another run made it again.
            Some(Status::Ran) if status == Status::Cached => Status::Ran,
            Some(_) => status,
        };
        (self.ended[id], self.reopened[id]) = (Some(counts), false);
        Some(counts)
    }

    /// Returns how an instance ended, if it did.
    pub(super) fn ended(&self, id: InstanceId) -> Option<Status> {
        self.ended[id]
    }

    /// Counts the instances that ended with a status.
    pub(super) fn count(&self, status: Status) -> usize {
        self.ended.values().filter(|ended| **ended == Some(status)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense_map::DenseId;

    #[test]
    fn the_most_urgent_comes_first_and_the_earlier_of_equals() {
        let mut states = States::new([1.0, 5.0, 5.0, 2.0].into_iter().collect());
        for id in [0, 2, 1, 3] {
            states.set(InstanceId::at(id), State::Ready);
        }
        let turns = |states: &States| -> Vec<usize> {
            std::iter::successors(states.next_ready(None), |id| states.next_ready(Some(*id)))
                .map(DenseId::position)
                .collect()
        };
        assert_eq!(turns(&states), [1, 2, 3, 0]);
        states.set(InstanceId::at(2), State::Running);
        assert_eq!(turns(&states), [1, 3, 0]);
        assert_eq!(states.next_ready(Some(InstanceId::at(2))), Some(InstanceId::at(3)), "it was started meanwhile");
    }

    #[test]
    fn an_instance_that_was_cached_and_had_to_run_counts_once_as_run() {
        let mut states = States::new([0.0].into_iter().collect());
        assert_eq!(states.end(InstanceId::at(0), Status::Cached), Some(Status::Cached));
        assert_eq!(states.end(InstanceId::at(0), Status::Ran), None, "it has ended");
        for (status, counts) in [(Status::Ran, Status::Ran), (Status::Cached, Status::Ran)] {
            states.reopen(InstanceId::at(0));
            assert_eq!(states.end(InstanceId::at(0), status), Some(counts));
        }
        assert_eq!((states.count(Status::Cached), states.count(Status::Ran)), (0, 1));
    }
}
