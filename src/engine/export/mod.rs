//! A checkpoint as a folder for PyTorch: the weights, the code of the network, its description, and a model card with
//! every accuracy that the cache knows of it.
//!
//! The same results give the same bytes: nothing in the folder tells when or where it was written.

mod card;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::cache::{Blob, Manifest};
use crate::digest::{Digest, ReadError};
use crate::formats::{self, FormatError};
use crate::spec::InstanceId;
use crate::stage_kinds::{ArtifactType, StageKind};
use crate::tidy::TidySource;

/// The weights, a checkpoint as it is in the cache.
pub const WEIGHTS: &str = "model.safetensors";
/// The network in PyTorch.
pub const MODELING: &str = "modeling.py";
/// What the network is.
pub const CONFIG: &str = "config.json";
/// The model card.
pub const CARD: &str = "README.md";
/// The files of such a folder.
pub const FILES: [&str; 4] = [WEIGHTS, MODELING, CONFIG, CARD];

/// What a checkpoint calls a network that is a TorchScript program.
const TORCHSCRIPT: &str = "torchscript";

/// The code of the networks, which needs PyTorch alone.
const MODELING_CODE: &str = include_str!("modeling.py");

/// Why a checkpoint cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The checkpoint is not in the cache, or damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is no checkpoint.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The exported code has no such network.
    #[error("`modeling.py` has no network `{0}`")]
    Network(String),
}

/// What is exported.
#[derive(Debug, Clone, Copy)]
pub struct ExportSource<'a> {
    /// The pipeline and its results, from which the accuracies come.
    pub results: TidySource<'a>,
    /// The instance that made the checkpoint.
    pub of: InstanceId,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its output that is the checkpoint.
    pub checkpoint: Blob,
    /// The licence that the card names, if the user named one.
    pub license: Option<&'a str>,
}

/// Returns the name of the output of an instance that is a checkpoint.
pub fn checkpoint_output(kind: StageKind) -> Option<&'static str> {
    kind.outputs().iter().find(|output| output.is == ArtifactType::Checkpoint).map(|output| output.name)
}

/// Returns the files of the folder, by name.
///
/// # Errors
/// [`ExportError`].
pub fn files(source: ExportSource<'_>) -> Result<BTreeMap<&'static str, Vec<u8>>, ExportError> {
    let digest = source.checkpoint.digest;
    let weights = source.results.cache.read(digest)?;
    let metadata: Json = formats::read_metadata("checkpoint", &weights)?;
    let arch = metadata.pointer("/net/arch").and_then(Json::as_str).unwrap_or_default();
    // The table at the end of the code lists its networks. A TorchScript network is in the checkpoint itself.
    if arch != TORCHSCRIPT && !MODELING_CODE.contains(&format!("    \"{arch}\": ")) {
        return Err(ExportError::Network(arch.to_owned()));
    }
    let config = config(source, digest, &metadata);
    let card = card::card(source, &metadata);
    let texts = [(MODELING, MODELING_CODE.to_owned()), (CONFIG, config), (CARD, card)];
    let texts = texts.into_iter().map(|(name, text)| (name, text.into_bytes()));
    Ok(texts.chain([(WEIGHTS, weights)]).collect())
}

/// The metadata of the checkpoint, and where it comes from.
fn config(source: ExportSource<'_>, digest: Digest, metadata: &Json) -> String {
    let mut config = metadata.clone();
    config["stage"] = source.results.graph.instance(source.of).name.clone().into();
    config["key"] = source.manifest.record.key().to_string().into();
    config["blake3"] = digest.to_string().into();
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    format!("{text}\n")
}
