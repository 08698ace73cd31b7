//! Spot check: recomputes a random sample of predictions from published checkpoints.
//!
//! This module draws the sample, obtains its inputs, and computes the power of the check. Runs nothing.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::cache::{Cache, CacheError, Manifest, Obtained};
use crate::graph::Graph;
use crate::plan::{CacheStatus, CacheStatuses};
use crate::random::permutation;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;
use crate::verify::reproduce::Published;

/// Size of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleSize {
    /// Share of all predictions, above 0 and at most 1; at least one prediction.
    Share(f64),
    /// Number of predictions; all, if there are fewer.
    Count(usize),
}

/// Drawn result that cannot be recomputed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unobtainable {
    /// Instance to recompute.
    pub stage: String,
    /// Producer whose output is unobtainable.
    pub of: String,
    /// Name of the output.
    pub output: String,
}

/// Sample of predictions.
#[derive(Debug)]
pub struct Draw {
    /// Number of predictions to draw from.
    pub population: usize,
    /// Drawn instances that can be recomputed, with their recorded manifests.
    pub drawn: Vec<(InstanceId, Manifest)>,
    /// Drawn instances that cannot be recomputed.
    pub unobtainable: Vec<Unobtainable>,
    /// States of the drawn instances and of everything that they need, by id.
    pub status_of: CacheStatuses,
}

/// Marks the wanted `evaluate` instances, by id.
pub fn predictions(graph: &Graph, wanted: &PerInstance<bool>) -> PerInstance<bool> {
    graph.ids().map(|id| wanted[id] && graph.instance(id).kind == StageKind::Evaluate).collect()
}

/// Draws from the predictions with a recorded result, and makes the inputs of the drawn ones available here.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn draw(
    graph: &Graph,
    cache: &Cache,
    recorded: &Published,
    among: &PerInstance<bool>,
    amount: SampleSize,
    seed: u64,
) -> Result<Draw, CacheError> {
    let of = |id: InstanceId| match cache.has_remote() {
        true => recorded.of(id),
        false => recorded.base(id),
    };
    let mut all: Vec<InstanceId> = graph.ids().filter(|id| among[*id] && of(*id).is_some()).collect();
    // Sorted by name: a sample does not depend on the order in the pipeline file.
    all.sort_by(|a, b| graph.instance(*a).name.cmp(&graph.instance(*b).name));
    let count = match amount {
        SampleSize::Share(share) => ((share * all.len() as f64).ceil() as usize).clamp(1, all.len().max(1)),
        SampleSize::Count(count) => count,
    };
    let order = permutation(seed, "spot check", &[], all.len());
    let mut drawn = Vec::new();
    let mut unobtainable = Vec::new();
    for id in order.into_iter().take(count).map(|at| all[at]) {
        match missing_input(graph, cache, recorded, id)? {
            Some(missing) => unobtainable.push(missing),
            None => drawn.extend(of(id).map(|manifest| (id, manifest.clone()))),
        }
    }
    drawn.sort_by_key(|(id, _)| *id);
    let ids: Vec<InstanceId> = drawn.iter().map(|(id, _)| *id).collect();
    let reached = graph.reached_from(&ids);
    let stands = |id: InstanceId| {
        let manifest = recorded.base(id).filter(|_| reached[id])?;
        Some(CacheStatus::Fresh(manifest.record.key(), Box::new(manifest.clone())))
    };
    let status_of = graph.ids().map(stands).collect();
    Ok(Draw { population: all.len(), drawn, unobtainable, status_of })
}

/// Returns the first unobtainable input of an instance. If there is none, all inputs are here afterwards.
fn missing_input(
    graph: &Graph,
    cache: &Cache,
    recorded: &Published,
    id: InstanceId,
) -> Result<Option<Unobtainable>, CacheError> {
    for need in &graph.instance(id).needs {
        let blob = recorded.base(need.from).and_then(|manifest| manifest.outputs.get(&need.output));
        let is_here = match blob {
            Some(blob) => {
                let obtained = cache.obtain(*blob, &mut |_, _| ControlFlow::Continue(()))?;
                matches!(obtained, Obtained::Here | Obtained::Fetched)
            }
            None => false,
        };
        if !is_here {
            let name = |id| graph.instance(id).name.clone();
            return Ok(Some(Unobtainable { stage: name(id), of: name(need.from), output: need.output.clone() }));
        }
    }
    Ok(None)
}

/// Returns the probability that a sample of `drawn` out of `population`, without replacement, contains one of `wrong`.
pub fn chance_to_meet(population: usize, wrong: usize, drawn: usize) -> f64 {
    let right = population.saturating_sub(wrong);
    if drawn > right {
        return 1.0;
    }
    let missed = |at: usize| (right - at) as f64 / (population - at) as f64;
    1.0 - (0..drawn).map(missed).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::chance_to_meet;

    #[test]
    fn the_chance_is_that_of_draws_without_putting_back() {
        assert_eq!(chance_to_meet(10, 0, 5), 0.0);
        assert_eq!(chance_to_meet(10, 1, 10), 1.0);
        assert!((chance_to_meet(10, 1, 3) - 0.3).abs() < 1e-12);
        // 1 - C(8, 2) / C(10, 2) = 1 - 28 / 45.
        assert!((chance_to_meet(10, 2, 2) - 17.0 / 45.0).abs() < 1e-12);
        assert_eq!(chance_to_meet(3, 2, 2), 1.0);
    }
}
