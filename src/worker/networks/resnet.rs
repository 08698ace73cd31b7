//! Residual networks (He et al. 2016): the small ones for small images, and ResNet-18, -34 and -50 with either of two
//! stems.
//!
//! Tensor names follow the most widely copied PyTorch code for each: the CIFAR code has `layer2.0.shortcut.0` and
//! `linear`, torchvision has `layer2.0.downsample.0` and `fc`.

use atflow::stage_kinds::{self, Smooth, Stem};
use tch::{Device, Kind, TchError, Tensor};

use super::blur::{self, Smoothing};
use super::layers::{Conv, ConvNorm, ConvShape, Linear, Normalisation, pool};
use super::state::{ConvInit, State, channels_last};
use super::{Frozen, Mode, Network};
use crate::error::StageError;
use crate::rng::Rng;

/// Maximum number of channels; a larger number is a mistake in the description.
const MOST_CHANNELS: i64 = stage_kinds::MOST_CHANNELS as i64;
/// Maximum total number of blocks; a larger number is a mistake as well.
const MOST_BLOCKS: i64 = stage_kinds::MOST_BLOCKS as i64;
/// Ratio of a bottleneck's output channels to its inner channels.
const EXPANSION: i64 = 4;

/// The layers inside a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inside {
    /// Two 3 × 3 convolutions.
    Basic,
    /// 1 × 1, 3 × 3 and 1 × 1, with the stride at the 3 × 3 as in torchvision (He et al. have it at the first).
    Bottleneck,
}

/// A validated network description.
#[derive(Debug)]
pub(super) struct Shape {
    /// Number of blocks and of inner channels per group.
    groups: Vec<(i64, i64)>,
    inside: Inside,
    stem: Stem,
    channels: i64,
    classes: i64,
    smooth: Option<Smooth>,
}

impl Shape {
    pub(super) fn new(
        (width, blocks): (u32, &[u32]),
        inside: Inside,
        stem: Stem,
        channels: usize,
        classes: usize,
    ) -> Result<Self, StageError> {
        if width == 0 {
            return Err(StageError::setting("net.width", "must be at least 1"));
        }
        if blocks.is_empty() || blocks.contains(&0) {
            return Err(StageError::setting("net.blocks", "must name at least one group, of at least one block each"));
        }
        if blocks.iter().map(|&count| i64::from(count)).sum::<i64>() > MOST_BLOCKS {
            return Err(StageError::setting("net.blocks", format!("makes more than {MOST_BLOCKS} blocks")));
        }
        let mut groups = Vec::with_capacity(blocks.len());
        let mut out = i64::from(width);
        for &count in blocks {
            if out > MOST_CHANNELS {
                return Err(StageError::setting("net.width", format!("grows beyond {MOST_CHANNELS} channels")));
            }
            groups.push((i64::from(count), out));
            out *= 2;
        }
        Ok(Shape { groups, inside, stem, channels: channels as i64, classes: classes as i64, smooth: None })
    }

    /// Adds a blur of feature maps.
    pub(super) fn smoothed(self, smooth: Option<&Smooth>) -> Result<Self, StageError> {
        blur::check(smooth)?;
        Ok(Shape { smooth: smooth.cloned(), ..self })
    }

