//! Networks as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::architectures::{Convnext, DmWideResnet, PreactResnet18, Vit};
use super::net_problem::NetProblem;
use super::smooth::Smooth;
use crate::number::Real;

/// A network. It owns its normalisation: images go in as values in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "arch", rename_all = "snake_case", deny_unknown_fields)]
pub enum Net {
    /// A small residual network for small images: a 3 × 3 convolution, one group of basic blocks for each entry of
    /// `blocks` (width doubled and resolution halved from one group to the next), global average pooling, a linear
    /// layer (He et al. 2016, section 4.2, with projection shortcuts).
    Resnet {
        /// Channels of the first group, at least 1.
        #[schemars(range(min = 1, max = 4096))]
        width: u32,
        /// Basic blocks in each group: at least one group, and one block in each.
        #[schemars(length(min = 1), inner(range(min = 1)))]
        blocks: Vec<u32>,
        /// Mean of each input channel, in [0, 1] units; subtracted from it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mean: Vec<Real>,
        /// Standard deviation of each input channel; divides it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        std: Vec<Real>,
        /// Standardises each image by itself, in place of `mean` and `std`: (x − m) / max(s, 1/√n), where m and s are
        /// mean and standard deviation of all n values of the image in [0, 1], as `tf.image.per_image_standardization`
        /// has it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        standardise: bool,
        /// A blur of feature maps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        smooth: Option<Smooth>,
    },
    /// ResNet-18 (He et al. 2016, table 1): four groups of 2, 2, 2 and 2 basic blocks.
    Resnet18(StandardResnet),
    /// ResNet-34: 3, 4, 6 and 3 basic blocks.
    Resnet34(StandardResnet),
    /// ResNet-50: 3, 4, 6 and 3 bottlenecks, the stride at their 3 × 3 convolution as torchvision has it.
    Resnet50(StandardResnet),
    /// A wide residual network for small images (Zagoruyko and Komodakis 2016, table 1), without dropout: three groups
    /// of pre-activation blocks.
    Wideresnet(WideResnet),
    /// A wide residual network as in the code of DeepMind (Gowal et al. 2020), which most published weights of large
    /// robust networks have.
    DmWideResnet(DmWideResnet),
    /// A pre-activation ResNet-18 for small images (He et al. 2016b): four groups of two pre-activation blocks.
    #[serde(rename = "preact_resnet18")]
    PreactResnet18(PreactResnet18),
    /// A vision transformer (Dosovitskiy et al. 2021). It has no feature maps for Grad-CAM.
    Vit(Vit),
    /// A ConvNeXt (Liu et al. 2022), ConvNeXt-T by default.
    Convnext(Convnext),
    /// A network that was written in PyTorch and saved as TorchScript. The need `network` is the file; it has the
    /// layers and their first weights.
    Torchscript(Torchscript),
}

/// The sides of the images that a network takes, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSide {
    /// Height and width are this.
    Exactly(u32),
    /// Neither is smaller.
    AtLeast(u32),
}

/// Channels that no group of a residual network may go beyond.
pub const MOST_CHANNELS: u32 = 1 << 13;
/// Blocks that no residual network may go beyond.
pub const MOST_BLOCKS: u32 = 1 << 12;

