//! Makes a checkpoint from weights that were trained elsewhere, without a training.

use atflow::stage_kinds::PretrainedParams;

use super::{grouped, start};
use crate::context::Context;
use crate::error::StageError;
use crate::networks::Role;

/// Runs a `pretrained` stage.
///
/// The stages that use the checkpoint try the network on their own images.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: PretrainedParams = context.params()?;
    let has_weights = !context.inputs("weights").is_empty();
    if !has_weights && !params.net.is_script() {
        return Err(StageError::setting(
            "net",
            "is built in, and there is no `weights` input, the file of its weights",
        ));
    }
    let data = context.input("data")?;
    let data = context.set(data)?;
    let taken = has_weights.then(|| params.taken());
    let network = start::network(context, &params.net, taken.as_ref(), &data)?;
    let entries = network.state().entries();
    let parameters = entries.iter().filter(|entry| entry.role == Role::Parameter);
    let count: usize = parameters.map(|entry| entry.tensor.numel()).sum();
    let summary = format!("{} parameters in {} tensors", grouped(count as u64), grouped(entries.len() as u64));
    start::write(context, "checkpoint", &params.net, &data, &*network)?;
    Ok(summary)
}
