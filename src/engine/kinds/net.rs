//! Networks as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// A network. It owns its normalisation: images go in as values in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "arch", rename_all = "snake_case", deny_unknown_fields)]
pub enum Net {
    /// A small residual network for small images: a 3 × 3 convolution, one group of basic blocks for each entry of `blocks`
    /// (width doubled and resolution halved from one group to the next), global average pooling, a linear layer
    /// (He et al. 2016, section 4.2, with projection shortcuts).
    Resnet {
        /// Channels of the first group, at least 1.
        #[schemars(range(min = 1, max = 4096))]
        width: u32,
        /// Basic blocks in each group.
        blocks: Vec<u32>,
        /// Mean of each input channel, in [0, 1] units; subtracted from it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mean: Vec<Real>,
        /// Standard deviation of each input channel; divides it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        std: Vec<Real>,
    },
    /// ResNet-18 (He et al. 2016, table 1): four groups of 2, 2, 2 and 2 basic blocks.
    Resnet18(StandardResnet),
    /// ResNet-34: 3, 4, 6 and 3 basic blocks.
    Resnet34(StandardResnet),
    /// ResNet-50: 3, 4, 6 and 3 bottlenecks, the stride at their 3 × 3 convolution as torchvision has it.
    Resnet50(StandardResnet),
    /// A wide residual network for small images (Zagoruyko and Komodakis 2016, table 1), without dropout: three groups of pre-activation blocks.
    Wideresnet(WideResnet),
}

impl Net {
    /// The mean and the standard deviation of each input channel; empty where images are taken as they are.
    pub fn normalisation(&self) -> (&[Real], &[Real]) {
        match self {
            Net::Resnet { mean, std, .. } => (mean, std),
            Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => (&net.mean, &net.std),
            Net::Wideresnet(net) => (&net.mean, &net.std),
        }
    }

    /// How many logits it has, where that is not the number of classes of the data.
    pub const fn classes(&self) -> Option<u32> {
        match self {
            Net::Resnet { .. } => None,
            Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => net.classes,
            Net::Wideresnet(net) => net.classes,
        }
    }
}

/// A residual network with four groups of blocks (He et al. 2016, table 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandardResnet {
    /// How it begins, which also says whose names its tensors have and how its weights start.
    pub stem: Stem,
    /// Channels of the first group, 64 in every published network; fewer make a small one of the same build.
    #[serde(default = "standard_width", skip_serializing_if = "is_standard_width")]
    #[schemars(range(min = 1, max = 1024))]
    pub width: u32,
    /// Logits, at least as many as the data have classes; as many as these if it is not given. More are for weights that were
    /// trained on more classes and keep their head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub classes: Option<u32>,
    /// Mean of each input channel, in [0, 1] units; subtracted from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<Real>,
    /// Standard deviation of each input channel; divides it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<Real>,
}

/// The beginning of a residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// A 3 × 3 convolution, for images of about 32 × 32. Names as in the widely copied PyTorch code for CIFAR (`shortcut.0`, `linear`),
    /// weights started as PyTorch starts any convolution.
    Cifar,
    /// A 7 × 7 convolution and a max-pool, each at every second place, for images of about 224 × 224. Names as in torchvision
    /// (`downsample.0`, `fc`), convolutions started from Normal(0, 2/fan_out) as there.
    Imagenet,
}

/// A wide residual network (Zagoruyko and Komodakis 2016, table 1), without dropout: three groups of pre-activation blocks. Names of
/// tensors and initial weights as in the PyTorch code that is copied most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WideResnet {
    /// Layers: 10, 16, 22, 28, …
    #[serde(default = "wide_depth")]
    #[schemars(range(min = 10, max = 4096))]
    pub depth: u32,
    /// Times the channels of the narrowest such network: 16, 32 and 64.
    #[serde(default = "wide_widen")]
    #[schemars(range(min = 1, max = 128))]
    pub widen: u32,
    /// Logits, at least as many as the data have classes; as many as these if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub classes: Option<u32>,
    /// Mean of each input channel, in [0, 1] units; subtracted from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<Real>,
    /// Standard deviation of each input channel; divides it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<Real>,
}

fn standard_width() -> u32 {
    64
}

fn is_standard_width(width: &u32) -> bool {
    *width == standard_width()
}

fn wide_depth() -> u32 {
    28
}

fn wide_widen() -> u32 {
    10
}
