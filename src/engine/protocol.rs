//! What the engine and a worker say to each other: one JSON object a line, requests on the worker's standard input,
//! events on its standard output. Knows neither how a worker is started nor what a stage computes.
//! The file format is told in `docs/protocol.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::numerics::{Arithmetic, Numerics};
use crate::stage_kinds::{Net, Pass, Precision, StageKind};

/// Raised when a message changes its meaning. Engine and worker of different versions refuse each other at the first
/// line. 4: a worker has one sort of numerics from its start on, and says what its arithmetic comes to. 3: workers
/// warn, and say how long earlier runs worked on what they finish. 2: trainings keep their progress in folders that the
/// job names.
pub const PROTOCOL_VERSION: u32 = 4;

/// Whether a device is a GPU, by the name that a worker greets with.
pub fn is_gpu(device: &str) -> bool {
    device.starts_with("cuda")
}

/// From the engine to a worker. The end of standard input asks the worker to leave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Run one stage; the worker does one at a time.
    Run(Job),
    /// Measure how fast images pass a network; one at a time, as stages.
    Measure(Measurement),
    /// Give the stage up as soon as can be; answered by [`Event::Failed`] with [`FailureCode::Cancelled`].
    Cancel {
        /// The job's id.
        id: u64,
    },
}

/// One stage to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Names the job in the events that answer it.
    pub id: u64,
    /// The instance's name, for messages.
    pub stage: String,
    /// What to do.
    pub kind: StageKind,
    /// The kind's canonical parameters ([`crate::stage_kinds`]).
    pub params: serde_json::Value,
    /// The seed of every random draw.
    pub seed: u64,
    /// Threads to compute with on the CPU.
    pub threads: usize,
    /// The inputs, in the order of the pipeline file where order matters.
    pub inputs: Vec<Input>,
    /// Where each output, by name, is to be written. The files do not exist yet; their folder does.
    pub outputs: BTreeMap<String, PathBuf>,
    /// For a training: the folder in which it keeps its progress and from which it resumes; it need not exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<PathBuf>,
    /// For a training whose schedule does not depend on the number of epochs: the folder that it shares with those that
    /// differ from it in that number alone. It may go on from what it finds there, and leaves its final state there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onward: Option<PathBuf>,
}

impl Job {
    /// The inputs given for a slot, in order.
    pub fn inputs_of<'a>(&'a self, slot: &'a str) -> impl Iterator<Item = &'a Input> {
        self.inputs.iter().filter(move |input| input.slot == slot)
    }
}

/// What a worker is to measure: the rate at which images of noise pass a network with initial weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Names the measurement in the event that answers it.
    pub id: u64,
    /// What a pass computes.
    pub pass: Pass,
    /// What convolutions and linear layers compute in.
    pub precision: Precision,
    /// The network.
    pub net: Net,
    /// Channels, height and width of the images.
    pub shape: [u32; 3],
    /// Images at once.
    pub batch_size: u32,
    /// Threads to compute with on the CPU.
    pub threads: usize,
    /// How long to go on, in seconds; at least one batch passes.
    pub seconds: f64,
}

/// One input of a stage: a blob of the cache, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The need it fills: `model`, `set`, `data`, …
    pub slot: String,
    /// The label of the instance it comes from, for rows and columns; empty where the slot takes one input only.
    pub label: String,
    /// The file.
    pub path: PathBuf,
    /// The digest that its bytes must have ([`crate::digest::read_verified`]).
    pub digest: Digest,
}

/// From a worker to the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line of a worker that is ready.
    Hello {
        /// [`PROTOCOL_VERSION`] as the worker was built with.
        protocol: u32,
        /// The worker's own version.
        version: String,
        /// The version of libtorch that it runs on.
        libtorch: String,
        /// Where it computes: `cpu`, `cuda:0`, …
        device: String,
        /// The device's name for people, such as the GPU's model.
        device_name: String,
        /// How its arithmetic on the CPU is held. Older workers do not tell, and are refused for their protocol.
        #[serde(default)]
        numerics: Numerics,
        /// What that comes to on its machine.
        #[serde(default)]
        arithmetic: Arithmetic,
    },
    /// The only line of a worker that cannot work at all: CUDA asked for and not there, say.
    Unusable {
        /// What is wrong and why.
        message: String,
    },
    /// A line of the stage's log.
    Log {
        /// The job's id.
        id: u64,
        /// One line, without its end.
        line: String,
    },
    /// Something that the user should know while the stage goes on; a line of its log as well.
    Warning {
        /// The job's id.
        id: u64,
        /// What it is: a sentence without its full stop.
        message: String,
    },
    /// How far a stage is.
    Progress {
        /// The job's id.
        id: u64,
        /// Units done so far.
        done: u64,
        /// Units in all; may grow.
        total: u64,
        /// A few words on what is going on: `epoch 3/6  loss 0.41  accuracy 85.2 %`.
        message: String,
        /// The same as numbers.
        #[serde(default)]
        metrics: ProgressMetrics,
    },
    /// The stage is done and every output is written.
    Finished {
        /// The job's id.
        id: u64,
        /// A line for people on what came out, such as `accuracy 87.4 % (n = 2,000)`.
        summary: String,
        /// Peak resident memory of the worker so far, in bytes.
        peak_memory: u64,
        /// How long earlier jobs worked on what this one went on from, in seconds: for a training that was resumed.
        #[serde(default)]
        earlier_seconds: f64,
    },
    /// A measurement is done.
    Measured {
        /// The measurement's id.
        id: u64,
        /// Images that passed.
        images: u64,
        /// How long they took, in seconds: of processor time for one thread on a CPU, else of wall time.
        seconds: f64,
    },
    /// The stage or the measurement failed; its outputs, if any, are to be thrown away.
    Failed {
        /// The job's id.
        id: u64,
        /// Why.
        failure: Failure,
    },
}

/// Numbers of a stage in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProgressMetrics {
    /// Images processed by this job so far: an image of each epoch counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Current epoch of a training, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Epochs of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    /// Mean loss of the epoch's images so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Share of the images so far that are classified correctly, 0 to 1: of the epoch for a training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// Progress of a running stage, with the pace that the engine measures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageProgress {
    /// Units done.
    pub done: u64,
    /// Units in all; 0 if unknown.
    pub total: u64,
    /// A few words.
    pub message: String,
    /// Numbers of the stage.
    #[serde(flatten)]
    pub metrics: ProgressMetrics,
    /// Images a second, over the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Seconds that the rest takes at the pace of the last seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What sort of failure, for what the engine does next.
    pub code: FailureCode,
    /// What happened, as a sentence without its full stop.
    pub message: String,
    /// What caused it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// The sorts of failure that the engine tells apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// An input's bytes are not those of its digest, or it is gone: quarantine what is there and make it again.
    CorruptInput {
        /// The input's digest.
        #[schemars(with = "String")]
        digest: Digest,
    },
    /// The stage was given up because the engine asked.
    Cancelled,
    /// Parameters or inputs do not fit together; a rerun would fail again.
    Invalid,
    /// The stage would have to run and may not, at the depth from which results are made anew.
    Barred,
    /// Anything else: no memory, no disk, a failed operator, a panic.
    Broken,
}
