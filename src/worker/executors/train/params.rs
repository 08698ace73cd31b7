//! Checks the parameters of a training for what their types cannot express.

use atflow::stage_kinds::{Attack, Average, TrainParams, TrainingMethod};

use super::super::optimizer::check_schedule;
use crate::attacks;
use crate::error::StageError;

/// Checks the parameters, without the inputs.
///
/// # Errors
/// [`StageError::Setting`].
pub(super) fn check(params: &TrainParams) -> Result<(), StageError> {
    for (name, value) in [("epochs", params.epochs), ("batch_size", params.batch_size)] {
        if value == 0 {
            return Err(StageError::setting(name, "must be at least 1"));
        }
    }
    if params.stop_at_accuracy.is_some_and(|accuracy| !(0.0..=1.0).contains(&accuracy.get())) {
        return Err(StageError::setting("stop_at_accuracy", "must be between 0 and 1"));
    }
    check_schedule(&params.schedule)?;
    for (name, precision) in [("precision", params.precision), ("search", params.search)] {
        if params.net.is_script() && !precision.is_fp32() {
            let problem = "must be left out: a TorchScript network computes in 32-bit floats";
            return Err(StageError::setting(name, problem));
        }
    }
    check_method(params)?;
    check_weights(params)?;
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

fn check_weights(params: &TrainParams) -> Result<(), StageError> {
    if !(0.0..1.0).contains(&params.label_smoothing.get()) {
        return Err(StageError::setting("label_smoothing", "must be at least 0 and below 1"));
    }
    match &params.average {
        Some(Average::Ema { decay }) if !(0.0..1.0).contains(&decay.get()) => {
            return Err(StageError::setting("average.decay", "must be at least 0 and below 1"));
        }
        Some(Average::Swa { from, .. }) if *from == 0 => {
            return Err(StageError::setting("average.from", "counts epochs from 1"));
        }
        _ => {}
    }
    match &params.weight_perturbation {
        Some(_) if matches!(params.method, TrainingMethod::Free(_)) => {
            Err(StageError::setting("weight_perturbation", "does not go with the method `free`"))
        }
        Some(perturbation) if perturbation.gamma.get() < 0.0 || perturbation.from == 0 => {
            Err(StageError::setting("weight_perturbation", "must have a `gamma` of at least 0 and count epochs from 1"))
        }
        _ => Ok(()),
    }
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
        TrainingMethod::Trades(trades) | TrainingMethod::Mart(trades) => {
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
