//! Estimates the cost of a plan: work and time by the prices of its stages, and files to fetch.
//!
//! Stages without a price are counted, not guessed.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cache::Blob;
use crate::digest::Digest;
use crate::external_inputs::CheckedSource;
use crate::fetch;
use crate::graph::Graph;
use crate::plan::lost::read_from_fresh;
use crate::plan::{CacheStatus, CacheStatuses, Goals, PlanContext, PlannedStage, must_be_there};
use crate::spec::{InstanceId, PerInstance, fits_on_gpu};
use crate::stage_kinds::Source;

/// Cost of a plan if everything that is pending has to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostEstimate {
    /// Work in seconds.
    pub work: f64,
    /// Wall time in seconds.
    pub wall: f64,
    /// CPU threads that the estimate assumes.
    pub jobs: usize,
    /// Stages that may run and have no price: they never ran at this size, and their passes or the rates of this
    /// machine are not known. The true cost is higher by their work.
    pub never_ran: usize,
    /// Stages that may run and are priced by counted passes, because no earlier run of their size is known.
    pub counted: usize,
    /// Number of files to fetch.
    pub fetch_files: usize,
    /// Total bytes of the files whose size is known.
    pub fetch_bytes: u64,
    /// Number of files whose size is unknown.
    pub fetch_unknown: usize,
    /// Files that a person has to fetch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<PathBuf>,
}

/// Inputs of an estimate.
pub struct CostInputs<'a> {
    /// Pipeline, cache and external files.
    pub context: PlanContext<'a>,
    /// Goals of the survey.
    pub goals: &'a Goals,
    /// States of the instances, by id.
    pub status_of: &'a CacheStatuses,
}

/// Estimates the cost of a survey and of the plan made from it. `ask` allows asking servers for file sizes.
pub fn price(of: &CostInputs<'_>, stages: &[PlannedStage], jobs: usize, ask: bool) -> CostEstimate {
    let CostInputs { context, status_of, .. } = *of;
    let graph = context.graph;
    let looked_at = graph.ids().filter(|id| status_of[*id].is_some());
    let mut seconds: PerInstance<Option<f64>> = graph.per_instance(None);
    let mut gpu: PerInstance<f64> = graph.per_instance(0.0);
    let (mut never_ran, mut counted) = (0, 0);
    for (id, stage) in looked_at.zip(stages) {
        if !matches!(status_of[id], Some(CacheStatus::Fresh(..))) {
            never_ran += usize::from(stage.seconds.is_none());
            counted += usize::from(stage.counted);
            seconds[id] = Some(stage.seconds.unwrap_or(0.0));
            if stage.on_gpu {
                gpu[id] = graph.instance(id).gpu;
            }
        }
    }
    let files = to_fetch(context, status_of);
    let sizes: Vec<Option<u64>> = files.iter().map(|source| fetch::size(source, ask)).collect();
    let blobs = blobs_to_fetch(of);
    CostEstimate {
        // `sum` of nothing is negative zero.
        work: seconds.values().flatten().fold(0.0, |sum, seconds| sum + seconds),
        wall: wall(graph, &seconds, &gpu, jobs),
        jobs,
        never_ran,
        counted,
        fetch_files: files.len() + blobs.len(),
        fetch_bytes: sizes.iter().flatten().chain(blobs.values()).sum(),
        fetch_unknown: sizes.iter().filter(|size| size.is_none()).count(),
        by_hand: by_hand(context, status_of),
    }
}

