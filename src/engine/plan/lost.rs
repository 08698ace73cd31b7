//! Cached results whose bytes are missing.
//!
//! If a stage that runs has to read them, they must be made again, and the plan says so. A run finds this out by
//! itself, one stage at a time. Knows only whether the cache has a blob.

use super::state::{CacheStatus, CacheStatuses, StaleReason};
use crate::cache::{Blob, Cache, CacheError};
use crate::graph::Graph;
use crate::spec::InstanceId;

/// Marks fresh instances as stale if no cache has an output that a stage will read.
///
/// Goes through the waves backwards: the inputs of such an instance may be missing, too.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub(super) fn mark(
    graph: &Graph,
    cache: &Cache,
    waves: &[Vec<InstanceId>],
    status_of: &mut CacheStatuses,
) -> Result<(), CacheError> {
    for wave in waves.iter().rev() {
        let absent: Vec<(InstanceId, &str, Blob)> =
            wave.iter().flat_map(|id| read_from_fresh(graph, status_of, *id)).filter(|it| !cache.has(it.2)).collect();
        if absent.is_empty() {
            continue;
        }
        let blobs: Vec<Blob> = absent.iter().map(|(.., blob)| *blob).collect();
        for ((id, output, _), is_there) in absent.into_iter().zip(cache.can_obtain(&blobs)?) {
            // An earlier missing output may already have marked the instance as stale.
            if !is_there && let Some(CacheStatus::Fresh(_, manifest)) = &status_of[id] {
                let action = Box::new(manifest.record.clone());
                status_of[id] = Some(CacheStatus::Stale(action, StaleReason::Output(output.to_owned())));
            }
        }
    }
    Ok(())
}

/// Returns what an instance that may run reads from fresh instances: producer, output name, and blob.
pub(crate) fn read_from_fresh<'g, 's>(
    graph: &'g Graph,
    status_of: &'s CacheStatuses,
    id: InstanceId,
) -> impl Iterator<Item = (InstanceId, &'g str, Blob)> + use<'g, 's> {
    let may_run = matches!(status_of[id], Some(CacheStatus::Stale(..) | CacheStatus::Pending(_)));
    let needs = if may_run { graph.instance(id).needs.as_slice() } else { &[] };
    needs.iter().filter_map(|need| match &status_of[need.from] {
        Some(CacheStatus::Fresh(_, manifest)) => {
            Some((need.from, need.output.as_str(), *manifest.outputs.get(&need.output)?))
        }
        _ => None,
    })
}
