//! An instance without its place in a pipeline file: all that a run needs of it, so that a run can do without the file.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml::Value;

use super::coordinates::Coordinates;
use super::instance::{ExternalInput, Instance, Need, OutputSpec};
use super::source::{SourceFile, YamlPath};
use super::sweep_stand::SweepStand;
use crate::numerics::Numerics;
use crate::stage_kinds::{Source, StageKind};

/// What a run needs of an instance. The fields are those of [`Instance`].
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceParts {
    /// Name of the instance.
    pub name: String,
    /// Name of its stage.
    pub stage: String,
    /// Kind of its stage.
    pub kind: StageKind,
    /// Canonical parameters.
    pub params: Arc<Json>,
    /// Seed of the random draws.
    pub seed: u64,
    /// Whether the author wrote the seed.
    pub is_seeded: bool,
    /// Numerics of the computation.
    pub numerics: Numerics,
    /// Number of CPU threads.
    pub threads: usize,
    /// Share of a GPU, in (0, 1].
    pub gpu: f64,
    /// Time limit.
    pub time_limit: Option<Duration>,
    /// Inputs made by other instances, in order.
    pub needs: Vec<Need>,
    /// Inputs from outside the cache: slot and location.
    pub sources: Vec<(String, Source)>,
    /// Outputs.
    pub outputs: Vec<OutputSpec>,
    /// Swept parameters in its name, with their labels.
    pub sweep: Vec<(String, String)>,
}

impl Instance {
    /// Returns what a run needs of the instance.
    pub fn parts(&self) -> InstanceParts {
        let named = self.sweep.iter().filter(|stand| stand.is_named);
        InstanceParts {
            name: self.name.clone(),
            stage: self.stage.clone(),
            kind: self.kind,
            params: self.params.clone(),
            seed: self.seed,
            is_seeded: self.is_seeded,
            numerics: self.numerics,
            threads: self.threads,
            gpu: self.gpu,
            time_limit: self.time_limit,
            needs: self.needs.clone(),
            sources: self.sources.iter().map(|need| (need.slot.clone(), need.source.clone())).collect(),
            outputs: self.outputs.clone(),
            sweep: named.map(|stand| (stand.name.to_string(), stand.label.to_string())).collect(),
        }
    }

    /// Makes an instance from its parts. `file` stands for the pipeline file, whose text may be gone.
    ///
    /// The instance has the same action as the original, but no coordinates and no axes.
    pub fn from_parts(parts: InstanceParts, file: &Arc<SourceFile>) -> Self {
        let stand = |(param, (name, label)): (usize, (String, String))| {
            let value = Arc::new(Value::String(label.clone()));
            SweepStand { param, name: name.into(), label: label.into(), value, is_named: true }
        };
        let source = |(slot, source): (String, Source)| ExternalInput { slot, source, path: YamlPath::default() };
        Instance {
            name: parts.name,
            stage: parts.stage,
            kind: parts.kind,
            params: parts.params,
            seed: parts.seed,
            is_seeded: parts.is_seeded,
            numerics: parts.numerics,
            threads: parts.threads,
            gpu: parts.gpu,
            time_limit: parts.time_limit,
            needs: parts.needs,
            sources: parts.sources.into_iter().map(source).collect(),
            outputs: parts.outputs,
            coordinates: Coordinates::default(),
            sweep: parts.sweep.into_iter().enumerate().map(stand).collect(),
            axes: (Arc::from([]), Box::from([])),
            knows_needs: true,
            knows_params: true,
            path: Arc::new(YamlPath::default()),
            file: file.clone(),
        }
    }
}
