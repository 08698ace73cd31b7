//! How tables and figures look in print, as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// How large a picture is in print. An SVG and a PDF say so themselves. A PNG of curves has two pixels for each unit of
/// which text has 13; of images, `scale` says how many pixels it has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PictureSize {
    /// Its width in millimetres: 84 fills a column of most papers, 174 a page. A picture whose text has no room is
    /// wider.
    #[schemars(extend("minimum" = 30, "maximum" = 1000))]
    pub width: Real,
    /// Its height in millimetres. The plot takes what title, labels and legend leave, but at least 60 units. Images
    /// keep their proportions: they are as large as width and height allow, but at least 5 mm wide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 20, "maximum" = 1000))]
    pub height: Option<Real>,
    /// The size of its text in points; 8 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 4, "maximum" = 30))]
    pub text: Option<Real>,
}

/// Where the names of curves stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegendPlace {
    /// Right of the plot.
    Right,
    /// In rows below the plot.
    Below,
    /// Nowhere.
    None,
}

/// How a table looks in LaTeX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TexLayout {
    /// The name for `\ref`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub label: Option<String>,
    /// Whether it spans both columns of the page, as a `table*`. Columns that do not fit in its width go on in further
    /// blocks below the first.
    #[serde(skip_serializing_if = "is_false")]
    pub wide: bool,
    /// Whether each number has its interval under it.
    #[serde(skip_serializing_if = "is_true")]
    pub intervals: bool,
    /// Whether notes below the table say what its numbers are.
    #[serde(skip_serializing_if = "is_true")]
    pub notes: bool,
    /// Which number of each column is bold; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bold: Option<Bold>,
}

/// Which number of a column is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bold {
    /// The highest of accuracies and of probabilities of the true class, the lowest of losses. Of shape biases and what
    /// belongs to them none is better than another.
    Best,
    /// The highest.
    Highest,
    /// The lowest.
    Lowest,
}

impl Default for TexLayout {
    fn default() -> Self {
        TexLayout { label: None, wide: false, intervals: true, notes: true, bold: None }
    }
}

impl TexLayout {
    /// Whether nothing is as its author said.
    pub fn is_plain(&self) -> bool {
        *self == TexLayout::default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_true(value: &bool) -> bool {
    *value
}
