//! Gradient ascent on the loss within a ball, with a fixed step length: FGSM in one step, PGD in several, MI-FGSM with
//! momentum.

use atflow::stage_kinds::{Direction, Fgsm, Iterate, Norm, Pgd, Start};
use tch::{Kind, TchError, Tensor};

use super::active_set::ActiveSet;
use super::attacked_model::AttackedModel;
use super::ball::{Ball, unit_l2};
use super::losses::{LossFn, cross_entropy, loss};
use super::successive_runs::SuccessiveRuns;
use super::{Adversary, Batch};
use crate::error::StageError;
use crate::rng::{DrawTensor, Stream};

/// The parameters of the ascent.
struct Steps {
    norm: Norm,
    eps: f64,
    step: f64,
    loss: LossFn,
    /// Weight of earlier gradients.
    momentum: f64,
    steps: u32,
    direction: Direction,
    iterate: Iterate,
}

impl Adversary for Fgsm {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        let Fgsm { eps, start, step, noise } = self;
        if let Some(noise) = noise {
            let step = step.unwrap_or(*eps).get();
            return noisy_step(model, batch, noise.get() * eps.get(), step);
        }
        let (step, iterate) = (step.unwrap_or(*eps).get(), Iterate::Last);
        let (norm, eps, direction) = (Norm::Inf, eps.get(), Direction::Sign);
        let steps = Steps { norm, eps, step, loss: cross_entropy, momentum: 0.0, steps: 1, direction, iterate };
        attack(model, batch, &steps, (*start, None), 1)
    }
}

impl Adversary for Pgd {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        let &Pgd { norm, eps, step, loss: of, momentum, steps, start, direction, iterate, restarts } = self;
        let (eps, step, momentum) = (eps.get(), step.get(), momentum.get());
        let steps = Steps { norm, eps, step, loss: loss(of), momentum, steps, direction, iterate };
        attack(model, batch, &steps, (start, model.starts(batch)?), restarts)
    }
}

/// Takes one signed step from noise that is uniform in ± `reach`; nothing is projected but onto [0, 1] (de Jorge et al.
/// 2022, algorithm 1).
fn noisy_step(model: &mut AttackedModel<'_>, batch: &Batch<'_>, reach: f64, step: f64) -> Result<Tensor, StageError> {
    let (shape, device) = (&batch.images.size()[1..], batch.images.device());
    let draw = |stream: &mut Stream| 2.0 * stream.unit() - 1.0;
    let noise = model.rng.tensor("n-fgsm noise", &[batch.epoch], batch.indices, shape, device, draw)?;
    let start = noise.f_mul_scalar(reach)?.f_add_(batch.images)?.f_clamp_(0.0, 1.0)?;
    let mut gradient = model.first_gradient(&start, batch, &cross_entropy)?.gradient;
    Ok(gradient.f_sign_()?.f_mul_scalar_(step)?.f_add_(&start)?.f_clamp_(0.0, 1.0)?)
}

/// Attacks a batch `restarts` times (at least once); the first one starts at the given points, if there are any.
///
/// Each restart attacks the images that are still classified correctly. It replaces a point if the new one is
/// misclassified or has a larger loss.
fn attack(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    steps: &Steps,
    (start, first): (Start, Option<Tensor>),
    restarts: u32,
) -> Result<Tensor, StageError> {
    let once = |model: &mut AttackedModel<'_>, batch: &Batch<'_>, restart| {
        let start = match (start, &first) {
            (_, Some(points)) if restart == 0 => points.shallow_clone(),
            (Start::Zero, _) => batch.images.shallow_clone(),
            (Start::Random, _) => {
                Ball::new(batch.images, steps.norm, steps.eps)?.random_point(batch, model.rng, restart)?
            }
        };
        ascend(model, batch, start, steps)
    };
    let points = once(model, batch, 0)?;
    if restarts <= 1 {
        return Ok(points);
    }
    let logits = model.verdicts(&points)?;
    let mut runs = SuccessiveRuns::new(batch, points, &logits)?;
    for restart in 1..restarts {
        if !runs.run(model, |model, batch, _| once(model, batch, restart))? {
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
    let mut earlier = None;
    for step in 0..steps.steps {
        let query = match step {
            0 => model.first_gradient(&points, batch, &steps.loss)?,
            _ => model.gradient(&points, batch.labels, &steps.loss)?,
        };
        points = move_on(&ball, &points, query.gradient, &mut earlier, steps)?;
    }
    Ok(points)
}

/// Takes one step and projects the result; `earlier` is the sum of the gradients so far, if there is momentum.
fn move_on(
    ball: &Ball<'_>,
    points: &Tensor,
    gradient: Tensor,
    earlier: &mut Option<Tensor>,
    steps: &Steps,
) -> Result<Tensor, StageError> {
    let mut gradient = if steps.momentum > 0.0 { with_momentum(gradient, earlier, steps.momentum)? } else { gradient };
    let mut direction = match steps.direction {
        Direction::Sign => gradient.f_sign_()?,
        Direction::Gradient => unit_l2(&gradient)?,
    };
    Ok(ball.project(direction.f_mul_scalar_(steps.step)?.f_add_(points)?)?)
}

/// Adds a gradient of L1 norm 1 to the earlier ones (Dong et al. 2018, equation 6). One of zeros adds nothing.
fn with_momentum(gradient: Tensor, earlier: &mut Option<Tensor>, momentum: f64) -> Result<Tensor, TchError> {
    let length = gradient.f_abs()?.f_sum_dim_intlist([1i64, 2, 3].as_slice(), true, Kind::Float)?;
    let unit = gradient.f_div(&length.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?;
    let sum = match earlier {
        Some(earlier) => earlier.f_mul_scalar(momentum)?.f_add(&unit)?,
        None => unit,
    };
    // The step takes the sign in place.
    *earlier = Some(sum.f_detach_copy()?);
    Ok(sum)
}

/// Evaluates every visited point, including the last.
///
/// Returns the point with the largest loss, or the first misclassified one.
fn best(model: &mut AttackedModel<'_>, batch: &Batch<'_>, start: Tensor, steps: &Steps) -> Result<Tensor, StageError> {
    let mut active = ActiveSet::all(batch)?;
    let mut points = start;
    let mut best = points.shallow_clone();
    let mut earlier = None;
    let mut best_loss = Tensor::f_full(batch.labels.size(), f64::NEG_INFINITY, (Kind::Float, batch.images.device()))?;
    for step in 0..=steps.steps {
        let mut query = match step {
            0 => model.first_gradient(&points, batch, &steps.loss)?,
            _ => model.gradient(&points, &active.labels, &steps.loss)?,
        };
        let better = query.losses.f_gt_tensor(&best_loss)?;
        best = points.f_where_self(&better.f_view([-1, 1, 1, 1])?, &best)?;
        best_loss = query.losses.f_where_self(&better, &best_loss)?;
        if steps.iterate == Iterate::WorstCase {
            let wrong = model.broken(query.logits, &points, &active.labels)?;
            if let Some(remaining) = active.remove(&wrong, &points)? {
                let tensors = [&mut points, &mut best, &mut best_loss, &mut query.gradient];
                for tensor in tensors.into_iter().chain(&mut earlier) {
                    remaining.keep(tensor, 0)?;
                }
            }
            if active.is_empty() {
                break;
            }
        }
        if step < steps.steps {
            let ball = Ball::new(&active.images, steps.norm, steps.eps)?;
            points = move_on(&ball, &points, query.gradient, &mut earlier, steps)?;
        }
    }
    Ok(active.finish(&best)?)
}
