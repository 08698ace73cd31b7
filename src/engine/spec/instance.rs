//! An instance: one stage at one point of its matrix, with all parameters resolved. Only its inputs' contents are
//! unknown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::coordinates::Coordinates;
use super::source::beside;
use super::source::{Place, SourceFile, YamlPath};
use super::substitute::scalar_text;
use super::sweep_stand::SweepStand;
use crate::dense_map::{DenseId, DenseMap};
use crate::numerics::Numerics;
use crate::stage_kinds::{Source, StageKind};

/// Index of an instance within its pipeline. Producers precede their consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(usize);

impl DenseId for InstanceId {
    fn at(position: usize) -> Self {
        InstanceId(position)
    }

    fn position(self) -> usize {
        self.0
    }
}

/// One value for each instance of a pipeline.
pub type PerInstance<V> = DenseMap<InstanceId, V>;

/// Returns whether a GPU with `used` allocated has room for one more share.
///
/// Tolerates rounding: shares that add up to a whole GPU fit despite binary fractions.
pub fn fits_on_gpu(used: f64, share: f64) -> bool {
    used + share <= 1.0 + 1e-9
}

/// One stage at one point of its matrix.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Stable name, such as `tested/pgd-inf-8/saturated-1024`; unique in the pipeline.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// The kind of the stage.
    pub kind: StageKind,
    /// Canonical parameters, as hashed and as passed to a worker. Instances and records with equal parameters share
    /// them.
    pub params: Arc<Json>,
    /// Seed of the random draws.
    pub seed: u64,
    /// Whether the author wrote a seed; otherwise the seed is 0 by default.
    pub(super) is_seeded: bool,
    /// Numerics of the computation, if a worker runs it.
    pub numerics: Numerics,
    /// Number of CPU threads.
    pub threads: usize,
    /// Share of a GPU that the instance takes when it computes on one, in (0, 1].
    pub gpu: f64,
    /// Time limit; not part of the key.
    pub time_limit: Option<Duration>,
    /// Inputs made by other instances, in order.
    pub needs: Vec<Need>,
    /// Inputs read from files or fetched.
    pub sources: Vec<ExternalInput>,
    /// Its outputs.
    pub outputs: Vec<OutputSpec>,
    /// Matrix axes and labels, `STAGE.AXIS` to label: its own and those of all upstream instances.
    pub coordinates: Coordinates,
    /// Where it stands on the sweep: the swept parameters that it or an instance upstream reads.
    pub(super) sweep: Vec<SweepStand>,
    /// Names of its axes and the value of each, for `${…}` in stages that fan out over it.
    pub(super) axes: (Arc<[String]>, Box<[Arc<Value>]>),
    /// Whether all inputs are known, transitively, and therefore all coordinates.
    ///
    /// This flag and `knows_params` are true for every instance of a valid pipeline.
    pub(super) knows_needs: bool,
    /// Whether the parameters are known.
    pub(super) knows_params: bool,
    /// Path of its stage in the pipeline file.
    pub(super) path: Arc<YamlPath>,
    pub(super) file: Arc<SourceFile>,
}

/// An input made by another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The slot that it fills.
    pub slot: String,
    /// Distinguishes inputs in one slot; empty if the slot takes a single input.
    pub label: String,
    /// The producer.
    pub from: InstanceId,
    /// The producer's output.
    pub output: String,
}

/// An input read from a file or fetched.
#[derive(Debug, Clone)]
pub struct ExternalInput {
    /// The slot that it fills.
    pub slot: String,
    /// Location of the input.
    pub source: Source,
    pub(super) path: YamlPath,
}

/// An output of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name.
    pub name: String,
    /// File name among the results, for outputs that people view.
    pub result: Option<String>,
}

impl Instance {
    /// Returns the place where its stage is declared.
    pub fn place(&self) -> Place {
        Place::key(&self.file, (*self.path).clone())
    }

