//! Attacks as parameters: what an adversary of training or of an evaluation may do. Knows ranges and defaults, not how
//! an attack is run.

mod cw;
mod ensemble;
mod malt;
mod pgd;
mod spatial;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cw::Cw;
pub use ensemble::{Apgd, ApgdLoss, Autoattack, Fab, Member, Square};
pub use malt::Malt;
pub use pgd::{AttackLoss, Pgd};
pub use spatial::{BaseGrid, Spatial};

use super::passes::Passes;
use crate::number::Real;

/// Makes the enum of all attacks and their registry. Each line has what the reference says, and a type of parameters.
macro_rules! attacks {
    ($($(#[doc = $doc:literal])+ $name:ident($params:ident),)+) => {
        /// An attack on images in [0, 1]. The network is in evaluation mode while it is attacked (frozen batch
        /// statistics).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "attack", rename_all = "lowercase")]
        pub enum Attack {
            $($(#[doc = $doc])+ $name($params),)+
        }

        impl Attack {
            /// The parameters, whatever the attack.
            pub fn params(&self) -> &dyn AttackParams {
                match self {
                    $(Attack::$name(params) => params,)+
                }
            }
        }
    };
}

attacks! {
    /// No attack: images as they are.
    None(NoAttack),
    /// Fast gradient sign method.
    Fgsm(Fgsm),
    /// Projected gradient descent.
    Pgd(Pgd),
    /// Spatial transformation as in the paper: pixels move along a smooth flow. One optimiser moves a batch, so results
    /// depend on `batch_size`.
    Spatial(Spatial),
    /// Projected gradient descent that finds its own step lengths.
    Apgd(Apgd),
    /// Steps to the nearest boundary between two classes.
    Fab(Fab),
    /// Random search with squares; asks the network for its outputs only.
    Square(Square),
    /// MALT: APGD towards the classes that gradients at the image show to be nearest (Melamed et al. 2024).
    Malt(Malt),
    /// The smallest change in the L2 norm, by Carlini and Wagner.
    Cw(Cw),
    /// Several attacks, each on the images that the ones before it left: the pointwise worst case.
    Autoattack(Autoattack),
}

/// What is known of an attack by its parameters.
pub trait AttackParams {
    /// Checks what types and schema cannot say.
    ///
    /// # Errors
    /// The first parameter that is wrong.
    fn check(&self) -> Result<(), AttackProblem>;

    /// What it is called with those that take about as long where they make as many passes.
    fn family(&self) -> String;

    /// Passes that an attack on one image takes; fewer where images leave early.
    fn passes(&self) -> Passes;

    /// Whether it draws random numbers; otherwise its seed changes nothing.
    fn draws(&self) -> bool;

    /// Which of the points that it visits it gives back; nothing where there is no choice.
    fn iterate(&self) -> Option<Iterate>;

    /// What compares the most classes in it; nothing where any number of classes will do.
    fn most_demanding(&self) -> Option<Demand> {
        None
    }

    /// The same attack in a ball of another radius, its steps in proportion; nothing where it searches no ball.
    fn within(&self, _eps: Real) -> Option<Attack> {
        None
    }
}

/// What an attack needs of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What needs it: the name of an attack.
    pub attack: &'static str,
    /// Number of classes that it compares.
    pub classes: u32,
    /// The parameter that chooses it.
    pub parameter: &'static str,
}

impl Default for Attack {
    fn default() -> Self {
        Attack::None(NoAttack {})
    }
}

/// A parameter outside its range, or one that does not go with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackProblem {
    /// The parameter, as a path within the attack: `eps`, `pgd.step`.
    pub name: String,
    /// What is wrong with it; reads on after the name.
    pub problem: String,
}

impl AttackProblem {
    fn new(name: impl Into<String>, problem: impl Into<String>) -> Self {
        AttackProblem { name: name.into(), problem: problem.into() }
    }
}

impl Attack {
    /// [`AttackParams::check`].
    ///
    /// # Errors
    /// The first parameter that is wrong.
    pub fn check(&self) -> Result<(), AttackProblem> {
        self.params().check()
    }

    /// [`AttackParams::most_demanding`].
    pub fn most_demanding(&self) -> Option<Demand> {
        self.params().most_demanding()
    }

    /// [`AttackParams::within`].
    pub fn within(&self, eps: Real) -> Option<Attack> {
        self.params().within(eps)
    }

    /// [`AttackParams::iterate`].
    pub fn iterate(&self) -> Option<Iterate> {
        self.params().iterate()
    }
}

/// No attack; it takes no parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoAttack {}

impl AttackParams for NoAttack {
    fn check(&self) -> Result<(), AttackProblem> {
        Ok(())
    }

    fn family(&self) -> String {
        "none".to_owned()
    }

    fn passes(&self) -> Passes {
        Passes::default()
    }

    fn draws(&self) -> bool {
        false
    }

    fn iterate(&self) -> Option<Iterate> {
        None
    }
}

/// One step along the sign of the gradient (Goodfellow et al. 2015), projected on the ball of radius `eps` and on [0,
/// 1].
///
/// With `start: random` and a `step` of 1.25 ε it is the adversary of fast adversarial training (Wong et al. 2020).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fgsm {
    /// Radius of the L-infinity ball, in pixel units of [0, 1]; 0 to 1.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub eps: Real,
    /// Where the step starts.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "zero"))]
    pub start: Start,
    /// Length of the step, in the same units, above 0; `eps` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Option<Real>,
    /// The step starts at noise drawn uniformly from ± so many times ε, and the perturbation is not cut to the ball
    /// afterwards: N-FGSM (de Jorge et al. 2022, who take 2). For trainings only, because it leaves the ball.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub noise: Option<Real>,
}

impl AttackParams for Fgsm {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(Norm::Inf, self.eps)?;
        if let Some(noise) = self.noise {
            not_below_zero("noise", noise)?;
            if self.start == Start::Random {
                return Err(AttackProblem::new("noise", "is a start of its own: leave `start` out"));
            }
        }
        self.step.map_or(Ok(()), |step| above_zero("step", step))
    }

    /// One step and several are the same loop.
    fn family(&self) -> String {
        "gradient".to_owned()
    }

    fn passes(&self) -> Passes {
        let Fgsm { eps: _, start: _, step: _, noise: _ } = self;
        Passes::gradient(1.0)
    }

    fn draws(&self) -> bool {
        self.start == Start::Random || self.noise.is_some()
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        let step = self.step.map(|step| in_proportion(step, self.eps, eps));
        Some(Attack::Fgsm(Fgsm { eps, step, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::Last)
    }
}

/// A norm of the perturbation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of any pixel.
    #[default]
    Inf,
    /// The square root of the sum of all squared changes of an image.
    L2,
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

/// Where a gradient step leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Along the sign of the gradient, as the authors of the paper step in either norm. In the L2 ball this is much the
    /// weaker direction: on one network it left 49.3 % where `gradient` left 22.0 %.
    #[default]
    Sign,
    /// Along the gradient divided by its L2 norm, as most libraries step in the L2 ball.
    Gradient,
}

/// Which of the points that an attack visits is given back. Weaker and stronger attacks: numbers under different rules
/// do not compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Iterate {
    /// The point after the last step, as in the paper.
    #[default]
    Last,
    /// The point of the largest loss, the start included.
    BestLoss,
    /// The first misclassified point, the start included; of an image without one, the point of the largest loss.
    WorstCase,
}

