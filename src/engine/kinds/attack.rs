//! Attacks as parameters: what an adversary of training or of an evaluation may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// An attack on images in [0, 1]. The network is in evaluation mode while it is attacked (frozen batch statistics).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "attack", rename_all = "lowercase")]
pub enum Attack {
    /// No attack: images as they are.
    None(NoAttack),
    /// Fast gradient sign method.
    Fgsm(Fgsm),
    /// Projected gradient descent.
    Pgd(Pgd),
}

impl Default for Attack {
    fn default() -> Self {
        Attack::None(NoAttack {})
    }
}

/// No attack; it takes no parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoAttack {}

/// One signed gradient step of length `eps` (Goodfellow et al. 2015), clamped to [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fgsm {
    /// Radius of the L-infinity ball, in pixel units of [0, 1]; 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub eps: Real,
}

/// Repeated gradient steps, each projected back on the ball of radius `eps` and on [0, 1] (Madry et al. 2018).
/// The last iterate is returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pgd {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; 0 to 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub eps: Real,
    /// Length of one step, in the same units; above 0.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Real,
    /// Number of steps; at least 1.
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Where the first step starts.
    #[serde(default)]
    pub start: Start,
}

/// A norm of the perturbation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of any pixel; steps follow the sign of the gradient.
    #[default]
    Inf,
}

/// Where an iterated attack starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the image itself, as in the paper.
    #[default]
    Zero,
    /// At a point drawn uniformly from the ball, clamped to [0, 1].
    Random,
}
