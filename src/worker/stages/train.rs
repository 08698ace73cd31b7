//! Trains a network, adversarially or not.

use std::rc::Rc;

use atflow::kinds::{AdversarialBatches, Attack, TrainParams};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::optimizer::{Optimizer, check_schedule, learning_rate};
use super::{grouped, limited, percent, same_classes};
use crate::attacks::{self, Batch};
use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{self, Mode, Network};
use crate::partial::Keeper;

/// Images of a validation computed at a time.
const VALIDATION_BATCH: usize = 256;

/// The output `metrics`. Nothing in it depends on time or place: the same training gives the same bytes.
#[derive(Debug, Serialize)]
struct Metrics {
    epochs: Vec<EpochMetrics>,
}

/// One epoch, as it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct EpochMetrics {
    /// From 1.
    epoch: u32,
    /// The learning rate of its last step.
    lr: f64,
    /// Mean cross-entropy of the training images as they were trained on, before each step.
    train_loss: f64,
    /// Share of them classified correctly, 0 to 1.
    train_accuracy: f64,
    /// The same two numbers of the perturbed images alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    adversarial: Option<Adversarial>,
    /// Share of the clean validation images classified correctly after the epoch, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_accuracy: Option<f64>,
}

/// Numbers of the perturbed images of an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Adversarial {
    images: u64,
    loss: f64,
    accuracy: f64,
}

/// Sums over the images seen so far, kept on the device so that nothing waits for it.
struct Tally {
    images: u64,
    loss: Tensor,
    correct: Tensor,
}

impl Tally {
    fn new(device: Device) -> Result<Self, TchError> {
        let zero = |kind| Tensor::f_zeros([0i64; 0].as_slice(), (kind, device));
        Ok(Tally { images: 0, loss: zero(Kind::Double)?, correct: zero(Kind::Int64)? })
    }

    /// Adds a batch: its mean loss, and how many of its logits have their maximum at the label.
    fn add(&mut self, images: u64, loss: &Tensor, correct: &Tensor) -> Result<(), TchError> {
        self.images += images;
        let _ = self.loss.f_add_(&loss.f_to_kind(Kind::Double)?.f_mul_scalar_(images as f64)?)?;
        let _ = self.correct.f_add_(correct)?;
        Ok(())
    }

    /// Mean loss, and number of correct images; waits for the device.
    fn read(&self) -> Result<(f64, u64), TchError> {
        Ok((self.loss.f_double_value(&[])? / self.images as f64, self.correct.f_int64_value(&[])? as u64))
    }
}

