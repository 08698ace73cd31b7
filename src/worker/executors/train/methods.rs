//! Extra parts of free adversarial training, TRADES and MART: the perturbation kept across batches, ascent from noise,
//! and the losses.
//!
//! Knows nothing about epochs and optimisers.

use atflow::stage_kinds::Trades;
use tch::{Kind, Reduction, TchError, Tensor};

use crate::attacks::Batch;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::{DrawTensor, Rng};

/// Standard deviation of the random start of TRADES and MART, in pixel units of [0, 1].
const START: f32 = 0.001;

/// The perturbation of free adversarial training: one row per batch position, shared by all batches, initially zero.
#[derive(Debug, Default)]
pub(super) struct SharedPerturbation {
    rows: Option<Tensor>,
}

impl SharedPerturbation {
    /// Returns the state to save; `None` before the first step.
    pub(super) fn state(&self) -> Option<&Tensor> {
        self.rows.as_ref()
    }

    /// Restores the result of [`SharedPerturbation::state`].
    pub(super) fn restore(&mut self, rows: Tensor) {
        self.rows = Some(rows);
    }

    /// Returns the rows for a batch of at most `most` images.
    pub(super) fn rows(&mut self, images: &Tensor, most: i64) -> Result<Tensor, TchError> {
        let mut shape = images.size();
        let count = shape[0];
        shape[0] = most;
        let rows = match &self.rows {
            Some(rows) if rows.size() == shape => rows,
            _ => self.rows.insert(Tensor::f_zeros(&shape[..], (Kind::Float, images.device()))?),
        };
        rows.f_narrow(0, 0, count)
    }

    /// Moves the rows of a batch by `eps` along the sign of the loss gradient.
    ///
    /// Projects the result back into the ball around each image and into [0, 1].
    pub(super) fn ascend(rows: &Tensor, images: &Tensor, gradient: &Tensor, eps: f64) -> Result<(), TchError> {
        let moved = gradient.f_sign()?.f_mul_scalar_(eps)?.f_add_(rows)?.f_clamp_(-eps, eps)?;
        let (lowest, highest) = (images.f_neg()?, images.f_neg()?.f_add_scalar_(1.0)?);
        let moved = moved.f_clamp_tensor(Some(&lowest), Some(&highest))?;
        rows.shallow_clone().f_copy_(&moved)
    }
}

/// What the perturbation of a method raises.
pub(super) enum Ascent {
    /// The divergence of the network's output from its clean output (TRADES).
    Divergence,
    /// The cross-entropy of the true classes (MART).
    CrossEntropy,
}

/// Perturbs a batch by signed steps from noise.
///
/// # Errors
/// [`StageError::Torch`], or the error from `check_cancelled`.
pub(super) fn ascend_from_noise(
    trades: &Trades,
    ascent: &Ascent,
    network: &dyn Frozen,
    batch: &Batch<'_>,
    rng: Rng,
    check_cancelled: &mut dyn FnMut() -> Result<(), StageError>,
) -> Result<Tensor, StageError> {
    let (images, eps) = (batch.images, trades.eps.get());
    let lowest = images.f_sub_scalar(eps)?.f_clamp_min_(0.0)?;
    let highest = images.f_add_scalar(eps)?.f_clamp_max_(1.0)?;
    let (purpose, clean) = match ascent {
        Ascent::Divergence => ("trades start", Some(network.forward(images)?.f_softmax(1, Kind::Float)?)),
        Ascent::CrossEntropy => ("mart start", None),
    };
    let shape = &images.size()[1..];
    let mut noise =
        rng.tensor(purpose, &[batch.epoch], batch.indices, shape, images.device(), |stream| START * stream.normal())?;
    let mut points = noise.f_add_(images)?;
    for _ in 0..trades.steps {
        check_cancelled()?;
        let gradient = tch::with_grad(|| {
            let points = points.f_detach()?.f_set_requires_grad(true)?;
            let logits = network.forward(&points)?;
            let loss = match &clean {
                // The divergence without the term that no perturbation changes.
                Some(clean) => logits.f_log_softmax(1, Kind::Float)?.f_mul(clean)?.f_sum(Kind::Float)?.f_neg()?,
                None => logits.f_cross_entropy_loss(batch.labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?,
            };
            let gradients = Tensor::f_run_backward(&[loss], &[points], false, false)?;
            gradients.into_iter().next().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))
        })?;
        let moved = gradient.f_sign()?.f_mul_scalar_(trades.step.get())?.f_add_(&points)?;
        points = moved.f_clamp_tensor(Some(&lowest), Some(&highest))?;
    }
    Ok(points)
}

