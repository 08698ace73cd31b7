//! Puts the tensors of a file into a network: all of them, by their names and shapes, or none. Knows nothing of forms
//! of files.

use std::collections::BTreeMap;

use tch::{TchError, Tensor};

use super::place::{self, Misfit, Neighbours, Place, Wanted};
use super::{File, WeightsError};
use crate::networks::Network;

/// What becomes of a network's last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// It takes its weights from the file, too.
    Keep,
    /// The layer of this name keeps its initial weights, whatever the file has for it.
    Replace(&'a str),
}

/// Why the tensors of a file do not fit a network.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Names or shapes differ.
    #[error("its tensors are not those of the network: {0}")]
    Differ(Box<Misfit>),
    /// The network's tensors are there more than once, with other values.
    #[error(
        "the network's tensors are there more than once, with other values: under `{first}` and under `{second}`; say which \
         is meant, as `pretrained: {{entry: {}}}`", first.trim_end_matches('.')
    )]
    Ambiguous {
        /// A place.
        first: String,
        /// Another one.
        second: String,
    },
    /// A tensor that is taken cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

/// What was taken of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// How many tensors.
    pub taken: usize,
    /// What stands before their names in the file.
    pub prefix: String,
    /// How many others the file has.
    pub passed_over: usize,
}

/// Fills the network's tensors, parameters and running statistics, from the dictionary and under the prefix where they
/// fit; `entry` says where to look. Numbers of another floating type are converted to f32. What else a training kept in
/// the file is passed over.
///
/// # Errors
/// [`InstallError`]; the network is unchanged then.
pub fn install(
    network: &dyn Network,
    file: &File<'_>,
    head: Head<'_>,
    entry: Option<&str>,
) -> Result<Installed, InstallError> {
    let layer = match head {
        Head::Keep => None,
        Head::Replace(layer) => Some(layer),
    };
    let is_head = |name: &str| {
        layer.and_then(|layer| name.strip_prefix(layer)).is_some_and(|rest| matches!(rest, ".weight" | ".bias"))
    };
    let entries: Vec<_> = network.state().entries().iter().filter(|entry| !is_head(&entry.name)).collect();
    let wanted: Vec<Wanted> =
        entries.iter().map(|entry| Wanted { name: entry.name.clone(), shape: Some(entry.tensor.size()) }).collect();
    let places = place::find(file.listed(), &wanted, Neighbours::Layer(layer), entry).map_err(InstallError::Differ)?;
    let (place, values) = the_one(file, places)?;
    let _guard = tch::no_grad_guard();
    for (entry, values) in entries.iter().zip(&values) {
        entry.tensor.shallow_clone().f_copy_(values)?;
    }
    let passed_over = file.listed().len() - values.len();
    Ok(Installed { taken: values.len(), prefix: place.prefix, passed_over })
}

/// The tensors of some names, from where most of them stand together; whichever are there.
///
/// # Errors
/// [`InstallError`], if they are there more than once or cannot be read.
pub fn select(file: &File<'_>, names: &[String]) -> Result<BTreeMap<String, Tensor>, InstallError> {
    let wanted: Vec<Wanted> = names.iter().map(|name| Wanted { name: name.clone(), shape: None }).collect();
    match place::find(file.listed(), &wanted, Neighbours::All, None) {
        Ok(places) => {
            let (_, values) = the_one(file, places)?;
            Ok(names.iter().cloned().zip(values).collect())
        }
        // Who asks says what is missing, in terms of its own.
        Err(_) => {
            let there = place::names(file.listed());
            let found: Vec<(&String, usize)> =
                names.iter().filter_map(|name| Some((name, *there.get(name)?))).collect();
            let values = file.load(&found.iter().map(|(_, number)| *number).collect::<Vec<_>>())?;
            Ok(found.into_iter().map(|(name, _)| name.clone()).zip(values).collect())
        }
    }
}

/// The place that is meant, and its tensors: any of several, if all hold the same values.
fn the_one(file: &File<'_>, places: Vec<Place>) -> Result<(Place, Vec<Tensor>), InstallError> {
    let mut places = places.into_iter();
    let Some(first) = places.next() else { return Err(WeightsError::Form.into()) };
    let values = file.load(&first.numbers)?;
    for other in places {
        let others = file.load(&other.numbers)?;
        for (value, other_value) in values.iter().zip(&others) {
            if value.kind() != other_value.kind() || !value.f_equal(other_value)? {
                return Err(InstallError::Ambiguous { first: first.prefix, second: other.prefix });
            }
        }
    }
    Ok((first, values))
}
