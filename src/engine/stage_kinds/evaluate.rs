//! Evaluation as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::train::Precision;

/// Predicts every image of a set with a model, under an attack or none, and keeps the prediction of each. Attacks that
/// consist of several are run one after the other, each on full batches of the images that are still right.
///
/// Needs: `model`, a checkpoint; `set`, an image set; `source`, another checkpoint (optional). Output: `predictions`.
///
/// With `source` the attack is made on that network, and `model` only judges the images that it gives: transfer from
/// one network to another. All that an attack asks of a network it asks of `source`, and images are done when `source`
/// is wrong. So the predictions do not say which attack of several broke an image. `source` needs an attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// The attack, against the true label of each image.
    #[serde(default)]
    pub attack: Attack,
    /// Images computed at a time; changes results by rounding only, but for the attack `spatial`, which moves a batch
    /// as one.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Only the first so many images of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// What the attack computes in. With `bf16` it searches in 16 bits; the prediction of the image that it finds is
    /// always computed in 32. Of a built-in network, and with an attack.
    #[serde(default, skip_serializing_if = "Precision::is_fp32")]
    pub search: Precision,
    /// Also keeps the rank of the true class among all logits, and of a cue-conflict set that of the texture's class,
    /// for the metrics `shape_reciprocal_rank` and `texture_reciprocal_rank`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ranks: bool,
}

fn default_batch_size() -> u32 {
    256
}
