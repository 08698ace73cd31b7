//! The spatially transforming attack (Xiao et al. 2018) as in the authors' code: moves pixels along a smooth flow that
//! increases the loss.

use atflow::stage_kinds::{BaseGrid, Spatial};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::attacked_model::AttackedModel;
use super::lbfgs::Lbfgs;
use super::{Adversary, Batch};
use crate::arithmetic::square_root;
use crate::error::StageError;
use crate::networks::Frozen;

/// Keeps the root of the total variation differentiable at 0.
const SOFTENING: f64 = 1e-7;
/// libtorch's codes for bilinear interpolation and zero padding.
const BILINEAR: i64 = 0;
const ZEROS: i64 = 0;

impl Adversary for Spatial {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        attack(model, batch, self)
    }
}

/// Attacks a batch; all of its images share one optimiser.
fn attack(model: &mut AttackedModel<'_>, batch: &Batch<'_>, spatial: &Spatial) -> Result<Tensor, StageError> {
    let (count, channels, height, width) = batch.images.size4()?;
    let device = batch.images.device();
    let lens = Lens {
        mean: mean_colour(model.network(), channels, device)?,
        grid: base_grid(spatial, height, width, device)?,
        align_corners: spatial.align_corners,
    };
    let size = [count, height, width, 2];
    let mut optimizer =
        Lbfgs::new(spatial.lr.get(), spatial.max_iter, spatial.tolerance_grad.get(), spatial.tolerance_change.get());
    let mut flow = Tensor::f_zeros([size.iter().product::<i64>()], (Kind::Float, device))?;
    let mut is_first = true;
    for _ in 0..spatial.steps {
        let mut objective = |flow: &Tensor| {
            let query = model.query(&flow.f_view(size)?, |network, flow| {
                let logits = network.forward(&lens.warp(batch.images, flow)?)?;
                Ok((objective(&logits, batch.labels, flow, spatial.tau.get())?, logits))
            })?;
            if std::mem::take(&mut is_first) {
                model.count(&query.gradient, &query.logits, batch)?;
            }
            let gradient = query.gradient.f_view(-1)?.f_nan_to_num_(0.0, None, None)?;
            Ok((query.losses.f_double_value(&[])?, gradient))
        };
        flow = optimizer.step(flow, &mut objective)?;
    }
    Ok(lens.warp(batch.images, &flow.f_view(size)?)?.f_clamp_(0.0, 1.0)?)
}

/// Computes the batch mean of −cross-entropy plus `tau` times the total variation of the flow (N × H × W × 2).
fn objective(logits: &Tensor, labels: &Tensor, flow: &Tensor, tau: f64) -> Result<Tensor, TchError> {
    let loss = logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
    total_variation(flow)?.f_mul_scalar(tau)?.f_sub(&loss)
}

/// Computes the total variation: the sum of √(1e-7 + squared distance of flows) over neighbouring pixels.
///
/// The sum covers rows and columns and is divided by the number of images.
fn total_variation(flow: &Tensor) -> Result<Tensor, TchError> {
    let along = |axis: i64| {
        let side = flow.size()[axis as usize];
        let difference = flow.f_narrow(axis, 1, side - 1)?.f_sub(&flow.f_narrow(axis, 0, side - 1)?)?;
        let squares = difference.f_square()?.f_sum_dim_intlist([3i64].as_slice(), false, Kind::Float)?;
        square_root(&squares.f_add_scalar(SOFTENING)?)?.f_sum(Kind::Float)
    };
    along(2)?.f_add(&along(1)?)?.f_div_scalar(flow.size()[0] as f64)
}

/// The sampling setup.
struct Lens {
    /// The colour beyond the border, 1 × C × 1 × 1.
    mean: Tensor,
    /// The source position of each pixel without flow, as x and y from −1 to 1: 1 × H × W × 2.
    grid: Tensor,
    align_corners: bool,
}

impl Lens {
    /// Warps images by a flow.
    ///
    /// The authors sample normalised images, which are 0 beyond the border; here that is the mean colour.
    fn warp(&self, images: &Tensor, flow: &Tensor) -> Result<Tensor, TchError> {
        let images = images.f_sub(&self.mean)?;
        images.f_grid_sampler(&self.grid.f_add(flow)?, BILINEAR, ZEROS, self.align_corners)?.f_add(&self.mean)
    }
}

/// Returns the colour that the network's normalisation maps to 0; black without normalisation.
fn mean_colour(network: &dyn Frozen, channels: i64, device: Device) -> Result<Tensor, TchError> {
    let colour = |value: f64| Tensor::f_full([1, channels, 1, 1], value, (Kind::Float, device));
    // (c − mean) / std is a line through these two points.
    let (black, white) = (network.normalise(&colour(0.0)?)?, network.normalise(&colour(1.0)?)?);
    black.f_neg()?.f_div(&white.f_sub(&black)?)
}

fn base_grid(spatial: &Spatial, height: i64, width: i64, device: Device) -> Result<Tensor, TchError> {
    // The authors' grid ends at −1 and 1, whether or not these are pixel centres.
    let corners_are_centres = spatial.align_corners || spatial.grid == BaseGrid::Authors;
    let axis = |length: i64| {
        let at = Tensor::f_arange(length, (Kind::Float, device))?;
        let (middle, half) = match corners_are_centres {
            true => ((length - 1) as f64 / 2.0, ((length - 1) as f64 / 2.0).max(0.5)),
            false => ((length - 1) as f64 / 2.0, length as f64 / 2.0),
        };
        at.f_sub_scalar(middle)?.f_div_scalar(half)
    };
    let rows = axis(height)?.f_view([-1, 1])?.f_expand([height, width], false)?;
    let columns = axis(width)?.f_view([1, -1])?.f_expand([height, width], false)?;
    let pair = match spatial.grid {
        BaseGrid::Correct => [columns, rows],
        BaseGrid::Authors => [rows, columns],
    };
    Tensor::f_stack(&pair, -1)?.f_unsqueeze(0)
}
