//! Learning curves as parameters: what an author writes ([`LearningSpec`]), what is hashed and drawn
//! ([`LearningParams`]), and which numbers a training has for each epoch.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::headings::Headings;
use super::print::{LegendPlace, PictureSize, is_false};
use super::train::{TrainParams, TrainingMethod};
use crate::formats::EpochMetrics;

/// Learning curves as their author describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LearningSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is drawn, a panel for each; all that one of the trainings has, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub metrics: Option<Vec<LearningMetric>>,
    /// The coordinate with a colour for each value, such as `model.variant`. If not given, each training has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// What is shown instead of labels of trainings; a `*` in a label stands for any text.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub names: Headings,
    /// How large the figure is in print; as large as its panels ask for if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Where the names of the trainings stand; below the panels if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<LegendPlace>,
}

/// What a panel of learning curves shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearningMetric {
    /// Mean loss of the training images as trained on.
    Loss,
    /// Accuracy without attack: on training images, if the training sees them unperturbed; on `validation`; on the
    /// images of a `holdout` without attack.
    Accuracy,
    /// Accuracy under attack: on the perturbed training images, and on the images of `holdout`.
    RobustAccuracy,
    /// Accuracy on training images under the attack of `overfitting_check`.
    CheckedAccuracy,
    /// Learning rate of the last step of each epoch.
    LearningRate,
}

/// A number that a training may have for each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochNumber {
    /// Mean loss of the training images as trained on.
    TrainLoss,
    /// Accuracy on the same.
    TrainAccuracy,
    /// Cross-entropy of the perturbed training images.
    AdversarialLoss,
    /// Accuracy on the same.
    AdversarialAccuracy,
    /// Accuracy on clean validation images.
    ValidationAccuracy,
    /// Accuracy on training images under the attack of `overfitting_check`.
    CheckedAccuracy,
    /// Accuracy on held-out images under the attack of `holdout`.
    HoldoutAccuracy,
    /// Learning rate of the last step.
    LearningRate,
}

/// Learning curves as they are hashed and drawn. Inputs: slot `training`, the metrics, labelled as `series`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearningParams {
    /// Tells these parameters from those of other figures.
    pub draw: LearningTag,
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The panels, in order.
    pub metrics: Vec<LearningMetric>,
    /// Whether the author named them: then each must have a line. Else those without one are left out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub named: bool,
    /// The trainings, in order.
    pub series: Vec<LearningSeries>,
    /// What is shown instead of a label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// How large the figure is in print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Where the names of the trainings stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<LegendPlace>,
    /// Whether a profile that is a mock-up made it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
}

/// A training and what is drawn of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearningSeries {
    /// The label of its input.
    pub label: String,
    /// Its lines in each panel. A line whose number no epoch has is left out.
    pub lines: BTreeMap<LearningMetric, Vec<EpochNumber>>,
}

/// The word `training`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningTag {
    /// The word.
    Training,
}

/// Which images a number of an epoch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EpochImages {
    /// Images that are trained on.
    Training,
    /// Those of the need `validation`.
    Validation,
    /// Training images that are held out.
    HeldOut,
}

impl LearningMetric {
    /// Every metric, in the order of panels.
    pub const ALL: [LearningMetric; 5] = [
        LearningMetric::Loss,
        LearningMetric::Accuracy,
        LearningMetric::RobustAccuracy,
        LearningMetric::CheckedAccuracy,
        LearningMetric::LearningRate,
    ];

    /// The name, as a pipeline has it.
    pub const fn name(self) -> &'static str {
        match self {
            LearningMetric::Loss => "loss",
            LearningMetric::Accuracy => "accuracy",
            LearningMetric::RobustAccuracy => "robust_accuracy",
            LearningMetric::CheckedAccuracy => "checked_accuracy",
            LearningMetric::LearningRate => "learning_rate",
        }
    }

    /// The heading of its panel.
    pub const fn title(self) -> &'static str {
        match self {
            LearningMetric::Loss => "loss",
            LearningMetric::Accuracy => "accuracy (%)",
            LearningMetric::RobustAccuracy => "accuracy under attack (%)",
            LearningMetric::CheckedAccuracy => "accuracy in the overfitting check (%)",
            LearningMetric::LearningRate => "learning rate",
        }
    }

    /// Whether it is a share, 0 to 1.
    pub const fn is_share(self) -> bool {
        !matches!(self, LearningMetric::Loss | LearningMetric::LearningRate)
    }

    /// What a training must have for the metric to be measured.
    pub const fn needs(self) -> &'static str {
        match self {
            LearningMetric::Loss | LearningMetric::LearningRate => "every training has it",
            LearningMetric::Accuracy => "give a training the need `validation`, or remove the metric",
            LearningMetric::RobustAccuracy => {
                "give a training an `adversary` or `holdout: {share: 0.02, attack: …}`, or remove the metric"
            }
            LearningMetric::CheckedAccuracy => "give a training `overfitting_check: {attack: …}`, or remove the metric",
        }
    }
}

impl EpochNumber {
    /// Every number, in the order of a page.
    pub const ALL: [EpochNumber; 8] = [
        EpochNumber::TrainLoss,
        EpochNumber::TrainAccuracy,
        EpochNumber::AdversarialLoss,
        EpochNumber::AdversarialAccuracy,
        EpochNumber::ValidationAccuracy,
        EpochNumber::CheckedAccuracy,
        EpochNumber::HoldoutAccuracy,
        EpochNumber::LearningRate,
    ];

