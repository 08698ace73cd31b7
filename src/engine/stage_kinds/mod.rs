//! The kinds of stage: what each takes, gives, and is told. The same types validate a pipeline file, are hashed into a
//! stage's key, travel to the worker, and make the reference documentation. Knows nothing of how a stage is run.

mod architectures;
mod attack;
mod augmentation;
mod command;
mod corrupt;
mod count;
mod dataset;
mod draws;
mod evaluate;
mod figure;
mod fourier_map;
mod headings;
mod images;
mod learning;
mod masking;
mod metric;
mod net;
mod net_problem;
mod net_size;
mod optimizer;
mod passes;
mod ports;
mod pretrained;
mod print;
mod radii;
mod randomised;
mod saliency;
mod smooth;
mod source;
mod table;
mod text;
mod train;
mod transform;
mod work;
mod worst_case;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use architectures::{Activation, Convnext, DmWideResnet, PreactBuild, PreactResnet18, Vit};
pub use attack::{
    Apgd, ApgdLoss, Attack, AttackLoss, AttackParams, AttackProblem, Autoattack, BaseGrid, Cw, Demand, Direction, Fab,
    Fgsm, Iterate, Malt, Member, NoAttack, Norm, Pgd, Spatial, Square, Start,
};
pub use augmentation::Augmentation;
pub use command::{CommandOutput, CommandParams, RESERVED_RESULTS, Run, ShownOutput};
pub use corrupt::{Corrupt, Corruption, SeverityTable};
pub use count::{PassCount, SetShape, count_passes};
pub use dataset::{ArrayFiles, ArrayNames, Broken, Classes, DatasetParams, Folder, IdxFiles, Way};
pub use draws::draws;
pub use evaluate::{EvaluateParams, RadiiProblem};
pub use figure::{
    CurvesSpec, FigureParams, FigureSpec, MapsParams, MapsSpec, MapsTag, SamplesParams, SamplesSpec, SamplesTag, Scale,
};
pub use fourier_map::FourierMapParams;
pub use headings::Headings;
pub use images::{ChoiceError, Chosen, Images};
pub use learning::{
    EpochImages, EpochNumber, LearningMetric, LearningParams, LearningSeries, LearningSpec, LearningTag,
};
pub use masking::MaskingParams;
pub use metric::Metric;
pub use net::{ImageSide, MOST_BLOCKS, MOST_CHANNELS, Net, StandardResnet, Stem, Torchscript, WideResnet};
pub use net_problem::NetProblem;
pub use net_size::NetSize;
pub use optimizer::{Average, OptimizerName, OptimizerParams, Rate, Schedule, SwaStatistics, WeightPerturbation};
pub use passes::{Pass, Passes};
pub use ports::{ArtifactType, Output, Slot};
pub use pretrained::PretrainedParams;
pub use print::{Bold, LegendPlace, PictureSize, TexLayout};
pub use radii::Radius;
pub use randomised::RandomisedParams;
pub use saliency::{Method, SaliencyParams, Stability};
pub use smooth::{Smooth, SmoothAfter};
pub use source::{FileParams, FolderPath, Source};
pub use table::{
    Column, ColumnSpec, ColumnsSpec, Compare, Family, OfMaps, PairedTest, PublishedDetails, PublishedParams,
    PublishedSpec, TableParams, TableSpec, Tolerance,
};
pub use text::Text;
pub use train::{
    AdversarialBatches, Free, HeadWeights, Holdout, KeptEpoch, OverfittingCheck, Precision, Pretrained, Trades,
    TrainParams, TrainingMethod,
};
pub use transform::{
    Assembly, CueConflict, Filter, Fourier, Mask, PatchShuffle, Sample, Saturate, Stylize, TransformParams,
};
pub use work::{Work, work};
pub use worst_case::WorstCaseParams;

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Fetches, checks, unpacks and decodes a data set.
    Dataset,
    /// Brings in one file as it is.
    File,
    /// Makes a changed test set.
    Transform,
    /// Trains a network.
    Train,
    /// Makes a checkpoint from weights that were trained elsewhere.
    Pretrained,
    /// Makes a checkpoint whose upper layers are random.
    Randomised,
    /// Predicts every image of a set, attacked or not.
    Evaluate,
    /// Joins several evaluations: for each image the worst.
    WorstCase,
    /// Looks for masked gradients.
    Masking,
    /// Draws saliency maps.
    Saliency,
    /// Draws Fourier heat maps.
    FourierMap,
    /// Assembles a table of numbers.
    Table,
    /// Draws curves.
    Figure,
    /// Runs any program.
    Command,
}

