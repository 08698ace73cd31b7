//! Data sets as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// A file to read: exactly one of `path` and `url`. A file from elsewhere must say its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// A file, relative to the pipeline file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where to fetch it: `https://…`, `http://…` or `file://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// SHA-256 of the file, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// MD5 of the file, in hexadecimal, where only that is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
}
