//! How a training moves its weights, as parameters: the optimiser, the learning rate, averages of weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// How gradients move the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerParams {
    /// Which optimiser.
    #[serde(skip_serializing_if = "OptimizerName::is_sgd")]
    pub name: OptimizerName,
    /// Learning rate at its highest, above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Real,
    /// Momentum of `sgd`, 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub momentum: Real,
    /// Whether the momentum of `sgd` is Nesterov's, as in PyTorch: a step goes along the gradient plus `momentum` times
    /// the new velocity.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nesterov: bool,
    /// Decay rates of the two means of `adamw`, each 0 to below 1; [0.9, 0.999] if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[Real; 2]>,
    /// Weight decay of every parameter, batch norm included, as in the authors' code.
    #[schemars(extend("minimum" = 0))]
    pub weight_decay: Real,
}

impl Default for OptimizerParams {
    fn default() -> Self {
        OptimizerParams {
            name: OptimizerName::Sgd,
            lr: Real::new(0.1),
            momentum: Real::new(0.9),
            nesterov: false,
            betas: None,
            weight_decay: Real::new(5e-4),
        }
    }
}

/// An optimiser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent as in PyTorch: weight decay is added to the gradient, momentum without dampening.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), as in PyTorch, with 1e-8 beside the
    /// root. Wants rates of about 0.001.
    Adamw,
}

impl OptimizerName {
    /// Whether it is the default.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub const fn is_sgd(&self) -> bool {
        matches!(self, OptimizerName::Sgd)
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
    /// Linear from 0 to `lr` over the first `warmup` share of all steps, then half a cosine to 0 (Loshchilov and Hutter
    /// 2017, equation 5, without restarts).
    Cosine {
        /// Share of the steps spent rising, 0 to below 1.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1, "default" = 0))]
        warmup: Real,
    },
    /// Divided by ten at the start of each of these epochs, counted from 1.
    Steps {
        /// The epochs.
        #[schemars(inner(range(min = 1)))]
        drop_at: Vec<u32>,
    },
    /// One rate for some epochs, then another; `lr` of the optimiser is not used. Past the table the last rate goes on,
    /// as in the authors' code, which trains one epoch more than it is told.
    Table {
        /// The rates, in order; at least one.
        #[schemars(length(min = 1))]
        rates: Vec<Rate>,
    },
}

/// A learning rate and how long it lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// For so many epochs, at least 1.
    #[schemars(range(min = 1))]
    pub epochs: u32,
    /// The learning rate, above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Real,
}

impl Schedule {
    /// Whether the rate at some epoch depends on how many epochs there are in all: if not, a longer training goes on
    /// where a shorter one ended.
    pub const fn depends_on_epochs(&self) -> bool {
        match self {
            Schedule::Constant | Schedule::Steps { .. } | Schedule::Table { .. } => false,
            Schedule::Triangle { .. } | Schedule::Cosine { .. } => true,
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Triangle { warmup: Real::new(0.2) }
    }
}

/// An average of the weights along a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Average {
    /// The exponential moving average of all steps: after step t, counted from 0, the average keeps the lesser of
    /// `decay` and (1 + t) / (10 + t) of itself, so that the first weights are soon forgotten. Statistics of batch
    /// norms are those of the last step (Rebuffi et al. 2021, section 4.1).
    Ema {
        /// Share of itself that the average keeps in a step; 0 to below 1.
        #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
        decay: Real,
    },
    /// The mean over the ends of epochs, from epoch `from` on: stochastic weight averaging (Izmailov et al. 2018).
    /// Until then it is the weights themselves.
    Swa {
        /// The first epoch that counts, from 1.
        #[schemars(range(min = 1))]
        from: u32,
        /// Where the statistics of batch norms come from.
        #[serde(default)]
        statistics: SwaStatistics,
    },
}

/// The statistics of batch norms that averaged weights have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SwaStatistics {
    /// Measured anew after each epoch that counts, by one pass over the training images, clean and augmented as in that
    /// epoch: the mean over batches, as `torch.optim.swa_utils.update_bn` has it (Izmailov et al. 2018, algorithm 1).
    /// TorchScript networks have averaged ones all the same, because what their buffers are is not known.
    #[default]
    Measured,
    /// Averaged as the weights are.
    Averaged,
}

/// Adversarial weight perturbation: each step first moves every layer's weights up the gradient of the loss by `gamma`
/// times their norm, takes the gradient there, and moves them back (Wu et al. 2020, equations 9 and 10).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightPerturbation {
    /// Length of the move, as a share of the norm of a layer's weights; not below 0. The authors take 0.005 to 0.01.
    #[schemars(extend("minimum" = 0))]
    pub gamma: Real,
    /// The first epoch with it, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    #[schemars(range(min = 1), extend("default" = 1))]
    pub from: u32,
}

const fn first() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_first(epoch: &u32) -> bool {
    *epoch == 1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) fn is_zero(value: &Real) -> bool {
    *value == Real::default()
}
