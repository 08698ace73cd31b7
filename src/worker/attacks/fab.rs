//! FAB, targeted: steps to the decision boundary of a linear model of the network, and back towards the image, to
//! shrink the perturbation.
//!
//! See Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack". Follows
//! AutoAttack's code, except that an image leaves at the first misclassified point in its ball.

use atflow::stage_kinds::{Attack, Fab, Member, Norm};
use tch::{Kind, TchError, Tensor};

use super::active_set::ActiveSet;
use super::apgd::target;
use super::attacked_model::AttackedModel;
use super::ensemble::{self, SubAttack, targeted};
use super::losses::lead;
use super::{Adversary, Batch};
use crate::error::StageError;

/// Keeps quotients finite: a lower bound on the slopes of a plane that they divide by.
const SMALLEST_SLOPE: f64 = 1e-12;
/// Minimum step length.
const SHORTEST: f64 = 1e-8;
/// Maximum share of a step taken from the image instead of the last point (α max).
const MOST_FROM_IMAGE: f64 = 0.1;
/// Factor by which a step overshoots the boundary (η).
const OVERSHOOT: f64 = 1.05;
/// Share of a perturbation kept at a misclassified point (β).
const BACK: f64 = 0.9;

impl Adversary for Fab {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        ensemble::attack(model, batch, self)
    }

    fn sub_attacks(&self, classes: usize, name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        let member = Member::FabT;
        Ok(Some(vec![ensemble::sub_attack(member, Attack::Fab(self.clone()), classes, name.to_owned())?]))
    }

    fn runs(&self, classes: usize) -> u32 {
        targeted(self.targets, classes)
    }

    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, run: u32) -> Result<Tensor, StageError> {
        run_once(model, batch, self, run)
    }
}

/// Executes one run of the attack, counted from 0, towards the class of that rank.
///
/// Returns the first misclassified point of each image in the ball, or the image itself.
fn run_once(model: &mut AttackedModel<'_>, batch: &Batch<'_>, fab: &Fab, run: u32) -> Result<Tensor, StageError> {
    let target = target(model, batch, run)?;
    approach(model, batch, fab, &target)
}

/// Attacks towards given classes (I64, N).
///
/// # Errors
/// [`StageError::Torch`], or the error that cancels the attack.
pub fn approach(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    fab: &Fab,
    target: &Tensor,
) -> Result<Tensor, StageError> {
    let mut active = ActiveSet::all(batch)?;
    let mut target = target.shallow_clone();
    let mut points = batch.images.shallow_clone();
    for step in 0..fab.steps {
        if active.is_empty() {
            break;
        }
        let lead = |logits: &Tensor, labels: &Tensor| lead(logits, labels, &target);
        let query = match step {
            0 => model.first_gradient(&points, batch, &lead)?,
            _ => model.gradient(&points, &active.labels, &lead)?,
        };
        // By leads with an error the search would end beside the plane, and never cross it.
        let logits = model.settle(query.logits, &points, &active.labels, 0.0)?;
        let plane = Plane::through(&points, &query.gradient, &lead(&logits, &active.labels)?)?;
        let (from_point, from_image) = (plane.nearest(&points, fab.norm)?, plane.nearest(&active.images, fab.norm)?);
        let length = |change: &Tensor| norm(change, fab.norm)?.f_clamp_min_(SHORTEST);
        let (near, far) = (length(&from_point)?, length(&from_image)?);
        let share = near.f_div(&near.f_add(&far)?)?.f_clamp_max_(MOST_FROM_IMAGE)?;
        let ahead = points.f_add(&from_point.f_mul_scalar(OVERSHOOT)?)?;
        let ahead = ahead.f_mul(&share.f_neg()?.f_add_scalar_(1.0)?)?;
        let back = active.images.f_add(&from_image.f_mul_scalar(OVERSHOOT)?)?.f_mul(&share)?;
        points = ahead.f_add(&back)?.f_clamp_(0.0, 1.0)?;

        let logits = model.logits(&points)?;
        let wrong = model.broken(logits, &points, &active.labels)?;
        let change = points.f_sub(&active.images)?;
        let in_ball = norm(&change, fab.norm)?.f_view(-1)?.f_le(fab.eps.get())?;
        let leaving = wrong.f_logical_and(&in_ball)?;
        let closer = active.images.f_add(&change.f_mul_scalar(BACK)?)?;
        let mut next = closer.f_where_self(&wrong.f_view([-1, 1, 1, 1])?, &points)?;
        if let Some(remaining) = active.remove(&leaving, &points)? {
            remaining.keep(&mut next, 0)?;
            remaining.keep(&mut target, 0)?;
        }
        points = next;
    }
    let images = active.images.shallow_clone();
    Ok(active.finish(&images)?)
}

/// Computes the norm of each image, N × 1 × 1 × 1.
fn norm(images: &Tensor, norm: Norm) -> Result<Tensor, TchError> {
    match norm {
        Norm::Inf => images.f_abs()?.f_amax([1i64, 2, 3].as_slice(), true),
        Norm::L2 => super::ball::l2(images),
    }
}

/// A hyperplane per image: the points z with w · z = b.
pub struct Plane {
    /// w, N × D.
    slope: Tensor,
    /// b, N × 1.
    offset: Tensor,
}

