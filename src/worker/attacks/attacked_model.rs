//! The network under attack: its logits, and the gradient of a loss with respect to the images.
//!
//! Collects gradient statistics, because an attack with zero gradients fails silently. Knows no attack.

use std::collections::{HashMap, HashSet};

use atflow::formats::Gradients;
use tch::{Device, Kind, TchError, Tensor};

use super::Batch;
use super::losses::{cross_entropy, margin};
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

/// A margin within this share of an image's largest logit leaves open, in 16 bits, which class leads.
const DOUBT: f64 = 1.0 / 32.0;

/// A network with the random numbers of its attack and a callback before each step.
pub struct AttackedModel<'a> {
    network: &'a dyn Frozen,
    /// The same network in 32 bits, if the other computes in fewer.
    exact: Option<&'a dyn Frozen>,
    /// The attack's random numbers.
    pub rng: Rng,
    check_cancelled: &'a mut dyn FnMut() -> Result<(), StageError>,
    stats: Option<&'a mut GradientStats>,
    starts: Option<Starts>,
}

/// Points that searches start at, by image.
struct Starts {
    /// The row of each image's point.
    rows: HashMap<u64, i64>,
    /// N × C × H × W.
    points: Tensor,
}

/// Gradient statistics by image.
///
/// Each image counts once, at its first gradient, if it is classified correctly there.
#[derive(Default)]
pub struct GradientStats {
    seen: HashSet<u64>,
    gradients: Gradients,
}

/// The network's answer at some points.
pub(super) struct GradientQuery {
    /// N × classes.
    pub(super) logits: Tensor,
    /// The loss of each image, N.
    pub(super) losses: Tensor,
    /// The gradient of the sum of the losses with respect to the points; finite.
    pub(super) gradient: Tensor,
}

/// The loss that an attack maximises: one number per image, from logits and true classes.
pub(super) type Loss<'a> = dyn Fn(&Tensor, &Tensor) -> Result<Tensor, TchError> + 'a;

impl<'a> AttackedModel<'a> {
    /// Creates a network to attack; `check_cancelled` is called before each query to it.
    pub fn new(
        network: &'a dyn Frozen,
        rng: Rng,
        check_cancelled: &'a mut dyn FnMut() -> Result<(), StageError>,
    ) -> Self {
        AttackedModel { network, exact: None, rng, check_cancelled, stats: None, starts: None }
    }

    /// Enables gradient statistics. They wait for the device once per batch.
    #[must_use]
    pub fn counted(self, stats: &'a mut GradientStats) -> Self {
        AttackedModel { stats: Some(stats), ..self }
    }

    /// Lets the same network in 32 bits settle whether a point is misclassified, where 16 bits leave that open.
    #[must_use]
    pub fn settled_by(self, exact: Option<&'a dyn Frozen>) -> Self {
        AttackedModel { exact, ..self }
    }

    /// Starts searches at given points, which must lie in the ball, instead of where the attack says: one point for
    /// each image (N × C × H × W), and the images' indices in their set. Restarts draw their starts as ever.
    #[must_use]
    pub fn starting_at(self, indices: &[u64], points: Tensor) -> Self {
        AttackedModel { starts: Some(Starts { rows: indices.iter().copied().zip(0..).collect(), points }), ..self }
    }

