//! The progress of a training: all that the next epoch depends on, kept after each epoch, so that a training that was
//! killed ends with the same bytes as one that was not. Random draws need no keeping: they are keyed by epoch. Knows
//! nothing of how training goes.
//!
//! File `training.safetensors` in a folder that the engine names: the tensors `network/NAME`, `momentum/NAME`, and
//! `more/NAME` for what a method of training keeps beside them, F32; metadata `{"format": "training/1", "of": {…},
//! "epochs": […], "milliseconds": 81000, "digest": "…"}`. `milliseconds` is how long the epochs took, in all the runs
//! that worked on them. `of` is all that the way from the start to here depends on; a file of another training, of
//! other data, or made on another sort of device, is of no use and says so. `digest` is that of the rest, tensors
//! included: nobody checks this file by its name, as blobs are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::digest::Digest;
use atflow::formats;
use atflow::fsio;
use atflow::numerics::Numerics;
use atflow::stage_kinds::TrainParams;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::checkpoint::{CheckpointError, from_file, to_bytes};
use crate::context::Context;
use crate::executors::optimizer::Optimizer;
use crate::networks::{Network, Role};
use crate::system;

const ARTIFACT: &str = "training in progress";
const FORMAT: &str = "training/1";
const FILE: &str = "training.safetensors";
/// Before the names of what a method of training keeps.
const MORE: &str = "more/";

/// Why some file cannot be resumed from, or progress not be kept.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// It is no such file, or cannot be written as one.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// Made by another version.
    #[error("its format is `{0}`, this version reads `{FORMAT}`")]
    Version(String),
    /// Of another training.
    #[error("it is of a training with another `{0}`")]
    Other(String),
    /// Its bytes are not those that were written.
    #[error("its bytes are not those that were written")]
    Corrupt,
    /// It cannot be read or written.
    #[error(transparent)]
    System(#[from] fsio::FileError),
}

impl From<formats::FormatError> for PartialError {
    fn from(error: formats::FormatError) -> Self {
        PartialError::File(error.into())
    }
}

impl From<safetensors::SafeTensorError> for PartialError {
    fn from(error: safetensors::SafeTensorError) -> Self {
        PartialError::File(error.into())
    }
}

impl From<tch::TchError> for PartialError {
    fn from(error: tch::TchError) -> Self {
        PartialError::File(error.into())
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata<E> {
    format: String,
    of: BTreeMap<String, Value>,
    epochs: Vec<E>,
    /// How long the epochs took, in all runs; absent in what older versions kept. A whole number, because the digest
    /// needs to come out the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
    /// Of everything else; absent while it is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

/// Progress as it was read: nothing of it is in the network yet.
pub struct Progress<E> {
    /// The numbers of each epoch that is done.
    pub epochs: Vec<E>,
    /// How long they took.
    pub took: Duration,
    /// What the method of training kept beside weights and momentum, by name.
    pub more: BTreeMap<String, Tensor>,
    network: Vec<Tensor>,
    momentum: Vec<Tensor>,
}

/// Where one training keeps its progress.
pub struct TrainingCheckpoints {
    own: Option<PathBuf>,
    continuation: Option<PathBuf>,
    /// On the same file system; the engine clears it away.
    scratch: Option<PathBuf>,
    of: BTreeMap<String, Value>,
}

impl TrainingCheckpoints {
    /// The keeper of a job's progress. A job that names no folder has nothing kept.
    pub fn new(context: &Context<'_>, params: &TrainParams) -> Self {
        let (job, chosen) = (context.job, context.chosen);
        let mut canonical = serde_json::to_value(params).unwrap_or_default();
        if !params.schedule.depends_on_epochs()
            && let Some(map) = canonical.as_object_mut()
        {
            map.remove("epochs");
        }
        let mut of = BTreeMap::from([
            ("version".to_owned(), job.kind.version().into()),
            ("params".to_owned(), canonical),
            ("seed".to_owned(), job.seed.into()),
            // What a sum comes to depends on these: with others, the end would be that of neither.
            ("device".to_owned(), if context.device.is_cuda() { "cuda" } else { "cpu" }.into()),
            ("libtorch".to_owned(), system::libtorch_version().into()),
            ("threads".to_owned(), job.threads.into()),
            ("numerics".to_owned(), chosen.numerics.name().into()),
            ("arithmetic".to_owned(), serde_json::to_value(&chosen.arithmetic).unwrap_or_default()),
        ]);
        if chosen.numerics == Numerics::Native {
            // oneDNN chooses by the sizes of a processor's caches, too.
            of.insert("processor".to_owned(), system::cpu_name().into());
        }
        for input in &job.inputs {
            of.insert(format!("input {}", input.slot), input.digest.to_string().into());
        }
        let scratch = job.outputs.values().next().and_then(|path| path.parent()).map(Path::to_path_buf);
        let file = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join(FILE));
        TrainingCheckpoints { own: file(&job.partial), continuation: file(&job.onward), scratch, of }
    }

    /// The furthest progress that is of use to a training of so many epochs; what cannot be used is told to `log`.
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
                // Left by a training that was longer.
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
    ) -> Result<Option<Progress<E>>, PartialError> {
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
            return Err(PartialError::Version(version.format));
        }
        let mut metadata: Metadata<E> = formats::read_metadata(ARTIFACT, &bytes)?;
        let names = self.of.keys().chain(metadata.of.keys());
        if let Some(name) = names.into_iter().find(|name| self.of.get(*name) != metadata.of.get(*name)) {
            return Err(PartialError::Other(name.clone()));
        }
        let file = SafeTensors::deserialize(&bytes)?;
        let digest = metadata.digest.take();
        let mut tensors: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for name in file.names() {
            tensors.insert(name, file.tensor(name)?.data());
        }
        if digest != Some(digest_of(&metadata, tensors)) {
            return Err(PartialError::Corrupt);
        }
        let (mut values, mut momentum) = (Vec::new(), Vec::new());
        for entry in network.state().entries() {
            let shape = entry.tensor.size();
            values.push(from_file(&file, &format!("network/{}", entry.name), &shape)?);
            if entry.role == Role::Parameter {
                momentum.push(from_file(&file, &format!("momentum/{}", entry.name), &shape)?);
            }
        }
        let mut more = BTreeMap::new();
        for name in file.names() {
            if let Some(own) = name.strip_prefix(MORE) {
                let shape: Vec<i64> = file.tensor(name)?.shape().iter().map(|&side| side as i64).collect();
                more.insert(own.to_owned(), from_file(&file, name, &shape)?);
            }
        }
        let took = Duration::from_millis(metadata.milliseconds.unwrap_or(0));
        Ok(Some(Progress { epochs: metadata.epochs, took, more, network: values, momentum }))
    }

