//! Tables of numbers as parameters: what an author writes ([`TableSpec`]) and what is hashed and assembled
//! ([`TableParams`]).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headings::Headings;
use super::metric::Metric;
use super::print::{TexLayout, is_false};
use super::text::Text;
use crate::number::Real;

/// Assembles numbers computed from predictions, and measures of saliency maps, into a table.
///
/// Needs: `results`, the instances of one or more `evaluate` stages; `measures`, those of one or more `saliency`
/// stages, for cells such as `gini`; at least one of the two. Outputs: `json`, every cell with all that is known
/// of it; `markdown`; `csv`; `tex`, for LaTeX with the package booktabs, to fit a column of a two-column paper.
///
/// A *coordinate* such as `model.variant` or `saturated.p` is the value of a matrix axis, named by the stage whose axis
/// it is. A result has the coordinates of its own stage and of every instance that it is made from, and the coordinate
/// `stage`, its own stage's name; results without a coordinate that the table asks for are left out. `*` in the name of
/// a coordinate joins the axes of several stages: with `*-model.variant` a row is the variant of whichever stage's
/// model. A measure of maps has the coordinates of its stage's axes, of its model and of its set, and the labels of
/// both as `STAGE.model` and `STAGE.set`.
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
    /// Accuracy on correct as the mean of the ratios of batches of so many images, as the authors' code has it (32),
    /// instead of the pooled ratio. It has no interval, and no value where the model classifies no image of some batch
    /// correctly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub batch_mean: Option<u32>,
    /// A coordinate that is averaged over, such as the seed of trainings: cells are then mean, standard deviation, and
    /// the interval of the mean. Seeds with the same predictions count once; fewer than two that count have no
    /// interval. With `seeds` in the pipeline, a table averages over these unless it names `seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<String>,
    /// Compares every row with one of them, on the same images; each p is told as it is and corrected for its family.
    /// With seeds, the differences of one seed each are averaged, and the test is the paired t-test over seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Published numbers to stand beside those of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedSpec>,
    /// How near a published number is near enough. No share is near that is further away than half of the published
    /// one, or than half of what that lacks to 100 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// What is shown instead of labels of rows and columns, in Markdown, CSV and LaTeX; a `*` in a label stands for any
    /// text. A fraction is shown as it is written in the pipeline, `8/255`.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub names: Headings,
    /// How the table looks in LaTeX.
    #[serde(default, skip_serializing_if = "TexLayout::is_plain")]
    pub tex: TexLayout,
}

/// The columns of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnsSpec {
    /// One column for each value of a coordinate.
    Coordinate(String),
    /// These columns.
    Each(#[schemars(length(min = 1))] Vec<ColumnSpec>),
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Heading.
    pub label: String,
    /// Which results stand in the column: the value that each of these coordinates must have.
    #[serde(rename = "where")]
    pub filter: BTreeMap<String, Text>,
    /// The number in each cell, if not the table's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<Metric>,
}

/// How rows are compared with one of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The row that the others are compared with.
    pub to: String,
    /// The test.
    #[serde(default)]
    pub test: PairedTest,
    /// Which comparisons are corrected together, after Holm.
    #[serde(default, skip_serializing_if = "Family::is_table")]
    #[schemars(extend("default" = "table"))]
    pub family: Family,
}

/// The comparisons that answer one question: the more of them, the likelier one has a small p by chance. The p of each
/// is corrected for all of its family (Holm 1979). What a definition makes equal and what rests on no image is not
/// tested, and belongs to no family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// All of the table.
    #[default]
    Table,
    /// Those of one column: each column is a question of its own.
    Column,
    /// Those of one row: each row is a question of its own.
    Row,
}

impl Family {
    /// Whether it is the default.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_table(&self) -> bool {
        *self == Family::Table
    }
}

/// A test for two models on the same images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairedTest {
    /// The exact test of McNemar (1947), two-sided, with the interval of Agresti and Min (2005) for the difference.
    #[default]
    Mcnemar,
}

/// Where published numbers are: a CSV file, relative to the pipeline file. Its first column has the labels of rows, its
/// first line those of columns; shares are in percent. A row or a column of the table is found by its label; the
/// columns of a coordinate also by `AXIS=LABEL`: `p=64` is the column of results with the label 64 on the axis `p`.
///
/// In the table each number that was published has a verdict: `=` for one that is equal to it when rounded to its
/// decimals, `≈` within the tolerance, `~` within sampling error, `≠` none of these, `?` nothing to compare with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PublishedSpec {
    /// The file.
    File(String),
    /// The file with more about it.
    Detailed(PublishedDetails),
}

/// A file of published numbers and how it fits the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedDetails {
    /// The CSV file.
    pub file: String,
    /// A CSV file (`table,row,column,published,reason`) of published cells that cannot be right as printed; `table` is
    /// the name of `file` without its ending. They are marked, and a number that differs there is not counted as
    /// different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomalies: Option<String>,
    /// Rows that have another label in the file; `null` for one that was not published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, Option<String>>,
    /// Columns that have another label in the file; `null` for one that was not published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Option<String>>,
}

impl PublishedSpec {
    /// The file of the numbers.
    pub fn file(&self) -> &str {
        match self {
            PublishedSpec::File(file) => file,
            PublishedSpec::Detailed(details) => &details.file,
        }
    }

    /// The file of the anomalies.
    pub fn anomalies(&self) -> Option<&str> {
        match self {
            PublishedSpec::File(_) => None,
            PublishedSpec::Detailed(details) => details.anomalies.as_deref(),
        }
    }
}

/// How near is near enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// In percentage points; for a loss, in nats.
    #[schemars(range(min = 0.0))]
    pub absolute: Real,
}

/// A table as it is hashed and assembled. Inputs: slot `value`, and slot `reference` where the metric needs one, each
/// labelled `ROW/COLUMN`, or `ROW/COLUMN/SEED` where `over` has seeds; a cell without a `value` stays empty. Slots
/// `published` and `anomalies`: the files of published numbers.
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
    /// What is averaged over, in order; empty where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
    /// The comparison of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Published numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedParams>,
    /// What is shown instead of a label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// Whose saliency maps each number is of, by the label of its input; none for numbers of predictions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub maps: BTreeMap<String, OfMaps>,
    /// How it looks in LaTeX.
    #[serde(default, skip_serializing_if = "TexLayout::is_plain")]
    pub tex: TexLayout,
    /// Whether a profile that is a mock-up made it: then it has no verdicts on published numbers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
}

/// Which of the measures of a saliency stage a number is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfMaps {
    /// Label of the model.
    pub model: String,
    /// Label of the set.
    pub set: String,
    /// Label of the stage's first model, for a similarity to its maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

/// A column of [`TableParams`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Heading.
    pub label: String,
    /// The number in its cells.
    pub metric: Metric,
    /// For accuracy on correct: images in a batch whose ratios are averaged; pooled where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_mean: Option<u32>,
}

/// How published numbers fit the rows and columns of [`TableParams`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedParams {
    /// The name of the published table, as the file of anomalies has it.
    pub table: String,
    /// For each row the label of the published one; `null` where none was published.
    pub rows: Vec<Option<String>>,
    /// For each column the label of the published one; `null` where none was published.
    pub columns: Vec<Option<String>>,
    /// In percentage points; for a loss, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}
