//! Figures as parameters: what an author writes ([`FigureSpec`]) and what is hashed and drawn ([`FigureParams`],
//! [`SamplesParams`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headings::Headings;
use super::images::Images;
use super::metric::Metric;
use crate::number::Real;

/// Draws numbers computed from predictions as curves with 95 % intervals, or images of several sets beside one another.
/// Without `draw` it is curves.
///
/// Needs: `results`, the instances of one or more `evaluate` stages; `sets`, for images. Outputs: `svg`, `png`, and
/// `csv`, the numbers drawn. Coordinates are those of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "draw", rename_all = "snake_case")]
pub enum FigureSpec {
    /// Curves of `results`.
    Curves(CurvesSpec),
    /// Images of `sets`: a column for each set, a row for each image; above each, if asked for, what the models of
    /// `results` make of it.
    Samples(SamplesSpec),
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
    /// The number drawn.
    #[serde(default)]
    pub cell: Metric,
}

/// Images side by side as their author describes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplesSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Which images: a list of their indices in the sets, from 0, `{first: N}`, or `{count: N, seed: S}`; the latter
    /// two also of one `class`.
    pub images: Images,
    /// Headings of sets that shall have another than their label; a `*` in a label stands for any text.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub headings: Headings,
    /// The coordinate of `results` with a line above each image for each value: the probability of the true class
    /// (paper, figure 6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<String>,
    /// How many pixels wide and high each pixel of an image is drawn; as many as make images about 100 wide if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub scale: Option<u32>,
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
/// X as in `x_labels`.
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
    /// The number drawn.
    pub metric: Metric,
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
    /// How many pixels wide and high each pixel of an image is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u32>,
}

/// The word `samples`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplesTag {
    /// The word.
    Samples,
}
