//! Trains a network, adversarially or not: checks, the epoch loop, and the outputs. The submodules implement an epoch.

mod methods;
mod metrics;
mod training;

use atflow::stage_kinds::{Attack, HeadWeights, TrainParams, TrainingMethod};

use self::metrics::{Metrics, best_epoch, catastrophic_overfitting};
use self::training::Training;
use super::optimizer::check_schedule;
use super::same_classes;
use crate::attacks;
use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::data::{self, DeviceSet};
use crate::error::StageError;
use crate::networks::{self, Network};
use crate::training_state::TrainingCheckpoints;
use crate::weights::{self, Head, Installed};

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
    start_from_weights(context, &params, &*network)?;
    let mut training = Training::new(context, params, data, validation, network)?;

    let keeper = TrainingCheckpoints::new(context, &training.params);
    let mut metrics = Metrics { epochs: Vec::new(), catastrophic_overfitting: None, kept_epoch: None };
    let log = |line| context.reporter.log(line);
    if let Some(progress) = keeper.find(training.params.epochs, &*training.network, log) {
        progress.restore(&*training.network, &mut training.optimizer)?;
        training.restore(progress.more)?;
        (metrics.epochs, context.earlier) = (progress.epochs, progress.took);
        context.reporter.log(format!("resumed after epoch {}", metrics.epochs.len()));
    }
    let mut is_warned = false;
    let mut is_done = training.is_done(context, &metrics.epochs);
    while !is_done {
        // The number of finished epochs; it fits, because a u32 counts them.
        let epoch = metrics.epochs.len() as u32 + 1;
        let numbers = training.epoch(context, epoch)?;
        context.reporter.log(numbers.describe(training.params.epochs));
        metrics.epochs.push(numbers);
        if training.chooses_best() && best_epoch(&metrics.epochs) == Some(epoch) {
            training.remember_best()?;
        }
        if catastrophic_overfitting(&metrics.epochs) == Some(epoch) {
            let text = "the accuracy under the attack of `overfitting_check` fell by more than 20 points, the training's own did not";
            context.reporter.log(format!("catastrophic overfitting in epoch {epoch}: {text}"));
        }
        is_done = training.is_done(context, &metrics.epochs);
        // Cancellation does not interrupt this; a training that cannot save its progress can still finish.
        let took = context.earlier + context.started.elapsed();
        let (network, state) = (&*training.network, training.state());
        if let Err(error) = keeper.keep(&metrics.epochs, took, is_done, network, &training.optimizer, &state) {
            let words = format!("the progress after epoch {epoch} could not be kept: {}", chain(&error));
            // Warn the user once; log every occurrence.
            match std::mem::replace(&mut is_warned, true) {
                false => context.reporter.warn(format!("{words}; if it is stopped now, it begins anew")),
                true => context.reporter.log(words),
            }
        }
    }
    metrics.kept_epoch = match training.chooses_best() {
        // The progress is already saved: a longer training continues from the last epoch.
        true => training.take_best()?.and(best_epoch(&metrics.epochs)),
        false => training.params.holdout.as_ref().and(metrics.epochs.last()).map(|last| last.epoch),
    };
    let Training { params, data, network, .. } = training;
    if params.overfitting_check.is_some() {
        metrics.catastrophic_overfitting = Some(catastrophic_overfitting(&metrics.epochs));
    }
    let checkpoint = Checkpoint { net: params.net, channels: data.channels(), classes: data.classes.clone(), network };
    let encode =
        |output| move |error: Box<dyn std::error::Error + Send + Sync>| StageError::Encode { output, source: error };
    let bytes = checkpoint.to_bytes().map_err(|error| encode("checkpoint")(error.into()))?;
    context.write("checkpoint", &bytes)?;
    let mut json = serde_json::to_vec_pretty(&metrics).map_err(|error| encode("metrics")(error.into()))?;
    json.push(b'\n');
    context.write("metrics", &json)?;
    Ok(metrics.epochs.last().map_or_else(String::new, |last| last.describe(params.epochs)))
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
    check_method(params)?;
    if let Some(check) = &params.overfitting_check {
        for (name, value) in [("overfitting_check.every", check.every), ("overfitting_check.images", check.images)] {
            if value == 0 {
                return Err(StageError::setting(name, "must be at least 1"));
            }
        }
        attacks::check(&check.attack, "overfitting_check.attack")?;
    }
    if let Some(holdout) = &params.holdout {
        if holdout.share.get() <= 0.0 || holdout.share.get() >= 1.0 {
            return Err(StageError::setting("holdout.share", "must be above 0 and below 1"));
        }
        attacks::check(&holdout.attack, "holdout.attack")?;
    }
    attacks::check(&params.adversary, "adversary")
}

fn check_method(params: &TrainParams) -> Result<(), StageError> {
    let ball = |eps: f64| match (0.0..=1.0).contains(&eps) {
        true => Ok(()),
        false => Err(StageError::setting("method.eps", format!("must be between 0 and 1, not {eps}"))),
    };
    let at_least = |name: &str, fits: bool, least: &str| match fits {
        true => Ok(()),
        false => Err(StageError::setting(format!("method.{name}"), format!("must be {least}"))),
    };
    match &params.method {
        TrainingMethod::Standard => return Ok(()),
        TrainingMethod::Free(free) => {
            at_least("replays", free.replays > 0, "at least 1")?;
            ball(free.eps.get())?;
        }
        TrainingMethod::Trades(trades) => {
            at_least("beta", trades.beta.get() >= 0.0, "at least 0")?;
            at_least("step", trades.step.get() > 0.0, "above 0")?;
            at_least("steps", trades.steps > 0, "at least 1")?;
            ball(trades.eps.get())?;
        }
    }
    match params.adversary {
        Attack::None(_) => Ok(()),
        _ => Err(StageError::setting("adversary", "must be left out: this `method` brings its own")),
    }
}

/// Fills the network with the weights of the need `weights`, if there is one.
fn start_from_weights(
    context: &mut Context<'_>,
    params: &TrainParams,
    network: &dyn Network,
) -> Result<(), StageError> {
    let input = match context.inputs("weights")[..] {
        [] if params.pretrained.is_some() => {
            return Err(StageError::setting("pretrained", "needs a `weights` input, a file to take them from"));
        }
        [] => return Ok(()),
        [input] => input,
        ref more => {
            return Err(StageError::Slot { slot: "weights", expected: "one input or none", found: more.len() });
        }
    };
    let slot = || input.slot.clone();
    let bytes = data::read(input)?;
    let file =
        weights::File::open(&bytes).map_err(|source| StageError::Weights { slot: slot(), source: source.into() })?;
    let pretrained = params.pretrained.clone().unwrap_or_default();
    let head = match pretrained.head {
        HeadWeights::Keep => Head::Keep,
        HeadWeights::Replace => Head::Replace(networks::head_name(&params.net)),
    };
    let installed = weights::install(network, &file, head, pretrained.entry.as_deref())
        .map_err(|source| StageError::Install { slot: slot(), source })?;
    let Installed { taken, prefix, passed_over } = installed;
    let under = if prefix.is_empty() { String::new() } else { format!(" under `{prefix}`") };
    context
        .reporter
        .log(format!("starting from {taken} tensors of `weights`{under}; {passed_over} others passed over"));
    Ok(())
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
