//! Handles stages that did not succeed: records the failure, or tries again.

use super::jobs::Running;
use super::recovery::MAX_ATTEMPTS;
use super::tasks::Task;
use super::{RunError, Scheduler, State};
use crate::action::Action;
use crate::cache::FailedStage;
use crate::digest::Digest;
use crate::event::{RunEvent, Status};
use crate::plan::StaleReason;
use crate::plan::rerun_from::RerunFrom;
use crate::protocol::{Failure, FailureCode};
use crate::spec::InstanceId;

impl Scheduler<'_> {
    /// Handles a failed stage. Some failures are worth another try.
    pub(super) fn fail(&mut self, job: u64, failure: Failure) -> Result<(), RunError> {
        let Some(running) = self.jobs.end(job) else { return Ok(()) };
        let id = running.id;
        self.recovery.count_attempt(id);
        match failure.code {
            FailureCode::Cancelled if self.interrupt.requests() == 0 && running.overdue.is_some() => {
                let failure = self.overdue(&running).unwrap_or(failure);
                self.failed(running, failure)
            }
            FailureCode::Cancelled => {
                self.interrupted(running);
                Ok(())
            }
            FailureCode::CorruptInput { digest } if self.recovery.may_retry(id) => {
                // If one input is corrupt, others may be, and the next attempt is the last.
                let mut digests: Vec<Digest> = self.inputs(id).into_iter().map(|input| input.digest).collect();
                digests.push(digest);
                for digest in digests {
                    // Several stages may find it at once: the first one moves it away.
                    if let Some(kept) = self.context.cache.quarantine(digest)? {
                        let (name, kept) = (self.name(id), kept.display());
                        self.emit(RunEvent::Warning(format!(
                            "an input of {name} had other bytes than its digest says; it was moved to {kept} and is made again"
                        )));
                    }
                }
                self.retry(running);
                Ok(())
            }
            // Another stage has just quarantined the input, or another run's collection removed it: it is made again.
            _ if self.recovery.may_retry(id) && self.inputs(id).iter().any(|input| !input.path.exists()) => {
                self.retry(running);
                Ok(())
            }
            _ => self.failed(running, failure),
        }
    }

    /// Handles the death of a worker while it ran a stage.
    pub(super) fn worker_died(&mut self, job: u64, status: &str) -> Result<(), RunError> {
        let Some(mut running) = self.jobs.end(job) else { return Ok(()) };
        let id = running.id;
        running.worker = None;
        if self.interrupt.requests() > 0 {
            self.interrupted(running);
            return Ok(());
        }
        if let Some(failure) = self.overdue(&running) {
            return self.failed(running, failure);
        }
        self.recovery.count_attempt(id);
        if self.recovery.may_retry(id) {
            let name = self.name(id);
            self.emit(RunEvent::Warning(format!(
                "the worker died while it ran {name} ({}); it is tried once more",
                first_line(status)
            )));
            self.retry(running);
            return Ok(());
        }
        let message = format!("its worker died {MAX_ATTEMPTS} times ({})", first_line(status));
        let causes = status.lines().skip(1).map(str::to_owned).collect();
        self.failed(running, Failure { code: FailureCode::Broken, message, causes })
    }

    /// Ends a stage that the user stopped.
    fn interrupted(&mut self, mut running: Running) {
        self.leave(&mut running);
        let Running { id, action, started, .. } = running;
        let seconds = started.elapsed().as_secs_f64();
        self.journal.note_interrupted(self.name(id), action, seconds);
        self.end(id, State::Skipped, Status::Skipped, seconds, String::new(), None);
    }

    fn retry(&mut self, running: Running) {
        let Running { id, action, key, wants, .. } = running;
        self.tasks.add(id, Task { action, key, reason: "tried again".to_owned(), wants });
        self.states.set(id, State::Ready);
    }

    pub(super) fn failed(&mut self, mut running: Running, failure: Failure) -> Result<(), RunError> {
        let id = running.id;
        let seconds = running.started.elapsed().as_secs_f64();
        let name = self.name(id);
        // Remove the outputs first: the stage may have failed because the disk is full. The log lies beside them.
        if let Some(scratch) = &running.scratch {
            scratch.clear_but_log();
        }
        let log = match running.log.keep(self.context.cache) {
            Ok(log) => log,
            Err(error) => {
                self.emit(RunEvent::Warning(format!("the log of {name} could not be kept: {error}")));
                running.log.lost()
            }
        };
        drop(running.scratch);
        let at = jiff::Timestamp::now().to_string();
        let failed = FailedStage { failure: failure.clone(), log, at, seconds };
        self.tell_failure(id, running.key, &failed)?;
        // Not earlier: whoever takes the lease next looks for what was told.
        drop(running.lease);
        self.journal.note_failure(name, failed);
        self.end(id, State::Failed, Status::Failed, seconds, String::new(), Some(failure));
        self.skip_consumers(id);
        if !self.options.keep_going {
            // Running stages may still succeed, and their results are worth keeping.
            self.stop.starts_nothing = true;
        }
        Ok(())
    }

    /// Fails an instance that has to run and may not: an expected result is missing.
    pub(super) fn refuse(&mut self, id: InstanceId, action: &Action, reason: &StaleReason) {
        let reason = self.journal.history.reason(self.context.graph.instance(id), action, reason);
        let level = self.options.goals.rerun_from.map_or("", RerunFrom::name);
        let message = format!("it would have to run ({reason}), and --from {level} leaves it alone");
        let failure = Failure { code: FailureCode::Barred, message, causes: Vec::new() };
        self.end(id, State::Failed, Status::Failed, 0.0, String::new(), Some(failure));
        self.skip_consumers(id);
        self.stop.starts_nothing |= !self.options.keep_going;
    }

    pub(super) fn skip_consumers(&mut self, id: InstanceId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let consumers: Vec<InstanceId> = self.context.graph.consumers(id).collect();
            for consumer in consumers {
                if matches!(self.states.get(consumer), State::Waiting(_) | State::Ready | State::Elsewhere) {
                    self.end(consumer, State::Skipped, Status::Skipped, 0.0, String::new(), None);
                    open.push(consumer);
                }
            }
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
