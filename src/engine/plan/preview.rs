//! A table from what is there: cells whose results are not made yet are marked as missing, those whose results are of
//! an earlier state of the pipeline as stale. What earlier states there are, the given history says: that of the
//! profile in use, because a value of another profile is another experiment's. Nothing is run and nothing recorded.

use std::collections::BTreeMap;

use crate::cache::{Blob, Cache, Manifest};
use crate::executors;
use crate::external_inputs::{CheckedSource, ExternalInputs};
use crate::graph::Graph;
use crate::plan::{History, Standing};
use crate::protocol::{Failure, Input, Job};
use crate::results::{State, TableDocument};
use crate::spec::{InstanceId, Need};

/// What a preview looks at.
#[derive(Debug, Clone, Copy)]
pub struct Preview<'a> {
    /// The pipeline's instances.
    pub graph: &'a Graph,
    /// Where results are.
    pub cache: &'a Cache,
    /// The published numbers, checked.
    pub sources: &'a ExternalInputs,
    /// How the instances stand, by id.
    pub standings: &'a [Option<Standing>],
}

impl Preview<'_> {
    /// The table of an instance of kind `table`.
    ///
    /// # Errors
    /// A [`Failure`] as of the stage; results that do not fit one another because one of them is stale make their cell
    /// missing and are none.
    pub fn table(&self, id: InstanceId, history: &History) -> Result<TableDocument, Failure> {
        let instance = self.graph.instance(id);
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
                    path: self.cache.object_path(blob.digest),
                    digest: blob.digest,
                });
            }
            // A value and its reference have one label: the worse of the two states is that of the cell.
            let of_cell = states.entry(need.label.clone()).or_default();
            *of_cell = state.max(*of_cell);
        }
        job.inputs.retain(|input| states.get(&input.label) != Some(&State::Missing));
        for source in &instance.sources {
            if let CheckedSource::Local { path, digest } = self.sources.get(id, source) {
                let (slot, label) = (source.slot.clone(), String::new());
                job.inputs.push(Input { slot, label, path: path.clone(), digest: *digest });
            }
        }
        executors::preview(&job, &states)
    }

    /// The result of a need: the one that is fresh, or the newest of an earlier run.
    fn find(&self, need: &Need, history: &History) -> (State, Option<Blob>) {
        let output =
            |manifest: &Manifest| manifest.outputs.get(&need.output).copied().filter(|blob| self.cache.has(*blob));
        if let Some(Standing::Fresh(_, manifest)) = &self.standings[need.from.0]
            && let Some(blob) = output(manifest)
        {
            return (State::Made, Some(blob));
        }
        match history.find(&self.graph.instance(need.from).name, |manifest| output(manifest).is_some()) {
            Some(manifest) => (State::Stale, output(&manifest)),
            None => (State::Missing, None),
        }
    }
}
