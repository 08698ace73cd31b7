//! The attacks of AutoAttack as parameters, alone and as an ensemble (Croce and Hein 2020).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Attack, AttackParams, AttackProblem, Demand, Iterate, Malt, Norm, Pgd, above_zero, at_least_one, product, radius,
};
use crate::number::Real;
use crate::stage_kinds::passes::Passes;

/// Projected gradient descent with momentum and a step length that is halved where it does not help (Croce and Hein
/// 2020, algorithm 1). Starts at a random point at full radius.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apgd {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; at most 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// What is climbed.
    #[serde(default)]
    pub loss: ApgdLoss,
    /// Number of steps of a run; at least 1.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Runs from different starts, at least 1; with `dlr_targeted`, for each target.
    #[serde(default = "default_restarts")]
    #[schemars(range(min = 1))]
    pub restarts: u32,
    /// With `dlr_targeted`: how many of the likeliest wrong classes are aimed at, one after the other; at most all of
    /// them.
    #[serde(default = "default_targets")]
    #[schemars(range(min = 1))]
    pub targets: u32,
    /// The step length is halved if less than this share of the steps since the last check raised the loss; 0 to 1.
    #[serde(default = "default_rho")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub rho: Real,
}

impl Apgd {
    /// The attack as it is a member of AutoAttack.
    pub const fn standard(norm: Norm, eps: Real, loss: ApgdLoss) -> Self {
        let (steps, restarts, targets, rho) = (default_steps(), default_restarts(), default_targets(), default_rho());
        Apgd { norm, eps, loss, steps, restarts, targets, rho }
    }
}

impl AttackParams for Apgd {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        for (name, value) in [("steps", self.steps), ("restarts", self.restarts), ("targets", self.targets)] {
            at_least_one(name, value)?;
        }
        share("rho", self.rho)
    }

    fn family(&self) -> String {
        "apgd".to_owned()
    }

    fn passes(&self) -> Passes {
        let Apgd { norm: _, eps: _, loss, steps, restarts, targets, rho: _ } = self;
        match loss {
            ApgdLoss::Ce | ApgdLoss::Dlr | ApgdLoss::Margin | ApgdLoss::ProbabilityMargin => {
                Passes::gradient(product(&[*steps, *restarts]))
            }
            ApgdLoss::DlrTargeted => Passes::gradient(product(&[*steps, *restarts, *targets])),
        }
    }

    fn draws(&self) -> bool {
        true
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        Some(Attack::Apgd(Apgd { eps, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }

    fn most_demanding(&self) -> Option<Demand> {
        Some(self.loss.member().demand("loss"))
    }
}

/// What APGD climbs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApgdLoss {
    /// Cross-entropy of the true class.
    #[default]
    Ce,
    /// Difference of logits ratio: the margin between the true and the best other class, divided by the spread of the
    /// three largest logits. Does not change when logits are scaled or shifted. Needs three classes.
    Dlr,
    /// The same towards one class after another. Needs four classes.
    DlrTargeted,
    /// The largest other logit minus that of the true class.
    Margin,
    /// The largest other probability minus that of the true class (Xie et al. 2024, arXiv 2411.15210).
    ProbabilityMargin,
}

impl ApgdLoss {
    /// The attack that APGD is on this loss.
    pub const fn member(self) -> Member {
        match self {
            ApgdLoss::Ce => Member::ApgdCe,
            ApgdLoss::Dlr => Member::ApgdDlr,
            ApgdLoss::DlrTargeted => Member::ApgdT,
            ApgdLoss::Margin => Member::ApgdMargin,
            ApgdLoss::ProbabilityMargin => Member::ApgdPm,
        }
    }
}

/// Random search: changes one square of the image at a time and keeps what lowers the margin (Andriushchenko et al.
/// 2020). No gradients: what it breaks and gradients do not points at masked gradients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Square {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; at most 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// Proposals of a run, at least 1.
    #[serde(default = "default_queries")]
    #[schemars(range(min = 1))]
    pub queries: u32,
    /// Share of the image that the first squares cover; above 0, at most 1.
    #[serde(default = "default_p_init")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub p_init: Real,
    /// Whether squares shrink over all of `queries` instead of at fixed numbers of queries, made for 10,000 of them.
    #[serde(default)]
    pub rescale_schedule: bool,
    /// Runs with different draws, at least 1.
    #[serde(default = "default_restarts")]
    #[schemars(range(min = 1))]
    pub restarts: u32,
}

