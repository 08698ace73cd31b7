//! Installs a file's tensors in a network: all of them, by name and shape, or none. Knows nothing about file formats.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::normalisation;
use super::place::{self, Misfit, Neighbours, Place, WantedTensor};
use super::{File, WeightsError};
use crate::networks::{Entry, Network};

/// Treatment of a network's last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// The last layer takes its weights from the file, too.
    Keep,
    /// The layer of this name keeps its initial weights, whatever the file holds for it.
    Replace(&'a str),
}

/// Why a file's tensors do not fit a network.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Names or shapes differ.
    #[error("its tensors are not those of the network: {0}")]
    Differ(Box<Misfit>),
    /// The network's tensors occur more than once, with different values.
    #[error(
        "the network's tensors are there more than once, with other values: under `{first}` and under `{second}`; say which \
         is meant, as `pretrained: {{entry: {}}}`", first.trim_end_matches('.')
    )]
    Ambiguous {
        /// One place.
        first: String,
        /// Another one.
        second: String,
    },
    /// The file normalises images in another way than the network.
    #[error("the file normalises images by its `{names}`, and the network in another way: write `{line}` in `net`")]
    Normalisation {
        /// The names of the file's mean and standard deviation.
        names: String,
        /// What makes the network the same.
        line: String,
    },
    /// A selected tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

/// The outcome of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Number of installed tensors.
    pub taken: usize,
    /// Prefix of their names in the file.
    pub prefix: String,
    /// Number of other tensors in the file.
    pub passed_over: usize,
    /// Whether the file has a normalisation of images; it is then that of the network.
    pub is_normalised: bool,
}

/// Fills the network's tensors, parameters and running statistics, from the dictionary and prefix where they fit.
///
/// `entry` says where to look. Values of other floating types are converted to f32. Other training data in the file is
/// ignored.
///
/// # Errors
/// [`InstallError`]; the network is then unchanged.
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
    let (counters, entries): (Vec<_>, Vec<_>) =
        network.state().entries().iter().filter(|entry| !is_head(&entry.name)).partition(|entry| is_counter(entry));
    let wanted: Vec<WantedTensor> = entries.iter().map(|entry| wanted(entry)).collect();
    let places = place::find(file.listed(), &wanted, Neighbours::Layer(layer), entry).map_err(InstallError::Differ)?;
    let (place, values) = the_one(file, places)?;
    let is_normalised = compare_normalisation(network, file, &place.prefix)?;
    let _guard = tch::no_grad_guard();
    for (entry, values) in entries.iter().zip(&values) {
        entry.tensor.shallow_clone().f_copy_(values)?;
    }
    let taken = values.len() + install_counters(file, &place, &counters)?;
    let passed_over = file.listed().len() - taken;
    Ok(Installed { taken, prefix: place.prefix, passed_over, is_normalised })
}

fn wanted(entry: &Entry) -> WantedTensor {
    let is_whole = !super::is_floating(entry.tensor.kind());
    WantedTensor { name: entry.name.clone(), shape: Some(entry.tensor.size()), is_whole }
}

/// Returns whether a tensor counts the batches that a batch norm has seen. Only TorchScript networks have such ones.
fn is_counter(entry: &Entry) -> bool {
    entry.name.ends_with("num_batches_tracked") && entry.tensor.numel() == 1
}

/// Fills the counters that the file has; older files have none. Returns how many.
fn install_counters(file: &File<'_>, place: &Place, counters: &[&Entry]) -> Result<usize, InstallError> {
    let names = place::names(file.listed());
    let found: Vec<(&&Entry, usize)> = counters
        .iter()
        .filter_map(|entry| Some((entry, *names.get(&format!("{}{}", place.prefix, entry.name))?)))
        .filter(|(_, number)| file.listed()[*number].shape.iter().product::<i64>() == 1)
        .collect();
    let values = file.load(&found.iter().map(|(_, number)| *number).collect::<Vec<_>>())?;
    for ((entry, _), value) in found.iter().zip(&values) {
        entry.tensor.shallow_clone().f_copy_(&value.f_view_as(&entry.tensor)?)?;
    }
    Ok(values.len())
}

/// Checks that the network normalises images as the file does; returns whether the file says so.
fn compare_normalisation(network: &dyn Network, file: &File<'_>, prefix: &str) -> Result<bool, InstallError> {
    let Some(own) = network.normalisation() else { return Ok(false) };
    let own = own.values()?;
    let names = place::names(file.listed());
    let channels = own.as_ref().map_or_else(|| channels(network), |[mean, _]| mean.len());
    let Some(numbers) = normalisation::find(&names, file.listed(), prefix, channels) else { return Ok(false) };
    let values: Vec<Vec<f64>> = file
        .load(&numbers)?
        .iter()
        .map(|tensor| Vec::try_from(tensor.f_to_kind(Kind::Double)?.f_flatten(0, -1)?))
        .collect::<Result<_, _>>()?;
    match normalisation::difference([&values[0], &values[1]], own.as_ref()) {
        Some(line) => {
            let names = numbers.map(|number| file.listed()[number].name.as_str()).join("` and `");
            Err(InstallError::Normalisation { names, line })
        }
        None => Ok(true),
    }
}

/// Returns the channels of the images that a network takes: those of its first convolution.
fn channels(network: &dyn Network) -> usize {
    let first = network.state().entries().iter().map(|entry| entry.tensor.size()).find(|shape| shape.len() == 4);
    first.map_or(0, |shape| shape[1] as usize)
}

/// Returns the named tensors from the place that holds all of them, or else the subset that the file has.
///
/// # Errors
/// [`InstallError`] if they occur more than once or cannot be read.
pub fn select(file: &File<'_>, names: &[String]) -> Result<BTreeMap<String, Tensor>, InstallError> {
    let wanted: Vec<WantedTensor> =
        names.iter().map(|name| WantedTensor { name: name.clone(), shape: None, is_whole: false }).collect();
    match place::find(file.listed(), &wanted, Neighbours::All, None) {
        Ok(places) => {
            let (_, values) = the_one(file, places)?;
            Ok(names.iter().cloned().zip(values).collect())
        }
        // The caller reports the missing tensors in its own terms.
        Err(_) => {
            let there = place::names(file.listed());
            let found: Vec<(&String, usize)> =
                names.iter().filter_map(|name| Some((name, *there.get(name)?))).collect();
            let values = file.load(&found.iter().map(|(_, number)| *number).collect::<Vec<_>>())?;
            Ok(found.into_iter().map(|(name, _)| name.clone()).zip(values).collect())
        }
    }
}

/// Returns the intended place with its tensors: any of several, if all hold the same values.
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
