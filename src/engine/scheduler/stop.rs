//! Stops a run in good order: stages are asked to give up, then their workers are killed, then the run ends.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Scheduler, State};
use crate::event::Status;

/// Time that stages have to give up once asked.
const GIVE_UP_TIME: Duration = Duration::from_secs(10);

/// Time that stages have to end once killed. The rest waits for a server or a disk, and ends with the program.
const KILL_TIME: Duration = Duration::from_secs(1);

/// Counter of stop requests: the first asks stages to give up in good order, the second kills them.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<(AtomicUsize, AtomicUsize)>);

impl Interrupt {
    /// Requests a stop; returns the number of requests so far.
    pub fn request(&self) -> usize {
        self.0.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns the number of stop requests.
    pub fn requests(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Acknowledges the first `asked` requests: from now on, the run is sure to end soon.
    pub fn acknowledge(&self, asked: usize) {
        self.0.1.fetch_max(asked, Ordering::SeqCst);
    }

    /// Returns the number of acknowledged requests. It lags behind while the run waits for a server, for example.
    pub fn acknowledged(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// How far a run has come in stopping.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// Nothing more is started: the user stopped the run, or a stage failed.
    pub(super) starts_nothing: bool,
    /// Stop requests that were answered.
    answered: usize,
    are_killed: bool,
    /// When the stages have to have ended.
    deadline: Option<Instant>,
}

impl Stop {
    fn set_deadline(&mut self, are_killed: bool) {
        self.are_killed = are_killed;
        self.deadline = Some(Instant::now() + if are_killed { KILL_TIME } else { GIVE_UP_TIME });
    }
}

impl Scheduler<'_> {
    /// Answers new stop requests, and kills stages that do not give up in time.
    ///
    /// Breaks if killed stages have not ended in time: the run waits for them no longer.
    pub(super) fn answer_stop_requests(&mut self) -> ControlFlow<()> {
        let asked = self.interrupt.requests();
        if asked > self.stop.answered {
            self.interrupt.acknowledge(asked);
            (self.stop.answered, self.stop.starts_nothing) = (asked, true);
            let at_once = asked > 1;
            self.give_up(at_once);
            self.stop.set_deadline(at_once);
        }
        if self.stop.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            if self.stop.are_killed {
                return ControlFlow::Break(());
            }
            self.workers.kill();
            self.stop.set_deadline(true);
        }
        ControlFlow::Continue(())
    }

    /// Asks every running stage to give up, and kills the workers if `at_once`.
    fn give_up(&mut self, at_once: bool) {
        if at_once {
            self.workers.kill();
        }
        for (job, running) in self.jobs.running() {
            running.cancel.store(true, Ordering::SeqCst);
            if let Some(worker) = running.worker {
                self.workers.cancel(worker, job);
            }
        }
    }

    /// Skips what has not finished: the run was stopped or is broken.
    pub(super) fn skip_the_rest(&mut self) {
        for id in self.context.graph.ids() {
            if matches!(self.states.get(id), State::Waiting(_) | State::Ready | State::Elsewhere | State::Running) {
                self.end(id, State::Skipped, Status::Skipped, 0.0, String::new(), None);
            }
        }
    }
}
