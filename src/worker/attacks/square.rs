//! Square Attack (Andriushchenko et al. 2020): random search that changes one square of an image at a time and keeps
//! changes that lower the margin.
//!
//! Follows AutoAttack's code, except that each image draws its own random squares from its own stream; in AutoAttack
//! all images of a batch share them.

use atflow::stage_kinds::{Attack, Member, Norm, Square};
use tch::{Device, Kind, TchError, Tensor};

use super::active_set::ActiveSet;
use super::attacked_model::AttackedModel;
use super::ball::{Ball, SMALLEST_NORM, l2};
use super::ensemble::{self, SubAttack};
use super::losses;
use super::{Adversary, Batch};
use crate::arithmetic::square_root;
use crate::error::StageError;
use crate::rng::Stream;

impl Adversary for Square {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        ensemble::attack(model, batch, self)
    }

    fn sub_attacks(&self, classes: usize, name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        let member = Member::Square;
        Ok(Some(vec![ensemble::sub_attack(member, Attack::Square(self.clone()), classes, name.to_owned())?]))
    }

    fn runs(&self, _: usize) -> u32 {
        self.restarts
    }

    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, run: u32) -> Result<Tensor, StageError> {
        run_once(model, batch, self, run)
    }
}

/// Executes one run of the attack, counted from 0.
///
/// Returns the first misclassified point of each image, or the point with the smallest margin.
fn run_once(model: &mut AttackedModel<'_>, batch: &Batch<'_>, square: &Square, run: u32) -> Result<Tensor, StageError> {
    let (_, channels, height, width) = batch.images.size4()?;
    let key = |index: u64| [batch.epoch, u64::from(run), index];
    let streams = batch.indices.iter().map(|&index| model.rng.stream("square", &key(index))).collect();
    let mut draws = Draws { streams, channels, height, width, device: batch.images.device() };
    let mut active = ActiveSet::all(batch)?;
    let eps = square.eps.get();
    let ball = Ball::new(batch.images, square.norm, eps)?;
    let mut best = match square.norm {
        Norm::Inf => ball.project_then_clamp(&batch.images.f_add(&draws.stripes()?.f_mul_scalar(eps)?)?)?,
        Norm::L2 => full_radius(&ball, batch.images, &draws.tiles()?, eps)?,
    };
    let mut margin = margins(model, &best, batch.labels)?;
    leave(&mut active, &mut draws, &mut best, &mut margin)?;
    for query in 0..square.queries {
        if active.is_empty() {
            break;
        }
        let share = share(square, query);
        let new = match square.norm {
            Norm::Inf => {
                let squares = draws.squares(side(share, height, width, false))?;
                next_inf(&active.images, &best, &squares, eps)?
            }
            Norm::L2 => {
                let side = side(share, height, width, true);
                let (into, out_of) = (draws.windows(side)?, draws.windows(side)?);
                let bumps = draws.bumps(side)?;
                next_l2(&active.images, &best, [&into, &out_of], &bumps, eps)?
            }
        };
        let new_margin = margins(model, &new, &active.labels)?;
        let better = new_margin.f_lt_tensor(&margin)?.f_logical_or(&new_margin.f_le(0.0)?)?;
        best = new.f_where_self(&better.f_view([-1, 1, 1, 1])?, &best)?;
        margin = new_margin.f_where_self(&better, &margin)?;
        leave(&mut active, &mut draws, &mut best, &mut margin)?;
    }
    Ok(active.finish(&best)?)
}

/// Computes the margin of each point, N.
fn margins(model: &mut AttackedModel<'_>, points: &Tensor, labels: &Tensor) -> Result<Tensor, StageError> {
    let logits = model.logits(points)?;
    Ok(losses::margin(&model.settle(logits, points, labels, 0.0)?, labels)?)
}

/// Removes the images with a margin of 0 or below.
fn leave(active: &mut ActiveSet, draws: &mut Draws, best: &mut Tensor, margin: &mut Tensor) -> Result<(), TchError> {
    let Some(remaining) = active.remove(&margin.f_le(0.0)?, best)? else { return Ok(()) };
    remaining.keep(best, 0)?;
    remaining.keep(margin, 0)?;
    let mut index = 0;
    draws.streams.retain(|_| {
        index += 1;
        remaining.staying.binary_search(&(index - 1)).is_ok()
    });
    Ok(())
}

