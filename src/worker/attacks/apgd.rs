//! APGD: projected gradient descent with momentum and a step length that is halved when progress stalls.
//!
//! See Croce and Hein 2020, algorithm 1. The loss is cross-entropy, a margin, or the difference of logits ratio,
//! untargeted or targeted. Follows the authors' code, except for the random numbers, and that an image leaves at its
//! first misclassified point.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, AttackLoss, Norm};
use tch::{Kind, TchError, Tensor};

use super::active_set::ActiveSet;
use super::attacked_model::{AttackedModel, Loss};
use super::ball::{Ball, unit_l2};
use super::ensemble::{self, SubAttack, targeted};
use super::losses::{self, cross_entropy, dlr, dlr_targeted, probability_margin};
use super::{Adversary, Batch};
use crate::error::StageError;

/// Weight of the new step; the rest continues the previous step.
const MOMENTUM: f64 = 0.75;

impl Adversary for Apgd {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        ensemble::attack(model, batch, self)
    }

    fn sub_attacks(&self, classes: usize, name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        Ok(Some(vec![ensemble::sub_attack(
            self.loss.member(),
            Attack::Apgd(self.clone()),
            classes,
            format!("{name}.loss"),
        )?]))
    }

    fn runs(&self, classes: usize) -> u32 {
        match self.loss {
            ApgdLoss::Ce | ApgdLoss::Dlr | ApgdLoss::Margin | ApgdLoss::ProbabilityMargin => self.restarts,
            ApgdLoss::DlrTargeted => self.restarts.saturating_mul(targeted(self.targets, classes)),
        }
    }

    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, run: u32) -> Result<Tensor, StageError> {
        run_once(model, batch, self, run)
    }
}

/// Executes one run of the attack, counted from 0: a restart and, with `dlr_targeted`, a target.
///
/// Returns the first misclassified point of each image, or the point with the largest loss.
fn run_once(model: &mut AttackedModel<'_>, batch: &Batch<'_>, apgd: &Apgd, run: u32) -> Result<Tensor, StageError> {
    let (purpose, target) = match apgd.loss {
        ApgdLoss::Ce => ("apgd ce start", None),
        ApgdLoss::Dlr => ("apgd dlr start", None),
        ApgdLoss::Margin => ("apgd margin start", None),
        ApgdLoss::ProbabilityMargin => ("apgd pm start", None),
        ApgdLoss::DlrTargeted => ("apgd t start", Some(target(model, batch, run / apgd.restarts)?)),
    };
    // Every restart beyond the first draws its start, and so does the first without a point to begin with.
    let first = if run.is_multiple_of(apgd.restarts) { model.starts(batch)? } else { None };
    let start = match first {
        Some(points) => points,
        None => Ball::new(batch.images, apgd.norm, apgd.eps.get())?.far_point(batch, model.rng, purpose, run)?,
    };
    climb(model, batch, apgd, start, target.as_ref())
}

/// Returns the likeliest wrong class of each image, I64, N; a larger `rank` selects the next ones.
///
/// For an image that is misclassified from the start, its own class may be among them.
///
/// # Errors
/// [`StageError::Torch`], or the error that cancels the attack.
pub fn target(model: &mut AttackedModel<'_>, batch: &Batch<'_>, rank: u32) -> Result<Tensor, StageError> {
    // By 16 bits alone, the class of an image that only they get wrong would be its own target.
    let (_, order) = model.verdicts(batch.images)?.f_sort(1, true)?;
    Ok(order.f_select(1, i64::from(rank) + 1)?)
}

/// Attacks from given points, which must lie in the ball; only `dlr_targeted` needs `target` (I64, N).
///
/// # Errors
/// [`StageError::Torch`], or the error that cancels the attack.
pub fn climb(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    apgd: &Apgd,
    start: Tensor,
    target: Option<&Tensor>,
) -> Result<Tensor, StageError> {
    let count = batch.labels.size()[0];
    let options = (Kind::Float, batch.images.device());
    let mut target = target.map(Tensor::shallow_clone);
    let query = model.first_gradient(&start, batch, &*loss(apgd.loss, target.as_ref()))?;
    let mut active = ActiveSet::all(batch)?;
    let mut state = State {
        old: start.shallow_clone(),
        best: start.shallow_clone(),
        best_gradient: query.gradient.shallow_clone(),
        best_loss: query.losses.shallow_clone(),
        best_at_check: query.losses.shallow_clone(),
        halved_at_check: Tensor::f_ones([count], (Kind::Bool, batch.images.device()))?,
        step: Tensor::f_full([count, 1, 1, 1], 2.0 * apgd.eps.get(), options)?,
        history: Tensor::f_zeros([i64::from(apgd.steps), count], options)?,
        points: start,
        gradient: query.gradient,
    };
    let wrong = model.broken(query.logits, &state.points, &active.labels)?;
    state.leave(&mut active, &wrong, &mut target)?;
    let mut checkpoints = Checkpoints::new(apgd.steps);
    for index in 0..apgd.steps {
        if active.is_empty() {
            break;
        }
        let ball = Ball::new(&active.images, apgd.norm, apgd.eps.get())?;
        state.move_on(&ball, apgd.norm, if index > 0 { MOMENTUM } else { 1.0 })?;
        let query = model.gradient(&state.points, &active.labels, &*loss(apgd.loss, target.as_ref()))?;
        state.gradient = query.gradient;
        state.remember(index, &query.losses)?;
        // Before the check, which may move points.
        let wrong = model.broken(query.logits, &state.points, &active.labels)?;
        state.leave(&mut active, &wrong, &mut target)?;
        if let Some(since) = checkpoints.next_step() {
            state.check(index, since, apgd.rho.get())?;
        }
    }
    Ok(active.finish(&state.best)?)
}

