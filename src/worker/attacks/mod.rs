//! Attacks: map images in [0, 1] to perturbed images in [0, 1].
//!
//! Every attack works on a frozen network, so batch statistics cannot change, and computes gradients for the images
//! only. Knows nothing about training and evaluation.
//!
//! From the bottom up: `losses` are what attacks maximise, `attacked_model` wraps the network, `ball` defines the
//! allowed points, and `active_set` tracks the images still under attack. `successive_runs` keeps the best points of
//! several runs. `adam` and `lbfgs` are optimisers.
//!
//! `pgd` (also FGSM), `spatial`, `apgd`, `fab`, `square`, `malt` and `cw` are attacks, and `ensemble` runs several
//! of them in sequence.

mod active_set;
pub mod adam;
pub mod apgd;
mod attacked_model;
mod ball;
mod cw;
mod ensemble;
pub mod fab;
pub mod lbfgs;
mod losses;
pub mod malt;
mod pgd;
pub mod spatial;
pub mod square;
mod successive_runs;

use atflow::stage_kinds::{Attack, NoAttack};
use tch::{TchError, Tensor};

pub use attacked_model::{AttackedModel, GradientStats, input_gradient};
pub use ensemble::SubAttack;

use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

/// The images under attack.
pub struct Batch<'a> {
    /// N × C × H × W, f32, [0, 1].
    pub images: &'a Tensor,
    /// The true classes, I64, N.
    pub labels: &'a Tensor,
    /// The images' indices in their set, which key the random draws.
    pub indices: &'a [u64],
    /// The epoch, from 1, or 0 in an evaluation; it also keys the random draws.
    pub epoch: u64,
}

impl Batch<'_> {
    /// Selects some of the images by their positions in the batch.
    fn select(&self, positions: &[i64]) -> Result<SubBatch, TchError> {
        let tensor = Tensor::f_from_slice(positions)?.f_to_device(self.images.device())?;
        Ok(SubBatch {
            images: self.images.f_index_select(0, &tensor)?,
            labels: self.labels.f_index_select(0, &tensor)?,
            indices: positions.iter().map(|&position| self.indices[position as usize]).collect(),
            epoch: self.epoch,
            positions: tensor,
        })
    }
}

/// Some images of a batch.
struct SubBatch {
    images: Tensor,
    labels: Tensor,
    indices: Vec<u64>,
    epoch: u64,
    /// Their positions in the batch, I64.
    positions: Tensor,
}

impl SubBatch {
    fn batch(&self) -> Batch<'_> {
        Batch { images: &self.images, labels: &self.labels, indices: &self.indices, epoch: self.epoch }
    }
}

/// Perturbs a batch. Calls `check_cancelled` before each step, so a long attack can be cancelled.
///
/// # Errors
/// [`StageError::Torch`], [`StageError::Setting`] if the attack does not fit the network, or the error from
/// `check_cancelled`.
pub fn perturb(
    attack: &Attack,
    network: &dyn Frozen,
    batch: &Batch<'_>,
    rng: Rng,
    check_cancelled: &mut dyn FnMut() -> Result<(), StageError>,
) -> Result<Tensor, StageError> {
    perturb_model(attack, &mut AttackedModel::new(network, rng, check_cancelled), batch)
}

/// Perturbs a batch like [`perturb`], on an existing model.
///
/// # Errors
/// As [`perturb`].
pub fn perturb_model(attack: &Attack, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
    adversary(attack).perturb(model, batch)
}

/// An attack, implemented by its parameters. An attack without sub-attacks implements only `perturb`.
pub trait Adversary {
    /// Perturbs a batch: maps images in [0, 1] to images in [0, 1].
    ///
    /// # Errors
    /// [`StageError::Torch`], [`StageError::Setting`] if the attack does not fit the network, or the error that cancels
    /// it.
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError>;

    /// Returns the attacks it consists of, if images leave it as soon as they are misclassified.
    ///
    /// `name` is the name of the whole attack, for messages.
    ///
    /// # Errors
    /// [`StageError::Setting`] if it needs more classes than there are.
    fn sub_attacks(&self, _classes: usize, _name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        Ok(None)
    }

    /// Returns the number of its runs, at least 1.
    fn runs(&self, _classes: usize) -> u32 {
        1
    }

    /// Executes one run, counted from 0.
    ///
    /// # Errors
    /// As [`Adversary::perturb`].
    fn run(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>, _run: u32) -> Result<Tensor, StageError> {
        self.perturb(model, batch)
    }
}

/// The registry: one line per attack.
pub fn adversary(attack: &Attack) -> &dyn Adversary {
    match attack {
        Attack::None(params) => params,
        Attack::Fgsm(params) => params,
        Attack::Pgd(params) => params,
        Attack::Spatial(params) => params,
        Attack::Apgd(params) => params,
        Attack::Fab(params) => params,
        Attack::Square(params) => params,
        Attack::Malt(params) => params,
        Attack::Cw(params) => params,
        Attack::Autoattack(params) => params,
    }
}

impl Adversary for NoAttack {
    fn perturb(&self, _: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        Ok(batch.images.shallow_clone())
    }
}

/// Checks the ranges of an attack's parameters; `name` is the name of the whole attack, for messages.
///
/// # Errors
/// [`StageError::Setting`].
pub fn check(attack: &Attack, name: &str) -> Result<(), StageError> {
    attack.check().map_err(|problem| StageError::setting(format!("{name}.{}", problem.name), problem.problem))
}
