//! The network under attack: its logits, and the gradient of a loss with respect to the images. Counts what gradients
//! there are, because an attack whose gradients are zero fails without a word. Knows no attack.

use std::collections::HashSet;

use atflow::formats::Gradients;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::Batch;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

/// A network, the random numbers of the attack on it, and somebody who is told before each step.
pub struct AttackedModel<'a> {
    network: &'a dyn Frozen,
    /// The attack's random numbers.
    pub rng: Rng,
    check_cancelled: &'a mut dyn FnMut() -> Result<(), StageError>,
    stats: Option<&'a mut GradientStats>,
}

/// Gradients by image: each image counts once, at the first gradient that is computed for it, if it is classified
/// correctly there.
#[derive(Default)]
pub struct GradientStats {
    seen: HashSet<u64>,
    gradients: Gradients,
}

/// What a network says at some points.
pub(super) struct GradientQuery {
    /// N × classes.
    pub(super) logits: Tensor,
    /// The loss of each image, N.
    pub(super) losses: Tensor,
    /// The gradient of the sum of the losses with respect to the points; finite.
    pub(super) gradient: Tensor,
}

/// What an attack climbs: a number for each image, of logits and true classes.
pub(super) type Loss<'a> = dyn Fn(&Tensor, &Tensor) -> Result<Tensor, TchError> + 'a;

impl<'a> AttackedModel<'a> {
    /// A network to be attacked; `check_cancelled` is called before each question to it.
    pub fn new(
        network: &'a dyn Frozen,
        rng: Rng,
        check_cancelled: &'a mut dyn FnMut() -> Result<(), StageError>,
    ) -> Self {
        AttackedModel { network, rng, check_cancelled, stats: None }
    }

    /// The same, with its gradients counted. Counting waits for the device once for each batch.
    #[must_use]
    pub fn counted(self, stats: &'a mut GradientStats) -> Self {
        AttackedModel { stats: Some(stats), ..self }
    }

    /// The network.
    pub fn network(&self) -> &'a dyn Frozen {
        self.network
    }

    /// Tells whoever waits that the attack goes on.
    ///
    /// # Errors
    /// Theirs, if the attack is to be given up.
    pub fn check_cancelled(&mut self) -> Result<(), StageError> {
        (self.check_cancelled)()
    }

    /// Logits (N × classes) of points in [0, 1].
    ///
    /// # Errors
    /// [`StageError::Torch`], or that the attack is to be given up.
    pub fn logits(&mut self, points: &Tensor) -> Result<Tensor, StageError> {
        self.check_cancelled()?;
        Ok(self.network.forward(points)?)
    }

    /// Logits, losses and gradient at some points.
    pub(super) fn gradient(
        &mut self,
        points: &Tensor,
        labels: &Tensor,
        loss: &Loss<'_>,
    ) -> Result<GradientQuery, StageError> {
        let mut look = self.ask(points, labels, loss)?;
        look.make_finite()?;
        Ok(look)
    }

    /// The same where an attack on a batch begins: counts its images by their gradients.
    pub(super) fn first_gradient(
        &mut self,
        points: &Tensor,
        batch: &Batch<'_>,
        loss: &Loss<'_>,
    ) -> Result<GradientQuery, StageError> {
        let mut look = self.ask(points, batch.labels, loss)?;
        if let Some(stats) = &mut self.stats {
            stats.count(&look.gradient, &misclassified(&look.logits, batch.labels)?, batch.indices)?;
        }
        look.make_finite()?;
        Ok(look)
    }

    fn ask(&mut self, points: &Tensor, labels: &Tensor, loss: &Loss<'_>) -> Result<GradientQuery, StageError> {
        self.query(points, |network, points| {
            let logits = network.forward(points)?;
            Ok((loss(&logits, labels)?, logits))
        })
    }

    /// The gradient of any objective with respect to any variable. `objective` gives the value of each image (N), or
    /// one for all of them, and the logits. The gradient is that of their sum, as it is: where it is not finite, too.
    ///
    /// The sum and not the mean: the gradient of an image then does not depend on how many others are computed with it.
    pub(super) fn query(
        &mut self,
        variable: &Tensor,
        objective: impl FnOnce(&dyn Frozen, &Tensor) -> Result<(Tensor, Tensor), TchError>,
    ) -> Result<GradientQuery, StageError> {
        self.check_cancelled()?;
        let query = tch::with_grad(|| {
            let variable = variable.f_detach()?.f_set_requires_grad(true)?;
            let (losses, logits) = objective(self.network, &variable)?;
            let gradient = backward(&losses.f_sum(Kind::Float)?, &variable)?;
            Ok::<_, TchError>(GradientQuery { logits: logits.f_detach()?, losses: losses.f_detach()?, gradient })
        });
        Ok(query?)
    }

    /// Counts the images of a batch by a gradient that an attack begins with, one for each image; `logits` are those of
    /// the same points.
    pub(super) fn count(&mut self, gradient: &Tensor, logits: &Tensor, batch: &Batch<'_>) -> Result<(), TchError> {
        match &mut self.stats {
            Some(stats) => stats.count(gradient, &misclassified(logits, batch.labels)?, batch.indices),
            None => Ok(()),
        }
    }
}

impl GradientStats {
    /// The gradients so far; nothing if none was computed.
    pub fn gradients(&self) -> Option<Gradients> {
        Some(self.gradients).filter(|gradients| gradients.images > 0)
    }

    /// Counts the images that are not wrong already: of those an attack has nothing to ask.
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
    /// A gradient that is not a number leads nowhere, an infinite one is a large one: so points stay in their ball.
    fn make_finite(&mut self) -> Result<(), TchError> {
        self.gradient = self.gradient.f_nan_to_num_(0.0, None, None)?;
        Ok(())
    }
}

/// Which images are not predicted as their true class, Bool, N. Of equal logits the first counts.
pub(super) fn misclassified(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_argmax(1, false)?.f_ne_tensor(labels)
}

/// Cross-entropy of the true classes, N.
pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::None, -100, 0.0)
}

/// The gradient, with respect to `inputs`, of the cross-entropy of the true classes summed over the batch. `classify`
/// gives the logits.
///
/// The sum and not the mean: the gradient of an image then does not depend on how many others are computed with it.
///
/// # Errors
/// What libtorch says.
pub fn input_gradient(
    inputs: &Tensor,
    labels: &Tensor,
    classify: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    tch::with_grad(|| {
        let inputs = inputs.f_detach()?.f_set_requires_grad(true)?;
        let loss = cross_entropy(&classify(&inputs)?, labels)?.f_sum(Kind::Float)?;
        backward(&loss, &inputs)
    })
}

/// The gradient of a number with respect to some inputs.
pub(super) fn backward(loss: &Tensor, inputs: &Tensor) -> Result<Tensor, TchError> {
    let gradients = Tensor::f_run_backward(&[loss], &[inputs], false, false)?;
    gradients.into_iter().next().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))
}
