//! Checkpoints: a network's description, classes and tensors in one safetensors file that PyTorch users can load.
//!
//! Knows nothing about the origin of the weights.

use std::collections::BTreeSet;

use atflow::formats::{self, FormatError};
use atflow::stage_kinds::Net;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tch::{Device, TchError, Tensor};

use crate::error::StageError;
use crate::networks::{self, Network};

const ARTIFACT: &str = "checkpoint";
const FORMAT: &str = "checkpoint/1";

/// A network with the metadata needed to use it.
///
/// The file holds the network's tensors, F32, under their PyTorch names (`layer1.0.bn1.running_mean`), running
/// statistics included. Its metadata is `{"format": "checkpoint/1", "net": {…}, "channels": C, "classes": […]}`, with
/// `net` as in the parameters of training.
pub struct Checkpoint {
    /// The description that the network is built from.
    pub net: Net,
    /// Channels of the input images.
    pub channels: usize,
    /// Names of the classes, in the order of the logits; there may be more logits than classes.
    pub classes: Vec<String>,
    /// The network.
    pub network: Box<dyn Network>,
}

/// Why bytes are not a usable checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The wrong type of file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Not a safetensors file, or a truncated one.
    #[error("not a safetensors file")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The file comes from another version.
    #[error("its format is `{found}`, this version reads `{FORMAT}`")]
    Version {
        /// The version in the file.
        found: String,
    },
    /// The description is not a valid network.
    #[error("its network cannot be built")]
    Network(#[source] Box<StageError>),
    /// The file's tensors differ from the network's.
    #[error("its tensors are not those of its network (missing: {}; unknown: {})", list(missing), list(unknown))]
    Names {
        /// Tensors of the network that the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the network lacks.
        unknown: Vec<String>,
    },
    /// A tensor has another shape or type.
    #[error("its tensor `{name}` is {found}, not {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape and type in the file.
        found: String,
        /// The shape and type in the network.
        expected: String,
    },
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0 => "none".to_owned(),
        1..=SHOWN => names.join(", "),
        more => format!("{}, and {} more", names[..SHOWN].join(", "), more - SHOWN),
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: String,
    net: Net,
    channels: usize,
    classes: Vec<String>,
}

impl Checkpoint {
    /// Returns the number of logits: the number of classes, or more if the description says so.
    pub fn logits(&self) -> usize {
        self.net.classes().map_or(self.classes.len(), |own| own as usize)
    }

    /// Encodes the checkpoint as a file; equal weights give equal bytes.
    ///
    /// # Errors
    /// [`CheckpointError::Torch`] or [`CheckpointError::Format`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut values = Vec::new();
        for entry in self.network.state().entries() {
            let (shape, bytes) = to_bytes(&entry.tensor)?;
            values.push((entry.name.as_str(), shape, bytes));
        }
        let views = values
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, FormatError>>()?;
        let metadata = Metadata {
            format: FORMAT.to_owned(),
            net: self.net.clone(),
            channels: self.channels,
            classes: self.classes.clone(),
        };
        Ok(formats::write(views, &metadata)?)
    }

    /// Reads a checkpoint from a file's bytes and loads its network onto a device.
    ///
    /// # Errors
    /// Any [`CheckpointError`]: the file must hold every tensor of the network, and no other.
    pub fn from_bytes(bytes: &[u8], device: Device) -> Result<Self, CheckpointError> {
        let metadata: Metadata = formats::read_metadata(ARTIFACT, bytes)?;
        if metadata.format != FORMAT {
            return Err(CheckpointError::Version { found: metadata.format });
        }
        let Metadata { net, channels, classes, .. } = metadata;
        let network = networks::build_blank(&net, channels, classes.len(), device)
            .map_err(|error| CheckpointError::Network(Box::new(error)))?;
        let file = SafeTensors::deserialize(bytes)?;
        let entries = network.state().entries();
        let (known, found): (BTreeSet<&str>, BTreeSet<&str>) =
            (entries.iter().map(|entry| entry.name.as_str()).collect(), file.names().into_iter().collect());
        if known != found {
            let beyond =
                |a: &BTreeSet<&str>, b: &BTreeSet<&str>| a.difference(b).map(|&name| name.to_owned()).collect();
            return Err(CheckpointError::Names { missing: beyond(&known, &found), unknown: beyond(&found, &known) });
        }
        let _guard = tch::no_grad_guard();
        for entry in entries {
            let values = from_file(&file, &entry.name, &entry.tensor.size())?;
            entry.tensor.shallow_clone().f_copy_(&values)?;
        }
        Ok(Checkpoint { net, channels, classes, network })
    }
}

/// Returns a tensor's shape and its file bytes: F32 in row-major order, whatever the layout in memory.
pub(crate) fn to_bytes(tensor: &Tensor) -> Result<(Vec<usize>, Vec<u8>), TchError> {
    let shape = tensor.size().iter().map(|&side| side as usize).collect();
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?;
    Ok((shape, Vec::<f32>::try_from(flat)?.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// Reads a tensor of a file, on the CPU; it must have the expected shape.
pub(crate) fn from_file(file: &SafeTensors<'_>, name: &str, expected: &[i64]) -> Result<Tensor, CheckpointError> {
    let view = file.tensor(name)?;
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    if view.dtype() != Dtype::F32 || shape != expected {
        return Err(CheckpointError::Shape {
            name: name.to_owned(),
            found: format!("{:?} {shape:?}", view.dtype()),
            expected: format!("F32 {expected:?}"),
        });
    }
    Ok(Tensor::f_from_data_size(view.data(), &shape, tch::Kind::Float)?)
}
