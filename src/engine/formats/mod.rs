//! The artifacts that engine and worker exchange through the cache: image sets, predictions and saliency maps, each
//! one safetensors file; the metrics of a training and the measures of saliency maps, JSON. Knows bytes and shapes
//! only, not how they were made. `docs/artifact-formats.md` tells the same for readers in other languages.
//!
//! All of them are deterministic: the same content gives the same bytes. safetensors sorts tensors by itself; its
//! metadata is a hash map whose order changes from run to run once it has two entries, so everything is put as JSON
//! under the one key [`METADATA_KEY`].

mod images;
mod maps;
mod predictions;
mod saliency_numbers;
mod training;
mod training_progress;

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use images::{ImageHead, ImageReader, ImageSet, ImageWriter, Layout, Seen, Sizes, View, WriteError, centre};
pub use maps::SaliencyMaps;
pub use predictions::{Ensemble, Gradients, Predictions, Radii, UnderAttack};
pub use saliency_numbers::{SaliencyNumber, SaliencyNumbers};
pub use training::{AdversarialMetrics, EpochMetrics, TrainingMetrics};
pub use training_progress::{TRAINING_PROGRESS_FILE, TRAINING_PROGRESS_FORMAT, TrainingProgress, finished_epochs};

/// The one metadata key of every safetensors file that atflow writes; its value is a JSON object.
pub const METADATA_KEY: &str = "atflow";

/// Why some bytes are not the artifact they should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The metadata is missing or not what this version writes.
    #[error("the metadata of this {artifact} cannot be read: {reason}")]
    Metadata {
        /// What was expected.
        artifact: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the JSON that it should be.
    #[error("these {artifact} cannot be read: {reason}")]
    Json {
        /// What was expected.
        artifact: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is missing, or has another type or shape.
    #[error("{artifact} has no tensor `{tensor}` of the right type and shape")]
    Tensor {
        /// What was expected.
        artifact: &'static str,
        /// The tensor's name.
        tensor: &'static str,
    },
}

/// Reads the JSON that stands under [`METADATA_KEY`] in a safetensors file.
///
/// # Errors
/// [`FormatError::Safetensors`] or [`FormatError::Metadata`].
pub fn read_metadata<T: DeserializeOwned>(artifact: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let text = header.metadata().as_ref().and_then(|map| map.get(METADATA_KEY));
    let text = text.ok_or_else(|| FormatError::Metadata { artifact, reason: format!("no `{METADATA_KEY}` entry") })?;
    serde_json::from_str(text).map_err(|error| FormatError::Metadata { artifact, reason: error.to_string() })
}

/// Writes tensors and their metadata as one safetensors file, the same bytes for the same content.
///
/// # Errors
/// [`FormatError::Safetensors`] if a tensor's shape does not fit its bytes.
pub fn write<S: AsRef<str> + Ord + std::fmt::Display, V: safetensors::View>(
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: &impl Serialize,
) -> Result<Vec<u8>, FormatError> {
    let json = serde_json::to_string(metadata)
        .map_err(|error| FormatError::Metadata { artifact: "artifact", reason: error.to_string() })?;
    Ok(safetensors::serialize(tensors, Some(HashMap::from([(METADATA_KEY.to_owned(), json)])))?)
}

fn tensor<'a>(
    artifact: &'static str,
    file: &'a SafeTensors<'a>,
    name: &'static str,
    dtype: Dtype,
) -> Result<safetensors::tensor::TensorView<'a>, FormatError> {
    let missing = FormatError::Tensor { artifact, tensor: name };
    match file.tensor(name) {
        Ok(view) if view.dtype() == dtype => Ok(view),
        _ => Err(missing),
    }
}

fn i32s(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The tensor of this name where the file has one: N numbers.
fn optional_i32s(
    artifact: &'static str,
    file: &SafeTensors<'_>,
    name: &'static str,
) -> Result<Option<Vec<i32>>, FormatError> {
    if !file.names().contains(&name) {
        return Ok(None);
    }
    Ok(Some(i32s(tensor(artifact, file, name, Dtype::I32)?.data())))
}

fn i32_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
