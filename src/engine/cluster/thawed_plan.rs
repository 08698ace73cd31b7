//! Frozen plans as agents work on them: the graph, its sources and goals, without the pipeline's file.

use std::time::Duration;

use super::frozen_plan::FrozenPlan;
use super::plan_parts::{FrozenInstance, located};
use crate::cache::RunRecord;
use crate::dense_map::DenseId;
use crate::external_inputs::{CheckedSource, ExternalInputs};
use crate::graph::Graph;
use crate::plan::Goals;
use crate::spec::{Instance, InstanceId, InstanceParts, Need, OutputSpec, PerInstance, SourceFile};

/// A plan as an agent works on it.
#[derive(Debug)]
pub struct ThawedPlan {
    /// What the record of the run says of it from the start.
    pub about: RunRecord,
    /// All instances.
    pub graph: Graph,
    /// External inputs of the wanted instances.
    pub sources: ExternalInputs,
    /// What the run is to achieve.
    pub goals: Goals,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Class of each instance: its position in `classes`.
    pub class_of: PerInstance<usize>,
    /// Seconds that each instance takes, by earlier runs.
    pub seconds: PerInstance<Option<f64>>,
}

impl FrozenPlan {
    /// Turns the plan back into what a run works on.
    pub fn thaw(self) -> ThawedPlan {
        let file = SourceFile::new(self.about.file.clone(), "");
        let (params, outputs) = (self.params, self.outputs);
        let outputs: Vec<Vec<OutputSpec>> =
            outputs.into_iter().map(|list| list.into_iter().map(OutputSpec::from).collect()).collect();
        let count = self.instances.len();
        let mut checked = Vec::new();
        let (mut class_of, mut seconds) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut wanted, mut needed) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut thaw = |(position, frozen): (usize, FrozenInstance)| {
            class_of.push(frozen.class);
            seconds.push(frozen.seconds);
            wanted.push(!frozen.is_unwanted);
            needed.push(frozen.is_needed);
            let mut sources = Vec::with_capacity(frozen.sources.len());
            for source in frozen.sources {
                let found = CheckedSource::from(source.place);
                sources.push((source.slot.clone(), located(&found)));
                checked.push((InstanceId::at(position), source.slot, found));
            }
            let need = |(slot, label, from, output)| Need { slot, label, from: InstanceId::at(from), output };
            let parts = InstanceParts {
                name: frozen.name,
                stage: frozen.stage,
                kind: frozen.kind,
                params: params[frozen.params].clone(),
                seed: frozen.seed,
                is_seeded: frozen.is_seeded,
                numerics: frozen.numerics,
                threads: frozen.threads,
                gpu: frozen.gpu,
                time_limit: frozen.time_limit.map(Duration::from_secs_f64),
                needs: frozen.needs.into_iter().map(need).collect(),
                sources,
                outputs: outputs[frozen.outputs].clone(),
                sweep: frozen.sweep,
            };
            Instance::from_parts(parts, &file)
        };
        let instances: Vec<Instance> = self.instances.into_iter().enumerate().map(&mut thaw).collect();
        let graph = Graph::new(instances);
        let goals = Goals {
            wanted: wanted.into_iter().collect(),
            needed: needed.into_iter().collect(),
            ..Goals::all_known(&graph)
        };
        ThawedPlan {
            about: self.about,
            graph,
            sources: ExternalInputs::checked_before(checked),
            goals,
            classes: self.classes,
            class_of: class_of.into_iter().collect(),
            seconds: seconds.into_iter().collect(),
        }
    }
}
