//! A checkpoint whose upper layers are random again: cascading randomisation (Adebayo et al. 2018, section 3).

use atflow::stage_kinds::RandomisedParams;

use super::grouped;
use crate::checkpoint;
use crate::context::Context;
use crate::error::StageError;
use crate::networks::{self, Entry, Role};

/// Runs a `randomised` stage.
///
/// # Errors
/// [`StageError::Setting`] if the network has no layer of that name, or its layers have no known initial weights; any
/// other [`StageError`] about the checkpoint.
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let RandomisedParams { down_to } = context.params()?;
    let input = context.input("model")?;
    let trained = context.checkpoint(input)?;
    if trained.net.is_script() {
        let problem = "names a layer of a TorchScript network, whose initial weights are not known";
        return Err(StageError::setting("down_to", problem));
    }
    let entries = trained.network.state().entries();
    let first = entries.iter().position(|entry| is_of(&entry.name, &down_to)).ok_or_else(|| {
        let problem = format!("is `{down_to}`, and the network's layers are {}", layers(entries).join(", "));
        StageError::setting("down_to", problem)
    })?;
    let (channels, classes) = (trained.channels, trained.classes.len());
    let network = networks::build(&trained.net, channels, classes, context.rng, context.device)?;
    let mut random = 0;
    let no_grad = tch::no_grad_guard();
    for (at, (new, old)) in network.state().entries().iter().zip(entries).enumerate() {
        if at >= first && new.role == Role::Parameter {
            random += new.tensor.numel();
        } else {
            new.tensor.shallow_clone().f_copy_(&old.tensor)?;
        }
    }
    drop(no_grad);
    let total: usize =
        entries.iter().filter(|entry| entry.role == Role::Parameter).map(|entry| entry.tensor.numel()).sum();
    let bytes = checkpoint::encode(&trained.net, trained.channels, &trained.classes, &*network);
    let bytes = bytes.map_err(|error| StageError::Encode { output: "checkpoint", source: error.into() })?;
    context.write("checkpoint", &bytes)?;
    Ok(format!("{} of {} parameters random", grouped(random as u64), grouped(total as u64)))
}

/// Whether a tensor belongs to a layer: `layer3.0.conv1.weight` to `layer3`, `layer3.0` and `layer3.0.conv1`.
fn is_of(tensor: &str, layer: &str) -> bool {
    tensor.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns the first parts of the names of tensors, in order: `conv1`, `bn1`, `layer1`, …
fn layers(entries: &[Entry]) -> Vec<String> {
    let mut layers: Vec<String> =
        entries.iter().map(|entry| format!("`{}`", entry.name.split('.').next().unwrap_or_default())).collect();
    layers.dedup();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_the_tensors_below_its_name() {
        for layer in ["layer3", "layer3.0", "layer3.0.conv1", "layer3.0.conv1.weight"] {
            assert!(is_of("layer3.0.conv1.weight", layer), "{layer}");
        }
        for layer in ["layer", "layer3.", "layer3.1", ""] {
            assert!(!is_of("layer3.0.conv1.weight", layer), "{layer}");
        }
    }
}
