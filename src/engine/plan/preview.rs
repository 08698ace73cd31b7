//! Builds a table from the results at hand.
//!
//! A cell is missing if its results do not exist, and stale if they belong to an earlier state of the pipeline. The
//! given history defines the earlier states. It covers the profile in use, because values of another profile belong to
//! another experiment. Runs and records nothing.

use std::collections::BTreeMap;

use crate::cache::{Blob, Manifest};
use crate::executors;
use crate::external_inputs::CheckedSource;
use crate::plan::{CacheStatus, CacheStatuses, History, PlanContext};
use crate::protocol::{Failure, Input, Job};
use crate::results::{State, TableDocument};
use crate::spec::{InstanceId, Need};

/// Data that a preview reads.
#[derive(Debug, Clone, Copy)]
pub struct Preview<'a> {
    /// Pipeline, cache and external files.
    pub context: PlanContext<'a>,
    /// States of the instances, by id.
    pub status_of: &'a CacheStatuses,
}

impl Preview<'_> {
    /// Builds the table of an instance of kind `table`.
    ///
    /// # Errors
    /// A [`Failure`], as the stage itself would give. A mismatch caused by a stale result is not an error: its cell is
    /// missing.
    pub fn table(&self, id: InstanceId, history: &History) -> Result<TableDocument, Failure> {
        let instance = self.context.graph.instance(id);
        let mut job = Job {
            id: 0,
            stage: instance.name.clone(),
            kind: instance.kind,
            params: (*instance.params).clone(),
            seed: instance.seed,
            threads: 1,
            inputs: Vec::new(),
            outputs: BTreeMap::new(),
            partial: None,
            onward: None,
        };
        let mut states: BTreeMap<String, State> = BTreeMap::new();
        for need in &instance.needs {
            let (state, blob) = self.find(need, history);
            if let Some(blob) = blob {
                job.inputs.push(Input {
                    slot: need.slot.clone(),
                    label: need.label.clone(),
                    path: self.context.cache.object_path(blob.digest),
                    digest: blob.digest,
                });
            }
            // A value and its reference share a label: the cell takes the worse of the two states.
            let of_cell = states.entry(need.label.clone()).or_default();
            *of_cell = state.max(*of_cell);
        }
        job.inputs.retain(|input| states.get(&input.label) != Some(&State::Missing));
        for source in &instance.sources {
            if let CheckedSource::Local { path, digest } = self.context.sources.get(id, source) {
                let (slot, label) = (source.slot.clone(), String::new());
                job.inputs.push(Input { slot, label, path: path.clone(), digest: *digest });
            }
        }
        executors::preview(&job, &states)
    }

    /// Finds the result of a need: the fresh one, or the newest one of an earlier run.
    fn find(&self, need: &Need, history: &History) -> (State, Option<Blob>) {
        let output = |manifest: &Manifest| {
            manifest.outputs.get(&need.output).copied().filter(|blob| self.context.cache.has(*blob))
        };
        if let Some(CacheStatus::Fresh(_, manifest)) = &self.status_of[need.from]
            && let Some(blob) = output(manifest)
        {
            return (State::Made, Some(blob));
        }
        match history.find(self.context.graph.instance(need.from), |manifest| output(manifest).is_some()) {
            Some(manifest) => (State::Stale, output(&manifest)),
            None => (State::Missing, None),
        }
    }
}
