//! Projected gradient descent as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Attack, AttackParams, AttackProblem, Demand, Direction, Iterate, Norm, Start, above_zero, at_least_one,
    in_proportion, is_default, not_below_zero, product, radius,
};
use crate::number::Real;
use crate::stage_kinds::passes::Passes;

/// Repeated gradient steps, each clamped to [0, 1] and then projected on the ball of radius `eps` (Madry et al. 2018;
/// the order is the authors').
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pgd {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; at most 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// Length of one step, in the same units; above 0. With `direction: sign` it is the change of each pixel, whatever
    /// the norm.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Real,
    /// What a step raises.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "ce"))]
    pub loss: AttackLoss,
    /// Weight of earlier gradients in a step, at least 0. Each gradient is divided by its L1 norm, and `momentum` times
    /// the sum so far is added. 1 with `start: zero` is the momentum iterative method, MI-FGSM (Dong et al. 2018).
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("minimum" = 0, "default" = 0))]
    pub momentum: Real,
    /// Number of steps; at least 1.
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Where the first step starts.
    #[serde(default)]
    pub start: Start,
    /// Where a step leads.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "sign"))]
    pub direction: Direction,
    /// Which of the visited points is given back.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "last"))]
    pub iterate: Iterate,
    /// How often the attack is run, each time from another random start, at least 1. Each restart attacks the images
    /// that are still classified correctly; of several points the first misclassified one is given back, or that of the
    /// largest loss.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    #[schemars(range(min = 1), extend("default" = 1))]
    pub restarts: u32,
}

impl Pgd {
    /// Steps along the sign of the gradient of the cross-entropy from the image itself; the last point is given back.
    pub const fn plain(norm: Norm, eps: Real, step: Real, steps: u32) -> Self {
        Pgd {
            norm,
            eps,
            step,
            loss: AttackLoss::Ce,
            momentum: Real::new(0.0),
            steps,
            start: Start::Zero,
            direction: Direction::Sign,
            iterate: Iterate::Last,
            restarts: 1,
        }
    }
}

impl Pgd {
    /// The same in a ball of another radius, its steps in proportion.
    pub(super) fn in_ball(&self, eps: Real) -> Pgd {
        Pgd { eps, step: in_proportion(self.step, self.eps, eps), ..self.clone() }
    }
}

impl AttackParams for Pgd {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        above_zero("step", self.step)?;
        at_least_one("steps", self.steps)?;
        at_least_one("restarts", self.restarts)?;
        not_below_zero("momentum", self.momentum)?;
        if self.norm == Norm::Inf && self.direction == Direction::Gradient {
            return Err(AttackProblem::new("direction", "can be `gradient` with `norm: l2` only"));
        }
        if self.restarts > 1 && self.start == Start::Zero {
            return Err(AttackProblem::new(
                "restarts",
                "above 1 need `start: random`: from the same start they all end alike",
            ));
        }
        Ok(())
    }

    fn family(&self) -> String {
        "gradient".to_owned()
    }

    fn passes(&self) -> Passes {
        let Pgd { norm: _, eps: _, step: _, loss: _, momentum: _, steps, start: _, direction: _, iterate: _, restarts } =
            self;
        Passes::gradient(product(&[*steps, *restarts]))
    }

    fn draws(&self) -> bool {
        self.start == Start::Random
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        Some(Attack::Pgd(self.in_ball(eps)))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(self.iterate)
    }

    fn most_demanding(&self) -> Option<Demand> {
        (self.loss == AttackLoss::Dlr).then_some(Demand { attack: "pgd on dlr", classes: 3, parameter: "loss" })
    }
}

/// What an attack raises. Cross-entropy hardly changes where logits are large and its gradient may vanish; the others
/// do not depend on the scale of the logits, or saturate elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttackLoss {
    /// Cross-entropy of the true class.
    #[default]
    Ce,
    /// The largest other logit minus that of the true class (Carlini and Wagner 2017, f6).
    Margin,
    /// Difference of logits ratio: that margin divided by the spread of the three largest logits (Croce and Hein 2020,
    /// equation 6). Needs three classes.
    Dlr,
    /// The largest other probability minus that of the true class: the probability margin attack, PMA (Xie et al. 2024,
    /// arXiv 2411.15210).
    ProbabilityMargin,
}

const fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_once(restarts: &u32) -> bool {
    *restarts == 1
}
