//! Coordinates two runs on one cache: waits for a stage that another run holds, then takes its result.
//!
//! The module `cache` defines leases.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::looks::Looks;
use super::tasks::Satisfaction;
use super::{RunError, Scheduler, State};
use crate::action::ActionKey;
use crate::cache::{Attempt, Blob, Cache, CacheError, Held, Holder, Lease, Leases, Wanted};
use crate::clock;
use crate::event::RunEvent;
use crate::plan::Staleness;
use crate::spec::InstanceId;

/// Interval between checks on another run. Each check reads two files, perhaps over a network.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

/// The same for a run that shares work through the remote cache. Each check is three requests.
const REMOTE_CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// Leases of this run, and its waits for those of others.
pub(super) struct RunLeases {
    own: Leases,
    /// Tells collections what this run may need. `Some` once a stage is about to run.
    announcement: Option<Lease>,
    /// Ready instances whose lease another run holds.
    waits: HashMap<InstanceId, Wait>,
    /// When to look at what the other runs did that share the graph.
    pub(super) looks: Looks,
}

impl RunLeases {
    pub(super) fn new(cache: &Cache) -> Self {
        let looks = Looks::new(clock::now());
        RunLeases { own: Leases::new(cache), announcement: None, waits: HashMap::new(), looks }
    }

    /// Whether to leave an instance alone for now because another run holds its lease.
    pub(super) fn is_waiting(&self, id: InstanceId) -> bool {
        self.waits.get(&id).is_some_and(|wait| !wait.may_request)
    }

    /// Makes sure that the next lookup of a key sees what other machines have written.
    pub(super) fn refresh(&self, key: ActionKey) {
        self.own.refresh(key);
    }

    /// Whether another run holds the lease of an instance, as far as this run has seen.
    pub(super) fn is_held(&self, id: InstanceId) -> bool {
        self.waits.contains_key(&id)
    }

    /// Lets the lease of an instance be requested again.
    pub(super) fn allow_request(&mut self, id: InstanceId) {
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.may_request = true;
        }
    }

    /// Returns the instances whose wait is over at `now`.
    fn over(&self, now: Instant) -> Vec<InstanceId> {
        self.waits.iter().filter(|(_, wait)| wait.until <= now).map(|(id, _)| *id).collect()
    }
}

/// Wait for another run.
#[derive(Debug)]
struct Wait {
    until: Instant,
    interval: Duration,
    /// Whether the lease may be requested again.
    may_request: bool,
    /// Holder that was reported last.
    reported: Option<Holder>,
}

impl Scheduler<'_> {
    /// Takes results that other runs have made meanwhile, whether or not a slot is free.
    pub(super) fn check_other_runs(&mut self) -> Result<(), CacheError> {
        if self.options.part.is_some() {
            return self.hear_news();
        }
        let now = clock::now();
        let mut over = self.leases.over(now);
        over.retain(|id| *self.states.get(*id) == State::Ready);
        for id in over {
            if !self.take_result(id)?
                && let Some(wait) = self.leases.waits.get_mut(&id)
            {
                (wait.until, wait.may_request) = (now + wait.interval, true);
            }
        }
        Ok(())
    }

    /// Announces to collections, once, what this run may need, including results whose keys are not known yet.
    pub(super) fn announce(&mut self) -> Result<(), CacheError> {
        if self.leases.announcement.is_some() {
            return Ok(());
        }
        // The runs that share a graph have one list for all of them.
        let wanted = match &self.options.part {
            Some(_) => Wanted::default(),
            None => self.context.may_need(&self.options.goals),
        };
        self.leases.announcement = self.leases.own.announce(&wanted)?;
        Ok(())
    }

    /// Requests the lease of a ready instance. `None` if another run holds it, has made the result or has failed.
    pub(super) fn lease(&mut self, id: InstanceId) -> Result<Option<Lease>, RunError> {
        let Some(key) = self.tasks.get(id).map(|task| task.key) else { return Ok(None) };
        match self.leases.own.attempt(key)? {
            Attempt::Taken(lease) => {
                // Another run may have come and gone between the lookup and the lease. From now on, only this run
                // records this key.
                if self.take_result(id)? {
                    return Ok(None);
                }
                self.leases.waits.remove(&id);
                Ok((!self.has_failed_elsewhere(key)).then_some(lease))
            }
            Attempt::Held(Held { holder, patience, is_remote }) => {
                let reported = self.leases.waits.get(&id).map(|wait| &wait.reported);
                if reported != Some(&holder) {
                    let stage = self.name(id);
                    self.emit(RunEvent::StageWaiting { stage, holder: holder.clone(), patience });
                }
                let interval = if is_remote { REMOTE_CHECK_INTERVAL } else { CHECK_INTERVAL };
                let until = clock::now() + interval;
                if self.options.part.is_some() {
                    self.leases.looks.take();
                }
                self.leases.waits.insert(id, Wait { until, interval, may_request: false, reported: holder });
                Ok(None)
            }
        }
    }

    /// Finishes a ready instance whose result exists by now. An instance forced to rerun takes no other result.
    pub(super) fn take_result(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let (needed, must_be_here) = match self.tasks.get(id).map(|task| task.wants) {
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
        self.leases.waits.remove(&id);
        self.tasks.take(id);
        self.settle(vec![id])?;
        Ok(true)
    }
}
