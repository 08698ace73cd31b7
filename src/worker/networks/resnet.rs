//! The residual network for small images (He et al. 2016, section 4.2) with projection shortcuts; names of tensors as in the widely
//! copied PyTorch code for CIFAR: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.shortcut.0`, `linear`.

use tch::{Device, TchError, Tensor};

use super::layers::{Conv, ConvNorm, ConvNormShape, Linear, Normalisation};
use super::state::{State, channels_last};
use super::{Frozen, Mode, Network};
use crate::error::StageError;
use crate::rng::Rng;

/// Channels beyond which a description is a slip of the pen rather than a network.
const MOST_CHANNELS: i64 = 1 << 13;
/// Blocks in all beyond which the same holds.
const MOST_BLOCKS: i64 = 1 << 12;

/// A checked description of a network.
#[derive(Debug)]
pub(super) struct Shape {
    /// Blocks and channels of each group.
    groups: Vec<(i64, i64)>,
    channels: i64,
    classes: i64,
}

impl Shape {
    pub(super) fn new(width: u32, blocks: &[u32], channels: usize, classes: usize) -> Result<Self, StageError> {
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
        Ok(Shape { groups, channels: channels as i64, classes: classes as i64 })
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Resnet {
    state: State,
    normalisation: Normalisation,
    stem: ConvNorm,
    blocks: Vec<Block>,
    linear: Linear,
}

impl Resnet {
    pub(super) fn new(shape: &Shape, normalisation: Normalisation, rng: Rng, device: Device) -> Result<Self, TchError> {
        let mut state = State::new(rng, device);
        let mut from = shape.groups[0].1;
        let stem = ConvNormShape { conv: "conv1", norm: "bn1", from: shape.channels, to: from, kernel: 3, stride: 1 };
        let stem = ConvNorm::new(&mut state, &stem)?;
        let mut blocks = Vec::new();
        for (group, &(count, to)) in shape.groups.iter().enumerate() {
            for index in 0..count {
                let stride = if group > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(&mut state, &format!("layer{}.{index}", group + 1), from, to, stride)?);
                from = to;
            }
        }
        let linear = Linear::new(&mut state, "linear", from, shape.classes)?;
        Ok(Resnet { state, normalisation, stem, blocks, linear })
    }
}

impl Network for Resnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(normalised)?, mode)?.f_relu()?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        self.linear.forward(&pool(&features)?)
    }

    fn freeze(&self) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenResnet {
            normalisation: self.normalisation.share(),
            stem: self.stem.freeze()?,
            blocks: self.blocks.iter().map(Block::freeze).collect::<Result<_, _>>()?,
            linear: self.linear.freeze()?,
        }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// Two 3 × 3 convolutions and the shortcut around them: relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)).
#[derive(Debug)]
struct Block {
    first: ConvNorm,
    second: ConvNorm,
    /// A projection where the shape changes, else the identity.
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn new(state: &mut State, name: &str, from: i64, to: i64, stride: i64) -> Result<Self, TchError> {
        let mut layer = |conv: &str, norm: &str, from, kernel, stride| {
            let (conv, norm) = (format!("{name}.{conv}"), format!("{name}.{norm}"));
            ConvNorm::new(state, &ConvNormShape { conv: &conv, norm: &norm, from, to, kernel, stride })
        };
        Ok(Block {
            first: layer("conv1", "bn1", from, 3, stride)?,
            second: layer("conv2", "bn2", to, 3, 1)?,
            shortcut: match stride != 1 || from != to {
                true => Some(layer("shortcut.0", "shortcut.1", from, 1, stride)?),
                false => None,
            },
        })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let inner = self.first.forward(input, mode)?.f_relu_()?;
        let inner = self.second.forward(&inner, mode)?;
        match &self.shortcut {
            Some(shortcut) => inner.f_add(&shortcut.forward(input, mode)?)?.f_relu_(),
            None => inner.f_add(input)?.f_relu_(),
        }
    }

    fn freeze(&self) -> Result<FrozenBlock, TchError> {
        Ok(FrozenBlock {
            first: self.first.freeze()?,
            second: self.second.freeze()?,
            shortcut: self.shortcut.as_ref().map(ConvNorm::freeze).transpose()?,
        })
    }
}

/// The network with its batch norms folded into the convolutions.
#[derive(Debug)]
struct FrozenResnet {
    normalisation: Normalisation,
    stem: Conv,
    blocks: Vec<FrozenBlock>,
    linear: Linear,
}

impl Frozen for FrozenResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn classify(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(normalised)?)?.f_relu_()?;
        for block in &self.blocks {
            features = block.forward(&features)?;
        }
        self.linear.forward(&pool(&features)?)
    }
}

#[derive(Debug)]
struct FrozenBlock {
    first: Conv,
    second: Conv,
    shortcut: Option<Conv>,
}

impl FrozenBlock {
    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let inner = self.first.forward(input)?.f_relu_()?;
        let mut inner = self.second.forward(&inner)?;
        match &self.shortcut {
            Some(shortcut) => inner.f_add_(&shortcut.forward(input)?)?.f_relu_(),
            None => inner.f_add_(input)?.f_relu_(),
        }
    }
}

/// The mean over each feature map. `mean` and not adaptive pooling, whose gradient on CUDA is not repeatable.
fn pool(features: &Tensor) -> Result<Tensor, TchError> {
    features.f_mean_dim([2i64, 3].as_slice(), false, None)
}
