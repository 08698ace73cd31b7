//! A run as a Workflow Run RO-Crate: a folder with the pipeline, the results and the manifests, and one file that says
//! in JSON-LD what made what, from what, how, where, and when.
//!
//! Fills the profile Provenance Run Crate 0.5 on RO-Crate 1.1 (<https://w3id.org/ro/wfrun/provenance/0.5>). A stage is
//! a step and a tool, each instance of it an action. Large blobs are described by their digests and not copied.
//! Everything comes from the records of the cache, and nothing from the clock. So the same results give the same bytes.

mod actions;
mod builder;
mod data;
mod entities;
mod formal;
mod layout;
mod license;
mod root;
mod software;
mod times;

use std::collections::BTreeMap;

use serde_json::json;

use crate::action::ActionKey;
use crate::cache::{Cache, CacheError};
use crate::digest::Digest;
use crate::graph::Graph;
use crate::redact::Redaction;
use crate::report::RunResults;
use crate::spec::PipelineSpec;
use builder::Builder;

pub use layout::{Layout, LayoutError, PIPELINE};
pub use license::License;

/// Name of the file that describes the others.
pub const METADATA_FILE: &str = "ro-crate-metadata.json";

/// The id of the root.
const ROOT: &str = "./";

/// Bytes of files by their paths in a crate, with `/` between folders.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a crate is made from.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The run. None of its results may be lost.
    pub results: &'a RunResults,
    /// Its pipeline, with the profile and the parameters of the run.
    pub spec: &'a PipelineSpec,
    /// The instances of that pipeline.
    pub graph: &'a Graph,
    /// The cache with the results.
    pub cache: &'a Cache,
    /// Where the files of the pipeline lie in the crate.
    pub layout: &'a Layout,
    /// The licence of what is in it.
    pub license: &'a License,
    /// What is left out of texts.
    pub redaction: &'a Redaction,
    /// Further files.
    pub extra: Vec<ExtraFile>,
    /// The path in the crate of the manifest of a key.
    pub manifest_path: fn(ActionKey) -> String,
    /// Paths in the crate of blobs that travel along, by digest; the caller adds the files.
    pub blobs: BTreeMap<Digest, String>,
    /// Paths in the crate of source files that travel along, by identity (`blake3:…`); the caller adds the files.
    pub sources: BTreeMap<String, String>,
}

/// A file of a crate that no stage made.
#[derive(Debug)]
pub struct ExtraFile {
    /// Path in the crate.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Media type.
    pub media: &'static str,
    /// What it is, in a sentence.
    pub about: String,
}

/// Makes a crate: all its files with [`METADATA_FILE`], by path.
///
/// # Errors
/// [`CacheError`] if a table or figure cannot be read from the cache.
pub fn pack(contents: &Contents<'_>) -> Result<Files, CacheError> {
    let mut builder = Builder::new(contents);
    builder.add_pipeline();
    builder.add_results()?;
    builder.add_records();
    builder.add_engine();
    builder.add_steps();
    builder.add_run();
    builder.add_root();
    let Builder { entities, mut files, .. } = builder;
    let context = json!([
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
        { "buildInstructions": "https://codemeta.github.io/terms/buildInstructions" },
    ]);
    let document = json!({ "@context": context, "@graph": entities.into_list(&[METADATA_FILE, ROOT]) });
    let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    files.insert(METADATA_FILE.to_owned(), text.into_bytes());
    Ok(files)
}
