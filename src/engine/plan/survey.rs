//! Determines the state of every wanted instance, from producers to consumers.

use std::collections::HashMap;

use rayon::prelude::*;

use super::assembly::assembled_here;
use super::lookup::{CacheLookup, PARALLEL_BATCH};
use super::lost;
use super::state::{CacheStatus, CacheStatuses, RerunRequest, StaleReason, Staleness};
use super::{Goals, PlanContext};
use crate::action::ActionKey;
use crate::cache::{CacheError, Manifest};
use crate::graph::Graph;
use crate::spec::{InstanceId, PerInstance};

/// Determines the state of every wanted instance; the others get `None`.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn survey(context: PlanContext<'_>, goals: &Goals) -> Result<CacheStatuses, CacheError> {
    let PlanContext { graph, cache, .. } = context;
    let mut status_of: CacheStatuses = graph.ids().map(|_| None).collect();
    let waves = waves(graph, &goals.wanted);
    // A wave is read in one batch. In long chains the waves are small, so the newest run predicts which manifests to
    // read.
    let is_chain = waves.iter().map(Vec::len).sum::<usize>() < waves.len() * PARALLEL_BATCH;
    let mut read = if is_chain { read_ahead(context, &waves) } else { HashMap::new() };
    for wave in waves.iter().cloned() {
        let is_fresh = |producer: &InstanceId| matches!(status_of[*producer], Some(CacheStatus::Fresh(..)));
        let pending = |id: InstanceId| graph.producers(id).filter(|producer| !is_fresh(producer)).min();
        let (open, known): (Vec<InstanceId>, Vec<InstanceId>) = wave.into_iter().partition(|id| pending(*id).is_some());
        let outputs = |producer: InstanceId| match &status_of[producer] {
            Some(CacheStatus::Fresh(_, manifest)) => &manifest.outputs,
            _ => unreachable!("producers were found fresh before"),
        };
        let open: Vec<(InstanceId, Option<InstanceId>)> = open.into_iter().map(|id| (id, pending(id))).collect();
        let looks = context.look_up(&known, outputs, &mut read)?;
        let classify = |(id, look): (&InstanceId, CacheLookup)| context.classify(*id, look, goals.needed[*id]);
        let assessed: Vec<Staleness> = known.iter().zip(looks).map(classify).collect();
        let assembled = assembled_here(context, goals, &known, &assessed, outputs)?;
        for (id, producer) in open {
            status_of[id] = producer.map(CacheStatus::Pending);
        }
        for ((id, assessment), is_assembled) in known.into_iter().zip(assessed).zip(assembled) {
            let order = goals.forced[id].filter(|order| *order != RerunRequest::Assemble || is_assembled);
            status_of[id] = Some(match (assessment, order) {
                (Staleness::Fresh(key, manifest), None) => CacheStatus::Fresh(key, manifest),
                (Staleness::Fresh(_, manifest), Some(order)) => {
                    CacheStatus::Stale(Box::new(manifest.record), StaleReason::Forced(order))
                }
                (Staleness::Stale(action, absence), _) => CacheStatus::Stale(action, absence),
            });
        }
    }
    lost::mark(graph, cache, &waves, &mut status_of)?;
    Ok(status_of)
}

/// Reads the manifests of the newest run on all cores: the survey asks for most of them next.
fn read_ahead(context: PlanContext<'_>, waves: &[Vec<InstanceId>]) -> HashMap<ActionKey, Manifest> {
    let PlanContext { graph, cache, .. } = context;
    let wanted: Vec<InstanceId> = waves.iter().flatten().copied().collect();
    let newest = if wanted.len() < PARALLEL_BATCH { None } else { cache.runs(None).next() };
    let Some(newest) = newest else { return HashMap::new() };
    let keys: Vec<ActionKey> =
        wanted.iter().filter_map(|id| newest.keys.get(&graph.instance(*id).name).copied()).collect();
    keys.into_par_iter().filter_map(|key| Some((key, cache.read_manifest(key)?))).collect()
}

/// Groups the wanted instances into waves. Each wave depends only on earlier waves.
pub(crate) fn waves(graph: &Graph, wanted: &PerInstance<bool>) -> Vec<Vec<InstanceId>> {
    let mut waves: Vec<Vec<InstanceId>> = Vec::new();
    let mut wave_of = graph.per_instance(0);
    for id in graph.ids().filter(|id| wanted[*id]) {
        let wave = graph.producers(id).map(|producer| wave_of[producer] + 1).max().unwrap_or(0);
        wave_of[id] = wave;
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(id);
    }
    waves
}
