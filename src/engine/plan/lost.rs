//! Results that are known and whose bytes are gone: where something that runs is to read them, they have to be made
//! again, and a plan must say so. A run finds the same out by itself, one stage at a time. Knows the cache only as a
//! place that has a blob or has not.

use super::{StaleReason, Standing};
use crate::cache::{Blob, Cache, CacheError};
use crate::graph::Graph;
use crate::spec::InstanceId;

/// Marks the fresh instances as stale whose outputs are to be read and that nobody has, last waves first: what they
/// read in turn may be gone, too.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub(super) fn mark(
    graph: &Graph,
    cache: &Cache,
    waves: &[Vec<InstanceId>],
    standings: &mut [Option<Standing>],
) -> Result<(), CacheError> {
    for wave in waves.iter().rev() {
        let absent: Vec<(InstanceId, &str, Blob)> =
            wave.iter().flat_map(|id| read_from_fresh(graph, standings, *id)).filter(|it| !cache.has(it.2)).collect();
        if absent.is_empty() {
            continue;
        }
        let blobs: Vec<Blob> = absent.iter().map(|(.., blob)| *blob).collect();
        for ((id, output, _), is_there) in absent.into_iter().zip(cache.can_obtain(&blobs)?) {
            // Another output of it may have been found to be gone before.
            if !is_there && let Some(Standing::Fresh(_, manifest)) = &standings[id.0] {
                let record = Box::new(manifest.record.clone());
                standings[id.0] = Some(Standing::Stale(record, StaleReason::Output(output.to_owned())));
            }
        }
    }
    Ok(())
}

/// What an instance that may run reads of instances that need not: who made it, which output, and its blob.
pub(crate) fn read_from_fresh<'g, 's>(
    graph: &'g Graph,
    standings: &'s [Option<Standing>],
    id: InstanceId,
) -> impl Iterator<Item = (InstanceId, &'g str, Blob)> + use<'g, 's> {
    let may_run = matches!(standings[id.0], Some(Standing::Stale(..) | Standing::Pending(_)));
    let needs = if may_run { graph.instance(id).needs.as_slice() } else { &[] };
    needs.iter().filter_map(|need| match &standings[need.from.0] {
        Some(Standing::Fresh(_, manifest)) => {
            Some((need.from, need.output.as_str(), *manifest.outputs.get(&need.output)?))
        }
        _ => None,
    })
}
