//! Errors of a stage, as facts, and their conversion to failures for the engine.

use std::error::Error;
use std::path::PathBuf;

use atflow::digest::{Digest, ReadError};
use atflow::formats::FormatError;
use atflow::protocol::{Failure, FailureCode};
use atflow::stage_kinds::StageKind;
use tch::TchError;

use crate::checkpoint::CheckpointError;
use crate::weights::InstallError;

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The engine cancelled the job, or left.
    #[error("cancelled")]
    Cancelled,
    /// The engine sent a stage that only the engine runs.
    #[error("a worker does not run stages of kind `{0}`")]
    NotForWorkers(StageKind),
    /// The parameters do not match the kind.
    #[error("the parameters of this {kind} stage cannot be read")]
    Params {
        /// The kind of the stage.
        kind: StageKind,
        /// The error from serde.
        source: serde_json::Error,
    },
    /// A parameter is outside its range, or does not fit an input.
    #[error("`{name}` {problem}")]
    Setting {
        /// The parameter, as a path: `adversary.eps`.
        name: String,
        /// The problem.
        problem: String,
    },
    /// A need has no input, or too many.
    #[error("expected {expected} as `{slot}`, found {found}")]
    Slot {
        /// The need.
        slot: &'static str,
        /// The number it takes.
        expected: &'static str,
        /// The number found.
        found: usize,
    },
    /// The engine named no file for an output.
    #[error("no file is named for the output `{0}`")]
    NoOutput(String),
    /// Two inputs are incompatible.
    #[error("{0}")]
    Mismatch(String),
    /// An input is unreadable, corrupt or missing.
    #[error("cannot use the input `{slot}`")]
    Read {
        /// The need it fills.
        slot: String,
        /// The expected digest.
        digest: Digest,
        /// The problem.
        source: Box<ReadError>,
    },
    /// An input is not an image set.
    #[error("the input `{slot}` is not an image set")]
    ImageSet {
        /// The need it fills.
        slot: String,
        /// The problem.
        source: FormatError,
    },
    /// An input is not a checkpoint that this version can use.
    #[error("the input `{slot}` is not a usable checkpoint")]
    Checkpoint {
        /// The need it fills.
        slot: String,
        /// The problem.
        source: CheckpointError,
    },
    /// An input does not hold the expected weights.
    #[error("the input `{slot}` does not hold the weights that it should")]
    Weights {
        /// The need it fills.
        slot: String,
        /// The problem.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The weights of an input do not fit the network.
    #[error("the input `{slot}` does not fit the network")]
    Install {
        /// The need it fills.
        slot: String,
        /// All differences.
        source: InstallError,
    },
    /// A TorchScript network cannot be used. The text says why, and what to do.
    #[error("the TorchScript network {0}")]
    Script(String),
    /// An output cannot be encoded.
    #[error("cannot encode the output `{output}`")]
    Encode {
        /// The output.
        output: &'static str,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error from the system.
        source: std::io::Error,
    },
    /// The training loss is no longer a finite number.
    #[error(
        "the loss became {loss} in epoch {epoch}: training has diverged; \
         try a smaller `optimizer.lr`, or a longer `warmup` of the schedule"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// The mean loss of the epoch so far.
        loss: f64,
    },
    /// The network outputs non-finite values.
    #[error("the network gives values that are not finite for image {index}: its checkpoint is of no use")]
    NotFinite {
        /// The first such image.
        index: usize,
    },
    /// An attack has no gradient to follow.
    #[error(
        "the gradient of the loss is zero for all of the {images} attacked images that are classified correctly: the attack cannot move, and its accuracy would say nothing of robustness; \
         the network masks its gradients (saturated logits?): see what a `masking` stage says of it, or use the attack `square`, which needs none"
    )]
    NoGradient {
        /// The number of images that were attacked and classified correctly.
        images: u64,
    },
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// The worker has a bug.
    #[error("the worker panicked: {0}")]
    Panic(String),
}

impl StageError {
    /// Creates the error for a parameter outside its range.
    pub fn setting(name: impl Into<String>, problem: impl Into<String>) -> Self {
        StageError::Setting { name: name.into(), problem: problem.into() }
    }

    fn code(&self) -> FailureCode {
        match self {
            StageError::Cancelled => FailureCode::Cancelled,
            StageError::Read { digest, source, .. } if source.is_lost() => {
                FailureCode::CorruptInput { digest: *digest }
            }
            StageError::NotForWorkers(_)
            | StageError::Params { .. }
            | StageError::Setting { .. }
            | StageError::Slot { .. }
            | StageError::NoOutput(_)
            | StageError::Mismatch(_)
            | StageError::ImageSet { .. }
            | StageError::Checkpoint { .. }
            | StageError::Weights { .. }
            | StageError::Script(_)
            | StageError::Install { .. } => FailureCode::Invalid,
            StageError::Read { .. }
            | StageError::Encode { .. }
            | StageError::Write { .. }
            | StageError::Diverged { .. }
            | StageError::NotFinite { .. }
            | StageError::NoGradient { .. }
            | StageError::Torch(_)
            | StageError::Panic(_) => FailureCode::Broken,
        }
    }

    /// Converts the error to a failure for the engine.
    pub fn to_failure(&self) -> Failure {
        let mut causes = Vec::new();
        let mut cause = self.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Failure { code: self.code(), message: self.to_string(), causes }
    }
}
