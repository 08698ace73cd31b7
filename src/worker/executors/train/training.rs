//! A training in progress: its state, its epochs and its batches. The submodules have the step of each method, and what
//! is measured after an epoch.
//!
//! Knows nothing about the source and destination of weights.

mod accuracy;
mod steps;

use std::collections::BTreeMap;
use std::rc::Rc;

use atflow::formats::{AdversarialMetrics, EpochMetrics};
use atflow::protocol::ProgressMetrics;
use atflow::stage_kinds::{KeptEpoch, Precision, TrainParams, TrainingMethod};
use tch::{Kind, TchError, Tensor};

use self::steps::Step;
use super::super::optimizer::{Optimizer, learning_rate};
use super::super::{limited, percent};
use super::average::WeightAverage;
use super::methods::SharedPerturbation;
use super::metrics::Tally;
use crate::context::{Context, Report};
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{Frozen, Network, Role, Statistics};

/// Name of free training's perturbation in the saved state.
const PERTURBATION: &str = "perturbation";
/// Prefix of the best epoch's tensors in the saved state.
const BEST: &str = "best/";
/// Prefix of the averaged tensors in the saved state.
const AVERAGE: &str = "average/";
/// Prefix of the optimiser's state beside momentum.
const OPTIMIZER: &str = "optimizer/";

/// A training in progress.
pub(super) struct Training {
    pub(super) params: TrainParams,
    pub(super) data: Rc<DeviceSet>,
    validation: Option<Rc<DeviceSet>>,
    pub(super) network: Box<dyn Network>,
    pub(super) optimizer: Optimizer,
    /// The images to train on.
    members: Vec<u64>,
    /// The held-out images.
    held_out: Vec<u64>,
    /// The network's tensors after the best epoch so far, by name, if requested.
    best: BTreeMap<String, Tensor>,
    /// The average that is evaluated in place of the weights.
    average: Option<WeightAverage>,
    /// Batches per epoch.
    batches: u64,
    /// The perturbation of free adversarial training.
    perturbation: SharedPerturbation,
    /// The images of `overfitting_check`.
    checked: Vec<u64>,
}

impl Training {
    pub(super) fn new(
        context: &Context<'_>,
        params: TrainParams,
        data: Rc<DeviceSet>,
        validation: Option<Rc<DeviceSet>>,
        network: Box<dyn Network>,
    ) -> Result<Self, StageError> {
        let optimizer = Optimizer::new(&params.optimizer, network.state().parameters())?;
        let images = limited(data.len(), params.limit)?;
        let mut members: Vec<u64> = (0..images as u64).collect();
        let mut held_out = Vec::new();
        if let Some(holdout) = &params.holdout {
            let count = ((holdout.share.get() * images as f64).round() as usize).max(1);
            if count >= images {
                let problem = format!("leaves none of {images} images to train on");
                return Err(StageError::setting("holdout.share", problem));
            }
            let order = context.rng.stream("holdout", &[]).permutation(images);
            held_out = order[..count].iter().map(|&index| index as u64).collect();
            held_out.sort_unstable();
            members.retain(|index| held_out.binary_search(index).is_err());
        }
        let batches = members.len().div_ceil(params.batch_size as usize) as u64;
        let checked = params.overfitting_check.as_ref().map_or_else(Vec::new, |check| {
            let order = context.rng.stream("overfitting check", &[]).permutation(members.len());
            order.into_iter().take(check.images as usize).map(|index| members[index]).collect()
        });
        let (perturbation, best) = (SharedPerturbation::default(), BTreeMap::new());
        let average = params.average.clone().map(|rule| WeightAverage::new(rule, &*network)).transpose()?;
        Ok(Training {
            params,
            data,
            validation,
            network,
            optimizer,
            members,
            held_out,
            best,
            average,
            batches,
            perturbation,
            checked,
        })
    }

