//! Tries a network from a TorchScript file on one batch, before a stage spends hours on it.
//!
//! Networks that this program builds need no such trial.

use tch::{Kind, Reduction, TchError, Tensor};

use super::torchscript::brief;
use super::{Entry, Mode, Network, Role};
use crate::error::StageError;

/// What a stage does with a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Logits, and gradients of images.
    Evaluate,
    /// Steps of training, too.
    Train,
}

/// A batch to try a network on.
pub struct Trial<'a> {
    /// Images as the stage sees them: N × C × H × W, in [0, 1]; none are tried if N is 0.
    pub images: &'a Tensor,
    /// Their classes, N.
    pub labels: &'a Tensor,
    /// Logits that the network should give for each image.
    pub logits: usize,
    /// What the stage does with the network.
    pub usage: Use,
}

/// Tries a network; afterwards its tensors are as they were. Returns what the user should know.
///
/// The global generator of libtorch is seeded on the way.
///
/// # Errors
/// [`StageError::Script`] names what the network cannot do, and how to change that.
pub fn probe(network: &dyn Network, trial: &Trial<'_>) -> Result<Option<String>, StageError> {
    if network.program().is_none() || trial.images.size()[0] == 0 {
        return Ok(None);
    }
    let before = tensors(network)?;
    let probe = Probe { network, trial };
    probe.evaluation()?;
    if let Some(name) = changed(network, &before)? {
        return Err(script(format!(
            "changes its buffer `{name}` in evaluation: it was traced in training mode; \
             call `model.eval()` before `torch.jit.trace`, or use `torch.jit.script`"
        )));
    }
    probe.image_gradient()?;
    let outcome = match trial.usage {
        Use::Evaluate => Ok(None),
        Use::Train => probe.training(&before),
    };
    restore(network, &before)?;
    outcome
}

struct Probe<'a> {
    network: &'a dyn Network,
    trial: &'a Trial<'a>,
}

impl Probe<'_> {
    fn evaluation(&self) -> Result<(), StageError> {
        let images = self.trial.images;
        let first = self.logits(images, Mode::Eval, 1).map_err(|error| self.refused(&error))?;
        self.check_logits(&first)?;
        if !first.f_equal(&self.logits(images, Mode::Eval, 2)?)? {
            return Err(script(
                "draws random numbers in evaluation, so no attack on it can be repeated: drop them if `self.training` \
                 is false; dropout that was traced stays on, so call `model.eval()` before `torch.jit.trace`",
            ));
        }
        let (count, one) = (images.size()[0], images.f_narrow(0, 0, 1)?);
        let of_one = self.logits(&one, Mode::Eval, 1).map_err(|error| brief(&error));
        match of_one.map(|logits| logits.size()) {
            Ok(size) if size == [1, self.trial.logits as i64] => Ok(()),
            Ok(size) => Err(self.fixed_batch(count, &format!("it gives {size:?}"))),
            Err(why) => Err(self.fixed_batch(count, &why)),
        }
    }

    fn fixed_batch(&self, count: i64, why: &str) -> StageError {
        script(format!(
            "takes batches of {count} images and not of 1: {why}; tracing has fixed a size: \
             write `x.flatten(1)` for `x.view(…)`, or use `torch.jit.script`"
        ))
    }

    fn check_logits(&self, logits: &Tensor) -> Result<(), StageError> {
        let (count, wanted, size) = (self.trial.images.size()[0], self.trial.logits as i64, logits.size());
        match size[..] {
            [rows, found] if rows == count && found == wanted => {}
            [rows, found] if rows == count && found > wanted => {
                return Err(script(format!(
                    "gives {found} logits for an image, and the data have {wanted} classes; \
                     say `net: {{classes: {found}}}`, or change its last layer"
                )));
            }
            _ => {
                return Err(script(format!(
                    "gives a tensor of {size:?} for {count} images; it must give {wanted} logits for each, \
                     [{count}, {wanted}]"
                )));
            }
        }
        match logits.kind() {
            Kind::Float => Ok(()),
            kind => Err(script(format!("gives logits of type {kind:?}; end `forward` with `.float()`"))),
        }
    }

    /// Checks that an attack can follow the gradient of the images.
    fn image_gradient(&self) -> Result<(), StageError> {
        let frozen = self.network.freeze()?;
        let gradient = tch::with_grad(|| {
            let images = self.trial.images.f_detach()?.f_set_requires_grad(true)?;
            gradient(&loss(&frozen.forward(&images)?, self.trial.labels)?, &images)
        });
        gradient.map_err(|error| {
            let why = brief(&error);
            script(format!(
                "has no gradient with respect to its images: {why}; \
                 look for `detach`, `no_grad`, comparisons or rounding in `forward`"
            ))
        })
    }

    /// Checks that a step of training reaches every parameter, and that it can be repeated.
    fn training(&self, before: &[Tensor]) -> Result<Option<String>, StageError> {
        let learnt = self.network.state().entries().iter().filter(|entry| entry.role == Role::Parameter);
        let learnt: Vec<&Entry> = learnt.collect();
        if learnt.is_empty() {
            return Err(script("has no parameters that a training could change (none requires a gradient)"));
        }
        tch::with_grad(|| {
            let logits = self
                .logits(self.trial.images, Mode::Train, 1)
                .map_err(|error| script(format!("cannot be used in training mode: {}", brief(&error))))?;
            let loss = loss(&logits, self.trial.labels)?;
            learnt.iter().try_for_each(|entry| reached(&loss, entry))?;
            let is_still = changed(self.network, before)?.is_none();
            restore(self.network, before)?;
            if !logits.f_equal(&self.logits(self.trial.images, Mode::Train, 1)?)? {
                return Err(script("gives other logits for the same images, weights and random numbers"));
            }
            Ok(is_still.then(|| self.still_statistics()).flatten())
        })
    }

    /// Returns a warning if the statistics of batch norms did not move in training.
    fn still_statistics(&self) -> Option<String> {
        let name = self.network.state().entries().iter().find(|entry| entry.name.ends_with("running_mean"))?;
        Some(format!(
            "the TorchScript network does not update `{}` in training: it was traced in evaluation mode; \
             `torch.jit.script` keeps both modes",
            name.name
        ))
    }

    /// Returns logits with libtorch's generator seeded.
    fn logits(&self, images: &Tensor, mode: Mode, seed: i64) -> Result<Tensor, TchError> {
        tch::manual_seed(seed);
        self.network.forward(images, mode)
    }

    fn refused(&self, error: &TchError) -> StageError {
        let size: Vec<String> = self.trial.images.size()[1..].iter().map(ToString::to_string).collect();
        script(format!("does not take images of {}: {}", size.join(" × "), brief(error)))
    }
}

