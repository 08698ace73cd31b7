//! A training in progress: its epochs, its batches, and the step of each method.
//!
//! Knows nothing about the source and destination of weights.

use std::collections::BTreeMap;
use std::rc::Rc;

use atflow::formats::{AdversarialMetrics, EpochMetrics};
use atflow::protocol::ProgressMetrics;
use atflow::stage_kinds::{
    AdversarialBatches, Attack, Free, KeptEpoch, Precision, Trades, TrainParams, TrainingMethod, WeightPerturbation,
};
use tch::{Kind, Reduction, TchError, Tensor};

use super::super::optimizer::{Optimizer, learning_rate};
use super::super::{grouped, limited, percent};
use super::average::WeightAverage;
use super::methods::{Ascent, SharedPerturbation, ascend_from_noise, divergence, mart_loss};
use super::metrics::Tally;
use super::weight_perturbation;
use crate::attacks::{self, Batch};
use crate::context::{Context, Report};
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{Frozen, Mode, Network, Role, Statistics};

/// Validation images computed at once.
const VALIDATION_BATCH: usize = 256;
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

/// A batch to train on.
struct Step<'a> {
    images: &'a Tensor,
    labels: &'a Tensor,
    /// The images' indices in the set.
    indices: &'a [u64],
    /// From 1.
    epoch: u64,
    /// The learning rate of each step on the batch.
    rates: &'a [f64],
}

