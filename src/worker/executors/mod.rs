//! Executors of the stage kinds that need tensors: from parameters and inputs to outputs and a summary line.
//!
//! They know nothing about the protocol beyond [`Context`], and nothing about keys and caching.

pub mod evaluate;
pub mod fourier_map;
pub mod gradient_masking;
pub mod optimizer;
pub mod pretrained;
mod radii;
pub mod randomised;
pub mod saliency;
mod start;
pub mod train;
pub mod transform;

use atflow::results;
use atflow::stage_kinds::StageKind;

use crate::checkpoint::Checkpoint;
use crate::context::Context;
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{self, Trial, Use};

/// Runs a job; returns a summary line.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    match context.job.kind {
        StageKind::Transform => transform::run(context),
        StageKind::Train => train::run(context),
        StageKind::Pretrained => pretrained::run(context),
        StageKind::Randomised => randomised::run(context),
        StageKind::Evaluate => evaluate::run(context),
        StageKind::Masking => gradient_masking::run(context),
        StageKind::Saliency => saliency::run(context),
        StageKind::FourierMap => fourier_map::run(context),
        kind => Err(StageError::NotForWorkers(kind)),
    }
}

/// Images that a network from elsewhere is tried on.
const TRIED: usize = 3;

/// Checks that a model accepts a set's images and has its classes.
fn check_fit(model: &Checkpoint, set: &DeviceSet) -> Result<(), StageError> {
    if model.channels != set.channels() {
        let (model, set) = (model.channels, set.channels());
        return Err(StageError::Mismatch(format!("the model takes images of {model} channels, the set has {set}")));
    }
    networks::check_side(&model.net, [set.shape[1], set.shape[2]])?;
    same_classes("the model", &model.classes, "the set", &set.classes)?;
    if model.network.program().is_none() || set.is_empty() {
        return Ok(());
    }
    let (images, labels) = set.batch(&(0..set.len().min(TRIED) as u64).collect::<Vec<_>>())?;
    let trial = Trial { images: &images, labels: &labels, logits: model.logits(), usage: Use::Evaluate };
    networks::probe(&*model.network, &trial).map(|_| ())
}

/// Checks that two lists of classes are equal.
fn same_classes(a: &str, of_a: &[String], b: &str, of_b: &[String]) -> Result<(), StageError> {
    if of_a == of_b {
        return Ok(());
    }
    let difference = match of_a.iter().zip(of_b).position(|(a, b)| a != b) {
        Some(at) => format!("class {at} is `{}` and `{}`", of_a[at], of_b[at]),
        None => format!("{} and {} of them", of_a.len(), of_b.len()),
    };
    Err(StageError::Mismatch(format!("{a} and {b} have different classes: {difference}")))
}

/// Returns how many of `available` items a `limit` leaves.
fn limited(available: usize, limit: Option<u32>) -> Result<usize, StageError> {
    match limit {
        Some(0) => Err(StageError::setting("limit", "must be at least 1")),
        Some(limit) => Ok(available.min(limit as usize)),
        None => Ok(available),
    }
}

/// Formats a number with thousands separators: `2,000`.
fn grouped(number: u64) -> String {
    results::thousands(number)
}

/// Formats a share for display: `85.2 %`.
fn percent(part: u64, whole: u64) -> String {
    format!("{} %", results::percent(part as f64 / whole as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (60000, "60,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((percent(1704, 2000), percent(9_996, 10_000)), ("85.2 %".to_owned(), "99.96 %".to_owned()));
    }
}