impl StageKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [StageKind; 14] = [
        StageKind::Dataset,
        StageKind::File,
        StageKind::Transform,
        StageKind::Train,
        StageKind::Pretrained,
        StageKind::Randomised,
        StageKind::Evaluate,
        StageKind::WorstCase,
        StageKind::Masking,
        StageKind::Saliency,
        StageKind::FourierMap,
        StageKind::Table,
        StageKind::Figure,
        StageKind::Command,
    ];

    /// The name, as a pipeline file has it.
    pub const fn name(self) -> &'static str {
        match self {
            StageKind::Dataset => "dataset",
            StageKind::File => "file",
            StageKind::Transform => "transform",
            StageKind::Train => "train",
            StageKind::Pretrained => "pretrained",
            StageKind::Randomised => "randomised",
            StageKind::Evaluate => "evaluate",
            StageKind::WorstCase => "worst_case",
            StageKind::Masking => "masking",
            StageKind::Saliency => "saliency",
            StageKind::FourierMap => "fourier_map",
            StageKind::Table => "table",
            StageKind::Figure => "figure",
            StageKind::Command => "command",
        }
    }

    /// The version of the kind's code. A raised number makes every stage of the kind stale; say here what changed and
    /// why results could differ.
    pub const fn version(self) -> u32 {
        match self {
            // 2: predictions of attacked images say which attack they are under and what gradients it saw.
            StageKind::Evaluate => 2,
            // 2: several sets, so `maps` has an axis more; `numbers` and `csv` came. 3: `markdown` came; maps and
            // numbers are the same. 4: text grows with wide pictures; maps and numbers are the same.
            StageKind::Saliency => 4,
            // 2: `table/2`, whose cells have a `value` and not a `share`, and a new output, `tex`. The numbers are the
            // same. 3: verdicts near 0 and 100 % are stricter, and take the published number as a sample as well. The
            // numbers are the same. 4: `table/3`: p-values are corrected for their family; no interval where a number
            // is fixed by definition or rests on one seed; seeds of the same predictions count once; published numbers
            // have their own decimals, by which `same` is decided. 5: LaTeX is never scaled: columns that do not fit go
            // on below; fractions are shown as they are written. The numbers are the same. 6: a table for LaTeX that is
            // taller than a page is several floats. The numbers are the same. 7: sampling error is that of two samples;
            // rows are compared over seeds, and a table over seeds says what its interval leaves out. The numbers are
            // the same.
            StageKind::Table => 7,
            // 2: the column `share` of the CSV is `value`. Numbers and pictures are the same. 3: text of samples grows
            // with wide pictures; curves and numbers are the same. 4: no interval where a number is fixed by
            // definition; curves tell n. The other numbers are the same. 5: a new output, `pdf`; the text of samples is
            // text in the SVG, and says the index of each image; fractions are shown as they are written. The numbers
            // are the same.
            StageKind::Figure => 5,
            // 2: tar archives give all that `tar -x` extracts (hard links, links, sparse files, later duplicates), BMP
            // and WebP files are images, and folders that wrap the classes are unwrapped. Archives without any of these
            // give the same bytes.
            StageKind::Dataset => 2,
            // 2: programs get a declared environment. What they made of a variable that nobody declared, a credential
            // say, may stand in older results.
            StageKind::Command => 2,
            // 2: a twelfth check, PGD on the margin of the logits, which the scale of the logits does not hide from.
            StageKind::Masking => 2,
            // 1: first version of each.
            StageKind::File
            | StageKind::Transform
            | StageKind::Train
            | StageKind::Pretrained
            | StageKind::Randomised
            | StageKind::WorstCase
            | StageKind::FourierMap => 1,
        }
    }

    /// The version of the code that runs a stage of the kind with these parameters. A number above
    /// [`StageKind::version`] makes only stages with such parameters stale.
    pub fn version_for(self, params: &serde_json::Value) -> u32 {
        let is_newest = match self {
            StageKind::Evaluate => params.get("search").is_some_and(|search| search == "bf16"),
            _ => false,
        };
        if is_newest { self.newest_version() } else { self.version() }
    }

    /// The highest version that [`StageKind::version_for`] gives.
    pub const fn newest_version(self) -> u32 {
        match self {
            // One above: where 16 bits leave open whether an image is broken, 32 bits tell whether it leaves the
            // attack.
            StageKind::Evaluate => self.version() + 1,
            _ => self.version(),
        }
    }

    /// Whether a worker with tensors runs it; the engine itself runs the others.
    pub const fn needs_worker(self) -> bool {
        matches!(
            self,
            StageKind::Transform
                | StageKind::Train
                | StageKind::Pretrained
                | StageKind::Randomised
                | StageKind::Evaluate
                | StageKind::Masking
                | StageKind::Saliency
                | StageKind::FourierMap
        )
    }

    /// Whether what a stage of the kind makes may depend on its seed.
    pub const fn takes_seed(self) -> bool {
        self.needs_worker() || matches!(self, StageKind::Command)
    }
}

impl fmt::Display for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::StageKind;

    #[test]
    fn only_a_search_in_16_bits_has_a_version_of_its_own() {
        let attack = json!({"attack": "fgsm", "eps": 0.1});
        assert_eq!(StageKind::Evaluate.version_for(&json!({"attack": attack, "search": "bf16"})), 3);
        assert_eq!(StageKind::Evaluate.version_for(&json!({"attack": attack})), 2);
        let training = StageKind::Train;
        assert_eq!(training.version_for(&json!({"search": "bf16"})), training.version());
    }
}
