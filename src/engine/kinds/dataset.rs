//! Data sets as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::Source;

/// Fetches a data set, checks it against its digests, and decodes it.
///
/// Outputs: `train` and `test`, image sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "format", rename_all = "lowercase", deny_unknown_fields)]
pub enum DatasetParams {
    /// The IDX files of MNIST and its relatives, plain or gzip-compressed.
    Idx {
        /// Training images and labels.
        train: IdxFiles,
        /// Test images and labels.
        test: IdxFiles,
        /// Names of the classes, in the order of their labels.
        classes: Vec<String>,
    },
}

/// A file of images and the file of their labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdxFiles {
    /// Images: unsigned bytes, count × rows × columns.
    pub images: Source,
    /// Labels: unsigned bytes, one for each image.
    pub labels: Source,
}
