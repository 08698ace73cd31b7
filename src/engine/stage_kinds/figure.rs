//! Figures as parameters: what an author writes ([`FigureSpec`]) and what is hashed and drawn ([`FigureParams`],
//! [`SamplesParams`]).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headings::Headings;
use super::images::Images;
use super::learning::LearningSpec;
use super::metric::Metric;
use super::print::{LegendPlace, PictureSize, is_false};
use super::table::{OfMaps, PublishedParams, PublishedSpec};
use crate::number::Real;

/// Draws numbers computed from predictions as curves with 95 % intervals, images of several sets beside one another,
/// saliency maps, or learning curves. Without `draw` it is curves.
///
/// Needs: `results`, the instances of one or more `evaluate` stages; `measures`, those of `saliency` stages, for curves
/// of measures of their maps; `sets`, for images; `maps`, for saliency maps;
/// `trainings`, for learning curves.
/// Outputs: `pdf` and `svg`, for print: their text is text, their images are embedded one pixel a pixel and not
/// smoothed; `png`, for screens; `csv`, the numbers drawn. Coordinates are those of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "draw", rename_all = "snake_case")]
pub enum FigureSpec {
    /// Curves of `results`, or of `measures` where `cell` is a measure of saliency maps.
    Curves(CurvesSpec),
    /// Images of `sets`: a column for each set, a row for each image; above each, if asked for, what the models of
    /// `results` make of it.
    Samples(SamplesSpec),
    /// The `maps` of a `saliency` stage on the images of its `sets`: what its own `grid` shows, for print.
    Maps(MapsSpec),
    /// Numbers of `trainings` by epoch: a panel for each metric, a colour for each training. Lines of training images
    /// are dashed, those of validation and held-out images are solid. A mark stands at the epoch whose weights the
    /// checkpoint has. So robust overfitting can be seen (Rice et al. 2020, figure 1).
    Training(LearningSpec),
}

/// Curves as their author describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurvesSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The coordinate along the horizontal axis; its values must be numbers.
    pub x: String,
    /// The title of the horizontal axis; the coordinate's axis if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_title: Option<String>,
    /// How the horizontal axis is spaced.
    #[serde(default)]
    pub scale: Scale,
    /// Where along the axis the untransformed set stands, if it has a point of its own: 2 along saturation levels, 1
    /// along pieces per side. Needs the results of that set. Of `accuracy_on_correct` it is 100 % by definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Real>,
    /// The coordinate with a curve for each value.
    pub series: String,
    /// A coordinate that is averaged over, such as the seed of trainings: points are then means, and bands the
    /// intervals of the means by Student's t. With `seeds` in the pipeline, curves average over these unless they name
    /// `seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// The number drawn.
    #[serde(default)]
    pub cell: Metric,
    /// What is shown instead of labels of curves and of the horizontal axis; a `*` in a label stands for any text. A
    /// fraction is shown as it is written in the pipeline, `8/255`.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub names: Headings,
    /// Published numbers, drawn as dashed curves beside those of the figure: rows of the file are curves, its columns
    /// stand along the horizontal axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedSpec>,
    /// How large the figure is in print; as large as its parts ask for if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Where the names of the curves stand; if not given, right of the plot, or below it where a figure of some `size`
    /// has no room beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<LegendPlace>,
}

/// Images side by side as their author describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplesSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Which images: a list of their indices in the sets, from 0, `{first: N}` or `{count: N, seed: S}`, both also of
    /// one `class`, or `{each_class: N}`.
    pub images: Images,
    /// Headings of sets that shall have another than their label; a `*` in a label stands for any text.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub headings: Headings,
    /// The coordinate of `results` with a line above each image for each value: the probability of the true class
    /// (paper, figure 6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<String>,
    /// The coordinate of `results` with a line above each image for each value: the class that the model predicts.
    /// Beside `probabilities` it is the same coordinate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<String>,
    /// How many pixels wide and high each pixel of an image is drawn; as many as make images about 100 wide if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub scale: Option<u32>,
    /// How large the figure is in print; if not given, 4 pixels of its PNG are 3 points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
}

/// Saliency maps as their author describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapsSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is shown instead of labels of models and sets; a `*` in a label stands for any text.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub names: Headings,
    /// How many pixels wide and high each pixel of an image is drawn; as many as make images about 100 wide if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub scale: Option<u32>,
    /// How large the figure is in print; if not given, 4 pixels of its PNG are 3 points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
}

/// How an axis is spaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Evenly.
    #[default]
    Linear,
    /// By the logarithm to base 2; every value must be above 0.
    Log2,
}

/// Curves as they are hashed and drawn. Inputs: slots `value` and `reference` as of a table, each labelled `SERIES/X`,
/// or `SERIES/X/SEED` where `over` has seeds; X as in `x_labels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FigureParams {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Name of the horizontal axis.
    pub x_name: String,
    /// Values along the horizontal axis, ascending.
    pub x_values: Vec<Real>,
    /// The same as the author wrote them.
    pub x_labels: Vec<String>,
    /// How the horizontal axis is spaced.
    pub scale: Scale,
    /// Names of the curves, in order.
    pub series: Vec<String>,
    /// What is averaged over, in order; empty where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
    /// The number drawn.
    pub metric: Metric,
    /// What is shown instead of a label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// Published numbers: rows are curves, columns stand along the horizontal axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedParams>,
    /// Whose saliency maps each number is of, by the label of its input; none for numbers of predictions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maps: BTreeMap<String, OfMaps>,
    /// How large the figure is in print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Where the names of the curves stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legend: Option<LegendPlace>,
    /// Whether a profile that is a mock-up made it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
}

/// Images side by side as they are hashed and drawn. Inputs: slot `set`, labelled as `columns`; slot `value`,
/// predictions labelled `ROW/COLUMN`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplesParams {
    /// Tells these parameters from those of curves.
    pub draw: SamplesTag,
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Labels of the sets, in order.
    pub columns: Vec<String>,
    /// Their headings.
    pub headings: Vec<String>,
    /// Which images.
    pub images: Images,
    /// Whose probabilities stand above the images, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<String>,
    /// Whose predictions stand above the images, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predicted: Vec<String>,
    /// What is shown instead of the label of one of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// How many pixels wide and high each pixel of an image is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u32>,
    /// How large the figure is in print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Whether a profile that is a mock-up made it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
}

/// Saliency maps as they are hashed and drawn. Inputs: slot `maps`, and slot `set`, labelled as the sets of the maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapsParams {
    /// Tells these parameters from those of other figures.
    pub draw: MapsTag,
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is shown instead of the label of a model or a set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// How many pixels wide and high each pixel of an image is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u32>,
    /// How large the figure is in print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<PictureSize>,
    /// Whether a profile that is a mock-up made it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
}

/// The word `maps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapsTag {
    /// The word.
    Maps,
}

/// The word `samples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplesTag {
    /// The word.
    Samples,
}
