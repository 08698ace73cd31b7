//! Trains a network, adversarially or not: the inputs, the epoch loop, and the outputs.
//!
//! The submodules check the parameters, run an epoch, and save progress.

mod average;
mod methods;
mod metrics;
mod params;
mod progress;
mod training;
mod weight_perturbation;

use std::rc::Rc;

use atflow::formats::{EpochMetrics, TrainingMetrics};
use atflow::stage_kinds::TrainParams;

use self::metrics::{best_epoch, catastrophic_overfitting, describe};
use self::progress::ProgressKeeper;
use self::training::Training;
use super::{TRIED, same_classes, start};
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{self, Network, Trial, Use};

/// Runs a `train` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: TrainParams = context.params()?;
    params::check(&params)?;
    let (data, validation) = image_sets(context, &params)?;
    let network = start::network(context, &params.net, params.pretrained.as_ref(), &data)?;
    try_out(context, &params, &data, &*network)?;
    let mut training = Training::new(context, params, data, validation, network)?;

    let mut keeper = ProgressKeeper::new(context, &training.params);
    let mut epochs = keeper.resume(context, &mut training)?;
    train(context, &mut keeper, &mut training, &mut epochs)?;

    if training.keeps_last_too() {
        training.swap_average()?;
        write_checkpoint(context, "last", &training)?;
        training.swap_average()?;
    }
    let metrics = choose_epoch(&mut training, epochs)?;
    let summary = metrics.epochs.last().map_or_else(String::new, |last| describe(last, training.params.epochs));
    write_checkpoint(context, "checkpoint", &training)?;
    write_metrics(context, &metrics)?;
    Ok(summary)
}

/// Returns the images to train on, and the validation set if there is one.
fn image_sets(
    context: &mut Context<'_>,
    params: &TrainParams,
) -> Result<(Rc<DeviceSet>, Option<Rc<DeviceSet>>), StageError> {
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
    let seen = match i64::from(params.augmentation.random_crop) {
        0 => [data.shape[1], data.shape[2]],
        side => [side, side],
    };
    networks::check_side(&params.net, seen)?;
    if let Some(validation) = &validation {
        check_validation(&data, validation)?;
        networks::check_side(&params.net, [validation.shape[1], validation.shape[2]])?;
    }
    Ok((data, validation))
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

/// Tries a network from elsewhere on a batch as the training will see it.
fn try_out(
    context: &mut Context<'_>,
    params: &TrainParams,
    data: &DeviceSet,
    network: &dyn Network,
) -> Result<(), StageError> {
    if network.program().is_none() {
        return Ok(());
    }
    let indices: Vec<u64> = (0..data.len().min(TRIED) as u64).collect();
    let (images, labels) = data.training_batch(&indices, &params.augmentation, context.rng, 0)?;
    let logits = params.net.classes().map_or(data.classes.len(), |own| own as usize);
    let trial = Trial { images: &images, labels: &labels, logits, usage: Use::Train };
    if let Some(warning) = networks::probe(network, &trial)? {
        context.reporter.warn(warning);
    }
    Ok(())
}

/// Trains to the last epoch and adds the metrics of each to `epochs`, which has those of the finished ones.
fn train(
    context: &mut Context<'_>,
    keeper: &mut ProgressKeeper,
    training: &mut Training,
    epochs: &mut Vec<EpochMetrics>,
) -> Result<(), StageError> {
    let mut is_done = training.is_done(context, epochs);
    while !is_done {
        // The number of finished epochs; it fits, because a u32 counts them.
        let epoch = epochs.len() as u32 + 1;
        let metrics = training.epoch(context, epoch)?;
        context.reporter.log(describe(&metrics, training.params.epochs));
        epochs.push(metrics);
        if training.chooses_best() && best_epoch(epochs) == Some(epoch) {
            training.swap_average()?;
            training.remember_best()?;
            training.swap_average()?;
        }
        if catastrophic_overfitting(epochs) == Some(epoch) {
            let text = "the accuracy under the attack of `overfitting_check` fell by more than 20 points, the training's own did not";
            context.reporter.log(format!("catastrophic overfitting in epoch {epoch}: {text}"));
        }
        is_done = training.is_done(context, epochs);
        // Cancellation does not interrupt this.
        keeper.keep(context, training, epochs, is_done);
    }
    Ok(())
}

/// Gives the network the weights of the epoch that `holdout` selects; returns the metrics of the training.
fn choose_epoch(training: &mut Training, epochs: Vec<EpochMetrics>) -> Result<TrainingMetrics, StageError> {
    let kept_epoch = match training.chooses_best() {
        // The progress is already saved: a longer training continues from the last epoch.
        true => training.take_best()?.and(best_epoch(&epochs)),
        false => {
            training.swap_average()?;
            training.params.holdout.as_ref().and(epochs.last()).map(|last| last.epoch)
        }
    };
    let is_checked = training.params.overfitting_check.is_some();
    let catastrophic_overfitting = is_checked.then(|| catastrophic_overfitting(&epochs));
    Ok(TrainingMetrics { epochs, catastrophic_overfitting, kept_epoch })
}

fn write_checkpoint(context: &Context<'_>, output: &'static str, training: &Training) -> Result<(), StageError> {
    start::write(context, output, &training.params.net, &training.data, &*training.network)
}

fn write_metrics(context: &Context<'_>, metrics: &TrainingMetrics) -> Result<(), StageError> {
    let bytes = metrics.to_bytes().map_err(|error| StageError::Encode { output: "metrics", source: error.into() })?;
    context.write("metrics", &bytes)
}
