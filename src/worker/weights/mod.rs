//! Pretrained weights: reads tensors by name from common PyTorch files and installs them in a network.
//!
//! Never executes anything in a file. Knows nothing about this program's own checkpoints, which have stricter rules.

mod install;
mod normalisation;
mod place;
mod state_dict;
mod torch;

use std::collections::{BTreeMap, BTreeSet};

use atflow::pickle::PickleError;
use safetensors::SafeTensors;
use tch::{Kind, TchError, Tensor};

use crate::file_types::{PROGRAM, kind};

pub use install::{Head, InstallError, Installed, install, select};
pub use place::{Misfit, WantedTensor};

/// Why bytes cannot be read as weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// An unknown format.
    #[error(
        "it is no file of weights: neither safetensors nor what `torch.save` writes (an archive with `data.pkl`, or the older stream)"
    )]
    Form,
    /// The list of a sharded file.
    #[error("it lists the files that hold the weights: name those in `weights`, and leave the list out")]
    Index,
    /// A tensor is in several of the files.
    #[error("the tensor `{0}` is in two of the files, which must be the parts of one")]
    Twice(String),
    /// A truncated or invalid safetensors file.
    #[error("it is no whole safetensors file")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A truncated or invalid zip archive.
    #[error("its archive cannot be read")]
    Zip(#[from] zip::result::ZipError),
    /// An invalid pickle, or one that needs more than tensors.
    #[error("{0}{hint}", hint = hint(.0))]
    Pickle(PickleError),
    /// The file holds something other than tensors by name.
    #[error("it is not a state dict: {0}; save `model.state_dict()`")]
    Content(String),
    /// The storage of a tensor is missing or invalid.
    #[error("the storage `{key}` {problem}")]
    Storage {
        /// Its name.
        key: String,
        /// The problem.
        problem: String,
    },
    /// A tensor exceeds its storage, or has an unsupported type.
    #[error("the tensor `{name}` {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// The problem.
        problem: String,
    },
    /// A tensor has values that no network can use.
    #[error(
        "the tensor `{name}` has {count} values that are no finite numbers (NaN or infinity): the file is of no use; \
         the training that wrote it has diverged, or the file is damaged"
    )]
    NotFinite {
        /// Its name.
        name: String,
        /// The number of such values.
        count: i64,
    },
    /// The file comes from a machine with the other byte order.
    #[error("it was written on a big-endian machine; this program reads little-endian files")]
    BigEndian,
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

/// Whether a file lists the shards of another, as the Hugging Face hub writes such lists.
fn is_index(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"\"weight_map\"";
    bytes.starts_with(b"{") && bytes.windows(KEY.len()).any(|part| part == KEY)
}

fn hint(error: &PickleError) -> &'static str {
    match error {
        PickleError::Global { .. } => "; save `model.state_dict()` alone, or as safetensors",
        _ => "",
    }
}

impl From<PickleError> for WeightsError {
    fn from(error: PickleError) -> Self {
        WeightsError::Pickle(error)
    }
}

/// A tensor in a file, not yet read.
#[derive(Debug, Clone)]
pub struct ListedTensor {
    /// The names of its enclosing dictionaries and its own, separated by dots.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// The type it is stored in; `None` if that type is unsupported.
    pub kind: Option<Kind>,
    /// The dictionary of the file that contains it.
    dictionary: usize,
}

/// A weights file with its tensors listed by name.
pub struct File<'a> {
    listed: Vec<ListedTensor>,
    source: Source<'a>,
}

