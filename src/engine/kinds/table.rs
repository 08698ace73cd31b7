//! Tables of numbers as parameters: what an author writes ([`TableSpec`]) and what is hashed and assembled ([`TableParams`]).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Assembles numbers computed from predictions into a table.
///
/// Need: `results`, the instances of one or more `evaluate` stages. Outputs: `json`, every cell with its counts and interval;
/// `markdown`; `csv`.
///
/// A *coordinate* such as `model.variant` or `saturated.p` is the value of a matrix axis, named by the stage whose axis it is. A result has the coordinates of
/// its own stage and of every instance that it is made from, and the coordinate `stage`, its own stage's name; results without a coordinate that the table asks for are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The coordinate whose values are the rows.
    pub rows: String,
    /// The coordinate whose values are the columns, or the columns one by one.
    pub columns: ColumnsSpec,
    /// The number in each cell, where a column names no other.
    #[serde(default)]
    pub cell: Metric,
}

/// The columns of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnsSpec {
    /// One column for each value of a coordinate.
    Coordinate(String),
    /// These columns.
    Each(Vec<ColumnSpec>),
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Heading.
    pub label: String,
    /// Which results stand in the column: the value that each of these coordinates must have.
    #[serde(rename = "where")]
    pub filter: BTreeMap<String, String>,
    /// The number in each cell, if not the table's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<Metric>,
}

/// A number computed from predictions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of images whose predicted class is the true one; under an attack this is robustness.
    #[default]
    Accuracy,
    /// The same share among the images that the same model predicts correctly in the set's untransformed source
    /// (paper, section 4.2): the pooled ratio.
    AccuracyOnCorrect,
}

/// A table as it is hashed and assembled. Inputs: slot `value`, and slot `reference` where the metric needs one, each labelled
/// `ROW/COLUMN`; a cell without a `value` stays empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableParams {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Heading of the column of row labels.
    pub corner: String,
    /// Row labels, in order.
    pub rows: Vec<String>,
    /// Columns, in order.
    pub columns: Vec<Column>,
}

/// A column of [`TableParams`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Heading.
    pub label: String,
    /// The number in its cells.
    pub metric: Metric,
}
