//! Results from a remote cache: how many were used as they are, and which were assembled locally and compared.
//!
//! Tables and curves cost milliseconds. A run therefore assembles them itself whenever their predictions are
//! obtainable.

use std::collections::{BTreeMap, HashMap};

use super::Scheduler;
use crate::cache::{CacheError, Manifest, Origin};
use crate::event::{self, Assembled, RunEvent};
use crate::graph::Outputs;
use crate::spec::InstanceId;

/// Results of a run that came from a remote cache.
#[derive(Debug, Default)]
pub(super) struct RemoteResults {
    /// Cached results that were not computed here.
    taken: HashMap<InstanceId, Origin>,
    /// Remote outputs of the results that are being assembled locally.
    published: HashMap<InstanceId, (String, Outputs)>,
    /// Results that were assembled locally.
    pub(super) assembled: Vec<Assembled>,
}

impl RemoteResults {
    /// Records the origin of a cached result.
    pub(super) fn note(&mut self, id: InstanceId, from: Option<Origin>) {
        match from {
            Some(origin) => _ = self.taken.insert(id, origin),
            None => _ = self.taken.remove(&id),
        }
    }

    /// Counts the results that were used as they are, by remote cache.
    pub(super) fn counts(&self) -> BTreeMap<String, event::RemoteCount> {
        let mut counts: BTreeMap<String, event::RemoteCount> = BTreeMap::new();
        for origin in self.taken.values() {
            let count = counts.entry(origin.remote.clone()).or_default();
            count.results += 1;
            count.signed += usize::from(origin.signed_by.is_some());
        }
        counts
    }
}

impl Scheduler<'_> {
    /// Whether a fresh result came from a remote cache and all its inputs are here, fetched if necessary.
    pub(super) fn is_assembled_here(&mut self, id: InstanceId, manifest: &Manifest) -> Result<bool, CacheError> {
        let Some(origin) = &manifest.from else { return Ok(false) };
        let graph = self.context.graph;
        let are_here = self.fetch_inputs(id)?;
        if let Some((need, _)) = graph.instance(id).needs.iter().zip(are_here).find(|(_, is_here)| !is_here) {
            if self.interrupt.requests() == 0 {
                let (stage, input) = (self.name(id), self.name(need.from));
                self.emit(RunEvent::Warning(format!(
                    "{stage} is as {} has it: it could not be assembled here, because `{}` of {input} cannot be had",
                    origin.remote, need.output
                )));
            }
            return Ok(false);
        }
        self.remote_results.published.insert(id, (origin.remote.clone(), manifest.outputs.clone()));
        Ok(true)
    }

    /// Compares a locally assembled result with the remote one, and warns of a difference.
    pub(super) fn compare_assembled(&mut self, id: InstanceId, outputs: &Outputs) {
        // It may have counted as taken before one of its outputs was lost.
        self.remote_results.taken.remove(&id);
        let Some((remote, published)) = self.remote_results.published.remove(&id) else { return };
        let differs = |(name, blob): &(&String, _)| published.get(*name) != Some(*blob);
        let different: Vec<String> = outputs.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        let stage = self.name(id);
        if !different.is_empty() {
            let of = different.join(", ");
            self.emit(RunEvent::Warning(format!(
                "{stage} at {remote} is not what its predictions make ({of}); the one assembled here is used"
            )));
        }
        self.remote_results.assembled.push(Assembled { stage, remote, different });
    }
}
