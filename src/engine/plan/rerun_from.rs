//! Rerun levels: from predictions, from checkpoints, or from scratch.
//!
//! Says which fresh instances run anyway, and which may not run. Knows stage kinds and dependencies; runs nothing.

use serde::{Deserialize, Serialize};

use crate::graph::Graph;
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
        let after =
            after(graph, &[StageKind::Evaluate, StageKind::Masking, StageKind::Saliency, StageKind::FourierMap]);
        let is_anew = |id: InstanceId| match (self, graph.instance(id).kind) {
            (RerunFrom::Scratch, StageKind::Dataset | StageKind::File) => false,
            (RerunFrom::Scratch, _) => true,
            (RerunFrom::Predictions, StageKind::WorstCase | StageKind::Table | StageKind::Figure) => {
                reads_only_predictions(graph.instance(id))
            }
            (RerunFrom::Predictions, kind) => kind == StageKind::Command && after_evaluation[id],
            (RerunFrom::Checkpoints, StageKind::WorstCase | StageKind::Table | StageKind::Figure) => true,
            (
                RerunFrom::Checkpoints,
                StageKind::Evaluate | StageKind::Masking | StageKind::Saliency | StageKind::FourierMap,
            ) => true,
            (RerunFrom::Checkpoints, kind) => kind == StageKind::Command && after[id],
        };
        graph.ids().map(is_anew).collect()
    }

    /// Marks the instances that may not run, by id.
    pub fn forbidden_stages(self, graph: &Graph) -> PerInstance<bool> {
        let after = after(graph, &[StageKind::Evaluate]);
        let is_barred = |id: InstanceId| match (self, graph.instance(id).kind) {
            (RerunFrom::Scratch, _)
            | (RerunFrom::Predictions, StageKind::WorstCase | StageKind::Table | StageKind::Figure) => false,
            (RerunFrom::Predictions, kind) => kind != StageKind::Command || !after[id],
            (RerunFrom::Checkpoints, kind) => kind == StageKind::Train,
        };
        graph.ids().map(is_barred).collect()
    }
}

/// Whether an instance is a table, a figure or a worst case made from predictions alone.
///
/// Such a stage takes milliseconds and needs neither images nor networks.
pub fn reads_only_predictions(instance: &Instance) -> bool {
    let is_of_predictions = |need: &Need| matches!(need.slot.as_str(), "value" | "reference");
    match instance.kind {
        StageKind::WorstCase => true,
        StageKind::Table | StageKind::Figure => instance.needs.iter().all(is_of_predictions),
        _ => false,
    }
}

/// Marks the instances that are downstream of one of these kinds, at any distance; by id.
fn after(graph: &Graph, kinds: &[StageKind]) -> PerInstance<bool> {
    let mut after = graph.per_instance(false);
    for id in graph.ids() {
        after[id] = graph.producers(id).any(|from| after[from] || kinds.contains(&graph.instance(from).kind));
    }
    after
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