    /// The name, as a figure's parameters have it.
    pub const fn name(self) -> &'static str {
        match self {
            EpochNumber::TrainLoss => "train_loss",
            EpochNumber::TrainAccuracy => "train_accuracy",
            EpochNumber::AdversarialLoss => "adversarial_loss",
            EpochNumber::AdversarialAccuracy => "adversarial_accuracy",
            EpochNumber::ValidationAccuracy => "validation_accuracy",
            EpochNumber::CheckedAccuracy => "checked_accuracy",
            EpochNumber::HoldoutAccuracy => "holdout_accuracy",
            EpochNumber::LearningRate => "learning_rate",
        }
    }

    /// The number in words.
    pub const fn title(self) -> &'static str {
        match self {
            EpochNumber::TrainLoss => "Loss of the training images",
            EpochNumber::TrainAccuracy => "Accuracy on the training images as trained on",
            EpochNumber::AdversarialLoss => "Loss of the perturbed training images",
            EpochNumber::AdversarialAccuracy => "Accuracy on the perturbed training images",
            EpochNumber::ValidationAccuracy => "Accuracy on clean validation images",
            EpochNumber::CheckedAccuracy => "Accuracy under the attack of the overfitting check",
            EpochNumber::HoldoutAccuracy => "Accuracy on held-out images under attack",
            EpochNumber::LearningRate => "Learning rate",
        }
    }

    /// Whether it is a share, 0 to 1.
    pub const fn is_share(self) -> bool {
        !matches!(self, EpochNumber::TrainLoss | EpochNumber::AdversarialLoss | EpochNumber::LearningRate)
    }

    /// The images that it is of; `None` for the learning rate, which is of none.
    pub const fn images(self) -> Option<EpochImages> {
        match self {
            EpochNumber::LearningRate => None,
            EpochNumber::ValidationAccuracy => Some(EpochImages::Validation),
            EpochNumber::HoldoutAccuracy => Some(EpochImages::HeldOut),
            _ => Some(EpochImages::Training),
        }
    }

    /// The number of an epoch, if it has it.
    pub fn of(self, epoch: &EpochMetrics) -> Option<f64> {
        match self {
            EpochNumber::TrainLoss => Some(epoch.train_loss),
            EpochNumber::TrainAccuracy => Some(epoch.train_accuracy),
            EpochNumber::AdversarialLoss => epoch.adversarial.as_ref().map(|perturbed| perturbed.loss),
            EpochNumber::AdversarialAccuracy => epoch.adversarial.as_ref().map(|perturbed| perturbed.accuracy),
            EpochNumber::ValidationAccuracy => epoch.validation_accuracy,
            EpochNumber::CheckedAccuracy => epoch.checked_accuracy,
            EpochNumber::HoldoutAccuracy => epoch.holdout_accuracy,
            EpochNumber::LearningRate => Some(epoch.lr),
        }
    }
}

impl EpochImages {
    /// The images in a word.
    pub const fn name(self) -> &'static str {
        match self {
            EpochImages::Training => "training",
            EpochImages::Validation => "validation",
            EpochImages::HeldOut => "held-out",
        }
    }
}

impl LearningSeries {
    /// A training of unknown parameters: every line that a training may have.
    pub fn of_unknown(label: String) -> Self {
        Self::with(
            label,
            &Measured { clean: true, robust: true, validated: true, checked: true, held_out: Some(false) },
        )
    }

    /// A training with the lines that its parameters ask for; `validated` says whether it has validation images.
    pub fn of_training(label: String, params: &TrainParams, validated: bool) -> Self {
        let is_none = |attack: &Attack| matches!(attack, Attack::None(_));
        let (clean, robust) = match params.method {
            TrainingMethod::Standard => (is_none(&params.adversary), !is_none(&params.adversary)),
            TrainingMethod::Free(_) => (false, true),
            // It measures the accuracy on clean images, too.
            TrainingMethod::Trades(_) | TrainingMethod::Mart(_) => (true, true),
        };
        let checked = params.overfitting_check.is_some();
        let held_out = params.holdout.as_ref().map(|holdout| is_none(&holdout.attack));
        Self::with(label, &Measured { clean, robust, validated, checked, held_out })
    }

    fn with(label: String, measured: &Measured) -> Self {
        use EpochNumber::*;
        let numbers = [
            (LearningMetric::Loss, TrainLoss, true),
            (LearningMetric::Accuracy, TrainAccuracy, measured.clean),
            (LearningMetric::Accuracy, ValidationAccuracy, measured.validated),
            (LearningMetric::Accuracy, HoldoutAccuracy, measured.held_out == Some(true)),
            (LearningMetric::RobustAccuracy, AdversarialAccuracy, measured.robust),
            (LearningMetric::RobustAccuracy, HoldoutAccuracy, measured.held_out == Some(false)),
            (LearningMetric::CheckedAccuracy, CheckedAccuracy, measured.checked),
            (LearningMetric::LearningRate, LearningRate, true),
        ];
        let mut lines: BTreeMap<LearningMetric, Vec<EpochNumber>> = BTreeMap::new();
        for (metric, number, _) in numbers.into_iter().filter(|(_, _, is_measured)| *is_measured) {
            lines.entry(metric).or_default().push(number);
        }
        LearningSeries { label, lines }
    }
}

/// What a training measures after each epoch.
struct Measured {
    /// Accuracy on clean training images.
    clean: bool,
    /// Accuracy on perturbed training images.
    robust: bool,
    validated: bool,
    checked: bool,
    /// Whether the attack on held-out images is none; `None` without such images.
    held_out: Option<bool>,
}
