//! Checkpoints: a network's description, classes and tensors in one safetensors file that PyTorch users can load.
//!
//! Knows nothing about the origin of the weights.

use std::collections::BTreeSet;

use atflow::digest::Digest;
use atflow::formats::{self, FormatError};
use atflow::stage_kinds::Net;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::StageError;
use crate::file_types::{self, PROGRAM};
use crate::networks::{self, Network};

const ARTIFACT: &str = "checkpoint";
const FORMAT: &str = "checkpoint/1";

/// A network with the metadata needed to use it.
///
/// The file holds the network's tensors, F32, under their PyTorch names (`layer1.0.bn1.running_mean`), running
/// statistics included. Its metadata is `{"format": "checkpoint/1", "net": {…}, "channels": C, "classes": […]}`, with
/// `net` as in the parameters of training.
///
/// The file of a TorchScript network also holds that network: the bytes of the TorchScript file as the U8 tensor
/// `torchscript/program`, and their BLAKE3 digest as `torchscript` in the metadata. Its buffers may have other types.
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
    /// The file holds a TorchScript network, and nobody asked for one.
    #[error(
        "it holds a TorchScript network, which is a program, and no stage of this pipeline has `arch: torchscript`; \
         whoever made this checkpoint put it there"
    )]
    Forbidden,
    /// The file lacks the TorchScript network, or holds another one than its metadata say.
    #[error("its TorchScript network is not the one that was put into it")]
    Program,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    torchscript: Option<Digest>,
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
        encode(&self.net, self.channels, &self.classes, &*self.network)
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
        let file = SafeTensors::deserialize(bytes)?;
        let program = program(&file, metadata.torchscript)?;
        let Metadata { net, channels, classes, .. } = metadata;
        let network = match program {
            Some(program) => networks::build_script(&net, program, channels, classes.len(), device),
            None => networks::build_blank(&net, channels, classes.len(), device),
        };
        let network = network.map_err(|error| CheckpointError::Network(Box::new(error)))?;
        let entries = network.state().entries();
        let (known, found): (BTreeSet<&str>, BTreeSet<&str>) = (
            entries.iter().map(|entry| entry.name.as_str()).collect(),
            file.names().into_iter().filter(|name| *name != PROGRAM).collect(),
        );
        if known != found {
            let beyond =
                |a: &BTreeSet<&str>, b: &BTreeSet<&str>| a.difference(b).map(|&name| name.to_owned()).collect();
            return Err(CheckpointError::Names { missing: beyond(&known, &found), unknown: beyond(&found, &known) });
        }
        let _guard = tch::no_grad_guard();
        for entry in entries {
            let values = from_file(&file, &entry.name, &entry.tensor)?;
            entry.tensor.shallow_clone().f_copy_(&values)?;
        }
        Ok(Checkpoint { net, channels, classes, network })
    }
}

/// Encodes a checkpoint of these parts, as [`Checkpoint::to_bytes`].
///
/// # Errors
/// [`CheckpointError::Torch`] or [`CheckpointError::Format`].
pub fn encode(
    net: &Net,
    channels: usize,
    classes: &[String],
    network: &dyn Network,
) -> Result<Vec<u8>, CheckpointError> {
    let mut values = Vec::new();
    for entry in network.state().entries() {
        values.push((entry.name.as_str(), StoredTensor::of(&entry.tensor)?));
    }
    let program = network.program();
    let mut views =
        values.iter().map(|(name, stored)| Ok((*name, stored.view()?))).collect::<Result<Vec<_>, FormatError>>()?;
    if let Some(program) = program {
        views.push((PROGRAM, TensorView::new(Dtype::U8, vec![program.len()], program)?));
    }
    let metadata = Metadata {
        format: FORMAT.to_owned(),
        net: net.clone(),
        channels,
        classes: classes.to_vec(),
        torchscript: program.map(Digest::of),
    };
    Ok(formats::write(views, &metadata)?)
}

/// Returns whether a checkpoint says that it holds a TorchScript network.
pub(crate) fn has_script(bytes: &[u8]) -> bool {
    formats::read_metadata::<Metadata>(ARTIFACT, bytes).is_ok_and(|metadata| metadata.net.is_script())
}

/// Returns the TorchScript file in a checkpoint, if it has one; its digest is that of the metadata.
fn program(file: &SafeTensors<'_>, expected: Option<Digest>) -> Result<Option<Vec<u8>>, CheckpointError> {
    let Some(expected) = expected else { return Ok(None) };
    let view = file.tensor(PROGRAM).map_err(|_| CheckpointError::Program)?;
    match Digest::of(view.data()) == expected {
        true => Ok(Some(view.data().to_vec())),
        false => Err(CheckpointError::Program),
    }
}

/// A tensor as it stands in a file.
pub(crate) struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In row-major order, whatever the layout in memory.
    pub(crate) bytes: Vec<u8>,
}

impl StoredTensor {
    /// Copies a tensor of any type that files have.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self, TchError> {
        let kind = tensor.kind();
        let dtype =
            file_types::dtype(kind).ok_or_else(|| TchError::Kind(format!("no file has tensors of {kind:?}")))?;
        let shape = tensor.size().iter().map(|&side| side as usize).collect();
        let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?.f_view(-1)?;
        let mut bytes = vec![0; flat.numel() * kind.elt_size_in_bytes()];
        flat.f_copy_data_u8(&mut bytes, flat.numel())?;
        Ok(StoredTensor { dtype, shape, bytes })
    }

    /// Returns the tensor in the form that safetensors writes.
    pub(crate) fn view(&self) -> Result<TensorView<'_>, safetensors::SafeTensorError> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes)
    }
}

/// Reads a tensor of a file, on the CPU; it must have the shape and type of `like`.
pub(crate) fn from_file(file: &SafeTensors<'_>, name: &str, like: &Tensor) -> Result<Tensor, CheckpointError> {
    let (view, expected) = (file.tensor(name)?, (file_types::dtype(like.kind()), like.size()));
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    if (Some(view.dtype()), &shape) != (expected.0, &expected.1) {
        let wanted = expected.0.map_or_else(String::new, |dtype| format!("{dtype:?}"));
        return Err(CheckpointError::Shape {
            name: name.to_owned(),
            found: format!("{:?} {shape:?}", view.dtype()),
            expected: format!("{wanted} {:?}", expected.1),
        });
    }
    Ok(Tensor::f_from_data_size(view.data(), &shape, like.kind())?)
}

/// Reads a tensor of a file, on the CPU, whatever its shape and type.
pub(crate) fn any_from_file(file: &SafeTensors<'_>, name: &str) -> Result<Tensor, CheckpointError> {
    let view = file.tensor(name)?;
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    let kind = file_types::kind(view.dtype()).unwrap_or(Kind::Float);
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}
