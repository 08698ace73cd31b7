//! Parameters of the published architectures beside the ResNets and wide residual networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net_problem::NetProblem;
use crate::number::Real;

/// Channels that no stage of a ConvNeXt may go beyond.
const MOST_CHANNELS: u32 = 1 << 13;
/// Blocks that no network may go beyond.
const MOST_BLOCKS: u32 = 1 << 12;
/// Tokens that no vision transformer may go beyond: the memory of attention grows with their square.
const MOST_TOKENS: u32 = 1 << 14;

/// A pre-activation ResNet-18 for small images (He et al. 2016b). Names of tensors and initial weights as in kuangliu's
/// code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreactResnet18 {
    /// Whose code it is; `rice` if it is not given. The three differ where names do not tell: weights of another build
    /// fail to load, or load and give other logits.
    #[serde(default, skip_serializing_if = "is_default")]
    pub build: PreactBuild,
    /// Channels of the first group, 64 in every published network; fewer make a small one of the same build.
    #[serde(default = "preact_width", skip_serializing_if = "is_preact_width")]
    #[schemars(range(min = 1, max = 1024))]
    pub width: u32,
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

/// The builds of pre-activation ResNet-18 of which weights are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreactBuild {
    /// The usual one: batch norm `bn` and a relu before the pool, and shortcuts of activated inputs, as in the code of
    /// Rice et al. 2020 (`PreActBlockV2` with `bn_before_fc` of RobustBench).
    #[default]
    Rice,
    /// No batch norm before the pool, and shortcuts of the inputs themselves, as in the code of Wong et al. 2020 and
    /// Andriushchenko and Flammarion 2020 (`PreActBlock` of RobustBench).
    Wong,
    /// No batch norm before the pool, and shortcuts of activated inputs, as in kuangliu's `preact_resnet.py`.
    Kuangliu,
}

/// A wide residual network (Zagoruyko and Komodakis 2016) as in the PyTorch code of DeepMind (Gowal et al. 2020;
/// `DMWideResNet` of RobustBench). It differs from `wideresnet` in names, activation, and the padding at stride 2,
/// which is that of TensorFlow. Weights start as PyTorch starts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmWideResnet {
    /// Layers: 10, 16, 22, 28, …
    #[serde(default = "dm_depth")]
    #[schemars(range(min = 10, max = 4096))]
    pub depth: u32,
    /// Times the channels of the narrowest such network: 16, 32 and 64.
    #[serde(default = "dm_widen")]
    #[schemars(range(min = 1, max = 128))]
    pub widen: u32,
    /// The activation after each batch norm, `swish` if it is not given; its name is in no file of weights.
    #[serde(default, skip_serializing_if = "is_default")]
    pub activation: Activation,
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

/// An activation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x), also called SiLU: that of the published networks of DeepMind and of later ones with their code.
    #[default]
    Swish,
}

/// A vision transformer (Dosovitskiy et al. 2021) with a class token. Names of tensors and initial weights as in timm's
/// `VisionTransformer`; layer norms have ε = 1e-6, GELU is exact. The defaults of `dim`, `depth` and `heads` are those
/// of DeiT-Ti (Touvron et al. 2021, table 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vit {
    /// Height and width of the images in pixels; a multiple of `patch`.
    #[schemars(range(min = 1, max = 4096))]
    pub side: u32,
    /// Height and width of a patch in pixels: 16 for images of 224, 4 for images of 32.
    #[schemars(range(min = 1, max = 4096))]
    pub patch: u32,
    /// Numbers of a token; a multiple of `heads`.
    #[serde(default = "vit_dim")]
    #[schemars(range(min = 1, max = 8192))]
    pub dim: u32,
    /// Blocks.
    #[serde(default = "vit_depth")]
    #[schemars(range(min = 1, max = 256))]
    pub depth: u32,
    /// Heads of each attention.
    #[serde(default = "vit_heads")]
    #[schemars(range(min = 1, max = 1024))]
    pub heads: u32,
    /// Times `dim`: the hidden units of each perceptron.
    #[serde(default = "vit_mlp")]
    #[schemars(range(min = 1, max = 64))]
    pub mlp: u32,
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

