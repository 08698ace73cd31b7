//! An instance: one stage at one point of its matrix, with every parameter known. What is still open is what its inputs
//! hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::coordinates::Coordinates;
use super::source::beside;
use super::source::{Place, SourceFile, YamlPath};
use crate::numerics::Numerics;
use crate::stage_kinds::{Source, StageKind};

/// The position of an instance among all of its pipeline. Producers stand before their consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub usize);

/// Whether a GPU of which so much is used has room for one more share. Shares that add up to all of it do so in binary
/// fractions, too.
pub fn fits_on_gpu(used: f64, share: f64) -> bool {
    used + share <= 1.0 + 1e-9
}

/// One stage at one point of its matrix.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name, such as `tested/pgd-inf-8/saturated-1024`: stable, and unique in the pipeline.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// What it does.
    pub kind: StageKind,
    /// Canonical parameters, as they are hashed and as a worker gets them. Instances with the same ones share them, and
    /// records do.
    pub params: Arc<Json>,
    /// The seed of its random draws.
    pub seed: u64,
    /// Whether its author wrote a seed, or has it at 0 because there is none.
    pub(super) is_seeded: bool,
    /// How its arithmetic is held, where a worker runs it.
    pub numerics: Numerics,
    /// CPU threads that it computes with.
    pub threads: usize,
    /// The share of a GPU that it takes where it computes on one, in (0, 1].
    pub gpu: f64,
    /// How long it may run; no part of its key.
    pub time_limit: Option<Duration>,
    /// Inputs made by other instances, in order.
    pub needs: Vec<Need>,
    /// Inputs read from files or fetched.
    pub sources: Vec<ExternalInput>,
    /// Its outputs.
    pub outputs: Vec<OutputSpec>,
    /// Values of matrix axes that it stands for, `STAGE.AXIS` to label: its own, and those of all that it is made from.
    pub coordinates: Coordinates,
    /// The names of its axes, and what each stands at, for `${…}` in stages that fan out over it.
    pub(super) axes: (Arc<[String]>, Box<[Arc<Value>]>),
    /// Whether all its inputs are known, and all of theirs: what it stands for is known then. Both are true of every
    /// instance of a pipeline without mistakes.
    pub(super) knows_needs: bool,
    /// Whether its parameters are known.
    pub(super) knows_params: bool,
    /// The way to its stage in the pipeline file.
    pub(super) path: Arc<YamlPath>,
    pub(super) file: Arc<SourceFile>,
}

/// An input made by another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The slot that it fills.
    pub slot: String,
    /// Tells it from others in the same slot; empty where the slot takes one input only.
    pub label: String,
    /// Who makes it.
    pub from: InstanceId,
    /// Which of its outputs.
    pub output: String,
}

/// An input read from a file or fetched.
#[derive(Debug, Clone)]
pub struct ExternalInput {
    /// The slot that it fills.
    pub slot: String,
    /// Where it is.
    pub source: Source,
    pub(super) path: YamlPath,
}

/// An output of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: String,
    /// The name of a file of it among the results, for those that people look at.
    pub result: Option<String>,
}

impl Instance {
    /// Where its stage is declared.
    pub fn place(&self) -> Place {
        Place::key(&self.file, (*self.path).clone())
    }

    /// Where a source of it is named; `field` is one of its keys, `path` or `sha256`, or nothing for the whole.
    pub fn source_place(&self, source: &ExternalInput, field: Option<&str>) -> Place {
        match field {
            Some(field) => Place::value(&self.file, source.path.key(field)),
            None => Place::value(&self.file, source.path.clone()),
        }
    }

    /// The file that a local source is: paths are relative to the file that its stage stands in.
    pub fn source_file(&self, source: &ExternalInput) -> Option<PathBuf> {
        source.source.path.as_ref().map(|name| beside(&self.file.path, name))
    }

    /// The file that its stage is written in.
    pub(crate) fn written_in(&self) -> &Path {
        &self.file.path
    }

    /// The folder that its sources' paths are relative to.
    pub fn folder(&self) -> &Path {
        self.file.path.parent().unwrap_or(Path::new(""))
    }

    /// The seed as its record has it. Most programs draw nothing: a command without a `seed` has none in its record,
    /// though it is told 0.
    pub fn recorded_seed(&self) -> Option<u64> {
        (self.kind.needs_worker() || (self.kind.takes_seed() && self.is_seeded)).then_some(self.seed)
    }

    /// The numerics as its record has them: kinds that the engine runs itself compute with no library that could
    /// choose.
    pub fn recorded_numerics(&self) -> Option<Numerics> {
        self.kind.needs_worker().then_some(self.numerics)
    }

    /// Its axes and what each stands at.
    pub(super) fn axes(&self) -> Mapping {
        let (names, values) = &self.axes;
        names.iter().zip(values).map(|(name, value)| (name.as_str().into(), (**value).clone())).collect()
    }

    /// The name without the stage's: `pgd-inf-8/saturated-1024`; the stage's own where it has no axes.
    pub fn tail(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, tail)| tail)
    }

    /// The input of a slot that takes one.
    pub fn need(&self, slot: &str) -> Option<&Need> {
        self.needs.iter().find(|need| need.slot == slot)
    }
}
