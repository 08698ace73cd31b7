//! The numbers of trainings by epoch.

use super::{JoinedStage, RunResults};
use crate::cache::{Blob, Cache, Manifest};
use crate::formats::TrainingMetrics;
use crate::stage_kinds::StageKind;

/// A training by epoch.
#[derive(Debug)]
pub struct TrainingCurve {
    /// Index of the result.
    pub stage: usize,
    /// Its numbers.
    pub metrics: TrainingMetrics,
}

/// No file of numbers by epoch is longer, in bytes: it has some 20,000 epochs.
const LONGEST: u64 = 4 << 20;

/// Reads the metrics of all trainings of a run, and of commands that wrote the same numbers; leaves out those whose
/// file is gone.
pub fn training_curves(cache: &Cache, results: &RunResults) -> Vec<TrainingCurve> {
    let curve = |(stage, result): (usize, &JoinedStage)| {
        Some(TrainingCurve { stage, metrics: metrics(cache, &result.manifest)? })
    };
    results.stages.iter().enumerate().filter_map(curve).collect()
}

fn metrics(cache: &Cache, manifest: &Manifest) -> Option<TrainingMetrics> {
    let read = |blob: &Blob| TrainingMetrics::from_bytes(&cache.read(blob.digest).ok()?).ok();
    match manifest.record.kind {
        StageKind::Train => read(manifest.outputs.get("metrics")?),
        // What a command wrote may be anything. The first output with epochs counts.
        StageKind::Command => {
            let short = manifest.outputs.values().filter(|blob| blob.size <= LONGEST);
            short.filter_map(read).find(|metrics| !metrics.epochs.is_empty())
        }
        _ => None,
    }
}