impl Square {
    /// The attack as it is a member of AutoAttack.
    pub const fn standard(norm: Norm, eps: Real) -> Self {
        let (queries, p_init, restarts) = (default_queries(), default_p_init(), default_restarts());
        Square { norm, eps, queries, p_init, rescale_schedule: false, restarts }
    }
}

impl AttackParams for Square {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        at_least_one("queries", self.queries)?;
        at_least_one("restarts", self.restarts)?;
        above_zero("p_init", self.p_init)?;
        share("p_init", self.p_init)
    }

    fn family(&self) -> String {
        "square".to_owned()
    }

    fn passes(&self) -> Passes {
        let Square { norm: _, eps: _, queries, p_init: _, rescale_schedule: _, restarts } = self;
        Passes::forward(product(&[*queries, *restarts]))
    }

    fn draws(&self) -> bool {
        true
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        Some(Attack::Square(Square { eps, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }

    fn most_demanding(&self) -> Option<Demand> {
        Some(Member::Square.demand("attack"))
    }
}

/// Targeted FAB: looks for the smallest perturbation that changes the decision to one class after another, by steps to
/// where a linear model of the network says that it does (Croce and Hein 2020, "Minimally distorted adversarial
/// examples"); counts if it lies in the ball. Starts at the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fab {
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
    /// How many of the likeliest wrong classes are aimed at, one after the other, at least 1; at most all of them.
    #[serde(default = "default_targets")]
    #[schemars(range(min = 1))]
    pub targets: u32,
}

impl Fab {}

impl AttackParams for Fab {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        at_least_one("steps", self.steps)?;
        at_least_one("targets", self.targets)
    }

    fn family(&self) -> String {
        "fab".to_owned()
    }

    fn passes(&self) -> Passes {
        let Fab { norm: _, eps: _, steps, targets } = self;
        Passes::gradient(product(&[*steps, *targets]))
    }

    fn draws(&self) -> bool {
        false
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        Some(Attack::Fab(Fab { eps, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }

    fn most_demanding(&self) -> Option<Demand> {
        Some(Member::FabT.demand("attack"))
    }
}

/// Several attacks one after the other, each on the images that are still classified correctly: the pointwise worst
/// case (Croce and Hein 2020).
///
/// An image that no attack breaks keeps the point of the largest loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoattack {
    /// The norm that bounds the perturbation.
    #[serde(default)]
    pub norm: Norm,
    /// Radius of the ball, in pixel units of [0, 1]; at most 1 for the L-infinity norm.
    #[schemars(extend("minimum" = 0))]
    pub eps: Real,
    /// The attacks, in their order; at least one, none twice.
    #[serde(default = "standard")]
    pub attacks: Vec<Member>,
    /// An attack to begin with. Breaks what the evaluation it is copied from breaks, so that the ensemble is never the
    /// weaker one. Its norm and `eps` must be those of the ensemble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgd: Option<Pgd>,
    /// Steps of the attacks with gradients, at least 1.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Proposals of `square`, at least 1.
    #[serde(default = "default_queries")]
    #[schemars(range(min = 1))]
    pub queries: u32,
    /// Classes that targeted attacks aim at, at least 1; at most all wrong ones.
    #[serde(default = "default_targets")]
    #[schemars(range(min = 1))]
    pub targets: u32,
}

/// An attack of the ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// APGD on cross-entropy.
    ApgdCe,
    /// APGD on the difference of logits ratio.
    ApgdDlr,
    /// APGD on the targeted difference of logits ratio.
    ApgdT,
    /// FAB, targeted.
    FabT,
    /// Square.
    Square,
    /// APGD on the margin of the logits. No member of AutoAttack.
    ApgdMargin,
    /// APGD on the margin of the probabilities. No member of AutoAttack.
    ApgdPm,
    /// MALT, which orders up to 100 classes, or `targets` if they are more. No member of AutoAttack.
    Malt,
}

impl Member {
    /// The name, as pipelines and results have it.
    pub const fn name(self) -> &'static str {
        match self {
            Member::ApgdCe => "apgd_ce",
            Member::ApgdDlr => "apgd_dlr",
            Member::ApgdT => "apgd_t",
            Member::FabT => "fab_t",
            Member::Square => "square",
            Member::ApgdMargin => "apgd_margin",
            Member::ApgdPm => "apgd_pm",
            Member::Malt => "malt",
        }
    }

    /// What it needs of a network, where `parameter` chooses it.
    pub const fn demand(self, parameter: &'static str) -> Demand {
        Demand { attack: self.name(), classes: self.needs_classes(), parameter }
    }

    /// How many classes a network needs for it: as many logits as the attack compares.
    pub const fn needs_classes(self) -> u32 {
        match self {
            Member::ApgdCe | Member::FabT | Member::Square | Member::ApgdMargin | Member::ApgdPm => 2,
            Member::ApgdDlr => 3,
            Member::ApgdT | Member::Malt => 4,
        }
    }
}

