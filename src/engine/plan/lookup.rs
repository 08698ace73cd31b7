//! Looks up in the cache whether instances with known inputs are stale.

use std::collections::HashMap;

use rayon::prelude::*;

use super::state::{StaleReason, Staleness};
use super::{Goals, PlanContext};
use crate::action::{Action, ActionKey};
use crate::cache::{Blob, CacheError, Manifest, Wanted};
use crate::graph::Outputs;
use crate::spec::{InstanceId, OutputSpec, PerInstance};

/// Batch size from which manifests are read in parallel. Smaller batches are faster one by one.
pub(super) const PARALLEL_BATCH: usize = 128;

impl PlanContext<'_> {
    /// Returns the action and the key of an instance with known inputs.
    pub fn action<'o>(&self, id: InstanceId, outputs: impl Fn(InstanceId) -> &'o Outputs) -> (Action, ActionKey) {
        let action = self.graph.record(id, outputs, |need| self.sources.get(id, need).identity());
        let key = action.key();
        (action, key)
    }

    /// Returns what a run with these goals may need of the cache, including results whose keys are not known yet.
    pub fn may_need(&self, goals: &Goals) -> Wanted {
        let mut wanted = Wanted::default();
        for id in self.graph.ids().filter(|id| goals.wanted[*id]) {
            wanted.shapes.insert(self.graph.action_by(id, |_, _| String::new(), |_| String::new()).shape());
            let sources = &self.graph.instance(id).sources;
            wanted.fetched.extend(sources.iter().map(|need| self.sources.get(id, need).identity()));
        }
        wanted
    }

    /// Checks whether an instance with known inputs is stale.
    ///
    /// `needed` requires the bytes of its outputs, here or in the remote cache; otherwise the manifest is enough.
    ///
    /// # Errors
    /// [`CacheError`] if the remote cache could not be asked.
    pub fn check_staleness<'o>(
        &self,
        id: InstanceId,
        outputs: impl Fn(InstanceId) -> &'o Outputs,
        needed: bool,
    ) -> Result<Staleness, CacheError> {
        let (action, key) = self.action(id, outputs);
        let manifest = self.cache.find(&action, key)?;
        Ok(self.classify(id, CacheLookup { key, ahead: false, found: manifest.ok_or(action) }, needed))
    }

    /// Checks many instances with known inputs at once: on all cores here, in one batch in the remote cache.
    ///
    /// Returns the results in the order of `ids`. `needed` marks the instances whose outputs must exist.
    ///
    /// # Errors
    /// [`CacheError`] if the remote cache could not be asked.
    pub fn check_staleness_of_all<'o>(
        &self,
        ids: &[InstanceId],
        outputs: impl Fn(InstanceId) -> &'o Outputs + Sync,
        needed: &PerInstance<bool>,
    ) -> Result<Vec<Staleness>, CacheError> {
        let looks = self.look_up(ids, outputs, &mut HashMap::new())?;
        let classify = |(id, look): (&InstanceId, CacheLookup)| self.classify(*id, look, needed[*id]);
        Ok(if ids.len() < PARALLEL_BATCH {
            ids.iter().zip(looks).map(classify).collect()
        } else {
            ids.par_iter().zip(looks).map(classify).collect()
        })
    }

    /// Classifies an instance as fresh or stale by what the cache has under its key.
    pub(super) fn classify(&self, id: InstanceId, look: CacheLookup, needed: bool) -> Staleness {
        let key = look.key;
        let manifest = match look.found {
            Ok(manifest) => manifest,
            Err(action) => return Staleness::Stale(Box::new(action), StaleReason::Unknown),
        };
        let missing = self.graph.instance(id).outputs.iter().find(|output| {
            let is_there =
                |blob: &Blob| !must_be_there(output, needed) || self.cache.has_remote() || self.cache.has(*blob);
            !manifest.outputs.get(&output.name).is_some_and(is_there)
        });
        match missing {
            Some(output) => Staleness::Stale(Box::new(manifest.record), StaleReason::Output(output.name.clone())),
            None => Staleness::Fresh(key, Box::new(manifest)),
        }
    }

    /// Looks up instances by key. `read` holds manifests that were read ahead; this function removes those that it
    /// uses.
    pub(super) fn look_up<'o>(
        &self,
        ids: &[InstanceId],
        outputs: impl Fn(InstanceId) -> &'o Outputs + Sync,
        read: &mut HashMap<ActionKey, Manifest>,
    ) -> Result<Vec<CacheLookup>, CacheError> {
        let is_read =
            |action: &Action, key: &ActionKey| read.get(key).is_some_and(|manifest| manifest.record == *action);
        let listed = if self.cache.lists_first() { self.cache.list_keys(ids.len()) } else { None };
        let is_absent = |key: &ActionKey| listed.as_ref().is_some_and(|keys| !keys.contains(key));
        let look = |id: &InstanceId| {
            let (action, key) = self.action(*id, &outputs);
            let ahead = is_read(&action, &key);
            let manifest = if ahead || is_absent(&key) { None } else { self.cache.lookup_action(&action, key) };
            CacheLookup { key, ahead, found: manifest.ok_or(action) }
        };
        let mut looks: Vec<CacheLookup> = if ids.len() < PARALLEL_BATCH {
            ids.iter().map(look).collect()
        } else {
            ids.par_iter().map(look).collect()
        };
        let absent = |look: &CacheLookup| match &look.found {
            Err(action) if !look.ahead => Some((action.clone(), look.key)),
            _ => None,
        };
        if self.cache.has_remote() {
            self.cache.prefetch(looks.iter().filter_map(absent).collect())?;
        }
        for look in &mut looks {
            if let Err(action) = &look.found {
                let manifest = match read.remove(&look.key).filter(|manifest| manifest.record == *action) {
                    Some(manifest) => Some(manifest),
                    // Another instance with the same key may have removed it.
                    None if look.ahead || self.cache.has_remote() => self.cache.find(action, look.key)?,
                    None => None,
                };
                if let Some(manifest) = manifest {
                    look.found = Ok(manifest);
                }
            }
        }
        Ok(looks)
    }
}

/// Result of looking up a key.
pub(super) struct CacheLookup {
    key: ActionKey,
    /// Whether the manifest was read ahead.
    ahead: bool,
    /// The manifest, or the action if the cache has none.
    found: Result<Manifest, Action>,
}

/// Whether the bytes of an output must exist after a run: the user asked for them, or the output is a result file.
pub fn must_be_there(output: &OutputSpec, needed: bool) -> bool {
    needed || output.result.is_some()
}
