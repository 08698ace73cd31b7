//! Wide residual networks for small images (Zagoruyko and Komodakis 2016): batch norm and relu precede each
//! convolution.
//!
//! Tensor names (`block1.layer.0.convShortcut`, `fc`) and initial weights follow the most widely copied PyTorch code.
//! No dropout.

use atflow::stage_kinds::WideResnet as Description;
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Affine, Conv, ConvNorm, ConvShape, Linear, Norm, Normalisation, Plain, pool};
use super::state::{ConvInit, State, channels_last};
use super::{Frozen, Mode, Network};
use crate::error::StageError;
use crate::rng::Rng;

/// Output channels of the first convolution.
const STEM: i64 = 16;
/// Maximum depth and width; larger ones are mistakes in the description.
const DEEPEST: u32 = 1 << 12;
const WIDEST: u32 = 1 << 7;

/// The name of the last layer.
pub(super) const HEAD: &str = "fc";

/// A validated network description.
#[derive(Debug)]
pub(super) struct Shape {
    blocks: u32,
    widen: i64,
    channels: i64,
    classes: i64,
}

impl Shape {
    pub(super) fn new(net: &Description, channels: usize, classes: usize) -> Result<Self, StageError> {
        let (depth, widen) = (net.depth, net.widen);
        if !(10..=DEEPEST).contains(&depth) || !(depth - 4).is_multiple_of(6) {
            return Err(StageError::setting("net.depth", format!("must be 10, 16, 22, 28, …, not {depth}")));
        }
        if widen == 0 || widen > WIDEST {
            return Err(StageError::setting("net.widen", format!("must be between 1 and {WIDEST}, not {widen}")));
        }
        Ok(Shape {
            blocks: (depth - 4) / 6,
            widen: i64::from(widen),
            channels: channels as i64,
            classes: classes as i64,
        })
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct WideResnet {
    state: State,
    normalisation: Normalisation,
    stem: Plain,
    blocks: Vec<Block>,
    norm: Norm,
    linear: Linear,
}

impl WideResnet {
    /// Creates the network; without `rng` every weight is 0.
    pub(super) fn new(
        shape: &Shape,
        normalisation: Normalisation,
        rng: Option<Rng>,
        device: Device,
    ) -> Result<Self, TchError> {
        let mut state = State::new(ConvInit::FanOut, rng, device);
        let stem = ConvShape { from: shape.channels, to: STEM, kernel: 3, stride: 1 };
        let stem = Plain::new(&mut state, "conv1", stem)?;
        let mut blocks = Vec::new();
        let mut from = STEM;
        for (group, stride) in [1, 2, 2].into_iter().enumerate() {
            let to = (STEM << group) * shape.widen;
            for index in 0..shape.blocks {
                let name = format!("block{}.layer.{index}", group + 1);
                blocks.push(Block::new(&mut state, &name, from, to, if index == 0 { stride } else { 1 })?);
                from = to;
            }
        }
        let norm = Norm::new(&mut state, "bn1", from)?;
        let linear = Linear::without_initial_bias(&mut state, HEAD, from, shape.classes)?;
        Ok(WideResnet { state, normalisation, stem, blocks, norm, linear })
    }
}

impl Network for WideResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(normalised)?)?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        let features = self.norm.forward(&features, mode)?.f_relu_()?;
        self.linear.forward(&pool(&features)?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenWideResnet {
            normalisation: self.normalisation.share(),
            kind,
            stem: self.stem.freeze(kind)?,
            blocks: self.blocks.iter().map(|block| block.freeze(kind)).collect::<Result<_, _>>()?,
            norm: self.norm.freeze(kind)?,
            linear: self.linear.freeze(kind)?,
        }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// A block: conv(relu(bn(conv(relu(bn(x)))))) + x; if the channels change, a projection of relu(bn(x)) replaces x.
#[derive(Debug)]
struct Block {
    norm: Norm,
    /// The first convolution and the batch norm after it.
    first: ConvNorm,
    second: Plain,
    shortcut: Option<Plain>,
}

impl Block {
    fn new(state: &mut State, name: &str, from: i64, to: i64, stride: i64) -> Result<Self, TchError> {
        let named = |part: &str| format!("{name}.{part}");
        let shape = ConvShape { from, to, kernel: 3, stride };
        Ok(Block {
            norm: Norm::new(state, &named("bn1"), from)?,
            first: ConvNorm::new(state, &named("conv1"), &named("bn2"), shape)?,
            second: Plain::new(state, &named("conv2"), ConvShape { from: to, stride: 1, ..shape })?,
            shortcut: match from != to {
                true => Some(Plain::new(state, &named("convShortcut"), ConvShape { kernel: 1, ..shape })?),
                false => None,
            },
        })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let active = self.norm.forward(input, mode)?.f_relu_()?;
        let inner = self.first.forward(&active, mode)?.f_relu_()?;
        let inner = self.second.forward(&inner)?;
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(&active)?.f_add(&inner),
            None => input.f_add(&inner),
        }
    }

    fn freeze(&self, kind: Kind) -> Result<FrozenBlock, TchError> {
        Ok(FrozenBlock {
            norm: self.norm.freeze(kind)?,
            first: self.first.freeze(kind)?,
            second: self.second.freeze(kind)?,
            shortcut: self.shortcut.as_ref().map(|shortcut| shortcut.freeze(kind)).transpose()?,
        })
    }
}

/// The network with its batch norms frozen: those after a convolution are folded in, the others become scale and shift.
#[derive(Debug)]
struct FrozenWideResnet {
    normalisation: Normalisation,
    kind: Kind,
    stem: Conv,
    blocks: Vec<FrozenBlock>,
    norm: Affine,
    linear: Linear,
}

impl Frozen for FrozenWideResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(&normalised.f_to_kind(self.kind)?)?)?;
        for block in &self.blocks {
            features = block.forward(&features)?;
        }
        self.norm.forward(&features)?.f_relu_()
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.linear.forward(&pool(features)?)
    }
}

#[derive(Debug)]
struct FrozenBlock {
    norm: Affine,
    first: Conv,
    second: Conv,
    shortcut: Option<Conv>,
}

impl FrozenBlock {
    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let active = self.norm.forward(input)?.f_relu_()?;
        let inner = self.first.forward(&active)?.f_relu_()?;
        let mut inner = self.second.forward(&inner)?;
        match &self.shortcut {
            Some(shortcut) => inner.f_add_(&shortcut.forward(&active)?),
            None => inner.f_add_(input),
        }
    }
}