    /// Keeps the progress after an epoch. `took` is how long the epochs took. `more` is what the method of training
    /// keeps beside weights and momentum. `last` says that no other follows: then the state is of use to a longer
    /// training only, where there may be one.
    ///
    /// What survives a kill or a crash at any moment: the progress before or this, whole ([`fsio::write_atomic`]).
    ///
    /// # Errors
    /// [`PartialError`]; the progress kept before stays.
    pub fn keep<E: Serialize + Clone + DeserializeOwned>(
        &self,
        epochs: &[E],
        took: Duration,
        last: bool,
        network: &dyn Network,
        optimizer: &Optimizer,
        more: &BTreeMap<String, &Tensor>,
    ) -> Result<(), PartialError> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        let path = match (&self.own, &self.continuation) {
            // One that is further is worth more.
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
            tensors.insert(format!("network/{}", entry.name), to_bytes(&entry.tensor)?);
            if entry.role == Role::Parameter
                && let Some(velocity) = momentum.next()
            {
                tensors.insert(format!("momentum/{}", entry.name), to_bytes(velocity)?);
            }
        }
        for (name, tensor) in more {
            tensors.insert(format!("{MORE}{name}"), to_bytes(tensor)?);
        }
        let mut metadata = Metadata {
            format: FORMAT.to_owned(),
            of: self.of.clone(),
            epochs: epochs.to_vec(),
            milliseconds: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            digest: None,
        };
        let parts = tensors.iter().map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice()));
        metadata.digest = Some(digest_of(&metadata, parts));
        let views = tensors
            .iter()
            .map(|(name, (shape, bytes))| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let bytes = formats::write(views, &metadata)?;
        fsio::write_atomic(path, scratch, &bytes)?;
        Ok(())
    }
}

impl<E> Progress<E> {
    /// Puts the state where it was taken from.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn restore(&self, network: &dyn Network, optimizer: &mut Optimizer) -> Result<(), tch::TchError> {
        let _guard = tch::no_grad_guard();
        for (entry, values) in network.state().entries().iter().zip(&self.network) {
            entry.tensor.shallow_clone().f_copy_(values)?;
        }
        optimizer.restore(&self.momentum)
    }
}

/// The digest of metadata without its digest, and of tensors in the order of their names.
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
