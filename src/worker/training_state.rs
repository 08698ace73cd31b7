//! Progress of a training: the complete state for the next epoch, saved after each epoch.
//!
//! A training that is killed and resumed produces the same bytes as an uninterrupted one. Random draws need no state:
//! they are keyed by epoch. Knows nothing about how training proceeds.
//!
//! The file is `training.safetensors` in a folder that the engine names. It holds the tensors `network/NAME` and
//! `momentum/NAME`, and `more/NAME` for extra state of a training method, F32 except for
//! some buffers of TorchScript networks. Its metadata is `{"format":
//! "training/1", "of": {…}, "epochs": […], "milliseconds": 81000, "digest": "…"}`. `milliseconds` is the duration of
//! the epochs, summed over all runs. `of` is everything that determines the path from the start to here. A file for
//! another training, other data or another device type is rejected, with the reason. `digest` covers the rest,
//! including the tensors, because this file is not content-addressed like a blob.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::digest::Digest;
use atflow::formats::{self, TRAINING_PROGRESS_FILE as FILE, TRAINING_PROGRESS_FORMAT as FORMAT};
use atflow::fsio;
use atflow::numerics::Numerics;
use atflow::stage_kinds::TrainParams;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::{CheckpointError, StoredTensor, any_from_file, from_file};
use crate::context::Context;
use crate::executors::optimizer::Optimizer;
use crate::networks::{Network, Role};
use crate::system;

const ARTIFACT: &str = "training in progress";
/// Prefix of the names of a training method's extra state.
const MORE: &str = "more/";

/// Why a file cannot be resumed from, or progress cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// The file is not a progress file, or cannot be written as one.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// The file comes from another version.
    #[error("its format is `{0}`, this version reads `{FORMAT}`")]
    Version(String),
    /// The file belongs to another training.
    #[error("it is of a training with another `{0}`")]
    Other(String),
    /// The bytes differ from those written.
    #[error("its bytes are not those that were written")]
    Corrupt,
    /// The file cannot be read or written.
    #[error(transparent)]
    System(#[from] fsio::FileError),
}

impl From<formats::FormatError> for ProgressError {
    fn from(error: formats::FormatError) -> Self {
        ProgressError::File(error.into())
    }
}

impl From<safetensors::SafeTensorError> for ProgressError {
    fn from(error: safetensors::SafeTensorError) -> Self {
        ProgressError::File(error.into())
    }
}

