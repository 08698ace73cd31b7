//! Attacks: images in [0, 1] in, perturbed images in [0, 1] out. Every attack sees a frozen network, so batch
//! statistics cannot move, and asks for the gradient of the images alone. Knows nothing of training and evaluation.
//!
//! From the bottom up: `victim` answers for the network, `ball` says what may be reached, `survivors` who is still
//! under attack; `ascent`, `spatial`, `apgd`, `fab` and `square` are attacks, and `pointwise` runs several of them one
//! after the other.

pub mod apgd;
mod ball;
pub mod ensemble;
pub mod fab;
pub mod lbfgs;
mod pgd;
pub mod spatial;
pub mod square;
mod survivors;
mod victim;

use atflow::stage_kinds::{Attack, Direction, Fgsm, Iterate, Norm};
use tch::{TchError, Tensor};

pub use victim::{AttackedModel, Tally, input_gradient};

use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

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

impl Batch<'_> {
    /// Some of the images, by their positions in the batch.
    fn select(&self, positions: &[i64]) -> Result<Part, TchError> {
        let tensor = Tensor::f_from_slice(positions)?.f_to_device(self.images.device())?;
        Ok(Part {
            images: self.images.f_index_select(0, &tensor)?,
            labels: self.labels.f_index_select(0, &tensor)?,
            indices: positions.iter().map(|&position| self.indices[position as usize]).collect(),
            epoch: self.epoch,
            positions: tensor,
        })
    }
}

/// Some images of a batch.
struct Part {
    images: Tensor,
    labels: Tensor,
    indices: Vec<u64>,
    epoch: u64,
    /// Their positions in the batch, I64.
    positions: Tensor,
}

impl Part {
    fn batch(&self) -> Batch<'_> {
        Batch { images: &self.images, labels: &self.labels, indices: &self.indices, epoch: self.epoch }
    }
}

/// Perturbs a batch. `pulse` is called before each step, so that a long attack can be given up.
///
/// # Errors
/// [`StageError::Torch`], [`StageError::Setting`] if the attack does not fit the network, or what `pulse` gives.
pub fn perturb(
    attack: &Attack,
    network: &dyn Frozen,
    batch: &Batch<'_>,
    rng: Rng,
    pulse: &mut dyn FnMut() -> Result<(), StageError>,
) -> Result<Tensor, StageError> {
    perturb_victim(attack, &mut AttackedModel::new(network, rng, pulse), batch)
}

/// Perturbs a batch, as [`perturb`] does.
///
/// # Errors
/// As [`perturb`].
pub fn perturb_victim(
    attack: &Attack,
    victim: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
) -> Result<Tensor, StageError> {
    match attack {
        Attack::None(_) => Ok(batch.images.shallow_clone()),
        Attack::Fgsm(Fgsm { eps, start, step }) => {
            let (step, iterate) = (step.unwrap_or(*eps).get(), Iterate::Last);
            let steps =
                pgd::Steps { norm: Norm::Inf, eps: eps.get(), step, steps: 1, direction: Direction::Sign, iterate };
            pgd::attack(victim, batch, &steps, *start, 1)
        }
        Attack::Pgd(pgd) => {
            let steps = pgd::Steps {
                norm: pgd.norm,
                eps: pgd.eps.get(),
                step: pgd.step.get(),
                steps: pgd.steps,
                direction: pgd.direction,
                iterate: pgd.iterate,
            };
            pgd::attack(victim, batch, &steps, pgd.start, pgd.restarts)
        }
        Attack::Spatial(spatial) => spatial::attack(victim, batch, spatial),
        Attack::Apgd(_) | Attack::Fab(_) | Attack::Square(_) | Attack::Autoattack(_) => {
            ensemble::attack(victim, batch, attack)
        }
    }
}

/// Checks the ranges of an attack's parameters; `name` is that of the whole attack, for messages.
///
/// # Errors
/// [`StageError::Setting`].
pub fn check(attack: &Attack, name: &str) -> Result<(), StageError> {
    attack.check().map_err(|problem| StageError::setting(format!("{name}.{}", problem.name), problem.problem))
}