/// Returns the share of the image that a square covers at a query, counted from 0.
///
/// The share is halved at fixed queries, defined for 10,000 queries in total.
pub fn share(square: &Square, query: u32) -> f64 {
    const HALVED_AFTER: [u64; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let query = match square.rescale_schedule {
        true => u64::from(query) * 10_000 / u64::from(square.queries),
        false => u64::from(query),
    };
    let halvings = HALVED_AFTER.iter().filter(|&&after| query > after).count();
    square.p_init.get() / f64::from(1u32 << halvings)
}

/// Returns the side of a square that covers a share of the image: at least 1, and never more than the image.
///
/// In the L2 ball it is odd and at least 3.
fn side(share: f64, height: i64, width: i64, is_odd: bool) -> i64 {
    let side = (share * (height * width) as f64).sqrt().round_ties_even() as i64;
    let side = if is_odd { side.max(3) | 1 } else { side.max(1) };
    side.min(height).min(width)
}

/// Returns the point at full radius in the direction of a change, clamped to [0, 1].
fn full_radius(ball: &Ball<'_>, images: &Tensor, change: &Tensor, eps: f64) -> Result<Tensor, TchError> {
    let change = change.f_div(&l2(change)?.f_add_scalar_(SMALLEST_NORM)?)?.f_mul_scalar_(eps)?;
    ball.project_then_clamp(&images.f_add(&change)?)
}

/// Returns the next candidate in the L-infinity ball (section 3.2 of the paper, algorithm 2).
///
/// Adds 2 ε times `squares` (N × C × H × W, −1 or 1 in a square and 0 around it) to `best`. The result stays within ε
/// of the images and within [0, 1]. Each pixel of the square thus moves to one end of its range.
///
/// # Errors
/// Returns the error from libtorch.
pub fn next_inf(images: &Tensor, best: &Tensor, squares: &Tensor, eps: f64) -> Result<Tensor, TchError> {
    Ball::new(images, Norm::Inf, eps)?.project_then_clamp(&best.f_add(&squares.f_mul_scalar(2.0 * eps)?)?)
}

/// Returns the next candidate in the L2 ball (section 3.3 of the paper, algorithm 3).
///
/// Moves the norm of the change from one window to another, where it takes the shape of a bump. Then scales the change
/// to full radius. The windows are the gaining and the losing one, as indices into H · W (I64, N × C × side²). `bumps`
/// has the shape of one of them (N × C × side²).
///
/// # Errors
/// Returns the error from libtorch.
pub fn next_l2(
    images: &Tensor,
    best: &Tensor,
    [into, out_of]: [&Tensor; 2],
    bumps: &Tensor,
    eps: f64,
) -> Result<Tensor, TchError> {
    let change = best.f_sub(images)?;
    let channels = change.size()[1] as f64;
    let flat = change.f_flatten(2, -1)?;
    let norm = |windows: &Tensor| windows.f_norm_scalaropt_dim(2.0, [2i64].as_slice(), true);
    let whole = |tensor: &Tensor| tensor.f_norm_scalaropt_dim(2.0, [1i64, 2].as_slice(), true);
    let (old, zero) = (flat.f_gather(2, into, false)?, into.f_zeros_like()?.f_to_kind(Kind::Float)?);
    let outside = flat.f_scatter(2, into, &zero)?.f_scatter(2, out_of, &zero)?;
    let of_windows = whole(&flat.f_sub(&outside)?)?;
    let unused = whole(&flat)?.f_square()?.f_neg()?.f_add_scalar(eps * eps)?.f_clamp_min(0.0)?;
    let budget = square_root(&unused.f_div_scalar(channels)?.f_add(&of_windows.f_square()?)?)?;
    let new = bumps.f_add(&old.f_div(&norm(&old)?.f_add_scalar(SMALLEST_NORM)?)?)?;
    let new = new.f_div(&norm(&new)?.f_add_scalar(SMALLEST_NORM)?)?.f_mul(&budget)?;
    let change = outside.f_scatter(2, into, &new)?.f_view_as(&change)?;
    full_radius(&Ball::new(images, Norm::L2, eps)?, images, &change, eps)
}

/// The random streams of the remaining images.
struct Draws {
    streams: Vec<Stream>,
    channels: i64,
    height: i64,
    width: i64,
    device: Device,
}

impl Draws {
    /// Draws −1 or 1 per channel, N × C × 1 × `width`.
    fn signs(&mut self, width: i64) -> Result<Tensor, TchError> {
        let count = self.channels * width;
        let sign = |stream: &mut Stream| if stream.below(2) == 0 { -1f32 } else { 1f32 };
        let signs: Vec<f32> =
            self.streams.iter_mut().flat_map(|stream| (0..count).map(|_| sign(stream)).collect::<Vec<_>>()).collect();
        Tensor::f_from_slice(&signs)?.f_view([-1, self.channels, 1, width])?.f_to_device(self.device)
    }

    /// Draws vertical stripes of one pixel's width, −1 or 1 in each channel: N × C × 1 × W.
    fn stripes(&mut self) -> Result<Tensor, TchError> {
        self.signs(self.width)
    }

    /// Draws the upper left corners of windows, each N.
    ///
    /// As in AutoAttack's code, a window does not touch the last row or column, unless it is as large as the image.
    fn corners(&mut self, side: i64) -> Result<[Tensor; 2], TchError> {
        let (rows, columns) = ((self.height - side).max(1) as u64, (self.width - side).max(1) as u64);
        let corners: Vec<[i64; 2]> =
            self.streams.iter_mut().map(|stream| [stream.below(rows) as i64, stream.below(columns) as i64]).collect();
        let column = |axis: usize| {
            let list: Vec<i64> = corners.iter().map(|corner| corner[axis]).collect();
            Tensor::f_from_slice(&list)?.f_to_device(self.device)
        };
        Ok([column(0)?, column(1)?])
    }

    /// Draws a square in each image, −1 or 1 in each channel, and 0 around it: N × C × H × W.
    fn squares(&mut self, side: i64) -> Result<Tensor, TchError> {
        let corners = self.corners(side)?;
        let inside = |corner: &Tensor, length: i64| {
            let distance = Tensor::f_arange(length, (Kind::Int64, corner.device()))?.f_sub(&corner.f_view([-1, 1])?)?;
            distance.f_ge(0)?.f_logical_and(&distance.f_lt(side)?)?.f_to_kind(Kind::Float)
        };
        let rows = inside(&corners[0], self.height)?.f_view([-1, 1, self.height, 1])?;
        let columns = inside(&corners[1], self.width)?.f_view([-1, 1, 1, self.width])?;
        rows.f_mul(&columns)?.f_mul(&self.signs(1)?)
    }

    /// Draws a window in each image, as indices into H · W: N × C × `side`².
    fn windows(&mut self, side: i64) -> Result<Tensor, TchError> {
        let [row, column] = self.corners(side)?;
        let first = row.f_mul_scalar(self.width)?.f_add(&column)?.f_view([-1, 1, 1])?;
        let range = Tensor::f_arange(side, (Kind::Int64, first.device()))?;
        let inner = range.f_mul_scalar(self.width)?.f_view([-1, 1])?.f_add(&range)?.f_view([1, 1, -1])?;
        first.f_add(&inner)?.f_expand([-1, self.channels, side * side], false)
    }

    /// Draws a bump for each image, horizontal or vertical, with a random sign per channel: N × C × `side`².
    fn bumps(&mut self, side: i64) -> Result<Tensor, TchError> {
        let lying = bump(side);
        let standing: Vec<f32> = (0..side * side).map(|at| lying[(at % side * side + at / side) as usize]).collect();
        let mut bumps = Vec::with_capacity(self.streams.len() * lying.len());
        for stream in &mut self.streams {
            bumps.extend_from_slice(if stream.below(2) == 0 { &lying } else { &standing });
        }
        let bumps = Tensor::f_from_slice(&bumps)?.f_view([-1, 1, side * side])?.f_to_device(self.device)?;
        bumps.f_mul(&self.signs(1)?.f_view([-1, self.channels, 1])?)
    }

    /// Covers the image with bumps, each a fifth of its height: N × C × H × W. The remainder is at the border.
    fn tiles(&mut self) -> Result<Tensor, TchError> {
        let (height, width) = (self.height, self.width);
        let side = (height / 5).max(1);
        let first = (height - side * 5).max(0) / 2;
        let tiles =
            Tensor::f_zeros([self.streams.len() as i64, self.channels, height, width], (Kind::Float, self.device))?;
        let starts =
            |length: i64| (0..length / side).map(move |at| first + at * side).filter(move |at| at + side <= length);
        for row in starts(height) {
            for column in starts(width) {
                let bumps = self.bumps(side)?.f_view([-1, self.channels, side, side])?;
                tiles.f_narrow(2, row, side)?.f_narrow(3, column, side)?.f_copy_(&bumps)?;
            }
        }
        Ok(tiles)
    }
}

/// Returns two adjacent hills, one positive and one negative, of norm 1: `side`² values, row by row.
///
/// This is equation 2 in section 3.3 of the paper.
pub fn bump(side: i64) -> Vec<f32> {
    let upper = hill(side / 2, side);
    let lower = hill(side - side / 2, side);
    let both: Vec<f64> = upper.into_iter().chain(lower.into_iter().map(|value| -value)).collect();
    unit(both).into_iter().map(|value| value as f32).collect()
}

/// Returns a hill of norm 1: a sum of rectangles around the middle that grow larger and fainter.
fn hill(rows: i64, columns: i64) -> Vec<f64> {
    let (middle_row, middle_column) = (rows / 2, columns / 2);
    let rings = (middle_row + 1).max(middle_column + 1);
    let mut hill = vec![0.0; (rows * columns) as usize];
    for ring in 0..rings {
        let inside = |at: i64, middle: i64| at >= middle - ring && at <= middle + ring;
        for row in (0..rows).filter(|&row| inside(row, middle_row)) {
            for column in (0..columns).filter(|&column| inside(column, middle_column)) {
                hill[(row * columns + column) as usize] += 1.0 / ((ring + 1) as f64).powi(2);
            }
        }
    }
    unit(hill)
}

fn unit(mut values: Vec<f64>) -> Vec<f64> {
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    if norm > 0.0 {
        values.iter_mut().for_each(|value| *value /= norm);
    }
    values
}
