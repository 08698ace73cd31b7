//! Weights that others trained: tensors by name, read from the files that PyTorch users pass on, and put into a network. Nothing in a file
//! is ever run. Knows nothing of checkpoints as this program writes them, which are read by their own, stricter rules.

mod install;
mod pickle;
mod torch;

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, TchError, Tensor};

pub use install::{Head, InstallError, install};
pub use pickle::PickleError;

/// Why some bytes are not weights that can be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// None of the known forms.
    #[error(
        "it is no file of weights: neither safetensors nor what `torch.save` writes (an archive with `data.pkl`, or the older stream)"
    )]
    Form,
    /// A safetensors file that is cut or wrong.
    #[error("it is no whole safetensors file")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A zip archive that is cut or wrong.
    #[error("its archive cannot be read")]
    Zip(#[from] zip::result::ZipError),
    /// A pickle that is wrong, or asks for more than tensors.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// It holds something else than tensors by name.
    #[error("it is not a state dict: {0}; save `model.state_dict()`")]
    Content(String),
    /// The storage of a tensor is not there as it should be.
    #[error("the storage `{key}` {problem}")]
    Storage {
        /// Its name.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor reaches beyond its storage, or has a type that is not read.
    #[error("the tensor `{name}` {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It was written on a machine with the other order of bytes.
    #[error("it was written on a big-endian machine; this program reads little-endian files")]
    BigEndian,
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

/// Reads the tensors of a file, by name, on the CPU, each of the type that it is stored in.
///
/// Forms: safetensors; what `torch.save` writes, the archive (since PyTorch 1.6) as well as the older stream. There, the tensors are those
/// of the dictionary that was saved, or of its entry `state_dict`, `model_state_dict`, `model` or `net` where it has none itself; `module.`
/// before every name, which `DataParallel` puts there, is taken away. A pickle is followed as far as dictionaries, lists, numbers, texts and
/// tensors go; anything else that it names is refused, and nothing is run.
///
/// # Errors
/// Any [`WeightsError`].
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    if bytes.starts_with(b"PK\x03\x04") {
        torch::from_archive(bytes)
    } else if bytes.starts_with(b"\x80") && bytes.get(8) != Some(&b'{') {
        torch::from_stream(bytes)
    } else if bytes.get(8) == Some(&b'{') {
        from_safetensors(bytes)
    } else {
        Err(WeightsError::Form)
    }
}

fn from_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::I16 => Kind::Int16,
            Dtype::I8 => Kind::Int8,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            other => {
                let problem = format!("is of type {other:?}, which is not read");
                return Err(WeightsError::Tensor { name: name.to_owned(), problem });
            }
        };
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        tensors.insert(name.to_owned(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok(tensors)
}
