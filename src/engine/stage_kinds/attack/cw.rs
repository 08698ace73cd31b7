//! Carlini and Wagner's attack as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttackParams, AttackProblem, Iterate, Norm, above_zero, at_least_one, not_below_zero, radius};
use crate::number::Real;
use crate::stage_kinds::passes::Passes;

/// Looks for the smallest misclassified change in the L2 norm, by Adam on the change and the lead of the true class
/// together; a binary search finds how much the lead counts (Carlini and Wagner 2017). A change counts if it lies in
/// the ball; other images are given back as they are.
///
/// Each image is searched by itself, for all steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cw {
    /// Radius of the L2 ball, in pixel units of [0, 1]; 0 or above.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// The first weight of the lead, above 0; the constant c of the paper.
    #[serde(default = "default_c")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub c: Real,
    /// By how much another class must lead, in logits; 0 or above. The κ of the paper.
    #[serde(default = "default_confidence")]
    #[schemars(extend("minimum" = 0))]
    pub confidence: Real,
    /// Weights that are tried, one after the other, at least 1. With 1 it is `c` alone.
    #[serde(default = "default_search_steps")]
    #[schemars(range(min = 1))]
    pub search_steps: u32,
    /// Steps of Adam for a weight, at least 1. The authors took 10,000.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Length of a step, above 0.
    #[serde(default = "default_lr")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: Real,
}

impl AttackParams for Cw {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(Norm::L2, self.eps)?;
        above_zero("c", self.c)?;
        not_below_zero("confidence", self.confidence)?;
        at_least_one("search_steps", self.search_steps)?;
        at_least_one("steps", self.steps)?;
        above_zero("lr", self.lr)
    }

    fn family(&self) -> String {
        "cw".to_owned()
    }

    fn passes(&self) -> Passes {
        let Cw { eps: _, c: _, confidence: _, search_steps, steps, lr: _ } = self;
        Passes::gradient(f64::from(*search_steps) * f64::from(*steps))
    }

    fn draws(&self) -> bool {
        false
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }
}

const fn default_c() -> Real {
    Real::new(1e-3)
}

const fn default_confidence() -> Real {
    Real::new(0.0)
}

const fn default_search_steps() -> u32 {
    9
}

const fn default_steps() -> u32 {
    1000
}

const fn default_lr() -> Real {
    Real::new(0.01)
}