/// Returns the remote files that stages will read and that the cache lacks, each once.
fn to_fetch(context: PlanContext<'_>, status_of: &CacheStatuses) -> Vec<Source> {
    let mut files: Vec<(String, Source)> = Vec::new();
    for checked in to_read(context, status_of) {
        if let CheckedSource::Remote { source } = checked {
            let identity = checked.identity();
            if !context.cache.fetched(&identity).is_some_and(|blob| context.cache.has(blob)) {
                files.push((identity, source.clone()));
            }
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files.dedup_by(|a, b| a.0 == b.0);
    files.into_iter().map(|(_, source)| source).collect()
}

/// Returns the blobs that a run would fetch from the remote cache, with their sizes.
///
/// These are inputs of stages that may run, requested outputs, and result files.
fn blobs_to_fetch(of: &CostInputs<'_>) -> BTreeMap<Digest, u64> {
    let CostInputs { context: PlanContext { graph, cache, .. }, goals, status_of } = *of;
    if !cache.has_remote() {
        return BTreeMap::new();
    }
    let mut blobs: Vec<Blob> = Vec::new();
    for id in graph.ids() {
        if let Some(CacheStatus::Fresh(_, manifest)) = &status_of[id] {
            let outputs = graph.instance(id).outputs.iter().filter(|output| must_be_there(output, goals.needed[id]));
            blobs.extend(outputs.filter_map(|output| manifest.outputs.get(&output.name)));
        }
        blobs.extend(read_from_fresh(graph, status_of, id).map(|(.., blob)| blob));
    }
    blobs.into_iter().filter(|blob| !cache.has(*blob)).map(|blob| (blob.digest, blob.size)).collect()
}

/// Returns the files of pending or stale stages that a person has to fetch, each once.
fn by_hand(context: PlanContext<'_>, status_of: &CacheStatuses) -> Vec<PathBuf> {
    let awaited = to_read(context, status_of).filter_map(CheckedSource::awaited);
    let files: BTreeSet<PathBuf> = awaited.map(Path::to_owned).collect();
    files.into_iter().collect()
}

/// Returns the sources of the stages that may run.
fn to_read<'a>(context: PlanContext<'a>, status_of: &'a CacheStatuses) -> impl Iterator<Item = &'a CheckedSource> {
    let PlanContext { graph, sources, .. } = context;
    let runs = |id: &InstanceId| matches!(status_of[*id], Some(CacheStatus::Stale(..) | CacheStatus::Pending(_)));
    let of = move |id: InstanceId| graph.instance(id).sources.iter().map(move |need| sources.get(id, need));
    graph.ids().filter(runs).flat_map(of)
}

/// Time at which a stage ends, ordered for a heap.
#[derive(PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Simulates a run as the scheduler would do it: most urgent first, as far as threads and one GPU allow.
///
/// `gpu` is the share of the GPU that each instance takes.
fn wall(graph: &Graph, seconds: &PerInstance<Option<f64>>, gpu: &PerInstance<f64>, jobs: usize) -> f64 {
    let urgency = graph.urgency();
    let mut waits: PerInstance<usize> = graph.per_instance(0);
    let mut ready = Ready { on_cpu: BinaryHeap::new(), on_gpu: BinaryHeap::new() };
    let threads = |id: InstanceId| graph.instance(id).threads.min(jobs);
    for id in graph.ids().filter(|id| seconds[*id].is_some()) {
        waits[id] = graph.producers(id).filter(|producer| seconds[*producer].is_some()).count();
        if waits[id] == 0 {
            ready.push(id, urgency[id], gpu[id]);
        }
    }
    let mut running: BinaryHeap<Reverse<(Moment, InstanceId)>> = BinaryHeap::new();
    let (mut now, mut used, mut used_gpu) = (0.0, 0, 0.0);
    loop {
        while let Some(id) = ready.pop_if(|id| used + threads(id) <= jobs && fits_on_gpu(used_gpu, gpu[id])) {
            (used, used_gpu) = (used + threads(id), used_gpu + gpu[id]);
            running.push(Reverse((Moment(now + seconds[id].unwrap_or(0.0)), id)));
        }
        let Some(Reverse((Moment(end), id))) = running.pop() else { return now };
        now = end;
        used -= threads(id);
        // Sums of fractions may leave a remainder, so the sum is computed afresh.
        used_gpu = running.iter().map(|Reverse((_, id))| gpu[*id]).sum();
        for consumer in graph.consumers(id).filter(|consumer| seconds[*consumer].is_some()) {
            waits[consumer] -= 1;
            if waits[consumer] == 0 {
                ready.push(consumer, urgency[consumer], gpu[consumer]);
            }
        }
    }
}

/// Ready instances, most urgent first. Those that need a GPU are kept apart, because the others overtake them while it
/// is busy.
struct Ready {
    on_cpu: BinaryHeap<(Moment, Reverse<InstanceId>)>,
    on_gpu: BinaryHeap<(Moment, Reverse<InstanceId>)>,
}

impl Ready {
    fn push(&mut self, id: InstanceId, urgency: f64, gpu: f64) {
        let heap = if gpu > 0.0 { &mut self.on_gpu } else { &mut self.on_cpu };
        heap.push((Moment(urgency), Reverse(id)));
    }

    /// Removes the more urgent of the two heads that fit.
    fn pop_if(&mut self, fits: impl Fn(InstanceId) -> bool) -> Option<InstanceId> {
        let cpu = self.on_cpu.peek().filter(|(_, Reverse(id))| fits(*id));
        let gpu = self.on_gpu.peek().filter(|(_, Reverse(id))| fits(*id));
        // `Some` compares greater than `None`.
        let heap = match gpu.cmp(&cpu) {
            Ordering::Greater => &mut self.on_gpu,
            Ordering::Less => &mut self.on_cpu,
            Ordering::Equal => return None,
        };
        heap.pop().map(|(_, Reverse(id))| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Overrides, PipelineSpec, expand};

    #[test]
    fn time_is_that_of_the_longest_way_or_of_all_the_work() {
        let stage = |name: &str, needs: &str| {
            format!("  {name}: {{kind: command, needs: {{{needs}}}, with: {{run: x, outputs: {{n: n}}}}}}\n")
        };
        // `b` needs `a`; `c` is independent.
        let text = format!("stages:\n{}{}{}", stage("a", ""), stage("b", "of: a"), stage("c", ""));
        let spec = PipelineSpec::from_text("p", &text, &Overrides::default()).unwrap();
        let graph = Graph::new(expand(&spec).unwrap());
        let wall = |seconds: [Option<f64>; 3], gpu: [f64; 3], jobs: usize| {
            wall(&graph, &seconds.into_iter().collect(), &gpu.into_iter().collect(), jobs)
        };
        let seconds = [Some(2.0), Some(3.0), Some(4.0)];
        let on_cpu = [0.0; 3];
        assert_eq!(wall(seconds, on_cpu, 1), 9.0);
        assert_eq!(wall(seconds, on_cpu, 2), 5.0);
        assert_eq!(wall([None, Some(3.0), Some(4.0)], on_cpu, 2), 4.0, "what is fresh takes no time");
        assert_eq!(wall([None, None, None], on_cpu, 2), 0.0);
        assert_eq!(wall(seconds, [1.0; 3], 2), 9.0, "a GPU takes one at a time");
        assert_eq!(wall(seconds, [0.5; 3], 2), 5.0, "or two halves");
        assert_eq!(wall(seconds, [1.0, 1.0, 0.0], 2), 5.0);
    }
}