/// Checks that a loss depends on a parameter.
fn reached(loss: &Tensor, entry: &Entry) -> Result<(), StageError> {
    gradient(loss, &entry.tensor).map_err(|error| {
        let (name, why) = (&entry.name, brief(&error));
        script(format!(
            "has no gradient with respect to its parameter `{name}`: {why}; \
             use it in `forward`, or call `requires_grad_(False)` on it before saving"
        ))
    })
}

/// Checks that a loss has a gradient with respect to a tensor.
///
/// libtorch gives an undefined one if the loss does not depend on it, and crashes if the loss depends on nothing.
fn gradient(loss: &Tensor, of: &Tensor) -> Result<(), TchError> {
    let none = || TchError::Torch("the logits do not depend on it".to_owned());
    if !loss.requires_grad() {
        return Err(none());
    }
    let gradients = Tensor::f_run_backward(&[loss], &[of], true, false)?;
    gradients.first().filter(|gradient| gradient.defined()).map(|_| ()).ok_or_else(none)
}

fn script(problem: impl Into<String>) -> StageError {
    StageError::Script(problem.into())
}

fn loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)
}

/// Returns copies of a network's tensors.
fn tensors(network: &dyn Network) -> Result<Vec<Tensor>, TchError> {
    let _guard = tch::no_grad_guard();
    let copy = |tensor: Tensor| {
        let mut own = tensor.f_zeros_like()?;
        own.f_copy_(&tensor)?;
        Ok(own)
    };
    network.state().entries().iter().map(|entry| copy(entry.tensor.f_detach()?)).collect()
}

/// Returns the name of the first tensor that is no longer what it was.
fn changed<'a>(network: &'a dyn Network, before: &[Tensor]) -> Result<Option<&'a str>, TchError> {
    for (entry, before) in network.state().entries().iter().zip(before) {
        if !entry.tensor.f_detach()?.f_equal(before)? {
            return Ok(Some(&entry.name));
        }
    }
    Ok(None)
}

fn restore(network: &dyn Network, before: &[Tensor]) -> Result<(), TchError> {
    let _guard = tch::no_grad_guard();
    for (entry, before) in network.state().entries().iter().zip(before) {
        entry.tensor.shallow_clone().f_copy_(before)?;
    }
    Ok(())
}