enum Source<'a> {
    Safetensors(SafeTensors<'a>),
    Torch(torch::SavedFile<'a>),
    Ready(Vec<Tensor>),
    /// Several files, and for each tensor its file and its index there.
    Parts(Vec<File<'a>>, Vec<[usize; 2]>),
}

impl<'a> File<'a> {
    /// Lists the tensors of a file.
    ///
    /// Formats: safetensors, and `torch.save`, both the archive (since PyTorch 1.6) and the older stream. Of a pickle,
    /// only dictionaries, lists, numbers, texts and tensors are read. Any other global is rejected, and nothing is
    /// executed.
    ///
    /// # Errors
    /// Any [`WeightsError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        let (listed, saved) = if bytes.starts_with(b"PK\x03\x04") {
            torch::from_archive(bytes)?
        } else if bytes.starts_with(b"\x80") && bytes.get(8) != Some(&b'{') {
            torch::from_stream(bytes)?
        } else if bytes.get(8) == Some(&b'{') {
            let file = SafeTensors::deserialize(bytes)?;
            let weights = file.iter().filter(|(name, _)| *name != PROGRAM);
            let listed = weights.map(|(name, view)| ListedTensor {
                name: name.to_owned(),
                shape: view.shape().iter().map(|&side| side as i64).collect(),
                kind: kind(view.dtype()),
                dictionary: 0,
            });
            return Ok(File { listed: listed.collect(), source: Source::Safetensors(file) });
        } else if is_index(bytes) {
            return Err(WeightsError::Index);
        } else {
            return Err(WeightsError::Form);
        };
        Ok(File { listed, source: Source::Torch(saved) })
    }

    /// Wraps tensors that are already loaded.
    pub fn of(tensors: BTreeMap<String, Tensor>) -> File<'static> {
        let (listed, ready) = tensors
            .into_iter()
            .map(|(name, tensor)| {
                (ListedTensor { name, shape: tensor.size(), kind: Some(tensor.kind()), dictionary: 0 }, tensor)
            })
            .unzip();
        File { listed, source: Source::Ready(ready) }
    }

    /// Joins the parts of a file, such as the shards of a large one.
    ///
    /// # Errors
    /// [`WeightsError::Twice`] if two parts have a tensor of the same name.
    pub fn join(parts: Vec<File<'a>>) -> Result<Self, WeightsError> {
        let mut listed: Vec<ListedTensor> = Vec::new();
        let mut places = Vec::new();
        let mut names = BTreeSet::new();
        for (part, file) in parts.iter().enumerate() {
            for (number, tensor) in file.listed.iter().enumerate() {
                if !names.insert(&tensor.name) {
                    return Err(WeightsError::Twice(tensor.name.clone()));
                }
                listed.push(tensor.clone());
                places.push([part, number]);
            }
        }
        Ok(File { listed, source: Source::Parts(parts, places) })
    }

    /// Returns every tensor of the file.
    pub fn listed(&self) -> &[ListedTensor] {
        &self.listed
    }

    /// Reads some tensors by index, on the CPU, each in its stored type. All of them must be finite.
    fn load(&self, numbers: &[usize]) -> Result<Vec<Tensor>, WeightsError> {
        let tensors = match &self.source {
            Source::Parts(parts, places) => {
                let load = |&number: &usize| parts[places[number][0]].load(&[places[number][1]]);
                return Ok(numbers.iter().map(load).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
            }
            Source::Torch(saved) => saved.load(numbers, &self.listed)?,
            Source::Ready(tensors) => numbers.iter().map(|&number| tensors[number].shallow_clone()).collect(),
            Source::Safetensors(file) => numbers
                .iter()
                .map(|&number| {
                    let ListedTensor { name, shape, .. } = &self.listed[number];
                    let view = file.tensor(name)?;
                    let kind = kind(view.dtype()).ok_or_else(|| {
                        let problem = format!("is of type {:?}, which is not read", view.dtype());
                        WeightsError::Tensor { name: name.clone(), problem }
                    })?;
                    Ok(Tensor::f_from_data_size(view.data(), shape, kind)?)
                })
                .collect::<Result<_, WeightsError>>()?,
        };
        for (tensor, &number) in tensors.iter().zip(numbers) {
            if is_floating(tensor.kind()) && tensor.numel() > 0 {
                let finite = tensor.f_to_kind(Kind::Float)?.f_isfinite()?;
                let count = tensor.numel() as i64 - finite.f_sum(Kind::Int64)?.f_int64_value(&[])?;
                if count > 0 {
                    return Err(WeightsError::NotFinite { name: self.listed[number].name.clone(), count });
                }
            }
        }
        Ok(tensors)
    }
}

/// Reads all tensors of a file, by name.
///
/// # Errors
/// Any [`WeightsError`].
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let file = File::open(bytes)?;
    let tensors = file.load(&(0..file.listed.len()).collect::<Vec<_>>())?;
    Ok(file.listed.iter().map(|listed| listed.name.clone()).zip(tensors).collect())
}

fn is_floating(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}
