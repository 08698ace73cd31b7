//! The numbers of trainings by epoch.

use serde::{Deserialize, Serialize};

use super::RunResults;
use crate::cache::Cache;
use crate::stage_kinds::StageKind;

/// Numbers of one epoch, from the output `metrics` of a training. Shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochNumbers {
    /// From 1.
    pub epoch: u32,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean loss of the training images.
    pub train_loss: f64,
    /// Share of the training images classified correctly, as trained on.
    pub train_accuracy: f64,
    /// Loss and accuracy of the perturbed images alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<PerturbedNumbers>,
    /// Share of the clean validation images classified correctly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Share classified correctly under the attack of `overfitting_check`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_accuracy: Option<f64>,
    /// Share of held-out images classified correctly under the attack of `holdout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_accuracy: Option<f64>,
}

/// Numbers of the perturbed images of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerturbedNumbers {
    /// Mean loss.
    pub loss: f64,
    /// Share classified correctly.
    pub accuracy: f64,
}

/// A training by epoch.
#[derive(Debug)]
pub struct TrainingCurve {
    /// Index of the result.
    pub stage: usize,
    /// Its epochs.
    pub epochs: Vec<EpochNumbers>,
}

/// Reads the metrics of all trainings of a run; leaves out those whose file is gone.
pub fn training_curves(cache: &Cache, results: &RunResults) -> Vec<TrainingCurve> {
    #[derive(Deserialize)]
    struct Metrics {
        epochs: Vec<EpochNumbers>,
    }
    let trainings = results.stages.iter().enumerate();
    let trainings = trainings.filter(|(_, stage)| stage.manifest.record.kind == StageKind::Train);
    trainings
        .filter_map(|(stage, result)| {
            let blob = result.manifest.outputs.get("metrics")?;
            let Metrics { epochs } = serde_json::from_slice(&cache.read(blob.digest).ok()?).ok()?;
            Some(TrainingCurve { stage, epochs })
        })
        .collect()
}