/// Returns the loss to maximise.
fn loss<'a>(loss: ApgdLoss, target: Option<&'a Tensor>) -> Box<Loss<'a>> {
    match (loss, target) {
        (ApgdLoss::Ce, _) => Box::new(cross_entropy),
        (ApgdLoss::Margin, _) => Box::new(losses::loss(AttackLoss::Margin)),
        (ApgdLoss::ProbabilityMargin, _) => Box::new(probability_margin),
        (ApgdLoss::DlrTargeted, Some(target)) => Box::new(move |logits, labels| dlr_targeted(logits, labels, target)),
        (ApgdLoss::Dlr | ApgdLoss::DlrTargeted, _) => Box::new(dlr),
    }
}

/// Schedule of step-length checks: after 22 % of all steps, then after 3 % less each time, but at least 6 % (section
/// 3).
pub struct Checkpoints {
    /// Steps from the last check to the next.
    period: u32,
    shorter: u32,
    shortest: u32,
    /// Steps since the last check.
    since: u32,
}

impl Checkpoints {
    /// Creates the schedule of a run with `steps` steps.
    pub fn new(steps: u32) -> Self {
        let share = |percent: u64| ((u64::from(steps) * percent / 100) as u32).max(1);
        Checkpoints { period: share(22), shorter: share(3), shortest: share(6), since: 0 }
    }

    /// Advances by a step; if a check follows it, returns the number of steps that the check covers.
    pub fn next_step(&mut self) -> Option<u32> {
        self.since += 1;
        if self.since < self.period {
            return None;
        }
        let period = self.period;
        self.since = 0;
        self.period = period.saturating_sub(self.shorter).max(self.shortest);
        Some(period)
    }
}

/// The state of all active images; the first dimension counts images, except in `history`.
struct State {
    points: Tensor,
    /// The points one step earlier.
    old: Tensor,
    gradient: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    best_loss: Tensor,
    best_at_check: Tensor,
    halved_at_check: Tensor,
    /// Step lengths, N × 1 × 1 × 1.
    step: Tensor,
    /// Losses, steps × N; 0 for future steps.
    history: Tensor,
}

impl State {
    /// Takes one step: along the gradient, projected, and mixed with the previous step.
    fn move_on(&mut self, ball: &Ball<'_>, norm: Norm, momentum: f64) -> Result<(), TchError> {
        let last = self.points.f_sub(&self.old)?;
        let direction = match norm {
            Norm::Inf => self.gradient.f_sign()?,
            Norm::L2 => unit_l2(&self.gradient)?,
        };
        let new = ball.project_then_clamp(&self.points.f_add(&self.step.f_mul(&direction)?)?)?;
        let mixed = self.points.f_add(&new.f_sub(&self.points)?.f_mul_scalar(momentum)?)?;
        let mixed = mixed.f_add(&last.f_mul_scalar(1.0 - momentum)?)?;
        self.old = std::mem::replace(&mut self.points, ball.project_then_clamp(&mixed)?);
        Ok(())
    }

    /// Records the losses of a step.
    fn remember(&mut self, step: u32, losses: &Tensor) -> Result<(), TchError> {
        self.history.f_select(0, i64::from(step))?.f_copy_(losses)?;
        let better = losses.f_gt_tensor(&self.best_loss)?;
        let images = better.f_view([-1, 1, 1, 1])?;
        self.best = self.points.f_where_self(&images, &self.best)?;
        self.best_gradient = self.gradient.f_where_self(&images, &self.best_gradient)?;
        self.best_loss = losses.f_where_self(&better, &self.best_loss)?;
        Ok(())
    }

    /// Halves the step length of images that need it, and returns these to their best points.
    ///
    /// An image needs it if too few of the last `since` steps raised its loss. It also does if the last check kept the
    /// step length and the best loss has not risen since.
    fn check(&mut self, step: u32, since: u32, rho: f64) -> Result<(), TchError> {
        let device = self.history.device();
        let steps = self.history.size()[0];
        let row = |step: i64| {
            // The authors' code also looks before the first step, where it finds the last row, which is still 0.
            let rows: Vec<i64> = (0..i64::from(since)).map(|back| (step - back).rem_euclid(steps)).collect();
            self.history.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(device)?)
        };
        let rises = row(i64::from(step))?.f_gt_tensor(&row(i64::from(step) - 1)?)?;
        let rises = rises.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?;
        let oscillates = rises.f_le(f64::from(since) * rho)?;
        let stuck =
            self.best_at_check.f_ge_tensor(&self.best_loss)?.f_logical_and(&self.halved_at_check.f_logical_not()?)?;
        let halve = oscillates.f_logical_or(&stuck)?;
        let images = halve.f_view([-1, 1, 1, 1])?;
        self.step = self.step.f_div_scalar(2.0)?.f_where_self(&images, &self.step)?;
        self.points = self.best.f_where_self(&images, &self.points)?;
        self.gradient = self.best_gradient.f_where_self(&images, &self.gradient)?;
        self.best_at_check = self.best_loss.shallow_clone();
        self.halved_at_check = halve;
        Ok(())
    }

    fn leave(&mut self, active: &mut ActiveSet, wrong: &Tensor, target: &mut Option<Tensor>) -> Result<(), TchError> {
        let Some(remaining) = active.remove(wrong, &self.points)? else { return Ok(()) };
        let State {
            points,
            old,
            gradient,
            best,
            best_gradient,
            best_loss,
            best_at_check,
            halved_at_check,
            step,
            history,
        } = self;
        let rows = [points, old, gradient, best, best_gradient, best_loss, best_at_check, halved_at_check, step];
        for tensor in rows.into_iter().chain(target) {
            remaining.keep(tensor, 0)?;
        }
        remaining.keep(history, 1)
    }
}