/// Computes KL(clean ‖ perturbed) of two sets of logits, the mean over images; gradients flow through both.
pub(super) fn divergence(clean: &Tensor, perturbed: &Tensor) -> Result<Tensor, TchError> {
    let (clean, perturbed) = (clean.f_log_softmax(1, Kind::Float)?, perturbed.f_log_softmax(1, Kind::Float)?);
    let count = clean.size()[0] as f64;
    clean.f_exp()?.f_mul(&clean.f_sub(&perturbed)?)?.f_sum(Kind::Float)?.f_div_scalar(count)
}

/// Computes the loss of MART, the mean over images (Wang et al. 2020, equation 11, with the constants of the authors'
/// code): boosted cross-entropy of the perturbed images, and `beta` times the weighted divergence.
///
/// `cross_entropy` is that of the perturbed images.
pub(super) fn mart_loss(
    clean: &Tensor,
    perturbed: &Tensor,
    labels: &Tensor,
    cross_entropy: &Tensor,
    beta: f64,
) -> Result<Tensor, TchError> {
    let labels = labels.f_unsqueeze(1)?;
    let of = |shares: &Tensor, classes: &Tensor| shares.f_gather(1, classes, false);
    let said = perturbed.f_softmax(1, Kind::Float)?;
    // The likeliest wrong class of each perturbed image.
    let wrong = said.f_scatter_value(1, &labels, -1.0)?.f_argmax(1, true)?;
    let margin = of(&said, &wrong)?.f_neg()?.f_add_scalar(1.0001 + 1e-12)?.f_log()?.f_neg()?.f_mean(Kind::Float)?;
    // The logarithm of a softmax stays finite where a share is too small for a float.
    let (before, logarithm) = (clean.f_softmax(1, Kind::Float)?, clean.f_log_softmax(1, Kind::Float)?);
    let apart = before.f_mul(&logarithm.f_sub(&said.f_add_scalar(1e-12)?.f_log()?)?)?;
    let apart = apart.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Float)?;
    let doubt = of(&before, &labels)?.f_neg()?.f_add_scalar(1.000_000_1)?;
    let apart = apart.f_mul(&doubt)?.f_mean(Kind::Float)?.f_mul_scalar(beta)?;
    cross_entropy.f_add(&margin)?.f_add(&apart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// 0.5 · ln(0.5/0.8) + 0.5 · ln(0.5/0.2) = 0.2231 for the first image, 0 for the second.
    #[test]
    fn the_divergence_is_that_of_kullback_and_leibler_averaged_over_images() {
        let logits = |rows: [[f32; 2]; 2]| Tensor::from_slice2(&rows).set_requires_grad(true);
        let ln4 = 4f32.ln();
        let (clean, perturbed) = (logits([[1.0, 1.0], [0.0, 2.0]]), logits([[ln4, 0.0], [3.0, 5.0]]));
        let found = divergence(&clean, &perturbed).unwrap();
        assert!((found.double_value(&[]) - 0.223_143_55 / 2.0).abs() < 1e-6, "{found:?}");
        // ∂/∂perturbed = (q − p)/n: (0.8 − 0.5)/2. The clean side also has a gradient.
        let gradients = Tensor::run_backward(&[found], &[&clean, &perturbed], false, false);
        assert!((gradients[1].double_value(&[0, 0]) - 0.15).abs() < 1e-6);
        assert!(gradients[0].double_value(&[0, 0]).abs() > 0.1);
    }

    /// The lines of the authors' code in PyTorch 2.11.0, with beta 5, on these logits:
    /// `loss_adv = F.cross_entropy(adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), new_y)`, and so on.
    #[test]
    fn the_loss_of_mart_is_that_of_its_authors() {
        let logits = |rows: [[f32; 3]; 2]| Tensor::from_slice2(&rows).set_requires_grad(true);
        let clean = logits([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]]);
        let perturbed = logits([[0.5, 1.0, 0.0], [0.2, 0.9, 0.1]]);
        let labels = Tensor::from_slice(&[0i64, 1]);
        let entropy = perturbed.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let loss = mart_loss(&clean, &perturbed, &labels, &entropy, 5.0).unwrap();
        assert!((loss.double_value(&[]) - 1.692_130_7).abs() < 1e-5, "{loss}");
        let gradients = Tensor::run_backward(&[loss], &[&clean, &perturbed], false, false);
        let expected = [
            [[-0.075_589_29, 0.055_260_13, 0.020_329_067], [-0.072_176_71, -0.036_234_934, 0.108_411_565]],
            [[-0.713_551, 0.659_621_8, 0.053_929_187], [0.340_148_6, -0.321_927_25, -0.018_221_319]],
        ];
        for (gradient, expected) in gradients.iter().zip(expected) {
            let off = (gradient - Tensor::from_slice2::<f32, [f32; 3]>(&expected)).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{gradient}, expected {expected:?}");
        }
    }

    /// A gap of 200 makes the shares of the other classes 0 in 32 bits. PyTorch's `KLDivLoss` gives this loss, too, but
    /// no gradient of the clean logits.
    #[test]
    fn the_loss_of_mart_is_finite_for_a_network_that_is_sure() {
        let logits = |rows: [[f32; 3]; 2]| Tensor::from_slice2(&rows).set_requires_grad(true);
        let clean = logits([[200.0, 0.0, -1.0], [0.0, 1.0, 0.5]]);
        let perturbed = logits([[0.5, 1.0, 0.0], [0.2, 0.9, 0.1]]);
        let labels = Tensor::from_slice(&[0i64, 1]);
        let entropy = perturbed.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        let loss = mart_loss(&clean, &perturbed, &labels, &entropy, 5.0).unwrap();
        assert!((loss.double_value(&[]) - 1.450_047_7).abs() < 1e-5, "{loss}");
        let gradients = Tensor::run_backward(&[loss], &[&clean, &perturbed], false, false);
        assert!(gradients.iter().all(|gradient| gradient.isfinite().all().int64_value(&[]) == 1), "{gradients:?}");
    }

    #[test]
    fn a_warm_perturbation_lives_on_within_its_ball_and_within_the_range_of_pixels() {
        let tensor = |values: &[f32]| Tensor::from_slice(values).view([-1, 1, 1, 1]);
        let images = tensor(&[0.5, 0.02, 0.99]);
        let mut warm = SharedPerturbation::default();
        assert!(warm.state().is_none());
        let rows = warm.rows(&images, 4).unwrap();
        for (gradient, expected) in [
            ([1.0, -3.0, 0.1], [0.1, -0.02, 0.01]),
            ([1.0, 1.0, 0.0], [0.1, 0.08, 0.01]),
            ([-1.0, 1.0, -5.0], [0.0, 0.1, -0.09]),
        ] {
            SharedPerturbation::ascend(&rows, &images, &tensor(&gradient), 0.1).unwrap();
            assert!((&rows - tensor(&expected)).abs().max().double_value(&[]) < 1e-6, "{rows}");
        }
        // A smaller batch has the first rows; the whole tensor is saved and restored.
        assert_eq!(warm.rows(&images.narrow(0, 0, 2), 4).unwrap(), rows.narrow(0, 0, 2));
        let kept = warm.state().unwrap().copy();
        assert_eq!(kept.size(), [4, 1, 1, 1]);
        let mut other = SharedPerturbation::default();
        other.restore(kept);
        assert_eq!(other.rows(&images, 4).unwrap(), rows);
        assert_eq!(rows.device(), Device::Cpu);
    }
}