impl Net {
    /// What a schema cannot say of the parameters.
    pub fn problems(&self) -> Vec<NetProblem> {
        let mut problems = self.normalisation_problems();
        let mut tell = |name, problem, help| problems.push(NetProblem { name, index: None, problem, help });
        match self {
            Net::Resnet { width, blocks, .. } => {
                let widest = blocks.iter().skip(1).try_fold(*width, |width, _| width.checked_mul(2));
                if widest.is_none_or(|widest| widest > MOST_CHANNELS) {
                    let groups = blocks.len();
                    let problem = format!("of {width} grows beyond {MOST_CHANNELS} channels in {groups} groups");
                    tell(
                        "width",
                        problem,
                        Some("it doubles from one group to the next: lower it, or name fewer `blocks`"),
                    );
                }
                if blocks.iter().map(|&count| u64::from(count)).sum::<u64>() > u64::from(MOST_BLOCKS) {
                    tell("blocks", format!("makes more than {MOST_BLOCKS} blocks"), None);
                }
            }
            Net::Wideresnet(WideResnet { depth, .. }) | Net::DmWideResnet(DmWideResnet { depth, .. }) => {
                if !(depth.max(&4) - 4).is_multiple_of(6) {
                    let help = "the depth of a wide residual network is 6 n + 4: 10, 16, 22, 28, …";
                    tell("depth", format!("cannot be {depth}"), Some(help));
                }
            }
            Net::Vit(net) => problems.extend(net.problem()),
            Net::Convnext(net) => problems.extend(net.problem()),
            Net::Resnet18(_) | Net::Resnet34(_) | Net::Resnet50(_) | Net::PreactResnet18(_) | Net::Torchscript(_) => {}
        }
        problems
    }

    /// Images are numbers from 0 to 1, and so are their mean and their standard deviation.
    fn normalisation_problems(&self) -> Vec<NetProblem> {
        const OF_BYTES: &str = "images are numbers from 0 to 1: of numbers from 0 to 255 write 128/255 for 128";
        let (mean, std) = self.normalisation();
        let mut problems = Vec::new();
        let mut tell = |name, index, problem: String, help| problems.push(NetProblem { name, index, problem, help });
        if self.standardises() && !(mean.is_empty() && std.is_empty()) {
            let help = "remove `mean` and `std`: each image has its own";
            tell("standardise", None, "stands beside `mean` and `std`".to_owned(), Some(help));
        }
        match (mean.len(), std.len()) {
            (1.., 0) => {
                let help = "add `std: [1]`, with a 1 for every channel, to subtract the mean and divide by nothing";
                tell("mean", None, "stands without a `std`".to_owned(), Some(help));
            }
            (0, 1..) => {
                let help = "add `mean: [0]`, with a 0 for every channel, to divide and subtract nothing";
                tell("std", None, "stands without a `mean`".to_owned(), Some(help));
            }
            (means, stds) if means != stds => {
                let problem = format!("is of length {stds}, and `mean` of length {means}");
                tell("std", None, problem, Some("both have a number for every channel"));
            }
            _ => {}
        }
        for (index, value) in mean.iter().map(|real| real.get()).enumerate() {
            if !(0.0..=1.0).contains(&value) {
                let help = (value > 1.0).then_some(OF_BYTES);
                tell("mean", Some(index), format!("is {value}; it must be between 0 and 1"), help);
            }
        }
        for (index, value) in std.iter().map(|real| real.get()).enumerate() {
            if value <= 0.0 || value > 1.0 {
                let help = (value > 1.0).then_some(OF_BYTES);
                tell("std", Some(index), format!("is {value}; it must be above 0 and at most 1"), help);
            }
        }
        problems
    }

    /// The mean and the standard deviation of each input channel; empty where images are taken as they are.
    pub fn normalisation(&self) -> (&[Real], &[Real]) {
        match self {
            Net::Resnet { mean, std, .. } => (mean, std),
            Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => (&net.mean, &net.std),
            Net::Wideresnet(net) => (&net.mean, &net.std),
            Net::DmWideResnet(net) => (&net.mean, &net.std),
            Net::PreactResnet18(net) => (&net.mean, &net.std),
            Net::Vit(net) => (&net.mean, &net.std),
            Net::Convnext(net) => (&net.mean, &net.std),
            Net::Torchscript(net) => (&net.mean, &net.std),
        }
    }

    /// Whether each image is standardised by its own mean and deviation.
    pub const fn standardises(&self) -> bool {
        match self {
            Net::Resnet { standardise, .. } => *standardise,
            Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => net.standardise,
            Net::Wideresnet(net) => net.standardise,
            Net::DmWideResnet(net) => net.standardise,
            Net::PreactResnet18(net) => net.standardise,
            Net::Vit(net) => net.standardise,
            Net::Convnext(net) => net.standardise,
            Net::Torchscript(net) => net.standardise,
        }
    }

