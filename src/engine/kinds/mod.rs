//! The kinds of stage: what each takes, gives, and is told. The same types validate a pipeline file, are hashed into a
//! stage's key, travel to the worker, and make the reference documentation. Knows nothing of how a stage is run.

mod attack;
mod command;
mod dataset;
mod evaluate;
mod figure;
mod net;
mod ports;
mod saliency;
mod table;
mod train;
mod transform;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use attack::{Attack, Fgsm, NoAttack, Norm, Pgd, Start};
pub use command::{CommandParams, Run};
pub use dataset::{DatasetParams, IdxFiles, Source};
pub use evaluate::EvaluateParams;
pub use figure::{FigureParams, FigureSpec, Scale};
pub use net::{Net, StandardResnet, Stem, WideResnet};
pub use ports::{ArtifactType, Output, Slot};
pub use saliency::{Method, SaliencyParams};
pub use table::{Column, ColumnSpec, ColumnsSpec, Metric, TableParams, TableSpec};
pub use train::{
    AdversarialBatches, Augmentation, Free, HeadWeights, Holdout, KeptEpoch, OverfittingCheck, Precision, Pretrained,
    Rate, Schedule, Sgd, Trades, TrainParams, TrainingMethod,
};
pub use transform::{PatchShuffle, Saturate, TransformParams};

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Fetches, checks, unpacks and decodes a data set.
    Dataset,
    /// Makes a changed test set.
    Transform,
    /// Trains a network.
    Train,
    /// Predicts every image of a set, attacked or not.
    Evaluate,
    /// Draws saliency maps.
    Saliency,
    /// Assembles a table of numbers.
    Table,
    /// Draws curves.
    Figure,
    /// Runs any program.
    Command,
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Kind; 8] = [
        Kind::Dataset,
        Kind::Transform,
        Kind::Train,
        Kind::Evaluate,
        Kind::Saliency,
        Kind::Table,
        Kind::Figure,
        Kind::Command,
    ];

    /// The name, as a pipeline file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Dataset => "dataset",
            Kind::Transform => "transform",
            Kind::Train => "train",
            Kind::Evaluate => "evaluate",
            Kind::Saliency => "saliency",
            Kind::Table => "table",
            Kind::Figure => "figure",
            Kind::Command => "command",
        }
    }

    /// The version of the kind's code. A raised number makes every stage of the kind stale; say here what changed and why
    /// results could differ.
    pub const fn version(self) -> u32 {
        match self {
            // 1: first version of each.
            Kind::Dataset
            | Kind::Transform
            | Kind::Train
            | Kind::Evaluate
            | Kind::Saliency
            | Kind::Table
            | Kind::Figure
            | Kind::Command => 1,
        }
    }

    /// Whether a worker with tensors runs it; the engine itself runs the others.
    pub const fn needs_worker(self) -> bool {
        matches!(self, Kind::Transform | Kind::Train | Kind::Evaluate | Kind::Saliency)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