/// Runs a `train` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: TrainParams = context.params()?;
    check(&params)?;
    let data = context.input("data")?;
    let data = context.set(data)?;
    let validation = match context.inputs("validation")[..] {
        [] => None,
        [input] => Some(context.set(input)?),
        ref more => {
            return Err(StageError::Slot { slot: "validation", expected: "one input or none", found: more.len() });
        }
    };
    if params.stop_at_accuracy.is_some() && validation.is_none() {
        return Err(StageError::setting("stop_at_accuracy", "needs a `validation` input to measure the accuracy on"));
    }
    if data.is_empty() {
        return Err(StageError::Mismatch("the set to train on has no images".to_owned()));
    }
    data.check_augmentation(&params.augmentation)?;
    if let Some(validation) = &validation {
        check_validation(&data, validation)?;
    }
    let network = networks::build(&params.net, data.channels(), data.classes.len(), context.rng, context.device)?;
    let optimizer = Optimizer::new(&params.optimizer, network.state().parameters())?;
    let images = limited(data.len(), params.limit)?;
    let batches = images.div_ceil(params.batch_size as usize) as u64;
    let mut training = Training { params, data, validation, network, optimizer, images, batches };

    let keeper = Keeper::new(context, &training.params);
    let mut metrics = Metrics { epochs: Vec::new() };
    let log = |line| context.reporter.log(line);
    if let Some(progress) = keeper.find(training.params.epochs, &*training.network, log) {
        progress.restore(&*training.network, &mut training.optimizer)?;
        metrics.epochs = progress.epochs;
        context.reporter.log(format!("resumed after epoch {}", metrics.epochs.len()));
    }
    let mut is_done = training.is_done(context, &metrics.epochs);
    while !is_done {
        // As many epochs as are done: a u32 counted them.
        let epoch = metrics.epochs.len() as u32 + 1;
        let numbers = training.epoch(context, epoch)?;
        context.reporter.log(describe(&numbers, training.params.epochs));
        metrics.epochs.push(numbers);
        is_done = training.is_done(context, &metrics.epochs);
        // Cancelling does not interrupt this; a training that cannot keep its progress can still end well.
        if let Err(error) = keeper.keep(&metrics.epochs, is_done, &*training.network, &training.optimizer) {
            context.reporter.log(format!("the progress after epoch {epoch} could not be kept: {}", chain(&error)));
        }
    }
    let Training { params, data, network, .. } = training;
    let checkpoint = Checkpoint { net: params.net, channels: data.channels(), classes: data.classes.clone(), network };
    let encode =
        |output| move |error: Box<dyn std::error::Error + Send + Sync>| StageError::Encode { output, source: error };
    let bytes = checkpoint.to_bytes().map_err(|error| encode("checkpoint")(error.into()))?;
    context.write("checkpoint", &bytes)?;
    let mut json = serde_json::to_vec_pretty(&metrics).map_err(|error| encode("metrics")(error.into()))?;
    json.push(b'\n');
    context.write("metrics", &json)?;
    Ok(metrics.epochs.last().map_or_else(String::new, |last| describe(last, params.epochs)))
}

fn check(params: &TrainParams) -> Result<(), StageError> {
    for (name, value) in [("epochs", params.epochs), ("batch_size", params.batch_size)] {
        if value == 0 {
            return Err(StageError::setting(name, "must be at least 1"));
        }
    }
    if params.stop_at_accuracy.is_some_and(|accuracy| !(0.0..=1.0).contains(&accuracy.get())) {
        return Err(StageError::setting("stop_at_accuracy", "must be between 0 and 1"));
    }
    check_schedule(&params.schedule)?;
    attacks::check(&params.adversary, "adversary")
}

