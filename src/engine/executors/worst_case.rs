//! The `worst_case` stage: of several predictions of the same images, for each image the worst.

use serde_json::json;

use super::error::StageError;
use super::{Reporter, check_cancelled, name, params, read, write};
use crate::formats::{Ensemble, Predictions, UnderAttack};
use crate::protocol::Job;
use crate::results::same_images;
use crate::stage_kinds::WorstCaseParams;

/// Slot `results`, several; output `predictions`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let WorstCaseParams {} = params(job)?;
    let mut attacks = Vec::new();
    let mut worst: Option<Predictions> = None;
    let mut broken_by = Vec::new();
    for input in &job.inputs {
        check_cancelled(reporter)?;
        let predictions = Predictions::from_bytes(&read(input)?)
            .map_err(|source| StageError::Format { input: name(input), source })?;
        let index = i32::try_from(attacks.len()).unwrap_or(i32::MAX);
        attacks.push(input.label.clone());
        match &mut worst {
            None => {
                broken_by = (0..predictions.len()).map(|at| if predictions.correct(at) { -1 } else { index }).collect();
                worst = Some(predictions);
            }
            Some(worst) => {
                let fits = same_images(&predictions, worst, "in the first of them");
                fits.map_err(|source| StageError::OtherImages { input: name(input), source })?;
                // Ranks that one of them lacks are known of no image that it is worst at.
                if predictions.label_rank.is_none() {
                    (worst.label_rank, worst.texture_rank) = (None, None);
                }
                join(worst, &predictions, &mut broken_by, index);
            }
        }
    }
    let Some(mut worst) = worst else { return Err(StageError::NoInput { slot: "results".to_owned() }) };
    let spec = json!({"attack": "worst_case"});
    let iterate = "worst_case".to_owned();
    let correct = broken_by.iter().filter(|by| **by < 0).count();
    let count = attacks.len();
    let ensemble = Some(Ensemble { attacks, broken_by });
    worst.attack = Some(UnderAttack { spec, iterate, ensemble, ..UnderAttack::default() });
    let bytes = worst.to_bytes().map_err(|source| StageError::Encode { output: "predictions", source })?;
    write(job, "predictions", &bytes)?;
    Ok(format!("{correct} of {} images correct in all {count} evaluations", worst.len()))
}

/// Puts the rows of other predictions in the place of those that are better.
fn join(worst: &mut Predictions, other: &Predictions, broken_by: &mut [i32], index: i32) {
    for (at, by) in broken_by.iter_mut().enumerate() {
        let is_broken = !other.correct(at);
        if *by >= 0 || !(is_broken || other.loss[at] > worst.loss[at]) {
            continue;
        }
        worst.predicted[at] = other.predicted[at];
        worst.probability[at] = other.probability[at];
        worst.loss[at] = other.loss[at];
        for (worst, other) in
            [(&mut worst.label_rank, &other.label_rank), (&mut worst.texture_rank, &other.texture_rank)]
        {
            if let (Some(worst), Some(other)) = (worst, other) {
                worst[at] = other[at];
            }
        }
        if is_broken {
            *by = index;
        }
    }
}
