//! States of instances during a run, and the one function that changes them.
//!
//! Knows nothing about the reasons for a change.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::event::Status;
use crate::graph::Outputs;
use crate::spec::InstanceId;

/// State of an instance during a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// No target needs it.
    Unwanted,
    /// This many of its producers are not done.
    Waiting(usize),
    /// All producers are done and its result is missing: it starts once a slot is free.
    Ready,
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
    states: Vec<State>,
    /// Ready instances, in order.
    ready: BTreeSet<ReadyOrder>,
    urgency: Vec<f64>,
    /// How instances ended, if they did.
    ended: Vec<Option<Status>>,
    /// Instances whose end does not count any more, because their outputs were lost.
    reopened: Vec<bool>,
}

impl States {
    pub(super) fn new(urgency: Vec<f64>) -> Self {
        let count = urgency.len();
        let (states, ready) = (vec![State::Unwanted; count], BTreeSet::new());
        States { states, ready, urgency, ended: vec![None; count], reopened: vec![false; count] }
    }

    pub(super) fn get(&self, id: InstanceId) -> &State {
        &self.states[id.0]
    }

    /// Returns the outputs of an instance that is done.
    pub(super) fn outputs(&self, id: InstanceId) -> Option<&Outputs> {
        match &self.states[id.0] {
            State::Done(outputs) => Some(outputs),
            _ => None,
        }
    }

    /// Changes the state of an instance. Every transition goes through this function.
    pub(super) fn set(&mut self, id: InstanceId, state: State) {
        let turn = self.turn(id);
        if self.states[id.0] == State::Ready {
            self.ready.remove(&turn);
        }
        if state == State::Ready {
            self.ready.insert(turn);
        }
        self.states[id.0] = state;
    }

    fn turn(&self, id: InstanceId) -> ReadyOrder {
        (Reverse(self.urgency[id.0].to_bits()), id)
    }

    /// Returns the first ready instance after `before` in order, or the very first. `before` need not be ready any
    /// more.
    pub(super) fn next_ready(&self, before: Option<InstanceId>) -> Option<InstanceId> {
        let from = before.map_or(Bound::Unbounded, |id| Bound::Excluded(self.turn(id)));
        self.ready.range((from, Bound::Unbounded)).next().map(|(_, id)| *id)
    }

    /// Takes back the end of an instance whose outputs were lost. It will end once more.
    pub(super) fn reopen(&mut self, id: InstanceId) {
        self.reopened[id.0] = true;
    }

    /// Records how an instance ended; returns the status that counts. `None` if it had ended and was not reopened.
    pub(super) fn end(&mut self, id: InstanceId, status: Status) -> Option<Status> {
        let counts = match self.ended[id.0] {
            None => status,
            Some(_) if !self.reopened[id.0] => return None,
            // It did run here, even if another run made it again.
            Some(Status::Ran) if status == Status::Cached => Status::Ran,
            Some(_) => status,
        };
        (self.ended[id.0], self.reopened[id.0]) = (Some(counts), false);
        Some(counts)
    }

    /// Counts the instances that ended with a status.
    pub(super) fn count(&self, status: Status) -> usize {
        self.ended.iter().filter(|ended| **ended == Some(status)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_comes_first_and_the_earlier_of_equals() {
        let mut states = States::new(vec![1.0, 5.0, 5.0, 2.0]);
        for id in [0, 2, 1, 3] {
            states.set(InstanceId(id), State::Ready);
        }
        let turns = |states: &States| -> Vec<usize> {
            std::iter::successors(states.next_ready(None), |id| states.next_ready(Some(*id))).map(|id| id.0).collect()
        };
        assert_eq!(turns(&states), [1, 2, 3, 0]);
        states.set(InstanceId(2), State::Running);
        assert_eq!(turns(&states), [1, 3, 0]);
        assert_eq!(states.next_ready(Some(InstanceId(2))), Some(InstanceId(3)), "it was started meanwhile");
    }

    #[test]
    fn an_instance_that_was_cached_and_had_to_run_counts_once_as_run() {
        let mut states = States::new(vec![0.0]);
        assert_eq!(states.end(InstanceId(0), Status::Cached), Some(Status::Cached));
        assert_eq!(states.end(InstanceId(0), Status::Ran), None, "it has ended");
        for (status, counts) in [(Status::Ran, Status::Ran), (Status::Cached, Status::Ran)] {
            states.reopen(InstanceId(0));
            assert_eq!(states.end(InstanceId(0), status), Some(counts));
        }
        assert_eq!((states.count(Status::Cached), states.count(Status::Ran)), (0, 1));
    }
}
