//! Results from a remote cache that a run assembles locally instead of trusting them.
//!
//! Knows only whether the cache has a blob.

use super::state::{RerunRequest, Staleness};
use super::{Goals, PlanContext};
use crate::cache::{Blob, CacheError};
use crate::graph::Outputs;
use crate::spec::InstanceId;

/// Marks the results from a remote cache that are to be assembled locally and can be; in the order of `ids`.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub(super) fn assembled_here<'a>(
    context: PlanContext<'_>,
    goals: &Goals,
    ids: &[InstanceId],
    assessed: &[Staleness],
    outputs: impl Fn(InstanceId) -> &'a Outputs,
) -> Result<Vec<bool>, CacheError> {
    let mut blobs: Vec<(usize, Blob)> = Vec::new();
    let mut is_assembled = vec![false; ids.len()];
    for (at, (id, assessment)) in ids.iter().zip(assessed).enumerate() {
        let is_meant = goals.forced[*id] == Some(RerunRequest::Assemble);
        if matches!(assessment, Staleness::Fresh(_, manifest) if is_meant && manifest.from.is_some()) {
            is_assembled[at] = true;
            let needs = context.graph.instance(*id).needs.iter();
            blobs.extend(needs.filter_map(|need| Some((at, *outputs(need.from).get(&need.output)?))));
        }
    }
    let asked: Vec<Blob> = blobs.iter().map(|(_, blob)| *blob).collect();
    for ((at, _), is_there) in blobs.iter().zip(context.cache.can_obtain(&asked)?) {
        is_assembled[*at] &= is_there;
    }
    Ok(is_assembled)
}
