//! A checkpoint from weights that were trained elsewhere, as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::Net;
use super::train::{HeadWeights, Pretrained};

/// Makes a checkpoint from weights that were trained elsewhere, without a training. All tensors are as in the file,
/// statistics of batch norms included.
///
/// Needs: `data`, an image set, for channels and classes; `weights`, a file of weights, a state dict as `torch.save`
/// writes it or safetensors, or all shards of one; `network`, a TorchScript file, if `net` is `torchscript`. A
/// TorchScript file has weights of its own, so `weights` is optional beside it. Output: `checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainedParams {
    /// The network.
    pub net: Net,
    /// The last layer.
    #[serde(default)]
    pub head: HeadWeights,
    /// Where in the file the network's tensors stand, such as `state_dict` or `model_ema`. Without it they are looked
    /// for everywhere, under any prefix; needed only where the file has them more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

impl PretrainedParams {
    /// What is taken of the weights, as a training has it.
    pub fn taken(&self) -> Pretrained {
        Pretrained { head: self.head, entry: self.entry.clone() }
    }
}
