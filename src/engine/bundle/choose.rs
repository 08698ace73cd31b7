//! Which results a bundle has to hold, so that a run from some depth finds what it may not make.

use std::collections::BTreeSet;

use crate::graph::Graph;
use crate::plan::rerun_from::RerunFrom;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

/// Marks the wanted instances that a run from a depth makes with a bundle: those of the depth, and what they read and
/// the bundle does not hold because the run may make it.
pub fn stages_that_run(graph: &Graph, wanted: &PerInstance<bool>, depth: RerunFrom) -> PerInstance<bool> {
    let (forced, forbidden) = (depth.forced_stages(graph), depth.forbidden_stages(graph));
    let mut runs = graph.per_instance(false);
    // Consumers come before producers.
    for id in graph.ids().rev().filter(|id| wanted[*id]) {
        let is_read = graph.consumers(id).any(|consumer| runs[consumer]);
        runs[id] = forced[id] || (is_read && !forbidden[id]);
    }
    runs
}

/// Returns the outputs that a run of the wanted instances from a depth reads and may not make, by producer and name.
///
/// What such a run may make is left out, although it reads it: transformed sets can be large, and are made again from
/// the sources.
fn needed_results(graph: &Graph, wanted: &PerInstance<bool>, depth: RerunFrom) -> Vec<(InstanceId, String)> {
    let (runs, forbidden) = (stages_that_run(graph, wanted, depth), depth.forbidden_stages(graph));
    let needs = runs.marked().flat_map(|id| &graph.instance(id).needs);
    let read = needs.filter(|need| forbidden[need.from]).map(|need| (need.from, need.output.clone()));
    let once: BTreeSet<(InstanceId, String)> = read.collect();
    once.into_iter().collect()
}

/// Returns the outputs that a bundle holds, by producer and name: those that people look at, or that nothing reads, and
/// those that a run from the depth, or from a shallower one, needs.
pub fn needed_blobs(graph: &Graph, wanted: &PerInstance<bool>, depth: Option<RerunFrom>) -> Vec<(InstanceId, String)> {
    let mut needed = Vec::new();
    for id in graph.ids().filter(|id| wanted[*id]) {
        let outputs = &graph.instance(id).outputs;
        let is_shown = outputs.iter().any(|output| output.result.is_some());
        // What nothing reads is what the pipeline is for. Sources come from where they are published.
        let is_source = matches!(graph.instance(id).kind, StageKind::Dataset | StageKind::File);
        let is_last = !is_shown && !is_source && graph.consumers(id).next().is_none();
        let held = outputs.iter().filter(|output| is_last || output.result.is_some());
        needed.extend(held.map(|output| (id, output.name.clone())));
    }
    let levels = [RerunFrom::Predictions, RerunFrom::Checkpoints];
    for level in levels.into_iter().filter(|level| depth.is_some_and(|depth| *level <= depth)) {
        needed.extend(needed_results(graph, wanted, level));
    }
    let once: BTreeSet<(InstanceId, String)> = needed.into_iter().collect();
    once.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Overrides, PipelineSpec, expand};

    #[test]
    fn a_depth_needs_what_it_reads_and_may_not_make() {
        let text = "stages:\n\
            \x20 set: {kind: dataset, with: {format: idx, train: {images: {path: f}, labels: {path: f}}, \
            test: {images: {path: f}, labels: {path: f}}, classes: [a, b]}}\n\
            \x20 model: {kind: train, needs: {data: set.train}, with: {net: {arch: resnet, width: 4, blocks: [1]}, epochs: 1, batch_size: 4, optimizer: {lr: 0.1}}}\n\
            \x20 changed: {kind: transform, needs: {data: set.test}, with: {op: saturate, level: 4}}\n\
            \x20 tested: {kind: evaluate, needs: {model: model, set: changed}}\n\
            \x20 summary: {kind: command, needs: {x: tested}, with: {run: x, outputs: {n: n}}}\n";
        let spec = PipelineSpec::from_text("p", text, &Overrides::default()).unwrap();
        let graph = Graph::new(expand(&spec).unwrap());
        let wanted = graph.per_instance(true);
        let names = |needed: Vec<(InstanceId, String)>| -> Vec<String> {
            needed.iter().map(|(id, output)| format!("{}.{output}", graph.instance(*id).name)).collect()
        };
        assert_eq!(names(needed_results(&graph, &wanted, RerunFrom::Predictions)), ["tested.predictions"]);
        assert_eq!(names(needed_results(&graph, &wanted, RerunFrom::Checkpoints)), ["model.checkpoint"]);
        assert_eq!(names(needed_blobs(&graph, &wanted, None)), ["summary.n"]);
        let all = names(needed_blobs(&graph, &wanted, Some(RerunFrom::Checkpoints)));
        assert_eq!(all, ["model.checkpoint", "tested.predictions", "summary.n"]);
    }
}
