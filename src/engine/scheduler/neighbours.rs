//! Runs that share a graph: takes what others made, gives up what failed elsewhere, ends when nothing is left to do.
//!
//! Does nothing in a run of its own ([`super::part`]).

use std::collections::HashSet;
use std::sync::Arc;

use super::looks::Look;
use super::part::{FailedInstance, News, PartEnd, is_of_storage};
use super::{RunError, Scheduler, State};
use crate::action::ActionKey;
use crate::cache::{CacheError, FailedStage};
use crate::clock;
use crate::event::Status;
use crate::protocol::Failure;
use crate::publish;
use crate::spec::InstanceId;

impl Scheduler<'_> {
    /// Whether this run starts an instance. It also remakes what got lost: whoever made it knows that it is done.
    pub(super) fn is_own(&self, id: InstanceId) -> bool {
        self.options.part.as_ref().is_none_or(|part| part.starts[id] || self.recovery.lost_output(id).is_some())
    }

    /// Looks, from time to time, at what the other runs did.
    pub(super) fn hear_news(&mut self) -> Result<(), CacheError> {
        let Some(part) = &self.options.part else { return Ok(()) };
        let now = clock::now();
        let Some(look) = self.leases.looks.due(now) else { return Ok(()) };
        let is_odd = self.leases.looks.is_odd();
        let news = match look {
            Look::Cancellation => News { is_cancelled: part.neighbours.is_cancelled(), ..News::default() },
            Look::News => part.neighbours.news(self.leases.looks.is_rare() && !is_odd),
        };
        if news.is_cancelled && self.part_end.is_none() {
            self.part_end = Some(PartEnd::Cancelled);
            self.interrupt.request();
        }
        let done: HashSet<ActionKey> = news.done.into_iter().collect();
        let mut found = false;
        for id in self.tasks.with_keys(&done) {
            self.refresh(id);
            found |= self.take_result(id)?;
        }
        for (key, failure) in news.failed {
            found |= self.fail_all_of(key, failure);
        }
        if self.leases.looks.has_work() {
            return Ok(());
        }
        if found {
            self.leases.looks.quicken(now);
        } else if !self.leases.looks.is_rare() || is_odd {
            // News may get lost on the way: some of the files themselves are looked at, too.
            self.look_at_others()?;
        }
        Ok(())
    }

    /// Looks for the results of the first few instances that other runs make.
    fn look_at_others(&mut self) -> Result<(), CacheError> {
        let awaited = |id: &InstanceId| *self.states.get(*id) == State::Elsewhere || self.leases.is_held(*id);
        let mut others: Vec<InstanceId> = self.tasks.ids().filter(awaited).collect();
        others.sort_unstable_by_key(|id| self.states.order_of(*id));
        for id in others {
            if !self.leases.looks.take() {
                break;
            }
            self.refresh(id);
            if self.take_result(id)? {
                self.leases.looks.quicken(clock::now());
            } else {
                // Its holder may be dead.
                self.leases.allow_request(id);
            }
        }
        Ok(())
    }

    fn refresh(&self, id: InstanceId) {
        if let Some(task) = self.tasks.get(id) {
            self.leases.refresh(task.key);
        }
    }

    /// Ends the instances of a key that failed in another run. The caller holds its lease: news may be late.
    pub(super) fn has_failed_elsewhere(&mut self, key: ActionKey) -> bool {
        let Some(part) = &self.options.part else { return false };
        let Some(failure) = part.neighbours.failure_of(key) else { return false };
        self.fail_all_of(key, failure);
        true
    }

    /// Ends the instances of a key that failed in another run, now and from now on. Returns whether there are any now.
    fn fail_all_of(&mut self, key: ActionKey, failure: Failure) -> bool {
        let ids = self.tasks.with_keys(&HashSet::from([key]));
        for id in &ids {
            self.fail_elsewhere(*id, failure.clone());
        }
        self.failed_elsewhere.insert(key, failure);
        !ids.is_empty()
    }

    /// Ends an instance that failed in another run.
    pub(super) fn fail_elsewhere(&mut self, id: InstanceId, failure: Failure) {
        self.tasks.take(id);
        self.end(id, State::Failed, Status::Failed, 0.0, String::new(), Some(failure));
        self.skip_consumers(id);
    }

    /// Tells the other runs of a failure.
    ///
    /// # Errors
    /// [`RunError::Storage`] if the file system failed, not the stage.
    pub(super) fn tell_failure(
        &mut self,
        id: InstanceId,
        key: ActionKey,
        failed: &FailedStage,
    ) -> Result<(), RunError> {
        let Some(part) = &self.options.part else { return Ok(()) };
        let instance = self.context.graph.instance(id);
        if is_of_storage(&failed.failure) {
            let Failure { message, causes, .. } = failed.failure.clone();
            return Err(RunError::Storage { stage: instance.name.clone(), message, causes });
        }
        // Without its log, the failure is told all the same.
        _ = publish::share_blobs(
            self.context.cache,
            &[(failed.log, self.context.cache.object_path(failed.log.digest))],
            &|_| (),
        );
        part.neighbours.note_failure(&FailedInstance { key, stage: &instance.name, kind: instance.kind, failed });
        Ok(())
    }

    /// Returns whom to tell of results.
    pub(super) fn neighbours(&self) -> Option<Arc<dyn super::part::Neighbours>> {
        self.options.part.as_ref().map(|part| Arc::clone(&part.neighbours))
    }

    /// Whether the run goes on. A part of a run ends when nothing is left that it could do, or when its time is over.
    pub(super) fn goes_on(&mut self) -> bool {
        let Some(part) = &self.options.part else {
            return !self.jobs.are_none() || (!self.stop.starts_nothing && self.states.next_ready(None).is_some());
        };
        let now = clock::now();
        if part.until.is_some_and(|until| now >= until) && self.part_end.is_none() {
            self.part_end = Some(PartEnd::OutOfTime);
            self.interrupt.request();
        }
        if !self.jobs.are_none() {
            self.idle_since = None;
            return true;
        }
        if self.stop.starts_nothing {
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        let graph = self.context.graph;
        let is_left =
            |id: InstanceId| part.starts[id] && self.options.goals.wanted[id] && self.states.ended(id).is_none();
        let end = if !graph.ids().any(is_left) {
            PartEnd::Finished
        } else if self.lacks_time {
            PartEnd::OutOfTime
        } else if now - since >= part.idle {
            PartEnd::Idle
        } else {
            return true;
        };
        self.part_end.get_or_insert(end);
        false
    }
}
