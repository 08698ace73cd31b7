//! The spatially transforming attack as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttackParams, AttackProblem, Iterate, above_zero, at_least_one, not_below_zero, product};
use crate::number::Real;
use crate::stage_kinds::passes::Passes;

/// Moves pixels along a smooth flow that raises the loss (Xiao et al. 2018), found by L-BFGS without line search:
/// minimises the mean of −cross-entropy over the batch plus `tau` times the mean total variation of the flow. Pixels
/// from beyond the border have the network's mean colour.
///
/// As in the authors' code one optimiser moves the whole batch, so an image's result depends on the images that are
/// computed with it: on `batch_size`, and in training on the batch. The defaults are the ones of the authors' run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spatial {
    /// Weight of the total variation, 0 or above.
    #[serde(default = "default_tau")]
    #[schemars(extend("minimum" = 0))]
    pub tau: Real,
    /// Length of an L-BFGS step, above 0.
    #[serde(default = "default_lr")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Real,
    /// How often the optimiser is called, at least 1; it keeps its memory.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Iterations of one call, at least 1.
    #[serde(default = "default_max_iter")]
    #[schemars(range(min = 1))]
    pub max_iter: u32,
    /// A call ends when no entry of the gradient is larger, in absolute value.
    #[serde(default = "default_tolerance_grad")]
    #[schemars(extend("minimum" = 0))]
    pub tolerance_grad: Real,
    /// A call ends when the objective, or every entry of the flow, changes by less.
    #[serde(default = "default_tolerance_change")]
    #[schemars(extend("minimum" = 0))]
    pub tolerance_change: Real,
    /// What a flow of zero gives.
    #[serde(default)]
    pub grid: BaseGrid,
    /// Whether −1 and 1 are the centres of the outermost pixels, as when the authors wrote, or their outer edges.
    #[serde(default = "default_true")]
    pub align_corners: bool,
}

/// What a flow of zero gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BaseGrid {
    /// The image itself.
    #[default]
    Correct,
    /// The transposed image: the authors' code has rows and columns of its grid exchanged.
    Authors,
}

impl Spatial {}

impl AttackParams for Spatial {
    fn check(&self) -> Result<(), AttackProblem> {
        above_zero("lr", self.lr)?;
        at_least_one("steps", self.steps)?;
        at_least_one("max_iter", self.max_iter)?;
        not_below_zero("tau", self.tau)?;
        not_below_zero("tolerance_grad", self.tolerance_grad)?;
        not_below_zero("tolerance_change", self.tolerance_change)
    }

    fn family(&self) -> String {
        "spatial".to_owned()
    }

    fn passes(&self) -> Passes {
        let Spatial {
            tau: _,
            lr: _,
            steps,
            max_iter,
            tolerance_grad: _,
            tolerance_change: _,
            grid: _,
            align_corners: _,
        } = self;
        Passes::gradient(product(&[*steps, *max_iter]))
    }

    fn draws(&self) -> bool {
        false
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::Last)
    }
}

const fn default_tau() -> Real {
    Real::new(0.05)
}

const fn default_lr() -> Real {
    Real::new(0.5)
}

const fn default_steps() -> u32 {
    5
}

const fn default_max_iter() -> u32 {
    10
}

/// PyTorch's default today; 1e-5 when the authors wrote.
const fn default_tolerance_grad() -> Real {
    Real::new(1e-7)
}

const fn default_tolerance_change() -> Real {
    Real::new(1e-9)
}

const fn default_true() -> bool {
    true
}
