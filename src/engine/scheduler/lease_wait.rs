//! Coordinates two runs on one cache: waits for a stage that another run holds, then takes its result.
//!
//! The module `cache` defines leases.

use std::time::{Duration, Instant};

use super::{RunError, Satisfaction, Scheduler, State};
use crate::cache::{Attempt, Blob, CacheError, Held, Holder, Lease, Wanted};
use crate::event::RunEvent;
use crate::plan::Staleness;
use crate::spec::InstanceId;

/// Interval between checks on another run. Each check reads two files, perhaps over a network.
const LOOK: Duration = Duration::from_millis(300);

/// Wait for another run.
#[derive(Debug)]
pub(super) struct Wait {
    again: Instant,
    /// Whether the lease may be requested again.
    due: bool,
    /// Holder that was reported last.
    told: Option<Holder>,
}

impl Scheduler<'_> {
    /// Takes results that other runs have made meanwhile, whether or not a slot is free.
    pub(super) fn look_at_other_runs(&mut self) -> Result<(), CacheError> {
        let now = Instant::now();
        let is_over = |(id, wait): &(&InstanceId, &Wait)| wait.again <= now && *self.states.get(**id) == State::Ready;
        let over: Vec<InstanceId> = self.waits.iter().filter(is_over).map(|(id, _)| *id).collect();
        for id in over {
            if !self.take_result(id)?
                && let Some(wait) = self.waits.get_mut(&id)
            {
                (wait.again, wait.due) = (now + LOOK, true);
            }
        }
        Ok(())
    }

    /// Announces to collections, once, what this run may need, including results whose keys are not known yet.
    pub(super) fn announce(&mut self) -> Result<(), CacheError> {
        if self.note.is_some() {
            return Ok(());
        }
        let mut wanted = Wanted::default();
        for id in self.context.graph.ids().filter(|id| self.options.goals.wanted[*id]) {
            wanted.shapes.insert(self.context.graph.record_by(id, |_, _| String::new(), |_| String::new()).shape());
            let sources = &self.context.graph.instance(id).sources;
            wanted.fetched.extend(sources.iter().map(|need| self.context.sources.get(id, need).identity()));
        }
        self.note = self.leases.announce(&wanted)?;
        Ok(())
    }

    /// Whether to leave an instance alone for now because another run holds its lease.
    pub(super) fn waits_for_another_run(&self, id: InstanceId) -> bool {
        self.waits.get(&id).is_some_and(|wait| !wait.due)
    }

    /// Requests the lease of a ready instance. `None` if another run holds it, or if the result exists by now.
    pub(super) fn lease(&mut self, id: InstanceId) -> Result<Option<Lease>, RunError> {
        let Some(key) = self.stale.get(&id).map(|stale| stale.key) else { return Ok(None) };
        match self.leases.attempt(key)? {
            Attempt::Taken(lease) => {
                // Another run may have come and gone between the lookup and the lease. From now on, only this run
                // records this key.
                if self.take_result(id)? {
                    return Ok(None);
                }
                self.waits.remove(&id);
                Ok(Some(lease))
            }
            Attempt::Held(Held { holder, patience }) => {
                let told = self.waits.get(&id).map(|wait| wait.told.clone());
                if told.as_ref() != Some(&holder) {
                    let stage = self.name(id);
                    self.emit(RunEvent::StageWaiting { stage, holder: holder.clone(), patience });
                }
                self.waits.insert(id, Wait { again: Instant::now() + LOOK, due: false, told: holder });
                Ok(None)
            }
        }
    }

    /// Finishes a ready instance whose result exists by now. An instance forced to rerun takes no other result.
    fn take_result(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let (needed, must_be_here) = match self.stale.get(&id).map(|stale| stale.wants) {
            Some(Satisfaction::Result) => (self.options.goals.needed[id], false),
            // The blobs were missing everywhere before: only a local copy changes that.
            Some(Satisfaction::Blobs) => (true, true),
            Some(Satisfaction::Rerun) | None => return Ok(false),
        };
        // A producer may be running again; then there is nothing to look up.
        if self.context.graph.producers(id).any(|producer| self.states.outputs(producer).is_none()) {
            return Ok(false);
        }
        let outputs = |producer| self.states.outputs(producer).expect("checked above");
        let is_here = |blob: &Blob| !must_be_here || self.context.cache.has(*blob);
        match self.context.check_staleness(id, outputs, needed)? {
            Staleness::Fresh(_, manifest) if manifest.outputs.values().all(is_here) => {}
            _ => return Ok(false),
        }
        self.waits.remove(&id);
        self.stale.remove(&id);
        self.resolve(id)?;
        Ok(true)
    }
}
