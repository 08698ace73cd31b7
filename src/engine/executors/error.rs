//! Why a stage of the engine fails, and what the engine makes of it.

use std::error::Error;
use std::io;

use super::dataset::DatasetError;
use crate::digest::{Digest, ReadError};
use crate::formats::{FormatError, WriteError};
use crate::keeper::KeeperError;
use crate::picture::PictureError;
use crate::protocol::{Failure, FailureCode};
use crate::results::{CsvError, DocumentError, MetricError, PublishedError};
use crate::stage_kinds::{ChoiceError, LearningMetric, StageKind};

/// Facts about a failure; [`Failure`] carries them on as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error("stages of kind {kind} need a worker")]
    Kind { kind: StageKind },
    #[error("the parameters of this {kind} stage cannot be read at `{path}`: {reason}")]
    Params { kind: StageKind, path: String, reason: String },
    #[error("the stage was given up")]
    Cancelled,

    #[error("input {input} cannot be read")]
    Read { input: String, source: Box<ReadError> },
    #[error("input {input} is corrupt or gone")]
    Lost { input: String, digest: Digest, source: Box<ReadError> },
    #[error("the stage was given no input {slot}")]
    NoInput { slot: String },
    #[error("the stage was given {count} inputs {slot} and takes one")]
    ManyInputs { slot: String, count: usize },
    #[error("input {input} is not what it should be")]
    Format { input: String, source: FormatError },
    #[error("the stage was not told where to write its output {output}")]
    NoOutput { output: String },
    #[error("output {output} cannot be written")]
    Write { output: String, source: io::Error },
    #[error("output {output} cannot be encoded")]
    Encode { output: &'static str, source: FormatError },

    #[error("output {output} cannot be written")]
    WriteSet { output: &'static str, source: WriteError },
    #[error(transparent)]
    Dataset(#[from] DatasetError),

    #[error("two cells would both be filled by inputs labelled `{label}`")]
    AmbiguousLabel { label: String },
    #[error("input {input} belongs to no cell")]
    NoCell { input: String },
    #[error("more than one input {input} was given")]
    Twice { input: String },
    #[error("the number of {cell} cannot be computed")]
    Metric { cell: String, source: MetricError },
    #[error("input {input} is not of the same images as the others")]
    OtherImages { input: String, source: MetricError },
    #[error("input {input} has {images} images, and image {index} is to be drawn")]
    NoImage { input: String, images: usize, index: usize },
    #[error("`images` {source} (input {input})")]
    Choice { input: String, source: ChoiceError },
    #[error("input {input} has images of {channels} channels; 1 or 3 can be drawn")]
    Channels { input: String, channels: usize },
    #[error("the table is to be compared with its row `{row}`, which it does not have")]
    NoRow { row: String },
    #[error("the file of {file} numbers does not fit the table")]
    Published { file: String, source: PublishedError },
    #[error("{labels} labels were given for the {values} values of the horizontal axis")]
    AxisLabels { labels: usize, values: usize },
    #[error("no training has numbers of `{}`: {}", metric.name(), metric.needs())]
    NotMeasured { metric: LearningMetric },
    #[error("the numbers cannot be written as CSV")]
    Csv(#[from] CsvError),
    #[error("the table cannot be assembled")]
    Document(#[from] DocumentError),
    #[error("the figure cannot be drawn")]
    Picture(#[from] PictureError),

    #[error("`${{{name}}}` names nothing that this stage has; it has {}", known_names(known))]
    UnknownName { name: String, known: Vec<String> },
    #[error("`${{` without its `}}` in `{text}`")]
    Unclosed { text: String },
    #[error("`{text}` names several needs that have several inputs each: one argument for each input cannot be made")]
    ManyLists { text: String },
    #[error("`run` names no program")]
    NoProgram,
    #[error("output {output} is to be read from `{file}`, which is not a file name inside the program's folder")]
    OutputFile { output: String, file: String },
    #[error("outputs {first} and {second} are to be read from one file, `{file}`")]
    SharedFile { first: String, second: String, file: String },
    #[error("a folder for the program cannot be made or filled")]
    Scratch(#[source] io::Error),
    #[error("`{program}` cannot be started")]
    Spawn { program: String, source: io::Error, advice: Option<String> },
    #[error("the engine was not told by which program programs are kept")]
    NoKeeper,
    #[error("`{program}` cannot be kept")]
    Keeper { program: String, source: KeeperError },
    #[error("`{program}` left {left} processes that cannot be ended, so what it wrote may still change")]
    Left { program: String, left: usize },
    #[error("`{program}` {ending}")]
    Exit { program: String, ending: String, last_lines: Vec<String> },
    #[error("the program ended well but did not write {}; in its folder {}", missing.join(", "), there(found))]
    Unwritten { missing: Vec<String>, found: Vec<String>, unfit: Vec<String> },
    #[error("{}", what.join("; "))]
    Unfit { what: Vec<String> },
}

fn known_names(known: &[String]) -> String {
    if known.is_empty() { "no inputs, files or outputs".to_owned() } else { known.join(", ") }
}

fn there(found: &[String]) -> String {
    if found.is_empty() { "is nothing".to_owned() } else { format!("are {}", found.join(", ")) }
}

impl StageError {
    fn code(&self) -> FailureCode {
        use StageError::*;
        match self {
            Lost { digest, .. } => FailureCode::CorruptInput { digest: *digest },
            Cancelled => FailureCode::Cancelled,
            Dataset(error) if error.is_stop() => FailureCode::Cancelled,
            Dataset(error) if error.is_passing() => FailureCode::Broken,
            WriteSet { source: WriteError::Io(_), .. } => FailureCode::Broken,
            // A rerun, perhaps on another machine or after making room, may succeed.
            Read { .. } | Write { .. } | Scratch(_) | Spawn { .. } | Keeper { .. } | Left { .. } | Exit { .. } => {
                FailureCode::Broken
            }
            Unwritten { .. } | Unfit { .. } | NoKeeper => FailureCode::Broken,
            Kind { .. }
            | Params { .. }
            | NoInput { .. }
            | ManyInputs { .. }
            | Format { .. }
            | NoOutput { .. }
            | Encode { .. }
            | Dataset(_)
            | WriteSet { .. }
            | AmbiguousLabel { .. }
            | NoCell { .. }
            | Twice { .. }
            | Metric { .. }
            | OtherImages { .. }
            | NoImage { .. }
            | Choice { .. }
            | Channels { .. }
            | NoRow { .. }
            | Published { .. }
            | AxisLabels { .. }
            | NotMeasured { .. }
            | Csv(_)
            | Document(_)
            | Picture(_)
            | UnknownName { .. }
            | Unclosed { .. }
            | ManyLists { .. }
            | NoProgram
            | OutputFile { .. }
            | SharedFile { .. } => FailureCode::Invalid,
        }
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        let mut causes = match &error {
            StageError::Exit { last_lines, .. } => last_lines.clone(),
            StageError::Unwritten { unfit, .. } => unfit.clone(),
            _ => vec![],
        };
        let mut said = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some messages end with that of their source.
            if !said.ends_with(&text) {
                causes.push(text.clone());
            }
            said = text;
            source = cause.source();
        }
        if let StageError::Spawn { advice: Some(advice), .. } = &error {
            causes.push(advice.clone());
        }
        Failure { code: error.code(), message: error.to_string(), causes }
    }
}
