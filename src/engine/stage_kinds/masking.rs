//! Checks for masked gradients as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Norm;
use crate::number::Real;

/// Looks whether a model's robustness under gradient attacks can be believed: attacks it in many ways, and tells which
/// of the results contradict one another (Athalye et al. 2018; Carlini et al. 2019). A check passes or warns, with its
/// numbers; a warning fails no stage.
///
/// Needs: `model`, a checkpoint; `set`, an image set. Outputs: `json` and `markdown`, the same for programs and for
/// people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskingParams {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball that the model is to be robust in, in pixel units of [0, 1]; above 0, at most 1 for the
    /// L-infinity norm.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: Real,
    /// The same as its author wrote it, if that is a fraction: `8/255`. No parameter of a pipeline file: whoever reads
    /// the file sets it. Without it results are as they were before it existed, and so are their keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub eps_written: Option<String>,
    /// Steps of PGD, each of 2.5 ε over their number; at least 1.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Random starts of the check on restarts, at least 1.
    #[serde(default = "default_restarts")]
    #[schemars(range(min = 1))]
    pub restarts: u32,
    /// Proposals of the attack without gradients, at least 1.
    #[serde(default = "default_queries")]
    #[schemars(range(min = 1))]
    pub queries: u32,
    /// So many percentage points, and at least one image, may a stronger attack gain before a check warns; 0 to 100.
    #[serde(default = "default_tolerance")]
    #[schemars(extend("minimum" = 0, "maximum" = 100))]
    pub tolerance: Real,
    /// Images computed at a time; changes results by rounding only.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Only the first so many images of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// The heading of `markdown`; without it the heading is "Masked gradients".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl MaskingParams {
    /// What a schema cannot say of the parameters: the name of the one that is wrong, and what is wrong with it.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let is_too_far = self.norm == Norm::Inf && self.eps.get() > 1.0;
        is_too_far.then_some(("eps", "must be at most 1 in the L-infinity norm: pixels are from 0 to 1"))
    }
}

fn default_steps() -> u32 {
    40
}

fn default_restarts() -> u32 {
    5
}

fn default_queries() -> u32 {
    500
}

fn default_tolerance() -> Real {
    Real::new(0.5)
}

fn default_batch_size() -> u32 {
    256
}
