//! Training as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::augmentation::Augmentation;
use super::net::Net;
use super::optimizer::{Average, OptimizerParams, Schedule, WeightPerturbation, is_zero};
use crate::number::Real;

/// Trains a network with stochastic gradient descent on cross-entropy, adversarially or not.
///
/// Needs: `data`, an image set to train on; `validation`, an image set whose accuracy is measured after each epoch
/// (optional); `weights`, a file of weights to start from, a state dict as `torch.save` writes it or safetensors, or
/// all shards of one (optional); `network`, a TorchScript file, if `net` is `torchscript`. Outputs: `checkpoint`, the
/// weights after the last epoch or after the one that `holdout` keeps; `last`, those after the last epoch, only with
/// `keep: both`; `metrics`, numbers of every epoch as JSON.
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
    /// What is taken of the need `weights`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<Pretrained>,
    /// What a step of training is.
    #[serde(default, skip_serializing_if = "TrainingMethod::is_standard")]
    pub method: TrainingMethod,
    /// What convolutions and linear layers compute in, those of the adversary included.
    #[serde(default, skip_serializing_if = "Precision::is_fp32")]
    pub precision: Precision,
    /// What the adversary's gradients are computed in, where `precision` is `fp32`: with `bf16` it only searches in 16
    /// bits, and steps train on the images that it finds in 32.
    #[serde(default, skip_serializing_if = "Precision::is_fp32")]
    pub search: Precision,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerParams,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// Share of the target that is spread over all classes in the cross-entropy that is trained on, 0 to below 1
    /// (Szegedy et al. 2016, section 7). Attacks see the true class alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = 0))]
    pub label_smoothing: Real,
    /// An average of the weights along the training. It is what is validated, and what the checkpoint holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<Average>,
    /// Steps at weights that are moved uphill first (adversarial weight perturbation). Not with the method `free`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_perturbation: Option<WeightPerturbation>,
    /// Who perturbs the training images.
    #[serde(default)]
    pub adversary: Attack,
    /// Which batches are perturbed, where there is an adversary.
    #[serde(default)]
    pub adversarial_batches: AdversarialBatches,
    /// Random changes of the training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Stop after the first epoch whose accuracy on `validation` reaches this share, 0 to 1: the paper's underfit
    /// model. Accuracy is measured after whole epochs, so the network may be far better than this after its first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub stop_at_accuracy: Option<Real>,
    /// A stronger attack on a few training images after epochs, to notice a training that only looks robust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting_check: Option<OverfittingCheck>,
    /// Training images that are not trained on, to choose the epoch whose weights are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
    /// Only the first so many images of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
}

fn default_batch_size() -> u32 {
    128
}

/// Which batches of an epoch the adversary perturbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdversarialBatches {
    /// Every batch.
    #[default]
    All,
    /// The first, the third, … of each epoch, and no other: exactly those that the authors' code perturbs (its clock
    /// ticks before it is read).
    Alternate,
}

/// What is taken from weights that others trained. Names and shapes must be those of the network, but for the head
/// where it is replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pretrained {
    /// The last layer.
    pub head: HeadWeights,
    /// Where in the file the network's tensors stand, such as `state_dict` or `model_ema`. Without it they are looked
    /// for everywhere, under any prefix; needed only where the file has them more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// Where the weights of the last layer come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadWeights {
    /// From the file, as all others.
    #[default]
    Keep,
    /// They start at random; what the file has for this layer is passed over.
    Replace,
}