    /// How many logits it has, where that is not the number of classes of the data.
    pub const fn classes(&self) -> Option<u32> {
        match self {
            Net::Resnet { .. } => None,
            Net::Resnet18(net) | Net::Resnet34(net) | Net::Resnet50(net) => net.classes,
            Net::Wideresnet(net) => net.classes,
            Net::DmWideResnet(net) => net.classes,
            Net::PreactResnet18(net) => net.classes,
            Net::Vit(net) => net.classes,
            Net::Convnext(net) => net.classes,
            Net::Torchscript(net) => net.classes,
        }
    }

    /// Which sides its images must have; nothing where any image will do.
    pub const fn image_side(&self) -> Option<ImageSide> {
        match self {
            Net::Vit(net) => Some(ImageSide::Exactly(net.side)),
            Net::Convnext(net) => Some(ImageSide::AtLeast(net.least_side())),
            _ => None,
        }
    }

    /// Whether it has feature maps, which Grad-CAM weighs.
    pub const fn has_feature_maps(&self) -> bool {
        !matches!(self, Net::Vit(_) | Net::Torchscript(_))
    }

    /// Whether its layers come from a file and not from this program.
    pub const fn is_script(&self) -> bool {
        matches!(self, Net::Torchscript(_))
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
    /// Logits, at least as many as the data have classes; as many as these if it is not given. More are for weights
    /// that were trained on more classes and keep their head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub classes: Option<u32>,
    /// Mean of each input channel, in [0, 1] units; subtracted from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<Real>,
    /// Standard deviation of each input channel; divides it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<Real>,
    /// Standardises each image by itself, in place of `mean` and `std`: (x − m) / max(s, 1/√n), where m and s are mean
    /// and standard deviation of all n values of the image in [0, 1], as `tf.image.per_image_standardization` has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standardise: bool,
    /// A blur of feature maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smooth: Option<Smooth>,
}

/// The beginning of a residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    /// A 3 × 3 convolution, for images of about 32 × 32. Names as in the widely copied PyTorch code for CIFAR
    /// (`shortcut.0`, `linear`), weights started as PyTorch starts any convolution.
    Cifar,
    /// A 7 × 7 convolution and a max-pool, each at every second place, for images of about 224 × 224. Names as in
    /// torchvision (`downsample.0`, `fc`), convolutions started from Normal(0, 2/fan_out) as there.
    Imagenet,
}

/// A wide residual network (Zagoruyko and Komodakis 2016, table 1), without dropout: three groups of pre-activation
/// blocks. Names of tensors and initial weights as in the PyTorch code that is copied most.
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
    /// Standardises each image by itself, in place of `mean` and `std`: (x − m) / max(s, 1/√n), where m and s are mean
    /// and standard deviation of all n values of the image in [0, 1], as `tf.image.per_image_standardization` has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standardise: bool,
}

fn standard_width() -> u32 {
    64
}

fn is_standard_width(width: &u32) -> bool {
    *width == standard_width()
}

/// A network from a TorchScript file: what `torch.jit.save` writes of a scripted or traced module. Its `forward` takes
/// images, N × C × H × W, and returns logits, N × classes, both 32-bit floats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Torchscript {
    /// Logits, at least as many as the data have classes; as many as these if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub classes: Option<u32>,
    /// Mean of each input channel, in [0, 1] units; subtracted from it. Without it the network gets images in [0, 1].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<Real>,
    /// Standard deviation of each input channel; divides it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<Real>,
    /// Standardises each image by itself, in place of `mean` and `std`: (x − m) / max(s, 1/√n), where m and s are mean
    /// and standard deviation of all n values of the image in [0, 1], as `tf.image.per_image_standardization` has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standardise: bool,
}

fn wide_depth() -> u32 {
    28
}

fn wide_widen() -> u32 {
    10
}