fn check_validation(data: &DeviceSet, validation: &DeviceSet) -> Result<(), StageError> {
    if validation.is_empty() {
        return Err(StageError::Mismatch("the validation set has no images".to_owned()));
    }
    if data.channels() != validation.channels() {
        let (data, validation) = (data.channels(), validation.channels());
        let text = format!("the images to train on have {data} channels, those of the validation set {validation}");
        return Err(StageError::Mismatch(text));
    }
    same_classes("the training set", &data.classes, "the validation set", &validation.classes)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn describe(numbers: &EpochMetrics, epochs: u32) -> String {
    let mut text = format!(
        "epoch {}/{epochs}  loss {:.3}  accuracy {:.1} %",
        numbers.epoch,
        numbers.train_loss,
        100.0 * numbers.train_accuracy
    );
    if let Some(adversarial) = &numbers.adversarial {
        text += &format!("  attacked {:.1} %", 100.0 * adversarial.accuracy);
    }
    if let Some(accuracy) = numbers.validation_accuracy {
        text += &format!("  validation {:.1} %", 100.0 * accuracy);
    }
    text
}

/// A training under way.
struct Training {
    params: TrainParams,
    data: Rc<DeviceSet>,
    validation: Option<Rc<DeviceSet>>,
    network: Box<dyn Network>,
    optimizer: Optimizer,
    /// Images of an epoch.
    images: usize,
    /// Batches of an epoch.
    batches: u64,
}

impl Training {
    /// Whether no epoch follows those that are done.
    fn is_done(&self, context: &mut Context<'_>, done: &[EpochMetrics]) -> bool {
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

    fn epoch(&mut self, context: &mut Context<'_>, epoch: u32) -> Result<EpochMetrics, StageError> {
        let (batches, epochs) = (self.batches, self.params.epochs);
        let (steps, before) = (batches * u64::from(epochs), batches * u64::from(epoch - 1));
        let mut all = Tally::new(context.device)?;
        let mut attacked = Tally::new(context.device)?;
        let mut lr = 0.0;
        let order = context.rng.stream("order of training", &[u64::from(epoch)]).permutation(self.images);
        let order: Vec<u64> = order.into_iter().map(|index| index as u64).collect();
        for (index, indices) in order.chunks(self.params.batch_size as usize).enumerate() {
            let step = before + index as u64;
            lr = learning_rate(&self.params.schedule, self.params.optimizer.lr.get(), step, steps, epoch);
            self.step(context, epoch, index, indices, lr, [&mut all, &mut attacked])?;
            if context.reporter.wants(step + 1, steps) {
                let (loss, correct) = all.read()?;
                if !loss.is_finite() {
                    return Err(StageError::Diverged { epoch, loss });
                }
                let (at, accuracy) = (index + 1, percent(correct, all.images));
                let message =
                    format!("epoch {epoch}/{epochs}  batch {at}/{batches}  loss {loss:.2}  accuracy {accuracy}");
                context.reporter.tell(step + 1, steps, message);
            }
            context.reporter.pulse()?;
        }
        let (loss, correct) = all.read()?;
        if !loss.is_finite() {
            return Err(StageError::Diverged { epoch, loss });
        }
        let adversarial = if attacked.images > 0 {
            let (loss, correct) = attacked.read()?;
            Some(Adversarial { images: attacked.images, loss, accuracy: correct as f64 / attacked.images as f64 })
        } else {
            None
        };
        Ok(EpochMetrics {
            epoch,
            lr,
            train_loss: loss,
            train_accuracy: correct as f64 / all.images as f64,
            adversarial,
            validation_accuracy: self.validate(context, epoch)?,
        })
    }

    /// One batch; `index` counts from 0 within the epoch. Adds to the tallies of all images and of the perturbed ones.
    fn step(
        &mut self,
        context: &mut Context<'_>,
        epoch: u32,
        index: usize,
        indices: &[u64],
        lr: f64,
        [all, attacked]: [&mut Tally; 2],
    ) -> Result<(), StageError> {
        let time = u64::from(epoch);
        let (images, labels) = self.data.training_batch(indices, &self.params.augmentation, context.rng, time)?;
        let is_attacked = !matches!(self.params.adversary, Attack::None(_))
            && match self.params.adversarial_batches {
                AdversarialBatches::All => true,
                AdversarialBatches::Alternate => index.is_multiple_of(2),
            };
        let images = if is_attacked {
            let frozen = self.network.freeze()?;
            let batch = Batch { images: &images, labels: &labels, indices, epoch: time };
            let reporter = &mut context.reporter;
            attacks::perturb(&self.params.adversary, &*frozen, &batch, context.rng, &mut || reporter.pulse())?
        } else {
            images
        };
        let (logits, loss) = tch::with_grad(|| {
            let logits = self.network.forward(&images, Mode::Train)?;
            let loss = logits.f_cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
            self.optimizer.step(&loss, lr)?;
            Ok::<_, TchError>((logits.f_detach()?, loss.f_detach()?))
        })?;
        let correct = logits.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
        let count = indices.len() as u64;
        all.add(count, &loss, &correct)?;
        if is_attacked {
            attacked.add(count, &loss, &correct)?;
        }
        Ok(())
    }

    /// The share of clean validation images that is classified correctly.
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
            context.reporter.progress(done, steps, || {
                let (at, of) = (grouped((index * VALIDATION_BATCH) as u64), grouped(set.len() as u64));
                format!("epoch {epoch}/{epochs}  validation image {at}/{of}")
            })?;
        }
        Ok(Some(correct.f_int64_value(&[])? as f64 / set.len() as f64))
    }
}
