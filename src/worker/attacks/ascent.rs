//! Signed gradient ascent on the loss within an L-infinity ball: FGSM in one step, PGD in several.

use tch::{TchError, Tensor};

use super::{Batch, input_gradient, uniform};
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

/// What an adversary may reach: the L-infinity ball around each image, cut by [0, 1].
///
/// Both are boxes around the image, so projecting on one and then on the other is one clamp between two bounds.
pub(super) struct LinfBall<'a> {
    images: &'a Tensor,
    eps: f64,
    lowest: Tensor,
    highest: Tensor,
}

impl<'a> LinfBall<'a> {
    pub(super) fn new(images: &'a Tensor, eps: f64) -> Result<Self, TchError> {
        Ok(LinfBall {
            images,
            eps,
            lowest: images.f_sub_scalar(eps)?.f_clamp_min_(0.0)?,
            highest: images.f_add_scalar(eps)?.f_clamp_max_(1.0)?,
        })
    }

    /// The nearest points that may be reached; changes its argument.
    fn project(&self, mut points: Tensor) -> Result<Tensor, TchError> {
        points.f_clamp_tensor_(Some(&self.lowest), Some(&self.highest))
    }

    /// A point drawn uniformly from the ball, clamped to [0, 1].
    pub(super) fn random_point(&self, batch: &Batch<'_>, rng: Rng) -> Result<Tensor, TchError> {
        self.project(uniform(batch, rng)?.f_mul_scalar_(self.eps)?.f_add_(self.images)?)
    }
}

/// Takes `steps` steps of length `step` along the sign of the gradient of the loss, each followed by the projection on the ball;
/// gives the last point (Madry et al. 2018, equation after 2.1; with one step of length ε, Goodfellow et al. 2015, section 4).
pub(super) fn ascend(
    network: &dyn Frozen,
    labels: &Tensor,
    start: Tensor,
    ball: &LinfBall<'_>,
    step: f64,
    steps: u32,
    pulse: &mut dyn FnMut() -> Result<(), StageError>,
) -> Result<Tensor, StageError> {
    let mut points = start;
    for _ in 0..steps {
        pulse()?;
        let mut gradient = input_gradient(&points, labels, |points| network.forward(points))?;
        points = ball.project(gradient.f_sign_()?.f_mul_scalar_(step)?.f_add_(&points)?)?;
    }
    Ok(points)
}