    /// Returns where the search of each image of a batch starts; `None` where the attack decides.
    pub(super) fn starts(&self, batch: &Batch<'_>) -> Result<Option<Tensor>, TchError> {
        let Some(Starts { rows, points }) = &self.starts else { return Ok(None) };
        let rows: Option<Vec<i64>> = batch.indices.iter().map(|index| rows.get(index).copied()).collect();
        let select =
            |rows: Vec<i64>| points.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(points.device())?);
        rows.map(select).transpose()
    }

    /// Returns the network.
    pub fn network(&self) -> &'a dyn Frozen {
        self.network
    }

    /// Calls the callback, which reports that the attack is alive.
    ///
    /// # Errors
    /// The callback's error, if the attack is cancelled.
    pub fn check_cancelled(&mut self) -> Result<(), StageError> {
        (self.check_cancelled)()
    }

    /// Computes logits (N × classes) of points in [0, 1].
    ///
    /// # Errors
    /// [`StageError::Torch`], or the error that cancels the attack.
    pub fn logits(&mut self, points: &Tensor) -> Result<Tensor, StageError> {
        self.check_cancelled()?;
        Ok(self.network.forward(points)?)
    }

    /// Computes logits (N × classes) of points in [0, 1], in 32 bits whatever the search computes in.
    pub(super) fn verdicts(&mut self, points: &Tensor) -> Result<Tensor, StageError> {
        self.check_cancelled()?;
        Ok(self.exact.unwrap_or(self.network).forward(points)?)
    }

    /// Returns logits by which an image leaves an attack or stays: those of the search, and in 32 bits of each image
    /// whose margin is so near to `threshold` that 16 bits leave open on which side it is.
    ///
    /// Without that, images leave that are not misclassified, and no later step attacks them.
    pub(super) fn settle(
        &mut self,
        logits: Tensor,
        points: &Tensor,
        labels: &Tensor,
        threshold: f64,
    ) -> Result<Tensor, StageError> {
        let Some(exact) = self.exact else { return Ok(logits) };
        let distance = margin(&logits, labels)?.f_sub_scalar(threshold)?.f_abs()?;
        let largest = logits.f_abs()?.f_amax([1i64].as_slice(), false)?;
        let open = distance.f_le_tensor(&largest.f_mul_scalar(DOUBT)?)?.f_nonzero()?.f_view(-1)?;
        if open.size()[0] == 0 {
            return Ok(logits);
        }
        self.check_cancelled()?;
        Ok(logits.f_index_copy(0, &open, &exact.forward(&points.f_index_select(0, &open)?)?)?)
    }

    /// Returns which points are misclassified, Bool, N; `logits` are those of the search.
    pub(super) fn broken(&mut self, logits: Tensor, points: &Tensor, labels: &Tensor) -> Result<Tensor, StageError> {
        Ok(misclassified(&self.settle(logits, points, labels, 0.0)?, labels)?)
    }

    /// Computes logits, losses and gradient at some points.
    pub(super) fn gradient(
        &mut self,
        points: &Tensor,
        labels: &Tensor,
        loss: &Loss<'_>,
    ) -> Result<GradientQuery, StageError> {
        let mut query = self.ask(points, labels, loss)?;
        query.make_finite()?;
        Ok(query)
    }

    /// Computes logits, losses and gradient at the start of an attack, and counts the gradients of the batch.
    pub(super) fn first_gradient(
        &mut self,
        points: &Tensor,
        batch: &Batch<'_>,
        loss: &Loss<'_>,
    ) -> Result<GradientQuery, StageError> {
        let mut query = self.ask(points, batch.labels, loss)?;
        self.count(&query.gradient, &query.logits, batch)?;
        query.make_finite()?;
        Ok(query)
    }

    fn ask(&mut self, points: &Tensor, labels: &Tensor, loss: &Loss<'_>) -> Result<GradientQuery, StageError> {
        self.query(points, |network, points| {
            let logits = network.forward(points)?;
            Ok((loss(&logits, labels)?, logits))
        })
    }

    /// Computes the gradient of any objective with respect to any variable.
    ///
    /// `objective` returns one value per image (N), or one for all of them, and the logits. The result is the gradient
    /// of their sum, unmodified even if it is not finite.
    pub(super) fn query(
        &mut self,
        variable: &Tensor,
        objective: impl FnOnce(&dyn Frozen, &Tensor) -> Result<(Tensor, Tensor), TchError>,
    ) -> Result<GradientQuery, StageError> {
        self.check_cancelled()?;
        Ok(gradient_of(variable, |variable| objective(self.network, variable))?)
    }

    /// Updates the statistics with the initial gradient of each image in a batch; `logits` belong to the same points.
    pub(super) fn count(&mut self, gradient: &Tensor, logits: &Tensor, batch: &Batch<'_>) -> Result<(), TchError> {
        match &mut self.stats {
            Some(stats) => stats.count(gradient, &misclassified(logits, batch.labels)?, batch.indices),
            None => Ok(()),
        }
    }
}

impl GradientStats {
    /// Returns the statistics so far; `None` if no gradient was counted.
    pub fn gradients(&self) -> Option<Gradients> {
        Some(self.gradients).filter(|gradients| gradients.images > 0)
    }

    /// Counts the images that are not yet misclassified; an attack needs no gradient for the others.
    fn count(&mut self, gradient: &Tensor, wrong: &Tensor, indices: &[u64]) -> Result<(), TchError> {
        let flat = gradient.f_flatten(1, -1)?;
        let host = |flags: Tensor| Vec::<bool>::try_from(flags.f_to_device(Device::Cpu)?);
        let wrong = host(wrong.shallow_clone())?;
        let moving = host(flat.f_ne(0.0)?.f_any_dim(1, false)?)?;
        let finite = host(flat.f_isfinite()?.f_all_dim(1, false)?)?;
        for (((&index, moving), finite), wrong) in indices.iter().zip(moving).zip(finite).zip(wrong) {
            if self.seen.insert(index) && !wrong {
                self.gradients.images += 1;
                self.gradients.zero += u64::from(!moving);
                self.gradients.not_finite += u64::from(!finite);
            }
        }
        Ok(())
    }
}

impl GradientQuery {
    /// Replaces NaN by 0 and infinities by large numbers, so points stay in their ball.
    fn make_finite(&mut self) -> Result<(), TchError> {
        self.gradient = self.gradient.f_nan_to_num_(0.0, None, None)?;
        Ok(())
    }
}

/// Returns which images are misclassified, Bool, N. Of equal logits the first counts.
pub(super) fn misclassified(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_argmax(1, false)?.f_ne_tensor(labels)
}

/// Computes the gradient, w.r.t. `inputs`, of the cross-entropy of the true classes, summed over the batch.
///
/// `classify` returns the logits.
///
/// # Errors
/// Returns the error from libtorch.
pub fn input_gradient(
    inputs: &Tensor,
    labels: &Tensor,
    classify: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let query = gradient_of(inputs, |inputs| {
        let logits = classify(inputs)?;
        Ok((cross_entropy(&logits, labels)?, logits))
    })?;
    Ok(query.gradient)
}

/// Computes the gradient, with respect to a variable, of the sum of an objective's values; see
/// [`AttackedModel::query`].
///
/// It uses the sum, not the mean, so an image's gradient does not depend on the batch size.
fn gradient_of(
    variable: &Tensor,
    objective: impl FnOnce(&Tensor) -> Result<(Tensor, Tensor), TchError>,
) -> Result<GradientQuery, TchError> {
    tch::with_grad(|| {
        let variable = variable.f_detach()?.f_set_requires_grad(true)?;
        let (losses, logits) = objective(&variable)?;
        let gradient = backward(&losses.f_sum(Kind::Float)?, &variable)?;
        Ok(GradientQuery { logits: logits.f_detach()?, losses: losses.f_detach()?, gradient })
    })
}

/// Computes the gradient of a scalar with respect to some inputs.
fn backward(loss: &Tensor, inputs: &Tensor) -> Result<Tensor, TchError> {
    let gradients = Tensor::f_run_backward(&[loss], &[inputs], false, false)?;
    gradients.into_iter().next().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))
}
