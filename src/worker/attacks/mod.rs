//! Attacks: images in [0, 1] in, perturbed images in [0, 1] out. Every attack sees a frozen network, so batch statistics cannot move,
//! and asks for the gradient of the images alone. Knows nothing of training and evaluation.

mod ascent;

use atflow::kinds::{Attack, Fgsm, Norm, Pgd, Start};
use tch::{Reduction, TchError, Tensor};

use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::{Rng, Stream};

/// The images under attack.
pub struct Batch<'a> {
    /// N × C × H × W, f32, [0, 1].
    pub images: &'a Tensor,
    /// The true classes, I64, N.
    pub labels: &'a Tensor,
    /// The images' indices in their set: they name the random draws.
    pub indices: &'a [u64],
    /// The epoch, from 1, or 0 in an evaluation: it names the random draws too.
    pub epoch: u64,
}

/// Perturbs a batch. `pulse` is called before each step, so that a long attack can be given up.
///
/// # Errors
/// [`StageError::Torch`], or what `pulse` gives.
pub fn perturb(
    attack: &Attack,
    network: &dyn Frozen,
    batch: &Batch<'_>,
    rng: Rng,
    pulse: &mut dyn FnMut() -> Result<(), StageError>,
) -> Result<Tensor, StageError> {
    match attack {
        Attack::None(_) => Ok(batch.images.shallow_clone()),
        Attack::Fgsm(Fgsm { eps }) => {
            let ball = ascent::LinfBall::new(batch.images, eps.get())?;
            let start = batch.images.shallow_clone();
            ascent::ascend(network, batch.labels, start, &ball, eps.get(), 1, pulse)
        }
        Attack::Pgd(Pgd { norm: Norm::Inf, eps, step, steps, start }) => {
            let ball = ascent::LinfBall::new(batch.images, eps.get())?;
            let start = match start {
                Start::Zero => batch.images.shallow_clone(),
                Start::Random => ball.random_point(batch, rng)?,
            };
            ascent::ascend(network, batch.labels, start, &ball, step.get(), *steps, pulse)
        }
    }
}

/// Checks the ranges of an attack's parameters; `name` is that of the whole attack, for messages.
///
/// # Errors
/// [`StageError::Setting`].
pub fn check(attack: &Attack, name: &str) -> Result<(), StageError> {
    let ball = |eps: f64| match (0.0..=1.0).contains(&eps) {
        true => Ok(()),
        false => Err(StageError::setting(format!("{name}.eps"), format!("must be between 0 and 1, not {eps}"))),
    };
    match attack {
        Attack::None(_) => Ok(()),
        Attack::Fgsm(Fgsm { eps }) => ball(eps.get()),
        Attack::Pgd(Pgd { norm: Norm::Inf, eps, step, steps, .. }) => {
            ball(eps.get())?;
            if step.get() <= 0.0 {
                return Err(StageError::setting(format!("{name}.step"), "must be above 0"));
            }
            match steps {
                0 => Err(StageError::setting(format!("{name}.steps"), "must be at least 1")),
                _ => Ok(()),
            }
        }
    }
}

/// The gradient, with respect to `inputs`, of the cross-entropy of the true classes summed over the batch. `classify` gives the logits.
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
        let logits = classify(&inputs)?;
        let loss = logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?;
        let gradients = Tensor::f_run_backward(&[loss], &[inputs], false, false)?;
        gradients.into_iter().next().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))
    })
}

/// A uniform draw for each coordinate of each image of the batch, in [−1, 1).
fn uniform(batch: &Batch<'_>, rng: Rng) -> Result<Tensor, TchError> {
    let shape = &batch.images.size()[1..];
    let draw = |stream: &mut Stream| stream.uniform(-1.0, 1.0);
    rng.tensor("attack start", &[batch.epoch], batch.indices, shape, batch.images.device(), draw)
}
