//! Settles instances whose inputs are known: each is fresh and done, or ready to run, or may not run.

use super::tasks::{Satisfaction, Task};
use super::{Scheduler, State};
use crate::action::Action;
use crate::cache::{CacheError, Manifest};
use crate::event::{RunEvent, Status};
use crate::graph::Outputs;
use crate::plan::{RerunRequest, StaleReason, Staleness};
use crate::protocol::Failure;
use crate::spec::InstanceId;

impl Scheduler<'_> {
    /// Looks up instances whose producers are all done, in one batch, then the instances that this unblocks.
    pub(super) fn settle(&mut self, ids: Vec<InstanceId>) -> Result<(), CacheError> {
        let mut open = ids;
        while !open.is_empty() {
            let mut known = Vec::with_capacity(open.len());
            for id in std::mem::take(&mut open) {
                let rebuilding: Vec<InstanceId> =
                    self.context.graph.producers(id).filter(|p| self.states.outputs(*p).is_none()).collect();
                if rebuilding.is_empty() {
                    known.push(id);
                } else {
                    self.wait_for(id, &rebuilding);
                }
            }
            let states = &self.states;
            let outputs = |producer| states.outputs(producer).expect("checked above");
            let needed = &self.options.goals.needed;
            let assessed = self.context.check_staleness_of_all(&known, outputs, needed)?;
            for (id, assessment) in known.into_iter().zip(assessed) {
                let (key, manifest) = match assessment {
                    Staleness::Fresh(key, manifest) => (key, manifest),
                    Staleness::Stale(action, reason) => {
                        self.make_ready(id, *action, &reason);
                        continue;
                    }
                };
                if let Some(reason) = self.has_to_run(id, &manifest)? {
                    self.make_ready(id, manifest.record, &reason);
                    continue;
                }
                let name = self.name(id);
                self.journal.note_result(name, key);
                self.remote_results.note(id, manifest.from);
                open.extend(self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary));
            }
        }
        Ok(())
    }

    /// Returns why an instance has to run although its result is cached.
    ///
    /// It may be asked more than once, because the instance's inputs may have to be made again first.
    fn has_to_run(&mut self, id: InstanceId, manifest: &Manifest) -> Result<Option<StaleReason>, CacheError> {
        match self.tasks.forced(id) {
            Some(RerunRequest::Assemble) if !self.is_assembled_here(id, manifest)? => {}
            Some(order) => return Ok(Some(StaleReason::Forced(order))),
            None => {}
        }
        if let Some(output) = self.recovery.lost_output(id)
            && !self.context.cache.has(self.context.cache.output(manifest, output)?)
        {
            return Ok(Some(StaleReason::Output(output.to_owned())));
        }
        Ok(self.fetch_outputs(id, manifest)?.map(StaleReason::Output))
    }

    fn make_ready(&mut self, id: InstanceId, action: Action, reason: &StaleReason) {
        if !self.tasks.may_run(id) {
            return self.refuse(id, &action, reason);
        }
        let (key, wants) = (action.key(), Satisfaction::of(reason));
        if let Some(failure) = self.failed_elsewhere.get(&key) {
            return self.fail_elsewhere(id, failure.clone());
        }
        // What changed since earlier runs, whoever planned the graph knows.
        let reason = match &self.options.part {
            Some(_) => "has no result".to_owned(),
            None => self.journal.history.reason(self.context.graph.instance(id), &action, reason),
        };
        self.tasks.add(id, Task { action, key, reason, wants });
        self.states.set(id, if self.is_own(id) { State::Ready } else { State::Elsewhere });
    }

    /// Finishes an instance whose outputs are known; returns the consumers that this unblocks.
    pub(super) fn done(
        &mut self,
        id: InstanceId,
        outputs: Outputs,
        status: Status,
        seconds: f64,
        summary: String,
    ) -> Vec<InstanceId> {
        self.end(id, State::Done(outputs), status, seconds, summary, None);
        self.tasks.fulfil(id);
        let consumers = self.recovery.finish(id).unwrap_or_else(|| self.context.graph.consumers(id).collect());
        let mut settled = Vec::new();
        for consumer in consumers {
            if let State::Waiting(left) = *self.states.get(consumer) {
                self.states.set(consumer, State::Waiting(left - 1));
                if left == 1 {
                    settled.push(consumer);
                }
            }
        }
        settled
    }

    pub(super) fn end(
        &mut self,
        id: InstanceId,
        state: State,
        status: Status,
        seconds: f64,
        summary: String,
        failure: Option<Failure>,
    ) {
        self.states.set(id, state);
        if let Some(status) = self.states.end(id, status) {
            let stage = self.name(id);
            self.emit(RunEvent::StageFinished { stage, status, seconds, summary, failure });
        }
    }
}
