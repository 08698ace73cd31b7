//! Why a stage failed, as facts, and how each sort of failure is told to the engine.

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
    /// The engine asked to give up, or left.
    #[error("cancelled")]
    Cancelled,
    /// The engine sent a stage that it must run itself.
    #[error("a worker does not run stages of kind `{0}`")]
    NotForWorkers(StageKind),
    /// The parameters are not those of the kind.
    #[error("the parameters of this {kind} stage cannot be read")]
    Params {
        /// The kind of the stage.
        kind: StageKind,
        /// What serde said.
        source: serde_json::Error,
    },
    /// A parameter is outside its range, or does not fit an input.
    #[error("`{name}` {problem}")]
    Setting {
        /// The parameter, as a path: `adversary.eps`.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A need is not filled, or by more inputs than it takes.
    #[error("expected {expected} as `{slot}`, found {found}")]
    Slot {
        /// The need.
        slot: &'static str,
        /// How many it takes.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The engine named no file for an output.
    #[error("no file is named for the output `{0}`")]
    NoOutput(&'static str),
    /// Two inputs do not go together.
    #[error("{0}")]
    Mismatch(String),
    /// An input cannot be read, or is corrupt or gone.
    #[error("cannot use the input `{slot}`")]
    Read {
        /// The need it fills.
        slot: String,
        /// What it should be.
        digest: Digest,
        /// What is wrong with it.
        source: Box<ReadError>,
    },
    /// An input is not the artifact it should be.
    #[error("the input `{slot}` is not an image set")]
    ImageSet {
        /// The need it fills.
        slot: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// An input is not a checkpoint that this version can use.
    #[error("the input `{slot}` is not a usable checkpoint")]
    Checkpoint {
        /// The need it fills.
        slot: String,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// An input does not hold the weights that it should.
    #[error("the input `{slot}` does not hold the weights that it should")]
    Weights {
        /// The need it fills.
        slot: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The weights of an input are not those of the network.
    #[error("the input `{slot}` does not fit the network")]
    Install {
        /// The need it fills.
        slot: String,
        /// Every difference.
        source: InstallError,
    },
    /// An output cannot be encoded.
    #[error("cannot encode the output `{output}`")]
    Encode {
        /// The output.
        output: &'static str,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The loss of training is not a number any more.
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
    /// The network gives numbers that are not finite.
    #[error("the network gives values that are not finite for image {index}: its checkpoint is of no use")]
    NotFinite {
        /// The first such image.
        index: usize,
    },
    /// An attack has nothing to go by.
    #[error(
        "the gradient of the loss is zero for all of the {images} attacked images that are classified correctly: the attack cannot move, and its accuracy would say nothing of robustness; \
         the network masks its gradients (saturated logits?): see what a `masking` stage says of it, or use the attack `square`, which needs none"
    )]
    NoGradient {
        /// How many images were attacked and right.
        images: u64,
    },
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    /// The worker has a defect.
    #[error("the worker panicked: {0}")]
    Panic(String),
}

impl StageError {
    /// A parameter outside its range.
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

    /// The failure as the engine hears of it.
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
