//! Figures of curves as parameters: what an author writes ([`FigureSpec`]) and what is hashed and drawn ([`FigureParams`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::Metric;
use crate::number::Real;

/// Draws numbers computed from predictions as curves with 95 % intervals.
///
/// Need: `results`, the instances of one or more `evaluate` stages. Outputs: `svg`, `png`, and `csv`, the numbers drawn. Coordinates are those of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FigureSpec {
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
    /// The coordinate with a curve for each value.
    pub series: String,
    /// The number drawn.
    #[serde(default)]
    pub cell: Metric,
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

/// A figure as it is hashed and drawn. Inputs: slots `value` and `reference` as of a table, each labelled `SERIES/X`, X as in `x_labels`.
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
