//! Gradient ascent on the loss within a ball, with a fixed step length: FGSM in one step, PGD in several.

use atflow::stage_kinds::{Direction, Fgsm, Iterate, Norm, Pgd, Start};
use tch::{Kind, Tensor};

use super::active_set::ActiveSet;
use super::attacked_model::{AttackedModel, GradientQuery, cross_entropy, misclassified};
use super::ball::{Ball, unit_l2};
use super::successive_runs::SuccessiveRuns;
use super::{Adversary, Batch};
use crate::error::StageError;

/// The parameters of the ascent.
struct Steps {
    norm: Norm,
    eps: f64,
    step: f64,
    steps: u32,
    direction: Direction,
    iterate: Iterate,
}

impl Adversary for Fgsm {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        let Fgsm { eps, start, step } = self;
        let (step, iterate) = (step.unwrap_or(*eps).get(), Iterate::Last);
        let steps = Steps { norm: Norm::Inf, eps: eps.get(), step, steps: 1, direction: Direction::Sign, iterate };
        attack(model, batch, &steps, *start, 1)
    }
}

impl Adversary for Pgd {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        let &Pgd { norm, eps, step, steps, start, direction, iterate, restarts } = self;
        let steps = Steps { norm, eps: eps.get(), step: step.get(), steps, direction, iterate };
        attack(model, batch, &steps, start, restarts)
    }
}

/// Attacks a batch `restarts` times (at least once).
///
/// Each restart attacks the images that are still classified correctly, and keeps their points with the largest loss.
fn attack(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    steps: &Steps,
    start: Start,
    restarts: u32,
) -> Result<Tensor, StageError> {
    let once = |model: &mut AttackedModel<'_>, batch: &Batch<'_>, restart| {
        let start = match start {
            Start::Zero => batch.images.shallow_clone(),
            Start::Random => Ball::new(batch.images, steps.norm, steps.eps)?.random_point(batch, model.rng, restart)?,
        };
        ascend(model, batch, start, steps)
    };
    let points = once(model, batch, 0)?;
    if restarts <= 1 {
        return Ok(points);
    }
    let logits = model.logits(&points)?;
    let mut runs = SuccessiveRuns::new(batch, points, &logits)?;
    for restart in 1..restarts {
        if !runs.run(model, |model, batch| once(model, batch, restart))? {
            break;
        }
    }
    Ok(runs.into_points())
}

/// Takes steps from `start`, each projected onto the ball; returns the points that `steps.iterate` selects.
///
/// See Madry et al. 2018, equation after 2.1; with one step of length ε, Goodfellow et al. 2015, section 4.
fn ascend(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    start: Tensor,
    steps: &Steps,
) -> Result<Tensor, StageError> {
    if steps.iterate != Iterate::Last {
        return best(model, batch, start, steps);
    }
    let ball = Ball::new(batch.images, steps.norm, steps.eps)?;
    let mut points = start;
    for step in 0..steps.steps {
        let query = match step {
            0 => model.first_gradient(&points, batch, &cross_entropy)?,
            _ => model.gradient(&points, batch.labels, &cross_entropy)?,
        };
        points = move_on(&ball, &points, query, steps)?;
    }
    Ok(points)
}

/// Takes one step and projects the result.
fn move_on(ball: &Ball<'_>, points: &Tensor, query: GradientQuery, steps: &Steps) -> Result<Tensor, StageError> {
    let mut gradient = query.gradient;
    let mut direction = match steps.direction {
        Direction::Sign => gradient.f_sign_()?,
        Direction::Gradient => unit_l2(&gradient)?,
    };
    Ok(ball.project(direction.f_mul_scalar_(steps.step)?.f_add_(points)?)?)
}

/// Evaluates every visited point, including the last.
///
/// Returns the point with the largest loss, or the first misclassified one.
fn best(model: &mut AttackedModel<'_>, batch: &Batch<'_>, start: Tensor, steps: &Steps) -> Result<Tensor, StageError> {
    let mut active = ActiveSet::all(batch)?;
    let mut points = start;
    let mut best = points.shallow_clone();
    let mut best_loss = Tensor::f_full(batch.labels.size(), f64::NEG_INFINITY, (Kind::Float, batch.images.device()))?;
    for step in 0..=steps.steps {
        let mut query = match step {
            0 => model.first_gradient(&points, batch, &cross_entropy)?,
            _ => model.gradient(&points, &active.labels, &cross_entropy)?,
        };
        let better = query.losses.f_gt_tensor(&best_loss)?;
        best = points.f_where_self(&better.f_view([-1, 1, 1, 1])?, &best)?;
        best_loss = query.losses.f_where_self(&better, &best_loss)?;
        if steps.iterate == Iterate::WorstCase {
            let wrong = misclassified(&query.logits, &active.labels)?;
            if let Some(remaining) = active.remove(&wrong, &points)? {
                for tensor in [&mut points, &mut best, &mut best_loss, &mut query.gradient] {
                    remaining.keep(tensor, 0)?;
                }
            }
            if active.is_empty() {
                break;
            }
        }
        if step < steps.steps {
            points = move_on(&Ball::new(&active.images, steps.norm, steps.eps)?, &points, query, steps)?;
        }
    }
    Ok(active.finish(&best)?)
}