/// Metrics of a step, from before it moves the weights.
struct StepMetrics {
    logits: Tensor,
    loss: Tensor,
    /// The logits of the perturbed images, if any, and their cross-entropy.
    attacked: Option<(Tensor, Tensor)>,
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
        match last.validation_accuracy.zip(self.params.stop_at_accuracy) {
            Some((accuracy, target)) if accuracy >= target.get() => {
                let epoch = last.epoch;
                context
                    .reporter
                    .log(format!("stopped after epoch {epoch}: validation accuracy {accuracy:.4} is enough"));
                true
            }
            _ => last.epoch >= self.params.epochs,
        }
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
        let found = match self.params.method.clone() {
            TrainingMethod::Standard => self.standard(context, index, &step)?,
            TrainingMethod::Free(free) => self.free(context, &free, &step)?,
            TrainingMethod::Trades(trades) => self.trades(context, &trades, &step)?,
            TrainingMethod::Mart(mart) => self.mart(context, &mart, &step)?,
        };
        let correct = |logits: &Tensor| logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64);
        let count = indices.len() as u64;
        all.add(count, &found.loss, &correct(&found.logits)?)?;
        if let Some((logits, loss)) = &found.attacked {
            attacked.add(count, loss, &correct(logits)?)?;
        }
        Ok(())
    }

    /// Computes logits in training mode, with batch statistics.
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.network.classify(&self.network.normalise(images)?.f_to_kind(self.kind())?, Mode::Train)
    }

    fn standard(
        &mut self,
        context: &mut Context<'_>,
        index: usize,
        step: &Step<'_>,
    ) -> Result<StepMetrics, StageError> {
        let is_attacked = !matches!(self.params.adversary, Attack::None(_))
            && match self.params.adversarial_batches {
                AdversarialBatches::All => true,
                AdversarialBatches::Alternate => index.is_multiple_of(2),
            };
        let images = if is_attacked {
            let frozen = self.frozen_for_attack()?;
            let reporter = &mut context.reporter;
            let batch = step.attacked();
            attacks::perturb(&self.params.adversary, &*frozen, &batch, context.rng, &mut || reporter.check_cancelled())?
        } else {
            step.images.shallow_clone()
        };
        let found = self.descend(step, |training| {
            let logits = training.logits(&images)?;
            let loss = training.cross_entropy(&logits, step.labels)?;
            Ok((loss, logits, None))
        })?;
        let attacked = is_attacked.then(|| (found.logits.shallow_clone(), found.loss.shallow_clone()));
        Ok(StepMetrics { attacked, ..found })
    }

    /// Takes one step down the gradient of an objective: a loss, the logits that it is of, and the logits of perturbed
    /// images, if those are others.
    fn descend(
        &mut self,
        step: &Step<'_>,
        objective: impl Fn(&Self) -> Result<(Tensor, Tensor, Option<Tensor>), TchError>,
    ) -> Result<StepMetrics, StageError> {
        let perturbation = self.params.weight_perturbation.clone();
        let moves = match perturbation.filter(|perturbation| u64::from(perturbation.from) <= step.epoch) {
            None => None,
            Some(perturbation) => Some(self.move_uphill(&perturbation, &objective)?),
        };
        let found = tch::with_grad(|| {
            let (loss, logits, perturbed) = objective(self)?;
            self.optimizer.step(&loss, step.rates[0])?;
            let (logits, loss) = (logits.f_detach()?, loss.f_detach()?);
            let attacked = match perturbed {
                None => None,
                Some(perturbed) => {
                    let perturbed = perturbed.f_detach()?;
                    let loss = cross_entropy(&perturbed, step.labels, 0.0)?;
                    Some((perturbed, loss))
                }
            };
            Ok::<_, TchError>(StepMetrics { logits, loss, attacked })
        })?;
        if let Some(moves) = moves {
            weight_perturbation::restore(self.optimizer.parameters(), &moves)?;
        }
        Ok(found)
    }

    /// Moves the weights up the gradient of the objective, without a trace in the statistics of batch norms.
    fn move_uphill(
        &mut self,
        perturbation: &WeightPerturbation,
        objective: &impl Fn(&Self) -> Result<(Tensor, Tensor, Option<Tensor>), TchError>,
    ) -> Result<Vec<Option<Tensor>>, StageError> {
        let state = self.network.state();
        let buffers: Vec<Tensor> = state
            .entries()
            .iter()
            .filter(|entry| entry.role == Role::Buffer)
            .map(|entry| entry.tensor.shallow_clone())
            .collect();
        let before = buffers.iter().map(Tensor::f_detach_copy).collect::<Result<Vec<_>, _>>()?;
        let gradients = tch::with_grad(|| self.optimizer.gradients(&objective(self)?.0))?;
        let _guard = tch::no_grad_guard();
        for (mut buffer, before) in buffers.into_iter().zip(&before) {
            buffer.f_copy_(before)?;
        }
        Ok(weight_perturbation::perturb(self.optimizer.parameters(), &gradients, perturbation.gamma.get())?)
    }

    /// Computes the cross-entropy that is trained on, the mean over images.
    fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        cross_entropy(logits, labels, self.params.label_smoothing.get())
    }

    fn free(&mut self, context: &mut Context<'_>, free: &Free, step: &Step<'_>) -> Result<StepMetrics, StageError> {
        let rows = self.perturbation.rows(step.images, i64::from(self.params.batch_size))?;
        let mut last = None;
        for &lr in step.rates {
            context.reporter.check_cancelled()?;
            let (logits, loss, gradient) = tch::with_grad(|| {
                let images = step.images.f_add(&rows)?.f_detach()?.f_set_requires_grad(true)?;
                let logits = self.logits(&images)?;
                let loss = self.cross_entropy(&logits, step.labels)?;
                let gradient = self.optimizer.step_and_ask(&loss, lr, &images)?;
                Ok::<_, TchError>((logits.f_detach()?, loss.f_detach()?, gradient))
            })?;
            SharedPerturbation::ascend(&rows, step.images, &gradient, free.eps.get())?;
            last = Some((logits, loss));
        }
        let (logits, loss) = last.ok_or_else(|| StageError::setting("method.replays", "must be at least 1"))?;
        let attacked = Some((logits.shallow_clone(), loss.shallow_clone()));
        Ok(StepMetrics { logits, loss, attacked })
    }

    fn trades(
        &mut self,
        context: &mut Context<'_>,
        trades: &Trades,
        step: &Step<'_>,
    ) -> Result<StepMetrics, StageError> {
        let images = self.ascended(context, trades, &Ascent::Divergence, step)?;
        self.descend(step, |training| {
            let (clean, perturbed) = (training.logits(step.images)?, training.logits(&images)?);
            let apart = divergence(&clean, &perturbed)?.f_mul_scalar(trades.beta.get())?;
            let loss = training.cross_entropy(&clean, step.labels)?.f_add(&apart)?;
            Ok((loss, clean, Some(perturbed)))
        })
    }

    fn mart(&mut self, context: &mut Context<'_>, mart: &Trades, step: &Step<'_>) -> Result<StepMetrics, StageError> {
        let images = self.ascended(context, mart, &Ascent::CrossEntropy, step)?;
        self.descend(step, |training| {
            let (clean, perturbed) = (training.logits(step.images)?, training.logits(&images)?);
            let entropy = training.cross_entropy(&perturbed, step.labels)?;
            let loss = mart_loss(&clean, &perturbed, step.labels, &entropy, mart.beta.get())?;
            Ok((loss, clean, Some(perturbed)))
        })
    }

    /// Returns the images of a step as the adversary of a method makes them.
    fn ascended(
        &self,
        context: &mut Context<'_>,
        trades: &Trades,
        ascent: &Ascent,
        step: &Step<'_>,
    ) -> Result<Tensor, StageError> {
        let frozen = self.frozen_for_attack()?;
        let reporter = &mut context.reporter;
        ascend_from_noise(trades, ascent, &*frozen, &step.attacked(), context.rng, &mut || reporter.check_cancelled())
    }

    /// Returns the accuracy on the images of `overfitting_check` under its attack, or `None` in epochs without a check.
    fn check(&self, context: &mut Context<'_>, epoch: u32) -> Result<Option<f64>, StageError> {
        let Some(check) = self.params.overfitting_check.as_ref().filter(|check| epoch.is_multiple_of(check.every))
        else {
            return Ok(None);
        };
        self.accuracy(context, &self.checked, &check.attack).map(Some)
    }

    /// Returns the accuracy on the held-out images under the attack of `holdout`.
    fn hold_out(&self, context: &mut Context<'_>) -> Result<Option<f64>, StageError> {
        let Some(holdout) = &self.params.holdout else { return Ok(None) };
        self.accuracy(context, &self.held_out, &holdout.attack).map(Some)
    }

    /// Returns the accuracy on some training images, without augmentation, under an attack.
    fn accuracy(&self, context: &mut Context<'_>, of: &[u64], attack: &Attack) -> Result<f64, StageError> {
        let network = self.network.freeze()?;
        let mut right = 0;
        for indices in of.chunks(VALIDATION_BATCH) {
            let (images, labels) = self.data.batch(indices)?;
            // No training epoch has this number, so the draws are the same after every epoch and unlike any epoch's.
            let batch = Batch { images: &images, labels: &labels, indices, epoch: 0 };
            let reporter = &mut context.reporter;
            let images = attacks::perturb(attack, &*network, &batch, context.rng, &mut || reporter.check_cancelled())?;
            let correct = network.forward(&images)?.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
            right += correct.f_int64_value(&[])?;
            context.reporter.count_images(indices.len());
        }
        Ok(right as f64 / of.len() as f64)
    }

    /// Returns the accuracy on the clean validation images.
    fn validate(&self, context: &mut Context<'_>, epoch: u32) -> Result<Option<f64>, StageError> {
        let Some(set) = &self.validation else { return Ok(None) };
        let (steps, done) = (self.batches * u64::from(self.params.epochs), self.batches * u64::from(epoch));
        let epochs = self.params.epochs;
        let network = self.network.freeze()?;
        let mut correct = Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Int64, context.device))?;
        let indices: Vec<u64> = (0..set.len() as u64).collect();
        for (index, indices) in indices.chunks(VALIDATION_BATCH).enumerate() {
            let (images, labels) = set.batch(indices)?;
            let right = network.forward(&images)?.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
            let _ = correct.f_add_(&right)?;
            context.reporter.count_images(indices.len());
            context.reporter.progress(done, steps, || {
                let (at, of) = (grouped((index * VALIDATION_BATCH) as u64), grouped(set.len() as u64));
                let message = format!("epoch {epoch}/{epochs}  validation image {at}/{of}");
                let metrics =
                    ProgressMetrics { epoch: Some(epoch), epochs: Some(epochs), ..ProgressMetrics::default() };
                Report { message, metrics }
            })?;
        }
        Ok(Some(correct.f_int64_value(&[])? as f64 / set.len() as f64))
    }
}

impl Step<'_> {
    /// Returns the batch in the form that attacks take.
    const fn attacked(&self) -> Batch<'_> {
        Batch { images: self.images, labels: self.labels, indices: self.indices, epoch: self.epoch }
    }
}

const fn compute_type(precision: Precision) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    }
}

fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}