    /// Returns the state that the next epoch needs besides weights and momentum, by name.
    pub(super) fn state(&self) -> BTreeMap<String, &Tensor> {
        let best = self.best.iter().map(|(name, tensor)| (format!("{BEST}{name}"), tensor));
        let average = self.average.iter().flat_map(WeightAverage::state);
        let average = average.map(|(name, tensor)| (format!("{AVERAGE}{name}"), tensor));
        let optimizer = self.optimizer.more().into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor));
        let perturbation = self.perturbation.state().map(|rows| (PERTURBATION.to_owned(), rows));
        perturbation.into_iter().chain(best).chain(average).chain(optimizer).collect()
    }

    /// Restores the result of [`Training::state`].
    pub(super) fn restore(&mut self, state: BTreeMap<String, Tensor>) -> Result<(), TchError> {
        let device = self.data.device();
        for (name, tensor) in state {
            let tensor = tensor.f_to_device(device)?;
            if let Some((name, average)) = name.strip_prefix(AVERAGE).zip(self.average.as_mut()) {
                average.restore(name, &tensor)?;
                continue;
            }
            if let Some(name) = name.strip_prefix(OPTIMIZER) {
                self.optimizer.restore_more(name, &tensor)?;
                continue;
            }
            match name.strip_prefix(BEST) {
                Some(name) => _ = self.best.insert(name.to_owned(), tensor),
                None if name == PERTURBATION => self.perturbation.restore(tensor),
                None => {}
            }
        }
        Ok(())
    }

    /// Returns whether the checkpoint is that of the best epoch.
    pub(super) fn chooses_best(&self) -> bool {
        self.params.holdout.as_ref().is_some_and(|holdout| matches!(holdout.keep, KeptEpoch::Best | KeptEpoch::Both))
    }

    /// Returns whether the weights of the last epoch are an output of their own.
    pub(super) fn keeps_last_too(&self) -> bool {
        self.params.holdout.as_ref().is_some_and(|holdout| holdout.keep == KeptEpoch::Both)
    }

    /// Exchanges weights and their average, if there is one: what is evaluated and kept is the average.
    pub(super) fn swap_average(&mut self) -> Result<(), TchError> {
        self.average.as_mut().map_or(Ok(()), |average| average.swap(&*self.network))
    }

    /// Saves the current network as the best one.
    pub(super) fn remember_best(&mut self) -> Result<(), TchError> {
        for entry in self.network.state().entries() {
            let mut own = entry.tensor.f_detach()?.f_zeros_like()?;
            own.f_copy_(&entry.tensor.f_detach()?)?;
            self.best.insert(entry.name.clone(), own);
        }
        Ok(())
    }

    /// Restores the best network; returns `None` if there is none.
    pub(super) fn take_best(&mut self) -> Result<Option<()>, TchError> {
        let _guard = tch::no_grad_guard();
        for entry in self.network.state().entries() {
            let Some(best) = self.best.get(&entry.name) else { return Ok(None) };
            entry.tensor.shallow_clone().f_copy_(best)?;
        }
        Ok(Some(()))
    }

    /// Returns the number of steps per batch.
    const fn replays(&self) -> u64 {
        match &self.params.method {
            TrainingMethod::Free(free) => free.replays as u64,
            TrainingMethod::Standard | TrainingMethod::Trades(_) | TrainingMethod::Mart(_) => 1,
        }
    }

    /// Returns the compute type of convolutions and linear layers.
    const fn kind(&self) -> Kind {
        compute_type(self.params.precision)
    }

    /// Returns a copy of the network for the adversary.
    fn frozen_for_attack(&self) -> Result<Box<dyn Frozen>, StageError> {
        let kind = if self.params.precision.is_fp32() { compute_type(self.params.search) } else { self.kind() };
        Ok(self.network.freeze_as(kind)?)
    }

    /// Returns whether the training ends after the finished epochs.
    pub(super) fn is_done(&self, context: &mut Context<'_>, done: &[EpochMetrics]) -> bool {
        let Some(last) = done.last() else { return false };
        let (epoch, is_last) = (last.epoch, last.epoch >= self.params.epochs);
        let Some((accuracy, target)) = last.validation_accuracy.zip(self.params.stop_at_accuracy) else {
            return is_last;
        };
        let is_enough = accuracy >= target.get();
        if is_enough && !is_last {
            context.reporter.log(format!("stopped after epoch {epoch}: validation accuracy {accuracy:.4} is enough"));
        }
        if is_last && epoch > 1 {
            let reached = if is_enough { "is reached in the last epoch only" } else { "is never reached" };
            let same = "the network is that of a training without it";
            context
                .reporter
                .warn(format!("`stop_at_accuracy` {target} {reached} ({accuracy:.4} after epoch {epoch}): {same}"));
        }
        is_enough || is_last
    }

    pub(super) fn epoch(&mut self, context: &mut Context<'_>, epoch: u32) -> Result<EpochMetrics, StageError> {
        let (batches, epochs, replays) = (self.batches, self.params.epochs, self.replays());
        let (steps, before) = (batches * u64::from(epochs), batches * u64::from(epoch - 1));
        let mut all = Tally::new(context.device)?;
        let mut attacked = Tally::new(context.device)?;
        let mut lr = 0.0;
        let order = context.rng.stream("order of training", &[u64::from(epoch)]).permutation(self.members.len());
        let order: Vec<u64> = order.into_iter().map(|index| self.members[index]).collect();
        for (index, indices) in order.chunks(self.params.batch_size as usize).enumerate() {
            let step = before + index as u64;
            let rate = |replay| {
                let (step, steps) = (step * replays + replay, steps * replays);
                learning_rate(&self.params.schedule, self.params.optimizer.lr.get(), step, steps, epoch)
            };
            let rates: Vec<f64> = (0..replays).map(rate).collect();
            lr = rates.last().copied().unwrap_or(lr);
            self.batch(context, epoch, index, indices, &rates, [&mut all, &mut attacked])?;
            if let Some(average) = &mut self.average {
                average.after_step(&*self.network, step)?;
            }
            context.reporter.count_images(indices.len());
            if context.reporter.is_report_due(step + 1, steps) {
                let (loss, correct) = all.read()?;
                if !loss.is_finite() {
                    return Err(StageError::Diverged { epoch, loss });
                }
                let (at, accuracy) = (index + 1, percent(correct, all.images));
                let message =
                    format!("epoch {epoch}/{epochs}  batch {at}/{batches}  loss {loss:.2}  accuracy {accuracy}");
                let metrics = ProgressMetrics {
                    epoch: Some(epoch),
                    epochs: Some(epochs),
                    loss: Some(loss),
                    accuracy: Some(correct as f64 / all.images as f64),
                    images: None,
                };
                context.reporter.report(step + 1, steps, Report { message, metrics });
            }
            context.reporter.check_cancelled()?;
        }
        let (loss, correct) = all.read()?;
        if !loss.is_finite() {
            return Err(StageError::Diverged { epoch, loss });
        }
        let adversarial = if attacked.images > 0 {
            let (loss, correct) = attacked.read()?;
            Some(AdversarialMetrics {
                images: attacked.images,
                loss,
                accuracy: correct as f64 / attacked.images as f64,
            })
        } else {
            None
        };
        if let Some(average) = &mut self.average {
            average.after_epoch(&*self.network, epoch)?;
        }
        self.swap_average()?;
        self.measure_statistics(context, epoch)?;
        let metrics = EpochMetrics {
            epoch,
            lr,
            train_loss: loss,
            train_accuracy: correct as f64 / all.images as f64,
            adversarial,
            validation_accuracy: self.validate(context, epoch)?,
            checked_accuracy: self.check(context, epoch)?,
            holdout_accuracy: self.hold_out(context)?,
        };
        self.swap_average()?;
        Ok(metrics)
    }

    /// Measures the statistics of batch norms on the averaged weights, which the network has now, if they want it.
    fn measure_statistics(&self, context: &mut Context<'_>, epoch: u32) -> Result<(), StageError> {
        let is_wanted = self.average.as_ref().is_some_and(|average| average.wants_statistics(epoch));
        let has_statistics = self.network.state().entries().iter().any(|entry| entry.role == Role::Buffer);
        if !is_wanted || !has_statistics || self.network.program().is_some() {
            return Ok(());
        }
        let mut statistics = Statistics::new(&*self.network)?;
        for indices in self.members.chunks(self.params.batch_size as usize) {
            context.reporter.check_cancelled()?;
            let augmentation = &self.params.augmentation;
            let (images, _) = self.data.training_batch(indices, augmentation, context.rng, u64::from(epoch))?;
            let normalised = self.network.normalise(&images)?.f_to_kind(self.kind())?;
            statistics.add(&*self.network, &normalised)?;
        }
        Ok(statistics.finish()?)
    }

    /// Trains on one batch; `index` counts from 0 within the epoch. Updates the tallies of all and of the perturbed
    /// images.
    fn batch(
        &mut self,
        context: &mut Context<'_>,
        epoch: u32,
        index: usize,
        indices: &[u64],
        rates: &[f64],
        [all, attacked]: [&mut Tally; 2],
    ) -> Result<(), StageError> {
        let epoch = u64::from(epoch);
        let (images, labels) = self.data.training_batch(indices, &self.params.augmentation, context.rng, epoch)?;
        if self.network.program().is_some() {
            // A script may draw from libtorch's generator, for dropout say.
            let seed = context.rng.stream("generator of libtorch", &[epoch, index as u64]).below(1 << 53);
            tch::manual_seed(seed as i64);
        }
        let step = Step { images: &images, labels: &labels, indices, epoch, rates };
        let found = self.step(context, index, &step)?;
        let correct = |logits: &Tensor| logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64);
        let count = indices.len() as u64;
        all.add(count, &found.loss, &correct(&found.logits)?)?;
        if let Some((logits, loss)) = &found.attacked {
            attacked.add(count, loss, &correct(logits)?)?;
        }
        Ok(())
    }
}

const fn compute_type(precision: Precision) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}
