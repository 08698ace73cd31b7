//! MALT: APGD towards the classes that a linear model of the network reaches with the smallest change.
//!
//! See Melamed, Yehudai and Shamir 2024, "MALT powers up adversarial attacks" (arXiv 2407.02240). Follows the authors'
//! code, except for these points. An image leaves at its first misclassified point, whatever its class. A class whose
//! gradient is zero counts as the farthest; in their code it is the nearest.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Malt, Member, Norm};
use tch::{Kind, TchError, Tensor};

use super::apgd::climb;
use super::attacked_model::AttackedModel;
use super::ball::{Ball, SMALLEST_NORM, l2};
use super::ensemble::{self, SubAttack, targeted};
use super::losses::lead;
use super::successive_runs::SuccessiveRuns;
use super::{Adversary, Batch};
use crate::error::StageError;

impl Adversary for Malt {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        ensemble::attack(model, batch, self)
    }

    /// One run, which orders the classes once for all targets.
    fn sub_attacks(&self, classes: usize, name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        let attack = Attack::Malt(self.clone());
        Ok(Some(vec![ensemble::sub_attack(Member::Malt, attack, classes, name.to_owned())?]))
    }

    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, _run: u32) -> Result<Tensor, StageError> {
        let rng = model.rng;
        climb_in_turn(model, batch, self, &|batch, rank| {
            Ball::new(batch.images, self.norm, self.eps.get())?.far_point(batch, rng, "malt start", rank)
        })
    }
}

/// Attacks towards one target after the other, each time the images that are still classified correctly.
///
/// `start` returns the points to start from (N × C × H × W, in the ball), for some of the images and the rank of the
/// target, from 0. Returns the first misclassified point of each image, or the point with the largest cross-entropy.
///
/// # Errors
/// [`StageError::Torch`], or the error that cancels the attack.
pub fn climb_in_turn(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    malt: &Malt,
    start: &dyn Fn(&Batch<'_>, u32) -> Result<Tensor, TchError>,
) -> Result<Tensor, StageError> {
    let &Malt { norm, eps, steps, .. } = malt;
    let apgd = Apgd { steps, ..Apgd::standard(norm, eps, ApgdLoss::DlrTargeted) };
    let targets = targets(model, batch, malt)?;
    let logits = model.verdicts(batch.images)?;
    let mut runs = SuccessiveRuns::new(batch, batch.images.f_detach_copy()?, &logits)?;
    for (rank, target) in (0..).zip(targets.f_unbind(1)?) {
        let has_run = runs.run(model, |model, batch, positions| {
            let target = target.f_index_select(0, positions)?;
            climb(model, batch, &apgd, start(batch, rank)?, Some(&target))
        })?;
        if !has_run {
            break;
        }
    }
    Ok(runs.into_points())
}

/// Returns the targets of each image, the nearest first, I64, N × `targets`, at most all wrong classes.
///
/// The distance of class j is (z_y − z_j) / ‖∇(z_j − z_y)‖ at the image, in the norm of the ball: so far a linear model
/// of the network goes until both logits are equal. The norm of the gradient is the dual one.
///
/// # Errors
/// [`StageError::Torch`], or the error that cancels the attack.
pub fn targets(model: &mut AttackedModel<'_>, batch: &Batch<'_>, malt: &Malt) -> Result<Tensor, StageError> {
    let logits = model.logits(batch.images)?;
    let classes = logits.size()[1] as usize;
    let wrong = logits.f_scatter_value(1, &batch.labels.f_unsqueeze(1)?, f64::NEG_INFINITY)?;
    let (_, likeliest) = wrong.f_sort(1, true)?;
    let candidates = likeliest.f_narrow(1, 0, i64::from(targeted(malt.candidates, classes)))?;
    let mut distances = Vec::new();
    for target in candidates.f_unbind(1)? {
        let lead = |logits: &Tensor, labels: &Tensor| lead(logits, labels, &target);
        let query = model.gradient(batch.images, batch.labels, &lead)?;
        let slope = dual_norm(&query.gradient, malt.norm)?.f_clamp_min_(SMALLEST_NORM)?;
        distances.push(query.losses.f_neg()?.f_div(&slope)?);
    }
    let (_, order) = Tensor::f_stack(&distances, 1)?.f_sort(1, false)?;
    let nearest = order.f_narrow(1, 0, i64::from(targeted(malt.targets, classes)))?;
    Ok(candidates.f_gather(1, &nearest, false)?)
}

/// Computes the norm that is dual to the one of the ball: L1 for L-infinity, L2 for itself. N.
fn dual_norm(gradient: &Tensor, norm: Norm) -> Result<Tensor, TchError> {
    match norm {
        Norm::Inf => gradient.f_abs()?.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float),
        Norm::L2 => l2(gradient)?.f_flatten(0, -1),
    }
}
