//! Puts tensors by name into a network: all of them, by their names and shapes, or none. Knows nothing of files.

use std::collections::BTreeMap;
use std::fmt::Write;

use tch::{TchError, Tensor};

use crate::networks::Network;

/// What becomes of a network's last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head<'a> {
    /// It takes its weights from the file, too.
    Keep,
    /// The layer of this name keeps its initial weights, whatever the file has for it.
    Replace(&'a str),
}

/// Why tensors do not fit a network.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Names or shapes differ: every difference, a line each.
    #[error("its tensors are not those of the network:{}", lines(.0))]
    Differ(Vec<String>),
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

fn lines(differences: &[String]) -> String {
    differences.iter().fold(String::new(), |mut text, line| {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n  {line}");
        text
    })
}

/// Fills the network's tensors, parameters and running statistics. Tensors named `….num_batches_tracked` are not asked for. Numbers of
/// another floating type are converted to f32.
///
/// # Errors
/// [`InstallError::Differ`] with every name that only one side has and every shape that is another; the network is unchanged then.
pub fn install(
    network: &dyn Network,
    mut weights: BTreeMap<String, Tensor>,
    head: Head<'_>,
) -> Result<(), InstallError> {
    let is_head = |name: &str| match head {
        Head::Keep => false,
        Head::Replace(layer) => name.strip_prefix(layer).is_some_and(|rest| matches!(rest, ".weight" | ".bias")),
    };
    weights.retain(|name, _| !is_head(name) && !name.ends_with(".num_batches_tracked"));
    let entries = || network.state().entries().iter().filter(|entry| !is_head(&entry.name));
    let mut differences = Vec::new();
    let mut found = Vec::new();
    for entry in entries() {
        let Some(values) = weights.remove(&entry.name) else {
            differences.push(format!("`{}` is missing", entry.name));
            continue;
        };
        let (shape, expected) = (values.size(), entry.tensor.size());
        if !values.is_floating_point() {
            differences.push(format!("`{}` is of type {:?}, not a floating one", entry.name, values.kind()));
        } else if shape != expected {
            differences.push(format!("`{}` is {shape:?} in the file and {expected:?} in the network", entry.name));
        }
        found.push(values);
    }
    differences.extend(weights.keys().map(|name| format!("`{name}` is not in the network")));
    if !differences.is_empty() {
        return Err(InstallError::Differ(differences));
    }
    let _guard = tch::no_grad_guard();
    for (entry, values) in entries().zip(&found) {
        entry.tensor.shallow_clone().f_copy_(values)?;
    }
    Ok(())
}