    /// Returns the name of the last layer.
    pub(super) const fn head(stem: Stem) -> &'static str {
        match stem {
            Stem::Cifar => "linear",
            Stem::Imagenet => "fc",
        }
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Resnet {
    state: State,
    normalisation: Normalisation,
    stem: ConvNorm,
    /// Whether a max-pool follows the stem.
    pooled: bool,
    blocks: Vec<Block>,
    smoothing: Option<Smoothing>,
    linear: Linear,
}

impl Resnet {
    /// Creates the network; without `rng` every weight is 0.
    pub(super) fn new(
        shape: &Shape,
        normalisation: Normalisation,
        rng: Option<Rng>,
        device: Device,
    ) -> Result<Self, TchError> {
        let (init, kernel, stride) = match shape.stem {
            Stem::Cifar => (ConvInit::Default, 3, 1),
            Stem::Imagenet => (ConvInit::FanOut, 7, 2),
        };
        let mut state = State::new(init, rng, device);
        let mut from = shape.groups[0].1;
        let stem = ConvShape { from: shape.channels, to: from, kernel, stride };
        let stem = ConvNorm::new(&mut state, "conv1", "bn1", stem)?;
        let mut blocks = Vec::new();
        for (group, &(count, width)) in shape.groups.iter().enumerate() {
            for index in 0..count {
                let stride = if group > 0 && index == 0 { 2 } else { 1 };
                let block =
                    Block::new(&mut state, &format!("layer{}.{index}", group + 1), shape, (from, width), stride)?;
                from = block.channels_out;
                blocks.push(block);
            }
        }
        let linear = Linear::new(&mut state, Shape::head(shape.stem), from, shape.classes)?;
        let groups: Vec<i64> = shape.groups.iter().map(|&(count, _)| count).collect();
        let smoothing = shape.smooth.as_ref().map(|smooth| Smoothing::new(smooth, &groups));
        Ok(Resnet { state, normalisation, stem, pooled: shape.stem == Stem::Imagenet, blocks, smoothing, linear })
    }
}

impl Network for Resnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn normalisation(&self) -> Option<&Normalisation> {
        Some(&self.normalisation)
    }

    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let features = self.stem.forward(&channels_last(normalised)?, mode)?.f_relu()?;
        let features = if self.pooled { max_pool(&features)? } else { features };
        let features = through(&self.blocks, self.smoothing.as_ref(), features, |block, x| block.forward(x, mode))?;
        self.linear.forward(&pool(&features)?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenResnet {
            normalisation: self.normalisation.share(),
            kind,
            stem: self.stem.freeze(kind)?,
            pooled: self.pooled,
            blocks: self.blocks.iter().map(|block| block.freeze(kind)).collect::<Result<_, _>>()?,
            smoothing: self.smoothing.clone(),
            linear: self.linear.freeze(kind)?,
        }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// Passes what the stem gave through all blocks, with the blur where the network has one.
fn through<B>(
    blocks: &[B],
    smoothing: Option<&Smoothing>,
    stem: Tensor,
    forward: impl Fn(&B, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let Some(smoothing) = smoothing else {
        return blocks.iter().try_fold(stem, |features, block| forward(block, &features));
    };
    let stem = smoothing.after_stem(stem)?;
    let mut numbered = blocks.iter().enumerate();
    numbered.try_fold(stem, |features, (at, block)| smoothing.after_block(at, forward(block, &features)?))
}

/// A residual block: relu(inside(x) + shortcut(x)).
///
/// The inside has a batch norm after each convolution and a relu between them.
#[derive(Debug)]
struct Block {
    inner: Vec<ConvNorm>,
    last: ConvNorm,
    /// A projection if the shape changes, else the identity.
    shortcut: Option<ConvNorm>,
    channels_out: i64,
}

impl Block {
    fn new(
        state: &mut State,
        name: &str,
        shape: &Shape,
        (from, width): (i64, i64),
        stride: i64,
    ) -> Result<Self, TchError> {
        let mut layer = |conv: &str, norm: &str, from, to, kernel, stride| {
            let (conv, norm) = (format!("{name}.{conv}"), format!("{name}.{norm}"));
            ConvNorm::new(state, &conv, &norm, ConvShape { from, to, kernel, stride })
        };
        let (to, inner, last) = match shape.inside {
            Inside::Basic => (
                width,
                vec![layer("conv1", "bn1", from, width, 3, stride)?],
                layer("conv2", "bn2", width, width, 3, 1)?,
            ),
            Inside::Bottleneck => {
                let first = layer("conv1", "bn1", from, width, 1, 1)?;
                let second = layer("conv2", "bn2", width, width, 3, stride)?;
                let to = EXPANSION * width;
                (to, vec![first, second], layer("conv3", "bn3", width, to, 1, 1)?)
            }
        };
        let (conv, norm) = match shape.stem {
            Stem::Cifar => ("shortcut.0", "shortcut.1"),
            Stem::Imagenet => ("downsample.0", "downsample.1"),
        };
        let shortcut = match stride != 1 || from != to {
            true => Some(layer(conv, norm, from, to, 1, stride)?),
            false => None,
        };
        Ok(Block { inner, last, shortcut, channels_out: to })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut features = input.shallow_clone();
        for layer in &self.inner {
            features = layer.forward(&features, mode)?.f_relu_()?;
        }
        let features = self.last.forward(&features, mode)?;
        match &self.shortcut {
            Some(shortcut) => features.f_add(&shortcut.forward(input, mode)?)?.f_relu_(),
            None => features.f_add(input)?.f_relu_(),
        }
    }

    fn freeze(&self, kind: Kind) -> Result<FrozenBlock, TchError> {
        Ok(FrozenBlock {
            inner: self.inner.iter().map(|layer| layer.freeze(kind)).collect::<Result<_, _>>()?,
            last: self.last.freeze(kind)?,
            shortcut: self.shortcut.as_ref().map(|shortcut| shortcut.freeze(kind)).transpose()?,
        })
    }
}

/// The network with its batch norms folded into the convolutions.
#[derive(Debug)]
struct FrozenResnet {
    normalisation: Normalisation,
    kind: Kind,
    stem: Conv,
    pooled: bool,
    blocks: Vec<FrozenBlock>,
    smoothing: Option<Smoothing>,
    linear: Linear,
}

impl Frozen for FrozenResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let input = channels_last(&normalised.f_to_kind(self.kind)?)?;
        let features = self.stem.forward(&input)?.f_relu_()?;
        let features = if self.pooled { max_pool(&features)? } else { features };
        through(&self.blocks, self.smoothing.as_ref(), features, FrozenBlock::forward)
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.linear.forward(&pool(features)?)
    }
}

#[derive(Debug)]
struct FrozenBlock {
    inner: Vec<Conv>,
    last: Conv,
    shortcut: Option<Conv>,
}

impl FrozenBlock {
    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let mut features = input.shallow_clone();
        for layer in &self.inner {
            features = layer.forward(&features)?.f_relu_()?;
        }
        let mut features = self.last.forward(&features)?;
        match &self.shortcut {
            Some(shortcut) => features.f_add_(&shortcut.forward(input)?)?.f_relu_(),
            None => features.f_add_(input)?.f_relu_(),
        }
    }
}

/// Applies the max-pool of the stem for large images: 3 × 3, stride 2.
fn max_pool(features: &Tensor) -> Result<Tensor, TchError> {
    features.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)
}