/// What a step of training is. The methods beside `standard` bring their own adversary: `adversary` is left out there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum TrainingMethod {
    /// Cross-entropy of the images, perturbed by `adversary` or not.
    #[default]
    Standard,
    /// Free adversarial training: each batch is trained on `replays` times in a row; the gradient that moves the
    /// weights also moves a perturbation, by `eps` along its sign, which the next step and the next batch start from
    /// (Shafahi et al. 2019, algorithm 1, as in the code of Wong et al. 2020). An epoch then has `replays` times as
    /// many steps.
    Free(Free),
    /// TRADES: cross-entropy of the clean images plus `beta` times the divergence KL(clean ‖ perturbed) of what the
    /// network says of both; the perturbation ascends that divergence in the L-infinity ball, from a normal draw of
    /// deviation 0.001 (Zhang et al. 2019, equation 5 and algorithm 1). The network is in evaluation mode while it is
    /// attacked.
    Trades(Trades),
    /// MART: boosted cross-entropy of the perturbed images plus `beta` times KL(clean ‖ perturbed), weighted by how
    /// wrong the network is on the clean image (Wang et al. 2020, equations 8 to 11, as in the authors' code). The
    /// perturbation ascends the cross-entropy, from a normal draw of deviation 0.001. The authors take `beta: 5`.
    Mart(Trades),
}

impl TrainingMethod {
    /// Whether it is the default.
    pub fn is_standard(&self) -> bool {
        matches!(self, TrainingMethod::Standard)
    }
}

/// Parameters of [`TrainingMethod::Free`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Free {
    /// Steps on each batch, at least 1.
    #[schemars(range(min = 1))]
    pub replays: u32,
    /// Radius of the L-infinity ball, in pixel units of [0, 1]; 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub eps: Real,
}

/// Parameters of [`TrainingMethod::Trades`] and of [`TrainingMethod::Mart`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trades {
    /// Weight of the divergence, 1/λ in the paper of TRADES, λ in that of MART; not below 0.
    #[schemars(extend("minimum" = 0))]
    pub beta: Real,
    /// Radius of the ball, in pixel units of [0, 1]; 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub eps: Real,
    /// Length of one step, in the same units; above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Real,
    /// Number of steps; at least 1.
    #[schemars(range(min = 1))]
    pub steps: u32,
}

/// What convolutions and linear layers compute in. Weights, their updates, batch norms' statistics and every verdict on
/// an image are 32-bit floats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// 16-bit floats with 8 bits of exponent: faster on a GPU, and with `numerics: native` on processors that compute
    /// in them (AVX-512 BF16, AMX). Others emulate them, and are slower.
    Bf16,
}

impl Precision {
    /// Whether it is the default.
    pub const fn is_fp32(&self) -> bool {
        matches!(self, Precision::Fp32)
    }
}

/// Looks after epochs whether a training that sees weak attacks has overfitted to them (Wong et al. 2020, section 5.1):
/// the accuracy of a fixed draw of training images under `attack` goes into the metrics, and an epoch in which it falls
/// by more than 20 points while the training's own accuracy does not is told there as `catastrophic_overfitting`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverfittingCheck {
    /// After every so many epochs, at least 1.
    #[serde(default = "default_every")]
    #[schemars(range(min = 1))]
    pub every: u32,
    /// How many images, at least 1.
    #[serde(default = "default_check_images")]
    #[schemars(range(min = 1))]
    pub images: u32,
    /// The attack, stronger than the training's own: PGD, say.
    pub attack: Attack,
}

fn default_every() -> u32 {
    1
}

fn default_check_images() -> u32 {
    256
}

/// A seeded share of the training images is left out of the training; the accuracy on it under an attack is measured
/// after each epoch (Rice et al. 2020, section 3: robust accuracy falls again in a long training, and the test set must
/// not choose the epoch).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// The share, above 0 and below 1; rounded to whole images, at least one.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub share: Real,
    /// The attack; none measures clean accuracy.
    #[serde(default)]
    pub attack: Attack,
    /// Which epoch's weights become the checkpoint.
    #[serde(default)]
    pub keep: KeptEpoch,
}

/// Which epoch's weights a training gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeptEpoch {
    /// Those of the highest accuracy on the images that were left out; the first of equals.
    #[default]
    Best,
    /// Those of the last one.
    Last,
    /// Those of the best one, and those of the last one as the output `last`: one training for a comparison of both.
    Both,
}
