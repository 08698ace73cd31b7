//! The network that a stage starts from: built here or read from a TorchScript file, with weights of its own or of
//! others; and the checkpoint that it becomes.

use atflow::protocol::Input;
use atflow::stage_kinds::{HeadWeights, Net, Pretrained};

use crate::checkpoint;
use crate::context::Context;
use crate::data::{self, DeviceSet};
use crate::error::StageError;
use crate::networks::{self, Network};
use crate::weights::{self, File, Head, Installed, WeightsError};

/// Makes the network of a stage from its needs `network` and `weights`, for the images and classes of a set.
///
/// `pretrained` says what is taken of the weights.
///
/// # Errors
/// Any [`StageError`] about the parameters and the files.
pub(super) fn network(
    context: &mut Context<'_>,
    net: &Net,
    pretrained: Option<&Pretrained>,
    data: &DeviceSet,
) -> Result<Box<dyn Network>, StageError> {
    let (channels, classes, device) = (data.channels(), data.classes.len(), context.device);
    let network = match one_or_none(context, "network")? {
        Some(script) => networks::build_script(net, data::read(script)?, channels, classes, device)?,
        None => networks::build(net, channels, classes, context.rng, device)?,
    };
    fill(context, net, pretrained, &*network)?;
    Ok(network)
}

fn one_or_none<'a>(context: &Context<'a>, slot: &'static str) -> Result<Option<&'a Input>, StageError> {
    match context.inputs(slot)[..] {
        [] => Ok(None),
        [input] => Ok(Some(input)),
        ref more => Err(StageError::Slot { slot, expected: "one input or none", found: more.len() }),
    }
}

/// Fills the network with the weights of the need `weights`, if there is one.
fn fill(
    context: &mut Context<'_>,
    net: &Net,
    pretrained: Option<&Pretrained>,
    network: &dyn Network,
) -> Result<(), StageError> {
    let inputs = context.inputs("weights");
    if inputs.is_empty() {
        return match pretrained {
            Some(_) => Err(StageError::setting("pretrained", "needs a `weights` input, a file to take them from")),
            None => Ok(()),
        };
    }
    let bytes = inputs.iter().map(|input| data::read(input)).collect::<Result<Vec<_>, _>>()?;
    let file =
        joined(&bytes).map_err(|source| StageError::Weights { slot: "weights".to_owned(), source: source.into() })?;
    let pretrained = pretrained.cloned().unwrap_or_default();
    let head = head(net, pretrained.head)?;
    let installed = weights::install(network, &file, head, pretrained.entry.as_deref())
        .map_err(|source| StageError::Install { slot: "weights".to_owned(), source })?;
    let Installed { taken, prefix, passed_over, is_normalised } = installed;
    let under = if prefix.is_empty() { String::new() } else { format!(" under `{prefix}`") };
    let normalised = if is_normalised { "; it normalises images as the network does" } else { "" };
    context.reporter.log(format!(
        "starting from {taken} tensors of `weights`{under}; {passed_over} others passed over{normalised}"
    ));
    Ok(())
}

/// Opens a file of weights, or joins the parts of one.
fn joined(parts: &[Vec<u8>]) -> Result<File<'_>, WeightsError> {
    let mut files = parts.iter().map(|bytes| File::open(bytes)).collect::<Result<Vec<_>, _>>()?;
    if files.len() == 1 { Ok(files.remove(0)) } else { File::join(files) }
}

fn head(net: &Net, wanted: HeadWeights) -> Result<Head<'static>, StageError> {
    match wanted {
        HeadWeights::Keep => Ok(Head::Keep),
        HeadWeights::Replace if net.is_script() => Err(StageError::setting(
            "head",
            "cannot be `replace`: the last layer of a TorchScript network is not known",
        )),
        HeadWeights::Replace => Ok(Head::Replace(networks::head_name(net))),
    }
}

/// Writes a checkpoint as an output: the network, for the channels and classes of a set.
///
/// # Errors
/// [`StageError::Encode`], or those of [`Context::write`].
pub(super) fn write(
    context: &Context<'_>,
    output: &'static str,
    net: &Net,
    data: &DeviceSet,
    network: &dyn Network,
) -> Result<(), StageError> {
    let bytes = checkpoint::encode(net, data.channels(), &data.classes, network);
    context.write(output, &bytes.map_err(|error| StageError::Encode { output, source: error.into() })?)
}
