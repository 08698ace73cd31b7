//! The numbers of trainings for TensorBoard: an event file for each training, with scalars by epoch.

use super::events::{Event, event_file};
use super::{JoinedStage, RunResults, TrainingCurve};
use crate::formats::EpochMetrics;
use crate::stage_kinds::EpochNumber;

/// The event file of a training.
#[derive(Debug)]
pub struct EventFile {
    /// The folder that it belongs into, which is the name of its run in TensorBoard: `model-pgd`.
    pub run: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The name of every event file. TensorBoard looks for `tfevents` in it. One name for all, so that a file replaces that
/// of an earlier result: TensorBoard joins the files of a folder to one run.
pub const EVENT_FILE: &str = "events.out.tfevents.0.atflow";

/// Returns the event files of these trainings. The same results give the same bytes.
pub fn event_files(results: &RunResults, curves: &[TrainingCurve]) -> Vec<EventFile> {
    let file = |curve: &TrainingCurve| {
        let stage = &results.stages[curve.stage];
        EventFile { run: stage.name.replace('/', "-"), bytes: bytes(stage, curve) }
    };
    curves.iter().map(file).collect()
}

/// A record has the end and the seconds of a training. Its epochs are spread evenly over them.
fn bytes(stage: &JoinedStage, curve: &TrainingCurve) -> Vec<u8> {
    let made = &stage.manifest.made;
    let end = made.at.parse::<jiff::Timestamp>().map_or(0.0, |at| at.as_duration().as_secs_f64());
    let epochs = &curve.metrics.epochs;
    let last = epochs.last().map_or(1.0, |epoch| f64::from(epoch.epoch));
    let event = |epoch: &EpochMetrics| Event {
        wall_time: end - made.seconds * (1.0 - f64::from(epoch.epoch) / last),
        step: epoch.epoch,
        scalars: EpochNumber::ALL.iter().filter_map(|number| Some((tag(*number), number.of(epoch)?))).collect(),
    };
    let events: Vec<Event> = epochs.iter().map(event).collect();
    event_file(end - made.seconds, &events)
}

/// The tag of a number. TensorBoard shows tags of one first word together.
const fn tag(number: EpochNumber) -> &'static str {
    match number {
        EpochNumber::TrainLoss => "loss/train",
        EpochNumber::TrainAccuracy => "accuracy/train",
        EpochNumber::AdversarialLoss => "loss/adversarial",
        EpochNumber::AdversarialAccuracy => "accuracy/adversarial",
        EpochNumber::ValidationAccuracy => "accuracy/validation",
        EpochNumber::CheckedAccuracy => "accuracy/checked",
        EpochNumber::HoldoutAccuracy => "accuracy/holdout",
        EpochNumber::LearningRate => "learning_rate",
    }
}