    /// Returns the place of a source, or of one of its keys (`path` or `sha256`) if `field` names it.
    pub fn source_place(&self, source: &ExternalInput, field: Option<&str>) -> Place {
        match field {
            Some(field) => Place::value(&self.file, source.path.key(field)),
            None => Place::value(&self.file, source.path.clone()),
        }
    }

    /// Returns the path of a local source, resolved relative to the stage's file.
    pub fn source_file(&self, source: &ExternalInput) -> Option<PathBuf> {
        source.source.path.as_ref().map(|name| beside(&self.file.path, name))
    }

    /// Returns the file that declares its stage.
    pub(crate) fn written_in(&self) -> &Path {
        &self.file.path
    }

    /// Returns the folder that source paths are relative to.
    pub fn folder(&self) -> &Path {
        self.file.path.parent().unwrap_or(Path::new(""))
    }

    /// Returns the seed for the record.
    ///
    /// Most programs draw nothing: a command without a `seed` has none in its record, though it receives 0.
    pub fn recorded_seed(&self) -> Option<u64> {
        (self.kind.needs_worker() || (self.kind.takes_seed() && self.is_seeded)).then_some(self.seed)
    }

    /// Returns the numerics for the record; kinds that the engine runs itself have none, because they use no numeric
    /// library.
    pub fn recorded_numerics(&self) -> Option<Numerics> {
        self.kind.needs_worker().then_some(self.numerics)
    }

    /// Returns the version of the code that makes it.
    pub fn code_version(&self) -> u32 {
        self.kind.version_for(&self.params)
    }

    /// Returns its axes with their values.
    pub(super) fn axes(&self) -> Mapping {
        let (names, values) = &self.axes;
        names.iter().zip(values).map(|(name, value)| (name.as_str().into(), (**value).clone())).collect()
    }

    /// Returns the values on its own axes and on those of a sweep, by coordinate, as their author wrote them: `8/255`
    /// where the label is `8_255`. Leaves out values that are lists or mappings.
    pub fn written_axes(&self) -> impl Iterator<Item = (String, String)> {
        let (names, values) = &self.axes;
        let own = names.iter().zip(values).map(|(name, value)| (format!("{}.{name}", self.stage), value));
        let swept = self.sweep.iter().map(|stand| (stand.name.to_string(), &stand.value));
        own.chain(swept).filter_map(|(name, value)| Some((name, scalar_text(value)?)))
    }

    /// Returns whether it is of one value of a sweep, and its name says of which.
    pub fn is_of_sweep(&self) -> bool {
        self.sweep.iter().any(|stand| stand.is_named)
    }

    /// Returns the name that it has without a sweep: `model/pgd` for `model/pgd/eps=2_255`. Runs without the sweep know
    /// it by that name.
    pub fn unswept_name(&self) -> &str {
        let named = self.sweep.iter().filter(|stand| stand.is_named);
        let length: usize = named.map(|stand| "/=".len() + stand.name.len() + stand.label.len()).sum();
        &self.name[..self.name.len() - length]
    }

    /// Puts the values of swept parameters into its name and into those of its results: `model/pgd/eps=2_255`.
    pub(super) fn name_sweep(&mut self) {
        let named = self.sweep.iter().filter(|stand| stand.is_named);
        let labels: Vec<String> = named.map(|stand| format!("{}={}", stand.name, stand.label)).collect();
        if labels.is_empty() {
            return;
        }
        let (before, end) = (self.name.replace('/', "-"), labels.join("-"));
        for result in self.outputs.iter_mut().filter_map(|output| output.result.as_mut()) {
            let stem =
                if result.starts_with(&before) { before.len() } else { result.rfind('.').unwrap_or(result.len()) };
            result.insert_str(stem, &format!("-{end}"));
        }
        self.name = format!("{}/{}", self.name, labels.join("/"));
    }

    /// Returns the name without the stage's: `pgd-inf-8/saturated-1024`; the stage's name if it has no axes.
    pub fn tail(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, tail)| tail)
    }

    /// Returns the input of a slot that takes one.
    pub fn need(&self, slot: &str) -> Option<&Need> {
        self.needs.iter().find(|need| need.slot == slot)
    }
}
