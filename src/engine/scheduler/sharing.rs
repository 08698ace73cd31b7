//! Two runs on one cache: a stage that another run is at is waited for, and its result taken when it is there. What a lease is, `cache` knows.

use std::time::{Duration, Instant};

use super::{RunError, Scheduler, Wants};
use crate::cache::{Attempt, Holder, Lease};
use crate::event::RunEvent;
use crate::plan::{Assessment, assess};
use crate::spec::InstanceId;

/// How often is looked whether another run is done: each look reads two files, over a network perhaps.
const LOOK: Duration = Duration::from_millis(300);

/// A wait for another run.
#[derive(Debug)]
pub(super) struct Wait {
    again: Instant,
    /// Who was told of last.
    told: Option<Holder>,
}

impl Scheduler<'_> {
    /// Whether an instance is to be left alone for now because another run is at it; takes the other's result if it is there.
    pub(super) fn waits_for_another_run(&mut self, id: InstanceId) -> bool {
        match self.waits.get_mut(&id) {
            None => false,
            Some(wait) if Instant::now() < wait.again => true,
            Some(_) => self.take_result(id),
        }
    }

    /// Asks for the lease of a ready instance. Nothing if another run has it, or if the result turns out to be there.
    pub(super) fn lease(&mut self, id: InstanceId) -> Result<Option<Lease>, RunError> {
        let Some(key) = self.stale.get(&id).map(|stale| stale.key) else { return Ok(None) };
        match self.leases.attempt(key)? {
            Attempt::Taken(lease) => {
                // Between the lookup and the lease another run may have come and gone. From now on nobody else records this key.
                if self.take_result(id) {
                    return Ok(None);
                }
                self.waits.remove(&id);
                Ok(Some(lease))
            }
            Attempt::Held(holder) => {
                let told = self.waits.get(&id).map(|wait| wait.told.clone());
                if told.as_ref() != Some(&holder) {
                    let stage = self.name(id);
                    self.emit(RunEvent::StageWaiting { stage, holder: holder.clone() });
                }
                self.waits.insert(id, Wait { again: Instant::now() + LOOK, told: holder });
                Ok(None)
            }
        }
    }

    /// Ends a ready instance whose result is there by now. One that was asked for with `--force` wants its own.
    fn take_result(&mut self, id: InstanceId) -> bool {
        let needed = match self.stale.get(&id).map(|stale| stale.wants) {
            Some(Wants::Result) => self.options.needed[id.0],
            Some(Wants::Blobs) => true,
            Some(Wants::Rerun) | None => return false,
        };
        // Producers may be made again at this moment; then there is nothing to look up.
        let known = self.graph.producers(id).all(|producer| self.states.outputs(producer).is_some());
        let outputs = |producer| self.states.outputs(producer).expect("checked above");
        if !known || !matches!(assess(self.graph, self.cache, self.sources, id, outputs, needed), Assessment::Fresh(..))
        {
            return false;
        }
        self.waits.remove(&id);
        self.stale.remove(&id);
        self.settle(id);
        true
    }
}