impl Iterate {
    /// The name, as pipelines and results have it.
    pub const fn name(self) -> &'static str {
        match self {
            Iterate::Last => "last",
            Iterate::BestLoss => "best_loss",
            Iterate::WorstCase => "worst_case",
        }
    }
}

/// A length in a ball of radius `from` as it is in one of radius `to`. The same radius leaves it as it is, to the bit.
fn in_proportion(length: Real, from: Real, to: Real) -> Real {
    if from == to || from.get() <= 0.0 { length } else { Real::new(length.get() * (to.get() / from.get())) }
}

fn product(factors: &[u32]) -> f64 {
    factors.iter().map(|&factor| f64::from(factor)).product()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn radius(norm: Norm, eps: Real) -> Result<(), AttackProblem> {
    let eps = eps.get();
    match norm {
        Norm::Inf if !(0.0..=1.0).contains(&eps) => {
            Err(AttackProblem::new("eps", format!("must be between 0 and 1, not {eps}")))
        }
        Norm::L2 if eps < 0.0 => Err(AttackProblem::new("eps", format!("must not be below 0, and is {eps}"))),
        Norm::Inf | Norm::L2 => Ok(()),
    }
}

fn above_zero(name: &str, value: Real) -> Result<(), AttackProblem> {
    if value.get() > 0.0 { Ok(()) } else { Err(AttackProblem::new(name, "must be above 0")) }
}

fn not_below_zero(name: &str, value: Real) -> Result<(), AttackProblem> {
    if value.get() < 0.0 { Err(AttackProblem::new(name, "must not be below 0")) } else { Ok(()) }
}

fn at_least_one(name: &str, value: u32) -> Result<(), AttackProblem> {
    if value > 0 { Ok(()) } else { Err(AttackProblem::new(name, "must be at least 1")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(attack: serde_json::Value) -> Attack {
        serde_json::from_value(attack).unwrap()
    }

    /// The keys of results that exist must not move when an attack learns something new.
    #[test]
    fn new_optional_fields_do_not_change_existing_keys() {
        let fgsm = json!({"attack": "fgsm", "eps": 0.25});
        assert_eq!(serde_json::to_value(read(fgsm.clone())).unwrap(), fgsm);
        let pgd = json!({"attack": "pgd", "norm": "inf", "eps": 0.25, "step": 0.125, "steps": 3, "start": "zero"});
        assert_eq!(serde_json::to_value(read(pgd.clone())).unwrap(), pgd);
        let more = json!({
            "attack": "pgd", "norm": "l2", "eps": 4.0, "step": 0.5, "steps": 3, "start": "random",
            "direction": "gradient", "iterate": "worst_case", "restarts": 5,
        });
        assert_eq!(serde_json::to_value(read(more.clone())).unwrap(), more);
    }

    #[test]
    fn what_does_not_go_together_is_refused_at_its_name() {
        let pgd = |norm: &str, eps: f64, more: serde_json::Value| {
            let mut attack = json!({"attack": "pgd", "norm": norm, "eps": eps, "step": 0.1, "steps": 1});
            attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(attack)
        };
        let cases = [
            (pgd("inf", 8.0, json!({})), "eps"),
            (pgd("l2", -1.0, json!({})), "eps"),
            (pgd("inf", 0.1, json!({"step": 0})), "step"),
            (pgd("inf", 0.1, json!({"direction": "gradient"})), "direction"),
            (pgd("inf", 0.1, json!({"restarts": 2})), "restarts"),
            (read(json!({"attack": "fgsm", "eps": 0.1, "step": -1})), "step"),
            (read(json!({"attack": "autoattack", "eps": 0.1, "attacks": []})), "attacks"),
            (read(json!({"attack": "autoattack", "eps": 0.1, "pgd": {"eps": 0.2, "step": 1, "steps": 1}})), "pgd"),
            (read(json!({"attack": "square", "eps": 0.1, "p_init": 1.5})), "p_init"),
            (read(json!({"attack": "malt", "eps": 0.1, "targets": 5, "candidates": 4})), "candidates"),
            (read(json!({"attack": "spatial", "tau": -1})), "tau"),
        ];
        for (attack, name) in cases {
            let problem = attack.check().unwrap_err();
            assert_eq!(problem.name, name, "{attack:?}: {problem:?}");
        }
        assert_eq!(pgd("l2", 8.0, json!({"direction": "gradient"})).check(), Ok(()));
    }
}
