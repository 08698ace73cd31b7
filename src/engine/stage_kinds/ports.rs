//! What each kind takes and gives: its slots for inputs and its outputs. Knows nothing of the stages that are joined by
//! them.

use serde_json::Value as Json;

use super::StageKind;

/// The output of a training with the weights of its last epoch, beside those of the best one.
const LAST: &str = "last";
/// The output of an evaluation.
pub(super) const PREDICTIONS: &str = "predictions";

/// What sort of artifact a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactType {
    /// [`crate::formats::ImageSet`].
    Images,
    /// A network's weights.
    Checkpoint,
    /// [`crate::formats::Predictions`].
    Predictions,
    /// Anything else: numbers, pictures, a program's output.
    File,
}

impl ArtifactType {
    /// The type for people.
    pub const fn name(self) -> &'static str {
        match self {
            ArtifactType::Images => "an image set",
            ArtifactType::Checkpoint => "a checkpoint",
            ArtifactType::Predictions => "predictions",
            ArtifactType::File => "a file",
        }
    }
}

/// A place for inputs.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Its name under `needs`.
    pub name: &'static str,
    /// What it takes.
    pub takes: ArtifactType,
    /// Whether it takes several inputs.
    pub many: bool,
    /// Whether several inputs are parts of one thing. A single one then has no label, so its key is that of a slot for
    /// one input.
    pub parts: bool,
    /// Whether a stage may leave it empty.
    pub optional: bool,
    /// Which output of a stage with several fitting ones is meant if none is named.
    pub prefers: &'static str,
}

/// An output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub is: ArtifactType,
    /// The ending of a file of it among the results, for those that people look at.
    pub result: Option<&'static str>,
}

const fn slot(name: &'static str, takes: ArtifactType, prefers: &'static str) -> Slot {
    Slot { name, takes, many: false, parts: false, optional: false, prefers }
}

const fn output(name: &'static str, is: ArtifactType) -> Output {
    Output { name, is, result: None }
}

const fn result(name: &'static str, ending: &'static str) -> Output {
    Output { name, is: ArtifactType::File, result: Some(ending) }
}

impl StageKind {
    /// The slots of a kind; empty for `command`, which names its own.
    pub const fn slots(self) -> &'static [Slot] {
        const DATA: Slot = slot("data", ArtifactType::Images, "train");
        const SET: Slot = slot("set", ArtifactType::Images, "test");
        const MODEL: Slot = slot("model", ArtifactType::Checkpoint, "checkpoint");
        const RESULTS: Slot = Slot { many: true, ..slot("results", ArtifactType::Predictions, PREDICTIONS) };
        const MEASURES: Slot = Slot { many: true, optional: true, ..slot("measures", ArtifactType::File, "numbers") };
        const NETWORK: Slot = Slot { optional: true, ..slot("network", ArtifactType::File, "file") };
        const WEIGHTS: Slot = Slot { name: "weights", many: true, parts: true, ..NETWORK };
        match self {
            StageKind::Dataset | StageKind::File | StageKind::Command => &[],
            StageKind::Transform => {
                const {
                    // Which of the optional ones an operation needs, [`super::TransformParams::needs_of`] says.
                    &[
                        Slot { prefers: "test", ..DATA },
                        Slot { optional: true, ..slot("style", ArtifactType::Images, "train") },
                        Slot { name: "encoder", ..NETWORK },
                        Slot { name: "decoder", ..NETWORK },
                    ]
                }
            }
            StageKind::Train => {
                const {
                    &[
                        DATA,
                        Slot { optional: true, ..slot("validation", ArtifactType::Images, "test") },
                        WEIGHTS,
                        NETWORK,
                    ]
                }
            }
            StageKind::Pretrained => const { &[DATA, WEIGHTS, NETWORK] },
            StageKind::Randomised => const { &[MODEL] },
            StageKind::Evaluate => const { &[MODEL, SET, Slot { name: "source", optional: true, ..MODEL }] },
            StageKind::Masking => const { &[MODEL, SET] },
            StageKind::WorstCase => const { &[RESULTS] },
            StageKind::Saliency => {
                const { &[Slot { name: "models", many: true, ..MODEL }, Slot { many: true, ..SET }] }
            }
            StageKind::FourierMap => const { &[Slot { name: "models", many: true, ..MODEL }, SET] },
            StageKind::Table => const { &[Slot { optional: true, ..RESULTS }, MEASURES] },
            // What is drawn decides which of them it needs.
            StageKind::Figure => {
                const {
                    &[
                        Slot { optional: true, ..RESULTS },
                        Slot { name: "sets", many: true, optional: true, ..SET },
                        Slot { optional: true, ..slot("maps", ArtifactType::File, "maps") },
                        MEASURES,
                        Slot { many: true, optional: true, ..slot("trainings", ArtifactType::File, "metrics") },
                    ]
                }
            }
        }
    }

    /// Whether a stage with these canonical parameters makes an output of its kind: a training makes `last` only if it
    /// keeps two epochs.
    pub fn makes(self, output: &str, params: &Json) -> bool {
        let keeps_both = || params.pointer("/holdout/keep").and_then(Json::as_str) == Some("both");
        self != StageKind::Train || output != LAST || keeps_both()
    }

    /// The outputs of a kind; empty for `command`, which names its own. An evaluation at several radii has one more for
    /// each of the smaller ones ([`super::Radius`]).
    pub const fn outputs(self) -> &'static [Output] {
        match self {
            StageKind::Command => &[],
            StageKind::Dataset => {
                const { &[output("train", ArtifactType::Images), output("test", ArtifactType::Images)] }
            }
            StageKind::File => const { &[output("file", ArtifactType::File)] },
            StageKind::Transform => const { &[output("images", ArtifactType::Images)] },
            StageKind::Train => {
                const {
                    &[
                        output("checkpoint", ArtifactType::Checkpoint),
                        output(LAST, ArtifactType::Checkpoint),
                        output("metrics", ArtifactType::File),
                    ]
                }
            }
            StageKind::Pretrained | StageKind::Randomised => {
                const { &[output("checkpoint", ArtifactType::Checkpoint)] }
            }
            StageKind::Evaluate | StageKind::WorstCase => const { &[output(PREDICTIONS, ArtifactType::Predictions)] },
            StageKind::Masking => const { &[result("json", "json"), result("markdown", "md")] },
            StageKind::Saliency => {
                const {
                    &[
                        result("grid", "png"),
                        output("maps", ArtifactType::File),
                        result("numbers", "json"),
                        result("csv", "csv"),
                        result("markdown", "md"),
                    ]
                }
            }
            StageKind::FourierMap => {
                const {
                    &[
                        result("svg", "svg"),
                        result("png", "png"),
                        result("pdf", "pdf"),
                        result("csv", "csv"),
                        result("json", "json"),
                        result("markdown", "md"),
                    ]
                }
            }
            StageKind::Table => {
                const { &[result("json", "json"), result("markdown", "md"), result("csv", "csv"), result("tex", "tex")] }
            }
            StageKind::Figure => {
                const { &[result("svg", "svg"), result("png", "png"), result("pdf", "pdf"), result("csv", "csv")] }
            }
        }
    }
}
