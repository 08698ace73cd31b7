//! APGD: projected gradient descent with momentum, whose step length is halved where it does not help (Croce and Hein
//! 2020, algorithm 1), on cross-entropy and on the difference of logits ratio, untargeted and targeted. As in the
//! authors' code, but for where random numbers come from, and that an image leaves at its first misclassified point.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Member, Norm};
use tch::{Kind, TchError, Tensor};

use super::active_set::ActiveSet;
use super::attacked_model::{AttackedModel, Loss, cross_entropy, misclassified};
use super::ball::{Ball, unit_l2};
use super::ensemble::{self, AttackRun, targeted};
use super::{Adversary, Batch};
use crate::error::StageError;

/// Keeps the difference of logits ratio finite, and a gradient's direction.
const SMALLEST: f64 = 1e-12;
/// Share of the new step in a step; the rest goes on as the last one went.
const MOMENTUM: f64 = 0.75;

impl Adversary for Apgd {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        ensemble::attack(model, batch, self)
    }

    fn parts(&self, classes: usize, name: &str) -> Result<Option<Vec<AttackRun>>, StageError> {
        let member = match self.loss {
            ApgdLoss::Ce => Member::ApgdCe,
            ApgdLoss::Dlr => Member::ApgdDlr,
            ApgdLoss::DlrTargeted => Member::ApgdT,
        };
        Ok(Some(vec![ensemble::part(member, Attack::Apgd(self.clone()), classes, format!("{name}.loss"))?]))
    }

    fn runs(&self, classes: usize) -> u32 {
        match self.loss {
            ApgdLoss::Ce | ApgdLoss::Dlr => self.restarts,
            ApgdLoss::DlrTargeted => self.restarts.saturating_mul(targeted(self.targets, classes)),
        }
    }

    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, run: u32) -> Result<Tensor, StageError> {
        run_once(model, batch, self, run)
    }
}

/// One run of the attack, counted from 0: a restart and, with `dlr_targeted`, a target. Gives the first misclassified
/// point of each image, or that of the largest loss.
fn run_once(victim: &mut AttackedModel<'_>, batch: &Batch<'_>, apgd: &Apgd, run: u32) -> Result<Tensor, StageError> {
    let (purpose, target) = match apgd.loss {
        ApgdLoss::Ce => ("apgd ce start", None),
        ApgdLoss::Dlr => ("apgd dlr start", None),
        ApgdLoss::DlrTargeted => ("apgd t start", Some(target(victim, batch, run / apgd.restarts)?)),
    };
    let start = Ball::new(batch.images, apgd.norm, apgd.eps.get())?.far_point(batch, victim.rng, purpose, run)?;
    climb(victim, batch, apgd, start, target.as_ref())
}

/// The likeliest wrong class of each image, I64, N; with a larger `rank` the next ones. An image that is misclassified
/// as it is has its own class among them.
///
/// # Errors
/// [`StageError::Torch`], or that the attack is to be given up.
pub fn target(victim: &mut AttackedModel<'_>, batch: &Batch<'_>, rank: u32) -> Result<Tensor, StageError> {
    let (_, order) = victim.logits(batch.images)?.f_sort(1, true)?;
    Ok(order.f_select(1, i64::from(rank) + 1)?)
}

/// The attack from given points, which must lie in the ball; `target` (I64, N) is needed by `dlr_targeted` alone.
///
/// # Errors
/// [`StageError::Torch`], or that the attack is to be given up.
pub fn climb(
    victim: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    apgd: &Apgd,
    start: Tensor,
    target: Option<&Tensor>,
) -> Result<Tensor, StageError> {
    let count = batch.labels.size()[0];
    let options = (Kind::Float, batch.images.device());
    let mut target = target.map(Tensor::shallow_clone);
    let look = victim.first_gradient(&start, batch, &*loss(apgd.loss, target.as_ref()))?;
    let mut survivors = ActiveSet::all(batch)?;
    let mut state = State {
        old: start.shallow_clone(),
        best: start.shallow_clone(),
        best_gradient: look.gradient.shallow_clone(),
        best_loss: look.losses.shallow_clone(),
        best_at_check: look.losses.shallow_clone(),
        halved_at_check: Tensor::f_ones([count], (Kind::Bool, batch.images.device()))?,
        step: Tensor::f_full([count, 1, 1, 1], 2.0 * apgd.eps.get(), options)?,
        history: Tensor::f_zeros([i64::from(apgd.steps), count], options)?,
        points: start,
        gradient: look.gradient,
    };
    let wrong = misclassified(&look.logits, &survivors.labels)?;
    state.leave(&mut survivors, &wrong, &mut target)?;
    let mut checkpoints = Checkpoints::new(apgd.steps);
    for index in 0..apgd.steps {
        if survivors.is_empty() {
            break;
        }
        let ball = Ball::new(&survivors.images, apgd.norm, apgd.eps.get())?;
        state.move_on(&ball, apgd.norm, if index > 0 { MOMENTUM } else { 1.0 })?;
        let look = victim.gradient(&state.points, &survivors.labels, &*loss(apgd.loss, target.as_ref()))?;
        state.gradient = look.gradient;
        state.remember(index, &look.losses)?;
        // Before the check, which may move points.
        let wrong = misclassified(&look.logits, &survivors.labels)?;
        state.leave(&mut survivors, &wrong, &mut target)?;
        if let Some(since) = checkpoints.next_step() {
            state.check(index, since, apgd.rho.get())?;
        }
    }
    Ok(survivors.finish(&state.best)?)
}

