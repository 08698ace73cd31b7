//! Results that a remote cache has: how many were taken as they are, and which were assembled here and compared. Tables
//! and curves cost milliseconds, so what predictions make is never believed of another where the predictions can be
//! had.

use std::collections::{BTreeMap, HashMap};

use super::Scheduler;
use crate::cache::{CacheError, Manifest, Origin};
use crate::event::{self, Assembled, RunEvent};
use crate::graph::Outputs;
use crate::spec::InstanceId;

/// What a run took from elsewhere.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Cached results that were not computed here.
    taken: HashMap<InstanceId, Origin>,
    /// What the remote cache has of results that are assembled here at the moment.
    published: HashMap<InstanceId, (String, Outputs)>,
    /// Those that were.
    pub(super) assembled: Vec<Assembled>,
}

impl Elsewhere {
    /// Notes where a cached result came from.
    pub(super) fn note(&mut self, id: InstanceId, from: Option<Origin>) {
        match from {
            Some(origin) => _ = self.taken.insert(id, origin),
            None => _ = self.taken.remove(&id),
        }
    }

    /// Results that were taken as they are, by the remote cache.
    pub(super) fn counts(&self) -> BTreeMap<String, event::Elsewhere> {
        let mut counts: BTreeMap<String, event::Elsewhere> = BTreeMap::new();
        for origin in self.taken.values() {
            let count = counts.entry(origin.remote.clone()).or_default();
            count.results += 1;
            count.signed += usize::from(origin.signed_by.is_some());
        }
        counts
    }
}

impl Scheduler<'_> {
    /// Whether a fresh result came from elsewhere and all that it is made of is here or could be brought here.
    pub(super) fn is_assembled_here(&mut self, id: InstanceId, manifest: &Manifest) -> Result<bool, CacheError> {
        let Some(origin) = &manifest.from else { return Ok(false) };
        let graph = self.graph;
        for need in &graph.instance(id).needs {
            let blob = self.states.outputs(need.from).and_then(|outputs| outputs.get(&need.output)).copied();
            let is_here = match blob {
                Some(blob) => self.bring(need.from, blob)?,
                None => false,
            };
            if is_here {
                continue;
            }
            if self.interrupt.requests() == 0 {
                let (stage, input) = (self.name(id), self.name(need.from));
                self.emit(RunEvent::Warning(format!(
                    "{stage} is as {} has it: it could not be assembled here, because `{}` of {input} cannot be had",
                    origin.remote, need.output
                )));
            }
            return Ok(false);
        }
        self.elsewhere.published.insert(id, (origin.remote.clone(), manifest.outputs.clone()));
        Ok(true)
    }

    /// Compares what was assembled here with what the remote cache has of it, and tells the user of a difference.
    pub(super) fn compare_assembled(&mut self, id: InstanceId, outputs: &Outputs) {
        // It may have been taken as it was before, and then an output of it was lost.
        self.elsewhere.taken.remove(&id);
        let Some((remote, published)) = self.elsewhere.published.remove(&id) else { return };
        let differs = |(name, blob): &(&String, _)| published.get(*name) != Some(*blob);
        let different: Vec<String> = outputs.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        let stage = self.name(id);
        if !different.is_empty() {
            let of = different.join(", ");
            self.emit(RunEvent::Warning(format!(
                "{stage} at {remote} is not what its predictions make ({of}); the one assembled here is used"
            )));
        }
        self.elsewhere.assembled.push(Assembled { stage, remote, different });
    }
}
