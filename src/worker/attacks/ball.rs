//! The points an adversary may reach: a ball around each image, intersected with [0, 1]. Knows norms, and no attack.

use atflow::stage_kinds::Norm;
use tch::{TchError, Tensor};

use super::Batch;
use crate::rng::{DrawTensor, Rng, Stream};

/// Keeps quotients by norms finite: a lower bound on norms, or a summand as in the code of AutoAttack.
pub(super) const SMALLEST_NORM: f64 = 1e-12;

/// The ball around each image.
pub(super) struct Ball<'a> {
    images: &'a Tensor,
    eps: f64,
    shape: Shape,
}

enum Shape {
    /// Both the ball and [0, 1] are boxes around the image, so projecting onto both is one clamp between two bounds.
    Box {
        lowest: Tensor,
        highest: Tensor,
    },
    Sphere,
}

impl<'a> Ball<'a> {
    pub(super) fn new(images: &'a Tensor, norm: Norm, eps: f64) -> Result<Self, TchError> {
        let shape = match norm {
            Norm::Inf => Shape::Box {
                lowest: images.f_sub_scalar(eps)?.f_clamp_min_(0.0)?,
                highest: images.f_add_scalar(eps)?.f_clamp_max_(1.0)?,
            },
            Norm::L2 => Shape::Sphere,
        };
        Ok(Ball { images, eps, shape })
    }

    /// Clamps points to [0, 1], then projects them onto the ball, in the order of the authors' code. Modifies its
    /// argument.
    pub(super) fn project(&self, mut points: Tensor) -> Result<Tensor, TchError> {
        match &self.shape {
            Shape::Box { lowest, highest } => points.f_clamp_tensor_(Some(lowest), Some(highest)),
            Shape::Sphere => {
                let change = points.f_clamp_(0.0, 1.0)?.f_sub(self.images)?;
                let factor = l2(&change)?.f_clamp_min_(SMALLEST_NORM)?.f_reciprocal_()?.f_mul_scalar_(self.eps)?;
                // Rounding may leave [0, 1] again, by a rounding error.
                self.images.f_add(&change.f_mul(&factor.f_clamp_max(1.0)?)?)?.f_clamp_(0.0, 1.0)
            }
        }
    }

    /// Projects points onto the ball, then clamps them to [0, 1], like AutoAttack.
    ///
    /// In the L2 ball this order gives other points than `project`.
    pub(super) fn project_then_clamp(&self, points: &Tensor) -> Result<Tensor, TchError> {
        match &self.shape {
            Shape::Box { lowest, highest } => points.f_clamp_tensor(Some(lowest), Some(highest)),
            Shape::Sphere => {
                let change = points.f_sub(self.images)?;
                let norm = l2(&change)?;
                let length = norm.f_clamp_max(self.eps)?;
                let change = change.f_div(&norm.f_add_scalar(SMALLEST_NORM)?)?.f_mul(&length)?;
                self.images.f_add(&change)?.f_clamp_(0.0, 1.0)
            }
        }
    }

    /// Draws a point uniformly from the ball, clamped to [0, 1]; each restart, counted from 0, draws another one.
    pub(super) fn random_point(&self, batch: &Batch<'_>, rng: Rng, restart: u32) -> Result<Tensor, TchError> {
        let (shape, device) = (&batch.images.size()[1..], batch.images.device());
        let restarts = [u64::from(restart), batch.epoch];
        let (purpose, key) = match restart {
            0 => ("attack start", &restarts[1..]),
            _ => ("attack restart", &restarts[..]),
        };
        let draws = |purpose: &str, shape: &[i64], draw: fn(&mut Stream) -> f32| {
            rng.tensor(purpose, key, batch.indices, shape, device, draw)
        };
        let change = match &self.shape {
            Shape::Box { .. } => draws(purpose, shape, symmetric)?,
            Shape::Sphere => {
                // A direction, and a radius whose d-th power is uniform, because the enclosed volume is.
                let dimensions = shape.iter().product::<i64>() as f64;
                let normal = draws(purpose, shape, Stream::normal)?;
                let unit = draws(&format!("{purpose} radius"), &[1, 1, 1], Stream::unit)?;
                normal
                    .f_div(&l2(&normal)?.f_clamp_min_(SMALLEST_NORM)?)?
                    .f_mul(&unit.f_pow_tensor_scalar(1.0 / dimensions)?)?
            }
        };
        self.project(change.f_mul_scalar(self.eps)?.f_add_(self.images)?)
    }

    /// Draws a point at full radius, clamped to [0, 1]: APGD's start. `purpose` and `run` key the draws.
    pub(super) fn far_point(&self, batch: &Batch<'_>, rng: Rng, purpose: &str, run: u32) -> Result<Tensor, TchError> {
        let (shape, device) = (&batch.images.size()[1..], batch.images.device());
        let draw = match &self.shape {
            Shape::Box { .. } => symmetric,
            Shape::Sphere => Stream::normal,
        };
        let change = rng.tensor(purpose, &[batch.epoch, u64::from(run)], batch.indices, shape, device, draw)?;
        let mut norm = match &self.shape {
            Shape::Box { .. } => change.f_abs()?.f_amax([1i64, 2, 3].as_slice(), true)?,
            Shape::Sphere => l2(&change)?,
        };
        let change = change.f_div(&norm.f_add_scalar_(SMALLEST_NORM)?)?.f_mul_scalar_(self.eps)?;
        self.images.f_add(&change)?.f_clamp_(0.0, 1.0)
    }
}

/// Computes the L2 norm of each image, N × 1 × 1 × 1.
pub(super) fn l2(images: &Tensor) -> Result<Tensor, TchError> {
    images.f_norm_scalaropt_dim(2.0, [1i64, 2, 3].as_slice(), true)
}

/// Divides each image by its L2 norm; an image of zeros is unchanged.
pub(super) fn unit_l2(images: &Tensor) -> Result<Tensor, TchError> {
    images.f_div(&l2(images)?.f_clamp_min_(SMALLEST_NORM)?)
}

/// Draws uniformly from [−1, 1).
fn symmetric(stream: &mut Stream) -> f32 {
    stream.uniform(-1.0, 1.0)
}
