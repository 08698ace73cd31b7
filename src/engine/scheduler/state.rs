//! The states of instances during a run and the one function through which they change. Knows nothing of why they
//! change.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::event::Status;
use crate::graph::Outputs;
use crate::spec::InstanceId;

/// Where an instance stands in a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// No target reaches it.
    Unwanted,
    /// Some of its producers are not done; how many.
    Waiting(usize),
    /// All its producers are done and its own result is not there: it may start once a slot is free.
    Ready,
    /// A worker or the engine is at it.
    Running,
    /// Its outputs are known.
    Done(Outputs),
    /// It failed.
    Failed,
    /// It will not be tried: something it needs failed, or the run was stopped.
    Skipped,
}

/// The most urgent come first, and the earlier of equals. Urgencies are not negative, and then their bits are in their
/// order.
type Transition = (Reverse<u64>, InstanceId);

/// The states of all instances, by id, and how many are in those that a run waits for.
#[derive(Debug)]
pub(super) struct States {
    states: Vec<State>,
    /// Instances that are ready, by their turn.
    ready: BTreeSet<Transition>,
    urgency: Vec<f64>,
    /// Instances that were ended, and how.
    ended: Vec<Option<Status>>,
    /// Instances whose end does not count any more, because what they made was lost.
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

    /// The outputs of an instance that is done.
    pub(super) fn outputs(&self, id: InstanceId) -> Option<&Outputs> {
        match &self.states[id.0] {
            State::Done(outputs) => Some(outputs),
            _ => None,
        }
    }

    /// Every transition passes through here.
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

    fn turn(&self, id: InstanceId) -> Transition {
        (Reverse(self.urgency[id.0].to_bits()), id)
    }

    /// The instance that may start after this one in the order of their turns, or first; that one need not be ready any
    /// more.
    pub(super) fn next_ready(&self, before: Option<InstanceId>) -> Option<InstanceId> {
        let from = before.map_or(Bound::Unbounded, |id| Bound::Excluded(self.turn(id)));
        self.ready.range((from, Bound::Unbounded)).next().map(|(_, id)| *id)
    }

    /// Takes the end of an instance back, because what it made was lost. It ends once more.
    pub(super) fn reopen(&mut self, id: InstanceId) {
        self.reopened[id.0] = true;
    }

    /// Notes how an instance ended, and gives how that counts; nothing if it has ended and was not reopened.
    pub(super) fn end(&mut self, id: InstanceId, status: Status) -> Option<Status> {
        let counts = match self.ended[id.0] {
            None => status,
            Some(_) if !self.reopened[id.0] => return None,
            // It did run here, whoever made it again.
            Some(Status::Ran) if status == Status::Cached => Status::Ran,
            Some(_) => status,
        };
        (self.ended[id.0], self.reopened[id.0]) = (Some(counts), false);
        Some(counts)
    }

    /// How many instances ended in a way.
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