/// What is climbed.
fn loss<'a>(loss: ApgdLoss, target: Option<&'a Tensor>) -> Box<Loss<'a>> {
    match (loss, target) {
        (ApgdLoss::Ce, _) => Box::new(cross_entropy),
        (ApgdLoss::DlrTargeted, Some(target)) => Box::new(move |logits, labels| dlr_targeted(logits, labels, target)),
        (ApgdLoss::Dlr | ApgdLoss::DlrTargeted, _) => Box::new(dlr),
    }
}

/// The difference of logits ratio (equation 6): −(z_y − max of the others) / (z_π1 − z_π3), z_π sorted from large to
/// small.
fn dlr(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let (sorted, order) = logits.f_sort(1, true)?;
    let rank = |rank: i64| sorted.f_select(1, rank);
    let truth = logits.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    let is_right = order.f_select(1, 0)?.f_eq_tensor(labels)?;
    let other = rank(1)?.f_where_self(&is_right, &rank(0)?)?;
    truth.f_sub(&other)?.f_neg()?.f_div(&rank(0)?.f_sub(&rank(2)?)?.f_add_scalar(SMALLEST)?)
}

/// The targeted difference of logits ratio (equation 7): −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2).
fn dlr_targeted(logits: &Tensor, labels: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let (sorted, _) = logits.f_sort(1, true)?;
    let rank = |rank: i64| sorted.f_select(1, rank);
    let of = |class: &Tensor| logits.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_squeeze_dim(1);
    let spread = rank(0)?.f_sub(&rank(2)?.f_add(&rank(3)?)?.f_mul_scalar(0.5)?)?.f_add_scalar(SMALLEST)?;
    of(labels)?.f_sub(&of(target)?)?.f_neg()?.f_div(&spread)
}

/// After which steps the step length is looked at: after 22 % of all, then after 3 % less each time, but at least 6 %
/// (section 3).
pub struct Checkpoints {
    /// Steps from the last check to the next.
    period: u32,
    shorter: u32,
    shortest: u32,
    /// Steps since the last check.
    since: u32,
}

impl Checkpoints {
    /// The checks of a run of so many steps.
    pub fn new(steps: u32) -> Self {
        let share = |percent: u64| ((u64::from(steps) * percent / 100) as u32).max(1);
        Checkpoints { period: share(22), shorter: share(3), shortest: share(6), since: 0 }
    }

    /// Goes on by a step; if there is a check after it, how many steps it looks back on.
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

/// Where every survivor is; first dimensions count them, but for `history`.
struct State {
    points: Tensor,
    /// The points one step before.
    old: Tensor,
    gradient: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    best_loss: Tensor,
    best_at_check: Tensor,
    halved_at_check: Tensor,
    /// Step lengths, N × 1 × 1 × 1.
    step: Tensor,
    /// Losses, steps × N; 0 where there was no step yet.
    history: Tensor,
}

impl State {
    /// One step: along the gradient, projected, and mixed with the last step.
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

    /// Takes in the losses of a step.
    fn remember(&mut self, step: u32, losses: &Tensor) -> Result<(), TchError> {
        self.history.f_select(0, i64::from(step))?.f_copy_(losses)?;
        let better = losses.f_gt_tensor(&self.best_loss)?;
        let images = better.f_view([-1, 1, 1, 1])?;
        self.best = self.points.f_where_self(&images, &self.best)?;
        self.best_gradient = self.gradient.f_where_self(&images, &self.best_gradient)?;
        self.best_loss = losses.f_where_self(&better, &self.best_loss)?;
        Ok(())
    }

    /// Halves the step lengths of the images that need it, and takes those back to their best points: where too few of
    /// the last `since` steps raised the loss, or where the step length was kept at the last check and the best loss
    /// has not risen since.
    fn check(&mut self, step: u32, since: u32, rho: f64) -> Result<(), TchError> {
        let device = self.history.device();
        let steps = self.history.size()[0];
        let row = |step: i64| {
            // The code of the attack's authors looks before the first step, too, where it finds the last row, still 0.
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

    fn leave(
        &mut self,
        survivors: &mut ActiveSet,
        wrong: &Tensor,
        target: &mut Option<Tensor>,
    ) -> Result<(), TchError> {
        let Some(parting) = survivors.part(wrong, &self.points)? else { return Ok(()) };
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
            parting.keep(tensor, 0)?;
        }
        parting.keep(history, 1)
    }
}
