//! Rerun levels: from predictions, from checkpoints, or from scratch.
//!
//! Says which fresh instances run anyway, which may not run, and which missing results a level cannot do without. Knows
//! stage kinds and dependencies; runs nothing.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::cache::{Blob, Cache, CacheError};
use crate::digest::Digest;
use crate::graph::Graph;
use crate::plan::{StaleReason, Standing, Standings, must_be_there, read_from_fresh};
use crate::spec::{Instance, InstanceId, Need, PerInstance};
use crate::stage_kinds::StageKind;

/// Level from which results are recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RerunFrom {
    /// Reruns only what reads predictions: tables, curves, and commands downstream of an evaluation.
    Predictions,
    /// Trains nothing. Reruns evaluations, masking checks, saliency maps, and what is downstream of them.
    Checkpoints,
    /// Reruns everything except data sets and files.
    Scratch,
}

impl RerunFrom {
    /// Returns the name of the level on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            RerunFrom::Predictions => "predictions",
            RerunFrom::Checkpoints => "checkpoints",
            RerunFrom::Scratch => "scratch",
        }
    }

    /// Marks the instances that run even if they are fresh, by id.
    pub fn forced_stages(self, graph: &Graph) -> PerInstance<bool> {
        let after_evaluation = after(graph, &[StageKind::Evaluate]);
        let after = after(graph, &[StageKind::Evaluate, StageKind::Masking, StageKind::Saliency]);
        let is_anew = |id: InstanceId| match (self, graph.instance(id).kind) {
            (RerunFrom::Scratch, StageKind::Dataset | StageKind::File) => false,
            (RerunFrom::Scratch, _) => true,
            (RerunFrom::Predictions, StageKind::Table | StageKind::Figure) => {
                reads_only_predictions(graph.instance(id))
            }
            (RerunFrom::Predictions, kind) => kind == StageKind::Command && after_evaluation[id],
            (RerunFrom::Checkpoints, StageKind::Table | StageKind::Figure) => true,
            (RerunFrom::Checkpoints, StageKind::Evaluate | StageKind::Masking | StageKind::Saliency) => true,
            (RerunFrom::Checkpoints, kind) => kind == StageKind::Command && after[id],
        };
        graph.ids().map(is_anew).collect()
    }

    /// Marks the instances that may not run, by id.
    pub fn forbidden_stages(self, graph: &Graph) -> PerInstance<bool> {
        let after = after(graph, &[StageKind::Evaluate]);
        let is_barred = |id: InstanceId| match (self, graph.instance(id).kind) {
            (RerunFrom::Scratch, _) | (RerunFrom::Predictions, StageKind::Table | StageKind::Figure) => false,
            (RerunFrom::Predictions, kind) => kind != StageKind::Command || !after[id],
            (RerunFrom::Checkpoints, kind) => kind == StageKind::Train,
        };
        graph.ids().map(is_barred).collect()
    }
}

/// Whether an instance is a table or a figure made from predictions alone.
///
/// Such a stage takes milliseconds and needs neither images nor networks.
pub fn reads_only_predictions(instance: &Instance) -> bool {
    let is_of_predictions = |need: &Need| matches!(need.slot.as_str(), "value" | "reference");
    matches!(instance.kind, StageKind::Table | StageKind::Figure) && instance.needs.iter().all(is_of_predictions)
}

/// Marks the instances that are downstream of one of these kinds, at any distance; by id.
fn after(graph: &Graph, kinds: &[StageKind]) -> PerInstance<bool> {
    let mut after = graph.per_instance(false);
    for id in graph.ids() {
        after[id] = graph.producers(id).any(|from| after[from] || kinds.contains(&graph.instance(from).kind));
    }
    after
}

/// Result that is required and missing, and that the level may not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Name of the instance that would make it.
    pub stage: String,
    /// Kind of that instance.
    pub kind: StageKind,
    /// Whether the manifest exists and only the bytes are missing.
    pub is_known: bool,
    /// Shallowest level that makes it.
    pub made_from: RerunFrom,
    /// Stage that must run before a remote cache can be asked for the result. `None` if no cache can have it.
    pub hidden_by: Option<String>,
}

/// Returns the results that a run at this level needs and may not make, by a survey at the same level.
///
/// Of results that need one another, it returns only the last.
///
/// A training downstream of a stage that has yet to run has no key, so its checkpoint cannot be looked up. The training
/// is not reported if this cache has a checkpoint of such a training, with any inputs: the stage may make the same
/// bytes again. Otherwise it is reported, even if a remote cache may have the checkpoint: hours of fetching should not
/// start on a guess.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn missing(
    graph: &Graph,
    cache: &Cache,
    depth: RerunFrom,
    standings: &Standings,
    needed: &PerInstance<bool>,
) -> Result<Vec<Missing>, CacheError> {
    let barred = depth.forbidden_stages(graph);
    let gone = gone(graph, cache, &barred, standings, needed)?;
    let mut trainings = Trainings { cache, shapes: None };
    let mut lacks = graph.per_instance(false);
    let mut untrained = graph.per_instance(false);
    let mut hidden_by: PerInstance<Option<InstanceId>> = graph.per_instance(None);
    for id in graph.ids() {
        let Some(standing) = &standings[id] else { continue };
        let is_fresh = matches!(standing, Standing::Fresh(..)) && !gone[id];
        let is_training = graph.instance(id).kind == StageKind::Train && !is_fresh;
        untrained[id] = is_training || graph.producers(id).any(|from| untrained[from]);
        lacks[id] = match standing {
            Standing::Fresh(..) => gone[id],
            Standing::Stale(..) => barred[id],
            Standing::Pending(_) if !barred[id] => false,
            Standing::Pending(_) if graph.producers(id).any(|from| lacks[from]) => true,
            Standing::Pending(producer) => {
                let is_nowhere = graph.instance(id).kind == StageKind::Train && !trainings.has(graph, id)?;
                hidden_by[id] = Some(*producer).filter(|_| is_nowhere && cache.has_remote());
                is_nowhere
            }
        };
    }
    let is_last = |id: &InstanceId| lacks[*id] && !graph.consumers(*id).any(|consumer| lacks[consumer]);
    let tell = |id: InstanceId| {
        let instance = graph.instance(id);
        Missing {
            stage: instance.name.clone(),
            kind: instance.kind,
            is_known: gone[id] || matches!(standings[id], Some(Standing::Stale(_, StaleReason::Output(_)))),
            made_from: if untrained[id] { RerunFrom::Scratch } else { RerunFrom::Checkpoints },
            hidden_by: hidden_by[id].map(|stage| graph.instance(stage).name.clone()),
        }
    };
    Ok(graph.ids().filter(is_last).map(tell).collect())
}