impl Vit {
    /// What a schema cannot say of its sizes.
    pub fn problem(&self) -> Option<NetProblem> {
        let Vit { side, patch, dim, heads, .. } = *self;
        let told = |name, problem, help| Some(NetProblem::of(name, problem, Some(help)));
        if patch == 0 || side == 0 || !side.is_multiple_of(patch) {
            return told("patch", format!("of {patch} does not divide `side`, {side}"), "patches tile the image");
        }
        if (u64::from(side / patch)).pow(2) >= u64::from(MOST_TOKENS) {
            let problem = format!("of {patch} makes more than {MOST_TOKENS} tokens of {side} × {side} pixels");
            return told("patch", problem, "the memory of attention grows with their square: raise it");
        }
        if heads == 0 || dim == 0 || !dim.is_multiple_of(heads) {
            let problem = format!("is {heads}, which does not divide `dim`, {dim}");
            return told("heads", problem, "each head takes an equal share of a token");
        }
        None
    }
}

/// A ConvNeXt (Liu et al. 2022). Names of tensors and initial weights as in timm's `ConvNeXt`; torchvision has other
/// names. The defaults of `width` and `blocks` are those of ConvNeXt-T (section 2.6 of the paper).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Convnext {
    /// Side and stride of the first convolution in pixels: 4 as published, 1 or 2 for small images. With 2 the first
    /// stage halves the maps again, as in timm.
    #[serde(default = "convnext_patch")]
    #[schemars(range(min = 1, max = 64))]
    pub patch: u32,
    /// Channels of the first stage; they double from one stage to the next.
    #[serde(default = "convnext_width")]
    #[schemars(range(min = 1, max = 4096))]
    pub width: u32,
    /// Blocks in each stage.
    #[serde(default = "convnext_blocks")]
    #[schemars(length(min = 1, max = 8), inner(range(min = 1)))]
    pub blocks: Vec<u32>,
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

impl Convnext {
    /// What a schema cannot say of its sizes.
    pub fn problem(&self) -> Option<NetProblem> {
        let Convnext { patch, width, ref blocks, .. } = *self;
        let stages = blocks.len() as u32;
        if patch == 0 || width == 0 || !(1..=8).contains(&stages) || blocks.contains(&0) {
            return Some(NetProblem::of("blocks", "needs 1 to 8 stages, of at least one block each".to_owned(), None));
        }
        if width << (stages - 1) > MOST_CHANNELS {
            let problem = format!("of {width} grows beyond {MOST_CHANNELS} channels in {stages} stages");
            let help = "it doubles from one stage to the next: lower it, or name fewer `blocks`";
            return Some(NetProblem::of("width", problem, Some(help)));
        }
        if blocks.iter().map(|&count| u64::from(count)).sum::<u64>() > u64::from(MOST_BLOCKS) {
            return Some(NetProblem::of("blocks", format!("makes more than {MOST_BLOCKS} blocks"), None));
        }
        None
    }

    /// The smallest side of an image of which a pixel is left after the last stage.
    pub const fn least_side(&self) -> u32 {
        let halvings = self.blocks.len().saturating_sub(1) as u32 + (self.patch == 2) as u32;
        self.patch << halvings
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn preact_width() -> u32 {
    64
}

fn is_preact_width(width: &u32) -> bool {
    *width == preact_width()
}

const fn dm_depth() -> u32 {
    28
}

const fn dm_widen() -> u32 {
    10
}

const fn vit_dim() -> u32 {
    192
}

const fn vit_depth() -> u32 {
    12
}

const fn vit_heads() -> u32 {
    3
}

const fn vit_mlp() -> u32 {
    4
}

const fn convnext_patch() -> u32 {
    4
}

const fn convnext_width() -> u32 {
    96
}

fn convnext_blocks() -> Vec<u32> {
    vec![3, 3, 9, 3]
}
