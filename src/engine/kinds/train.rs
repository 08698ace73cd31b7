//! Training as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::augmentation::Augmentation;
use super::net::Net;
use crate::number::Real;

/// Trains a network with stochastic gradient descent on cross-entropy, adversarially or not.
///
/// Needs: `data`, an image set to train on; `validation`, an image set whose accuracy is measured after each epoch (optional).
/// Outputs: `checkpoint`, the weights after the last epoch; `metrics`, numbers of every epoch as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainParams {
    /// The network.
    pub net: Net,
    /// Passes over the data, at least 1.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// Images a step, at least 1; the last batch of an epoch may be smaller.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: Sgd,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Who perturbs the training images.
    #[serde(default)]
    pub adversary: Attack,
    /// Which batches are perturbed, where there is an adversary.
    #[serde(default)]
    pub adversarial_batches: AdversarialBatches,
    /// Random changes of the training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Stop after the first epoch whose accuracy on `validation` reaches this share, 0 to 1: the paper's underfit model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub stop_at_accuracy: Option<Real>,
    /// Only the first so many images of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

fn default_batch_size() -> u32 {
    128
}

/// Stochastic gradient descent as in PyTorch: weight decay is added to the gradient, momentum without dampening.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sgd {
    /// Learning rate at its highest, above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Real,
    /// Momentum, 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub momentum: Real,
    /// Weight decay of every parameter, batch norm included, as in the authors' code.
    #[schemars(extend("minimum" = 0))]
    pub weight_decay: Real,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: Real::new(0.1), momentum: Real::new(0.9), weight_decay: Real::new(5e-4) }
    }
}

/// The learning rate as a function of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "shape", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// The same throughout.
    Constant,
    /// Linear from 0 to `lr` over the first `warmup` share of all steps, then linear back to 0.
    Triangle {
        /// Share of the steps spent rising, 0 to 1.
        #[schemars(extend("minimum" = 0, "maximum" = 1))]
        warmup: Real,
    },
    /// Divided by ten at the start of each of these epochs, counted from 1.
    Steps {
        /// The epochs.
        drop_at: Vec<u32>,
    },
}

impl Schedule {
    /// Whether the rate at some epoch depends on how many epochs there are in all: if not, a longer training goes on where a shorter one ended.
    pub const fn depends_on_epochs(&self) -> bool {
        match self {
            Schedule::Constant | Schedule::Steps { .. } => false,
            Schedule::Triangle { .. } => true,
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Triangle { warmup: Real::new(0.2) }
    }
}

/// Which batches of an epoch the adversary perturbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdversarialBatches {
    /// Every batch.
    #[default]
    All,
    /// The first, the third, … of each epoch, and no other: exactly those that the authors' code perturbs (its clock ticks before it is read).
    Alternate,
}
