//! The numbers of trainings by epoch.

use super::RunResults;
use crate::cache::Cache;
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

/// Reads the metrics of all trainings of a run; leaves out those whose file is gone.
pub fn training_curves(cache: &Cache, results: &RunResults) -> Vec<TrainingCurve> {
    let trainings = results.stages.iter().enumerate();
    let trainings = trainings.filter(|(_, stage)| stage.manifest.record.kind == StageKind::Train);
    trainings
        .filter_map(|(stage, result)| {
            let blob = result.manifest.outputs.get("metrics")?;
            let metrics = TrainingMetrics::from_bytes(&cache.read(blob.digest).ok()?).ok()?;
            Some(TrainingCurve { stage, metrics })
        })
        .collect()
}