/// Shapes of the trainings whose results are in a cache, read on first use.
struct Trainings<'a> {
    cache: &'a Cache,
    shapes: Option<HashSet<Digest>>,
}

impl Trainings<'_> {
    /// Whether the cache has a checkpoint of such a training, with any inputs.
    fn has(&mut self, graph: &Graph, id: InstanceId) -> Result<bool, CacheError> {
        let shapes = match &mut self.shapes {
            Some(shapes) => shapes,
            none => {
                let manifests = self.cache.results_of(StageKind::Train)?.into_iter();
                let whole = manifests.filter(|manifest| {
                    self.cache.has_remote() || manifest.outputs.values().all(|blob| self.cache.has(*blob))
                });
                none.insert(whole.map(|manifest| manifest.record.shape()).collect())
            }
        };
        Ok(shapes.contains(&graph.record_by(id, |_, _| String::new(), |_| String::new()).shape()))
    }
}

/// Marks cached instances that may not rerun but whose required output is missing; by id.
fn gone(
    graph: &Graph,
    cache: &Cache,
    barred: &PerInstance<bool>,
    standings: &Standings,
    needed: &PerInstance<bool>,
) -> Result<PerInstance<bool>, CacheError> {
    let mut read: Vec<(InstanceId, Blob)> = Vec::new();
    for id in graph.ids() {
        match &standings[id] {
            None => {}
            Some(Standing::Fresh(_, manifest)) => {
                let instance = graph.instance(id);
                let outputs = instance.outputs.iter().filter(|output| must_be_there(output, needed[id]));
                read.extend(outputs.filter_map(|output| Some((id, *manifest.outputs.get(&output.name)?))));
            }
            Some(Standing::Stale(..) | Standing::Pending(_)) => {
                read.extend(read_from_fresh(graph, standings, id).map(|(from, _, blob)| (from, blob)));
            }
        }
    }
    read.retain(|(id, _)| barred[*id]);
    read.sort_unstable_by_key(|(id, blob)| (*id, blob.digest));
    read.dedup();
    let mut gone = graph.per_instance(false);
    let blobs: Vec<Blob> = read.iter().map(|(_, blob)| *blob).collect();
    for ((id, _), is_there) in read.iter().zip(cache.can_obtain(&blobs)?) {
        gone[*id] |= !is_there;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Overrides, PipelineSpec, expand};

    #[test]
    fn what_runs_and_what_may_not_follows_from_kinds_and_from_who_comes_after_whom() {
        let text = "stages:\n\
            \x20 prepare: {kind: command, with: {run: x, outputs: {n: n}}}\n\
            \x20 set: {kind: dataset, with: {format: idx, train: {images: {path: f}, labels: {path: f}}, \
            test: {images: {path: f}, labels: {path: f}}, classes: [a, b]}}\n\
            \x20 model: {kind: train, needs: {data: set.train}, with: {net: {arch: resnet, width: 4, blocks: [1]}, epochs: 1, batch_size: 4, optimizer: {lr: 0.1}}}\n\
            \x20 changed: {kind: transform, needs: {data: set.test}, with: {op: saturate, level: 4}}\n\
            \x20 tested: {kind: evaluate, needs: {model: model, set: changed}}\n\
            \x20 maps: {kind: saliency, needs: {models: model, set: set.test}, with: {images: [0]}}\n\
            \x20 summary: {kind: command, needs: {x: tested}, with: {run: x, outputs: {n: n}}}\n\
            \x20 pages: {kind: command, needs: {x: [summary, maps.grid]}, with: {run: x, outputs: {n: n}}}\n";
        let spec = PipelineSpec::from_text("p", text, &Overrides::default()).unwrap();
        let graph = Graph::new(expand(&spec).unwrap());
        let names = |marks: PerInstance<bool>| -> Vec<String> {
            let mut names: Vec<String> =
                graph.ids().filter(|id| marks[*id]).map(|id| graph.instance(id).name.clone()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(RerunFrom::Predictions.forced_stages(&graph)), ["pages", "summary"]);
        assert_eq!(names(RerunFrom::Checkpoints.forced_stages(&graph)), ["maps", "pages", "summary", "tested"]);
        assert_eq!(
            names(RerunFrom::Scratch.forced_stages(&graph)),
            ["changed", "maps", "model", "pages", "prepare", "summary", "tested"]
        );
        assert_eq!(
            names(RerunFrom::Predictions.forbidden_stages(&graph)),
            ["changed", "maps", "model", "prepare", "set", "tested"]
        );
        assert_eq!(names(RerunFrom::Checkpoints.forbidden_stages(&graph)), ["model"]);
        assert_eq!(names(RerunFrom::Scratch.forbidden_stages(&graph)), [""; 0]);
    }
}
