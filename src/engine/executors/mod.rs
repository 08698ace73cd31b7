//! The stages that the engine runs itself because they need no tensors: `dataset`, `file`, `worst_case`, `table`,
//! `figure` and `command`. Knows jobs as a worker knows them, inputs and outputs as files; neither the graph nor the
//! cache nor a terminal.

mod command;
mod dataset;
mod error;
mod figure;
mod file;
mod grid;
mod learning;
mod maps;
mod published;
mod samples;
mod substitute;
mod table;
mod worst_case;

pub(crate) use command::PROGRAM_FOLDER;
#[cfg(fuzzing)]
pub use dataset::fuzzing;
pub use dataset::{ClassCount, ImageSurvey};

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::digest::{ReadError, read_verified};
use crate::keeper::Keepers;
use crate::protocol::{Failure, Input, Job};
use crate::results::{State, TableDocument};
use crate::stage_kinds::StageKind;
use error::StageError;

/// What a running stage tells, and what it asks; the scheduler stands behind it.
pub trait Reporter: Sync {
    /// A line of the stage's log, without its end.
    fn log(&self, line: &str);
    /// Several lines, each with its end.
    fn log_lines(&self, lines: &str) {
        lines.lines().for_each(|line| self.log(line));
    }
    /// Something that a person should look at, and what to do about it: a line of the log, and shown at once.
    fn warn(&self, message: &str) {
        self.log(&format!("warning: {message}"));
    }
    /// `done` of `total` units are done, and a few words on what is going on.
    fn progress(&self, done: u64, total: u64, message: &str);
    /// Whether the stage is to be given up. Asked often.
    fn cancelled(&self) -> bool;
    /// Whether a stage that is given up may not even end in good order.
    fn hurried(&self) -> bool {
        false
    }
    /// Whether the folder of the outputs has an empty one for a program, `PROGRAM_FOLDER`.
    fn has_program_folder(&self) -> bool {
        false
    }
    /// Under whom the programs of stages run; a `command` stage needs it.
    fn keepers(&self) -> Option<&Keepers> {
        None
    }
}

/// Tells nobody.
struct Silent;

impl Reporter for Silent {
    fn log(&self, _: &str) {}
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Runs a stage: reads its inputs, checks them against their digests, writes its outputs, and returns a line on what
/// came out. What it writes depends on parameters and inputs only, but for what a command's program does.
///
/// # Errors
/// A [`Failure`] as of a worker; outputs may then be missing or unfinished.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, Failure> {
    let summary = match job.kind {
        StageKind::Dataset => dataset::run(job, reporter),
        StageKind::File => file::run(job, reporter),
        StageKind::WorstCase => worst_case::run(job, reporter),
        StageKind::Table => table::run(job, reporter),
        StageKind::Figure => match job.params.get("draw").and_then(serde_json::Value::as_str) {
            Some("maps") => maps::run(job, reporter),
            Some("training") => learning::run(job, reporter),
            Some(_) => samples::run(job, reporter),
            None => figure::run(job, reporter),
        },
        StageKind::Command => command::run(job, reporter),
        kind @ (StageKind::Transform
        | StageKind::Train
        | StageKind::Pretrained
        | StageKind::Randomised
        | StageKind::Evaluate
        | StageKind::Masking
        | StageKind::Saliency
        | StageKind::FourierMap) => Err(StageError::Kind { kind }),
    };
    Ok(summary?)
}

/// The table of a job of which not all inputs are there. `states` says for each input's label how it stands; inputs
/// that do not fit one another are left out as if they were missing.
///
/// # Errors
/// A [`Failure`] as of the stage.
pub fn preview(job: &Job, states: &BTreeMap<String, State>) -> Result<TableDocument, Failure> {
    Ok(table::assemble(job, &params(job)?, Some(states), &Silent)?)
}

/// Looks at a folder or an archive of images with a folder for each class, before there is a pipeline; writes nothing.
/// `scratch` is a folder for what a compressed archive unfolds to.
///
/// # Errors
/// A [`Failure`] as of a `dataset` stage of the format `image_folder`: no images, one class, a class that would vanish.
pub fn survey_images(path: &Path, scratch: &Path) -> Result<ImageSurvey, Failure> {
    Ok(dataset::survey(path, scratch)?)
}

/// Reads the shape of the images of an IDX file, count × height × width, from its beginning; `None` if it is none.
pub fn shape_of_idx(path: &Path) -> Option<[u32; 3]> {
    dataset::shape_of_images(fs::File::open(path).ok()?)
}

fn params<T: DeserializeOwned>(job: &Job) -> Result<T, StageError> {
    serde_path_to_error::deserialize(&job.params).map_err(|error| StageError::Params {
        kind: job.kind,
        path: error.path().to_string(),
        reason: error.inner().to_string(),
    })
}

/// The bytes of an input; only ever those of its digest.
fn read(input: &Input) -> Result<Vec<u8>, StageError> {
    read_verified(&input.path, input.digest).map_err(|source| read_error(input, source))
}

fn read_error(input: &Input, source: ReadError) -> StageError {
    let (input, digest, source) = (name(input), input.digest, Box::new(source));
    if source.is_lost() { StageError::Lost { input, digest, source } } else { StageError::Read { input, source } }
}

/// An input as messages name it.
fn name(input: &Input) -> String {
    if input.label.is_empty() { input.slot.clone() } else { format!("{} {}", input.slot, input.label) }
}

fn write(job: &Job, output: &'static str, bytes: &[u8]) -> Result<(), StageError> {
    let path = job.outputs.get(output).ok_or_else(|| StageError::NoOutput { output: output.to_owned() })?;
    fs::write(path, bytes).map_err(|source| StageError::Write { output: output.to_owned(), source })
}

/// Leaves the stage if it was cancelled.
fn check_cancelled(reporter: &dyn Reporter) -> Result<(), StageError> {
    if reporter.cancelled() { Err(StageError::Cancelled) } else { Ok(()) }
}