impl Autoattack {}

impl AttackParams for Autoattack {
    fn check(&self) -> Result<(), AttackProblem> {
        radius(self.norm, self.eps)?;
        for (name, value) in [("steps", self.steps), ("queries", self.queries), ("targets", self.targets)] {
            at_least_one(name, value)?;
        }
        if self.attacks.is_empty() {
            return Err(AttackProblem::new("attacks", "must name at least one attack"));
        }
        for (at, member) in self.attacks.iter().enumerate() {
            if self.attacks[..at].contains(member) {
                return Err(AttackProblem::new("attacks", format!("names `{}` twice", member.name())));
            }
        }
        let Some(pgd) = &self.pgd else { return Ok(()) };
        if (pgd.norm, pgd.eps) != (self.norm, self.eps) {
            return Err(AttackProblem::new("pgd", "must have the `norm` and the `eps` of the ensemble"));
        }
        pgd.check().map_err(|problem| AttackProblem::new(format!("pgd.{}", problem.name), problem.problem))
    }

    fn family(&self) -> String {
        let names: Vec<&str> = self.attacks.iter().map(|member| member.name()).collect();
        format!("autoattack {} {}", names.join(" "), self.pgd.is_some())
    }

    fn passes(&self) -> Passes {
        let Autoattack { norm, eps, attacks, pgd, steps, queries, targets } = self;
        let member = |member: &Member| match member {
            Member::ApgdCe | Member::ApgdDlr | Member::ApgdMargin | Member::ApgdPm => {
                Passes::gradient(f64::from(*steps))
            }
            Member::ApgdT | Member::FabT => Passes::gradient(product(&[*steps, *targets])),
            Member::Malt => Malt::standard(*norm, *eps, *steps, *targets).passes(),
            Member::Square => Passes::forward(f64::from(*queries)),
        };
        pgd.iter().map(AttackParams::passes).chain(attacks.iter().map(member)).sum()
    }

    fn draws(&self) -> bool {
        let does = |member: &Member| *member != Member::FabT;
        self.attacks.iter().any(does) || self.pgd.as_ref().is_some_and(AttackParams::draws)
    }

    fn within(&self, eps: Real) -> Option<Attack> {
        let pgd = self.pgd.as_ref().map(|pgd| pgd.in_ball(eps));
        Some(Attack::Autoattack(Autoattack { eps, pgd, ..self.clone() }))
    }

    fn iterate(&self) -> Option<Iterate> {
        Some(Iterate::WorstCase)
    }

    fn most_demanding(&self) -> Option<Demand> {
        let most = self.attacks.iter().copied().max_by_key(|member| member.needs_classes());
        most.map(|member| member.demand("attacks"))
    }
}

fn standard() -> Vec<Member> {
    vec![Member::ApgdCe, Member::ApgdT, Member::FabT, Member::Square]
}

fn share(name: &str, value: Real) -> Result<(), AttackProblem> {
    match (0.0..=1.0).contains(&value.get()) {
        true => Ok(()),
        false => Err(AttackProblem::new(name, format!("must be between 0 and 1, not {}", value.get()))),
    }
}

const fn default_steps() -> u32 {
    100
}

const fn default_restarts() -> u32 {
    1
}

const fn default_targets() -> u32 {
    9
}

const fn default_rho() -> Real {
    Real::new(0.75)
}

const fn default_queries() -> u32 {
    5000
}

const fn default_p_init() -> Real {
    Real::new(0.8)
}