impl From<tch::TchError> for ProgressError {
    fn from(error: tch::TchError) -> Self {
        ProgressError::File(error.into())
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata<E> {
    format: String,
    of: BTreeMap<String, Value>,
    epochs: Vec<E>,
    /// Duration of the epochs over all runs; absent in files of older versions. An integer, so the digest is
    /// reproducible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
    /// Digest of everything else; absent while it is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

/// Progress as read, not yet applied to the network.
pub struct Progress<E> {
    /// The metrics of each finished epoch.
    pub epochs: Vec<E>,
    /// Duration of these epochs.
    pub took: Duration,
    /// Extra state of the training method besides weights and momentum, by name.
    pub more: BTreeMap<String, Tensor>,
    network: Vec<Tensor>,
    momentum: Vec<Tensor>,
}

/// Storage of one training's progress.
pub struct TrainingCheckpoints {
    own: Option<PathBuf>,
    continuation: Option<PathBuf>,
    /// On the same file system; the engine cleans it up.
    scratch: Option<PathBuf>,
    of: BTreeMap<String, Value>,
}

impl TrainingCheckpoints {
    /// Creates the storage for a job's progress. A job that names no folder saves nothing.
    pub fn new(context: &Context<'_>, params: &TrainParams) -> Self {
        let (job, chosen) = (context.job, context.chosen);
        let mut canonical = serde_json::to_value(params).unwrap_or_default();
        if !params.schedule.depends_on_epochs()
            && let Some(map) = canonical.as_object_mut()
        {
            map.remove("epochs");
        }
        let mut of = BTreeMap::from([
            ("version".to_owned(), job.kind.version_for(&job.params).into()),
            ("params".to_owned(), canonical),
            ("seed".to_owned(), job.seed.into()),
            // Floating-point sums depend on these: a mixed training would match neither setting.
            ("device".to_owned(), if context.device.is_cuda() { "cuda" } else { "cpu" }.into()),
            ("libtorch".to_owned(), system::libtorch_version().into()),
            ("threads".to_owned(), job.threads.into()),
            ("numerics".to_owned(), chosen.numerics.name().into()),
            ("arithmetic".to_owned(), serde_json::to_value(&chosen.arithmetic).unwrap_or_default()),
        ]);
        if chosen.numerics == Numerics::Native {
            // oneDNN also selects kernels by cache sizes.
            of.insert("processor".to_owned(), atflow::host::cpu_name().into());
        }
        for input in &job.inputs {
            of.insert(format!("input {}", input.slot), input.digest.to_string().into());
        }
        let scratch = job.outputs.values().next().and_then(|path| path.parent()).map(Path::to_path_buf);
        let file = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join(FILE));
        TrainingCheckpoints { own: file(&job.partial), continuation: file(&job.onward), scratch, of }
    }

    /// Returns the furthest usable progress for a training of `epochs` epochs; logs why other files are unusable.
    pub fn find<E: DeserializeOwned + Serialize>(
        &self,
        epochs: u32,
        network: &dyn Network,
        mut log: impl FnMut(String),
    ) -> Option<Progress<E>> {
        let mut best: Option<Progress<E>> = None;
        for path in [&self.own, &self.continuation].into_iter().flatten() {
            match self.read::<E>(path, network) {
                Ok(None) => {}
                // Left by a longer training.
                Ok(Some(found)) if found.epochs.len() > epochs as usize => {}
                Ok(Some(found)) => {
                    if best.as_ref().is_none_or(|best| best.epochs.len() < found.epochs.len()) {
                        best = Some(found);
                    }
                }
                Err(error) => log(format!("the progress in {} is of no use: {error}", path.display())),
            }
        }
        best
    }

    fn read<E: DeserializeOwned + Serialize>(
        &self,
        path: &Path,
        network: &dyn Network,
    ) -> Result<Option<Progress<E>>, ProgressError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(fsio::FileError { doing: "read", path: path.to_owned(), source }.into());
            }
        };
        #[derive(Deserialize)]
        struct Version {
            format: String,
        }
        let version: Version = formats::read_metadata(ARTIFACT, &bytes)?;
        if version.format != FORMAT {
            return Err(ProgressError::Version(version.format));
        }
        let mut metadata: Metadata<E> = formats::read_metadata(ARTIFACT, &bytes)?;
        let names = self.of.keys().chain(metadata.of.keys());
        if let Some(name) = names.into_iter().find(|name| self.of.get(*name) != metadata.of.get(*name)) {
            return Err(ProgressError::Other(name.clone()));
        }
        let file = SafeTensors::deserialize(&bytes)?;
        let digest = metadata.digest.take();
        let mut tensors: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for name in file.names() {
            tensors.insert(name, file.tensor(name)?.data());
        }
        if digest != Some(digest_of(&metadata, tensors)) {
            return Err(ProgressError::Corrupt);
        }
        let (mut values, mut momentum) = (Vec::new(), Vec::new());
        for entry in network.state().entries() {
            values.push(from_file(&file, &format!("network/{}", entry.name), &entry.tensor)?);
            if entry.role == Role::Parameter {
                momentum.push(from_file(&file, &format!("momentum/{}", entry.name), &entry.tensor)?);
            }
        }
        let mut more = BTreeMap::new();
        for name in file.names() {
            if let Some(own) = name.strip_prefix(MORE) {
                more.insert(own.to_owned(), any_from_file(&file, name)?);
            }
        }
        let took = Duration::from_millis(metadata.milliseconds.unwrap_or(0));
        Ok(Some(Progress { epochs: metadata.epochs, took, more, network: values, momentum }))
    }

    /// Saves the progress after an epoch.
    ///
    /// `took` is the duration of the epochs. `more` is the training method's extra state besides weights and momentum.
    /// `last` marks the final epoch: its state is useful only to a longer training, if one is possible.
    ///
    /// A kill or crash at any moment leaves either the previous or the new progress intact ([`fsio::write_atomic`]).
    ///
    /// # Errors
    /// [`ProgressError`]; the previous progress remains.
    pub fn keep<E: Serialize + Clone + DeserializeOwned>(
        &self,
        epochs: &[E],
        took: Duration,
        last: bool,
        network: &dyn Network,
        optimizer: &Optimizer,
        more: &BTreeMap<String, &Tensor>,
    ) -> Result<(), ProgressError> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        let path = match (&self.own, &self.continuation) {
            // Keep a continuation that is further along.
            (own, Some(continuation)) if last => match self.read::<E>(continuation, network) {
                Ok(Some(found)) if found.epochs.len() >= epochs.len() => own.as_ref(),
                _ => Some(continuation),
            },
            (own, _) => own.as_ref(),
        };
        let Some(path) = path else { return Ok(()) };
        let mut tensors = BTreeMap::new();
        let mut momentum = optimizer.velocities().iter();
        for entry in network.state().entries() {
            tensors.insert(format!("network/{}", entry.name), StoredTensor::of(&entry.tensor)?);
            if entry.role == Role::Parameter
                && let Some(velocity) = momentum.next()
            {
                tensors.insert(format!("momentum/{}", entry.name), StoredTensor::of(velocity)?);
            }
        }
        for (name, tensor) in more {
            tensors.insert(format!("{MORE}{name}"), StoredTensor::of(tensor)?);
        }
        let mut metadata = Metadata {
            format: FORMAT.to_owned(),
            of: self.of.clone(),
            epochs: epochs.to_vec(),
            milliseconds: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            digest: None,
        };
        let parts = tensors.iter().map(|(name, stored)| (name.as_str(), stored.bytes.as_slice()));
        metadata.digest = Some(digest_of(&metadata, parts));
        let views = tensors
            .iter()
            .map(|(name, stored)| Ok((name.as_str(), stored.view()?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let bytes = formats::write(views, &metadata)?;
        fsio::write_atomic(path, scratch, &bytes)?;
        Ok(())
    }
}

impl<E> Progress<E> {
    /// Restores the state into the network and the optimiser.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn restore(&self, network: &dyn Network, optimizer: &mut Optimizer) -> Result<(), tch::TchError> {
        let _guard = tch::no_grad_guard();
        for (entry, values) in network.state().entries().iter().zip(&self.network) {
            entry.tensor.shallow_clone().f_copy_(values)?;
        }
        optimizer.restore(&self.momentum)
    }
}

/// Returns the digest of the metadata (without its digest) and of the tensors in name order.
fn digest_of<'a, E: Serialize>(
    metadata: &Metadata<E>,
    tensors: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(metadata).unwrap_or_default());
    for (name, bytes) in tensors {
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize().into()
}
