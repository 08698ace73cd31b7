//! A bundle: one archive with all that somebody needs to rerun a pipeline from some depth, and to check it.
//!
//! `NAME.tar.zst` holds one folder. It is a Workflow Run RO-Crate with the pipeline and its files, tables, report and
//! records; it also has a cache, instructions, and an index with the digest of every file. The archive has regular
//! files only, in the order of their names, without times and owners. So the same results give the same bytes.

mod choose;
mod read;
mod reproduce;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::plan::rerun_from::RerunFrom;

pub use choose::{needed_blobs, stages_that_run};
pub use read::{BundleError, Checked, read};
pub use reproduce::{Instructions, instructions};
pub use write::{WriteError, index_of, write};

/// Name of the index, the first file of a bundle.
pub const INDEX: &str = "bundle.json";

/// Folder of a bundle with its cache. A run takes it as a remote cache, so that it compares what it makes with it.
pub const CACHE: &str = "published";

/// Name of the instructions for people.
pub const INSTRUCTIONS: &str = "REPRODUCE.md";

/// Value of `format` that this version writes and reads.
const FORMAT: &str = "bundle/1";

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    /// What the bundle is of.
    pub about: About,
    /// All files but the index, by path with `/` between folders.
    pub files: BTreeMap<String, PackedFile>,
}

/// What a bundle is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Path of the pipeline file in the bundle.
    pub file: String,
    /// Targets, as given; empty for all.
    pub targets: Vec<String>,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Parameters that the command line set, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Depth from which the results can be made again without anything from elsewhere but sources; none if the bundle
    /// has results only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<RerunFrom>,
}

/// A file in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedFile {
    /// BLAKE3 digest of its bytes.
    pub blake3: Digest,
    /// Length in bytes.
    pub size: u64,
}
