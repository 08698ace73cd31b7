//! Results that a run at a rerun level needs, does not find, and may not make.
//!
//! Knows only whether the cache has a result or a blob.

use std::collections::HashSet;

use super::lookup::must_be_there;
use super::lost::read_from_fresh;
use super::rerun_from::RerunFrom;
use super::state::{CacheStatus, CacheStatuses, StaleReason};
use super::{Goals, PlanContext};
use crate::cache::{Blob, Cache, CacheError};
use crate::digest::Digest;
use crate::graph::Graph;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

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
pub fn missing(context: PlanContext<'_>, goals: &Goals, status_of: &CacheStatuses) -> Result<Vec<Missing>, CacheError> {
    let PlanContext { graph, cache, .. } = context;
    let forbidden = goals.forbidden(graph);
    let gone = gone(context, goals, &forbidden, status_of)?;
    let mut trainings = Trainings { cache, shapes: None };
    let mut lacks = graph.per_instance(false);
    let mut untrained = graph.per_instance(false);
    let mut hidden_by: PerInstance<Option<InstanceId>> = graph.per_instance(None);
    for id in graph.ids() {
        let Some(status) = &status_of[id] else { continue };
        let is_fresh = matches!(status, CacheStatus::Fresh(..)) && !gone[id];
        let is_training = graph.instance(id).kind == StageKind::Train && !is_fresh;
        untrained[id] = is_training || graph.producers(id).any(|from| untrained[from]);
        lacks[id] = match status {
            CacheStatus::Fresh(..) => gone[id],
            CacheStatus::Stale(..) => forbidden[id],
            CacheStatus::Pending(_) if !forbidden[id] => false,
            CacheStatus::Pending(_) if graph.producers(id).any(|from| lacks[from]) => true,
            CacheStatus::Pending(producer) => {
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
            is_known: gone[id] || matches!(status_of[id], Some(CacheStatus::Stale(_, StaleReason::Output(_)))),
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
        Ok(shapes.contains(&graph.action_by(id, |_, _| String::new(), |_| String::new()).shape()))
    }
}

/// Marks cached instances that may not rerun but whose required output is missing; by id.
fn gone(
    context: PlanContext<'_>,
    goals: &Goals,
    forbidden: &PerInstance<bool>,
    status_of: &CacheStatuses,
) -> Result<PerInstance<bool>, CacheError> {
    let PlanContext { graph, cache, .. } = context;
    let mut read: Vec<(InstanceId, Blob)> = Vec::new();
    for id in graph.ids() {
        match &status_of[id] {
            None => {}
            Some(CacheStatus::Fresh(_, manifest)) => {
                let instance = graph.instance(id);
                let outputs = instance.outputs.iter().filter(|output| must_be_there(output, goals.needed[id]));
                read.extend(outputs.filter_map(|output| Some((id, *manifest.outputs.get(&output.name)?))));
            }
            Some(CacheStatus::Stale(..) | CacheStatus::Pending(_)) => {
                read.extend(read_from_fresh(graph, status_of, id).map(|(from, _, blob)| (from, blob)));
            }
        }
    }
    read.retain(|(id, _)| forbidden[*id]);
    read.sort_unstable_by_key(|(id, blob)| (*id, blob.digest));
    read.dedup();
    let mut gone = graph.per_instance(false);
    let blobs: Vec<Blob> = read.iter().map(|(_, blob)| *blob).collect();
    for ((id, _), is_there) in read.iter().zip(cache.can_obtain(&blobs)?) {
        gone[*id] |= !is_there;
    }
    Ok(gone)
}
