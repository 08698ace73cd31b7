//! Earlier runs of a pipeline, read lazily.

use std::cell::RefCell;

use super::difference;
use super::state::StaleReason;
use crate::action::{Action, ActionKey};
use crate::address::masked;
use crate::cache::{Cache, Manifest, RunRecord};
use crate::digest::Digest;
use crate::spec::Instance;

/// Number of recent runs that are searched for the action nearest to the current one.
const MAX_RECENT_RUNS: usize = 16;

/// Lazy reader of a pipeline's earlier runs. It reads only as far back as a caller asks.
pub struct History<'a> {
    cache: &'a Cache,
    runs: RefCell<(Vec<RunRecord>, Box<dyn Iterator<Item = RunRecord> + 'a>)>,
}

impl<'a> History<'a> {
    /// Returns the history of a pipeline, under any profile.
    pub fn new(cache: &'a Cache, pipeline: &str) -> Self {
        Self::of(cache, cache.runs(Some(pipeline)))
    }

    /// Returns the history of a pipeline under one profile, or under none.
    ///
    /// Results of another profile are not an earlier state of these.
    pub fn of_profile(cache: &'a Cache, pipeline: &str, profile: Option<&str>) -> Self {
        let profile = profile.map(str::to_owned);
        Self::of(cache, cache.runs(Some(pipeline)).filter(move |run| run.profile == profile))
    }

    /// Returns the cache with the results of the runs.
    pub(super) fn cache(&self) -> &'a Cache {
        self.cache
    }

    fn of(cache: &'a Cache, runs: impl Iterator<Item = RunRecord> + 'a) -> Self {
        History { cache, runs: RefCell::new((Vec::new(), Box::new(runs))) }
    }

    /// Returns the manifest of an instance nearest to `record`, among the latest runs.
    ///
    /// It is the one with the fewest differences; the newer one wins a tie. An instance of a sweep has an earlier state
    /// in runs without the sweep, too.
    pub fn nearest(&self, instance: &Instance, action: &Action) -> Option<Manifest> {
        let manifests = self.recent_keys(instance).into_iter().filter_map(|key| self.cache.lookup(key));
        manifests.min_by_key(|manifest| difference::changes(&manifest.record, action).len())
    }

    /// Returns the distinct keys of an instance in the latest runs, newest first.
    fn recent_keys(&self, instance: &Instance) -> Vec<ActionKey> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        let missing = MAX_RECENT_RUNS.saturating_sub(read.len());
        read.extend(rest.by_ref().take(missing));
        let mut keys: Vec<ActionKey> = Vec::new();
        for key in read.iter().take(MAX_RECENT_RUNS).filter_map(|run| key_in(run, instance)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Returns the newest manifest of an instance that `fits` accepts.
    pub fn find(&self, instance: &Instance, fits: impl Fn(&Manifest) -> bool) -> Option<Manifest> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        let mut tried: Vec<ActionKey> = Vec::new();
        read.iter().filter_map(|run| key_in(run, instance)).find_map(|key| {
            let is_new = !tried.contains(&key);
            tried.push(key);
            self.cache.lookup(key).filter(|manifest| is_new && fits(manifest))
        })
    }

    /// Whether an instance failed in any recorded run.
    pub fn has_failed(&self, name: &str) -> bool {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        read.iter().any(|run| run.failed.contains_key(name))
    }

    /// Returns the length in bytes of a fetched file, by its publisher's digest; `None` for any other identity.
    pub fn fetched_bytes(&self, identity: &str) -> Option<u64> {
        self.cache.fetched(identity).map(|blob| blob.size)
    }

    /// Returns the length in bytes of the local blob that an action's input names; `None` if it is not here.
    pub(super) fn blob_bytes(&self, identity: &str) -> Option<u64> {
        let digest: Digest = identity.strip_prefix("blake3:")?.parse().ok()?;
        std::fs::metadata(self.cache.object_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Returns the last key that the runs recorded for an instance.
    pub fn last_key(&self, instance: &Instance) -> Option<ActionKey> {
        let mut runs = self.runs.borrow_mut();
        let known = runs.0.iter().find_map(|run| key_in(run, instance));
        known.or_else(|| {
            let (read, rest) = &mut *runs;
            rest.by_ref().find_map(|run| {
                let key = key_in(&run, instance);
                read.push(run);
                key
            })
        })
    }

    /// Describes in a few words why an instance is stale.
    pub fn reason(&self, instance: &Instance, action: &Action, absence: &StaleReason) -> String {
        let is_unknown = matches!(absence, StaleReason::Unknown);
        let before = if is_unknown { self.nearest(instance, action) } else { None };
        self.reason_beside(instance, action, absence, before.as_ref())
    }

    /// Like [`History::reason`], with the [nearest](History::nearest) earlier manifest given.
    pub(super) fn reason_beside(
        &self,
        instance: &Instance,
        action: &Action,
        absence: &StaleReason,
        before: Option<&Manifest>,
    ) -> String {
        match absence {
            StaleReason::Forced(order) => return order.words(),
            StaleReason::Output(name) => return format!("its output `{name}` is gone from the cache"),
            StaleReason::Unknown => {}
        }
        let Some(last_key) = self.last_key(instance) else {
            return if self.has_failed(&instance.name) { "failed so far" } else { "never run" }.to_owned();
        };
        let Some(before) = before else {
            let is_same = last_key == action.key();
            let reason = if is_same { "its result is gone from the cache" } else { "changed since its last run" };
            return reason.to_owned();
        };
        let changes = difference::changes(&before.record, action);
        match changes.as_slice() {
            [] => "its result is gone from the cache".to_owned(),
            // The text of a command may contain an address with a password.
            [one] => masked(&one.to_string()),
            [first, rest @ ..] => format!("{} (and {} more)", masked(&first.to_string()), rest.len()),
        }
    }
}

/// Returns the key of an instance in a run, or that which it had there without the sweep.
fn key_in(run: &RunRecord, instance: &Instance) -> Option<ActionKey> {
    run.keys.get(&instance.name).or_else(|| run.keys.get(instance.unswept_name())).copied()
}