impl Plane {
    /// Linearises a function with these values (N) and gradients at some points, and returns its zero plane.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn through(points: &Tensor, gradient: &Tensor, values: &Tensor) -> Result<Self, TchError> {
        let slope = gradient.f_flatten(1, -1)?;
        let height = sum(&slope.f_mul(&points.f_flatten(1, -1)?)?)?;
        Ok(Plane { offset: height.f_sub(&values.f_view([-1, 1])?)?, slope })
    }

    /// Computes the smallest change of each point, in a norm, that reaches the plane within [0, 1].
    ///
    /// If no change reaches it, returns the one that comes closest.
    ///
    /// With room r_i before the border, a change of length λ moves every coordinate towards the plane by min(λ s_i,
    /// r_i). Here s_i is 1 in L-infinity, and |w_i| in L2. The distance covered is piecewise linear in λ: the pieces
    /// are sorted, and the one that arrives is solved.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn nearest(&self, points: &Tensor, norm: Norm) -> Result<Tensor, TchError> {
        let flat = points.f_flatten(1, -1)?;
        let distance = sum(&self.slope.f_mul(&flat)?)?.f_sub(&self.offset)?;
        let side = distance.f_ge(0.0)?.f_to_kind(Kind::Float)?.f_mul_scalar_(2.0)?.f_sub_scalar_(1.0)?;
        let (slope, distance) = (self.slope.f_mul(&side)?, distance.f_abs()?);
        let room = flat.f_where_self(&slope.f_ge(0.0)?, &flat.f_neg()?.f_add_scalar_(1.0)?)?;
        let steep = slope.f_abs()?;
        let (speed, gain) = match norm {
            Norm::Inf => (steep.f_ne(0.0)?.f_to_kind(Kind::Float)?, steep.shallow_clone()),
            Norm::L2 => (steep.shallow_clone(), steep.f_square()?),
        };
        let (ends, order) = room.f_div(&speed.f_clamp_min(SMALLEST_SLOPE)?)?.f_sort(1, false)?;
        let sorted = |tensor: &Tensor| tensor.f_gather(1, &order, false)?.f_cumsum(1, Kind::Float);
        // The total contribution of coordinates that have reached the border, and the contribution of the others per
        // unit of length.
        let (arrived, stopped) = (sorted(&steep.f_mul(&room)?)?, sorted(&gain)?);
        let total = sum(&gain)?;
        let reached = arrived.f_add(&ends.f_mul(&total.f_sub(&stopped)?)?)?;
        let piece = reached.f_lt_tensor(&distance)?.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Int64)?;
        let count = ends.size()[1];
        let before = |tensor: &Tensor| {
            let value = tensor.f_gather(1, &piece.f_sub_scalar(1)?.f_clamp_min_(0)?, false)?;
            value.f_mul(&piece.f_gt(0)?.f_to_kind(Kind::Float)?)
        };
        let rest = total.f_sub(&before(&stopped)?)?.f_clamp_min_(SMALLEST_SLOPE)?;
        let length = distance.f_sub(&before(&arrived)?)?.f_div(&rest)?;
        let furthest = Tensor::f_full(length.size(), f64::from(f32::MAX), (Kind::Float, length.device()))?;
        let length = furthest.f_where_self(&piece.f_eq(count)?, &length)?;
        let change = speed.f_mul(&length)?.f_minimum(&room)?.f_mul(&slope.f_sign()?)?.f_neg()?;
        change.f_view_as(points)
    }
}

fn sum(rows: &Tensor) -> Result<Tensor, TchError> {
    rows.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{DrawTensor, Rng, Stream};
    use tch::Device;

    /// The Karush-Kuhn-Tucker conditions: the point is in the plane and in [0, 1]. No coordinate with room left moves
    /// less far than the others.
    #[test]
    fn the_nearest_point_of_a_plane_is_nearest() {
        let draw = |purpose: &str, draw: fn(&mut Stream) -> f32| {
            Rng::new(1).tensor(purpose, &[], &[0, 1, 2, 3, 4, 5], &[2, 3, 4], Device::Cpu, draw).unwrap()
        };
        let (points, slope) = (draw("points", Stream::unit), draw("slope", Stream::normal));
        // Some far away, on either side: 40 is out of reach.
        let values = Tensor::from_slice(&[0.1f32, -0.5, 2.0, -3.0, 0.0, 40.0]);
        let plane = Plane::through(&points, &slope, &values).unwrap();
        for norm in [Norm::Inf, Norm::L2] {
            let change = plane.nearest(&points, norm).unwrap();
            let moved = &points + &change;
            assert!(moved.min().double_value(&[]) >= -1e-6 && moved.max().double_value(&[]) <= 1.0 + 1e-6);
            let left =
                (&slope * &change).flatten(1, -1).sum_dim_intlist([1i64].as_slice(), false, Kind::Float) + &values;
            for index in 0..6 {
                let left = left.double_value(&[index]);
                let at = |tensor: &Tensor| Vec::<f32>::try_from(tensor.get(index).reshape(-1)).unwrap();
                let (change, slope, moved) = (at(&change), at(&slope), at(&moved));
                let is_free = |at: usize| moved[at] > 1e-5 && moved[at] < 1.0 - 1e-5;
                if index == 5 {
                    assert!(left > 1.0 && (0..24).all(|at| !is_free(at)), "{norm:?}: everything is at its end");
                    continue;
                }
                assert!(left.abs() < 1e-4, "{norm:?} {index}: {left}");
                let speed = |at: usize| if norm == Norm::Inf { 1.0 } else { slope[at].abs() };
                let longest = (0..24).map(|at| change[at].abs() / speed(at)).fold(0.0, f32::max);
                for at in (0..24).filter(|&at| is_free(at)) {
                    assert!(
                        (change[at].abs() / speed(at) - longest).abs() < 1e-3 * longest + 1e-5,
                        "{norm:?} {index} {at}"
                    );
                }
            }
        }
    }
}
