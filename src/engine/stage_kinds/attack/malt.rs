//! MALT as parameters: APGD towards classes that the network's gradients choose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attack, AttackParams, AttackProblem, Demand, Iterate, Member, Norm, at_least_one, product, radius};
use crate::number::Real;
use crate::stage_kinds::passes::Passes;

/// APGD on the targeted difference of logits ratio, towards the classes that a linear model of the network reaches with
/// the smallest change (Melamed et al. 2024, arXiv 2407.02240). Classes are ordered by (z_y − z_j) / ‖∇(z_j − z_y)‖ at
/// the image; the norm is the dual of `norm`: L1 for L-infinity. APGD alone takes the largest logits first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Malt {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; at most 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// Number of steps towards a class, at least 1.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// How many classes are aimed at, one after the other, at least 1; at most all wrong ones.
    #[serde(default = "default_targets")]
    #[schemars(range(min = 1))]
    pub targets: u32,
    /// How many of the likeliest wrong classes are ordered, at least `targets`; at most all of them. Each costs a
    /// gradient of every image.
    #[serde(default = "default_candidates")]
    #[schemars(range(min = 1))]
    pub candidates: u32,
}

impl Malt {
    /// The attack as a member of an ensemble, which gives `steps` and `targets`.
    pub fn standard(norm: Norm, eps: Real, steps: u32, targets: u32) -> Self {
        Malt { norm, eps, steps, targets, candidates: default_candidates().max(targets) }
    }
}

impl AttackParams for Malt {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        for (name, value) in [("steps", self.steps), ("targets", self.targets), ("candidates", self.candidates)] {
            at_least_one(name, value)?;
        }
        if self.candidates < self.targets {
            let problem = format!("must be at least `targets`, which is {}, not {}", self.targets, self.candidates);
            return Err(AttackProblem::new("candidates", problem));
        }
        Ok(())
    }

    fn family(&self) -> String {
        "malt".to_owned()
    }

    fn passes(&self) -> Passes {
        let Malt { norm: _, eps: _, steps, targets, candidates } = self;
        Passes::gradient(product(&[*steps, *targets]) + f64::from(*candidates))
    }

    fn draws(&self) -> bool {
        true
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        Some(Attack::Malt(Malt { eps, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }

    fn most_demanding(&self) -> Option<Demand> {
        Some(Member::Malt.demand("attack"))
    }
}

const fn default_steps() -> u32 {
    100
}

const fn default_targets() -> u32 {
    9
}

const fn default_candidates() -> u32 {
    100
}
