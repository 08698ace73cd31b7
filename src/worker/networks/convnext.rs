//! ConvNeXt (Liu et al. 2022): convolutional networks with the layers of a vision transformer.
//!
//! Tensor names (`stem.0`, `stages.1.downsample.1`, `stages.0.blocks.0.conv_dw`, `head.norm`, `head.fc`) and initial
//! weights are those of timm's `ConvNeXt`. No stochastic depth.

use atflow::stage_kinds::Convnext as Description;
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Conv, ConvShape, Linear, Normalisation, Padding, copy, pool};
use super::state::{ConvInit, Role, State, channels_last};
use super::tokens::{DEVIATION, LayerNorm, Perceptron, channels_at_end, channels_first, convolution};
use super::{Frozen, Mode, Network};
use crate::rng::Rng;

/// The name of the last layer.
pub(super) const HEAD: &str = "head.fc";

/// Side of the depthwise kernels.
const KERNEL: i64 = 7;
/// Ratio of a perceptron's hidden units to its channels.
const EXPANSION: i64 = 4;
/// Initial layer scale.
const SCALE: f64 = 1e-6;

/// The network.
#[derive(Debug)]
pub(super) struct Convnext {
    state: State,
    normalisation: Normalisation,
    body: Body,
}

impl Convnext {
    /// Creates the network; without `rng` every weight is 0.
    pub(super) fn new(
        net: &Description,
        [channels, classes]: [usize; 2],
        normalisation: Normalisation,
        rng: Option<Rng>,
        device: Device,
    ) -> Result<Self, TchError> {
        let mut state = State::new(ConvInit::Default, rng, device);
        let body = Body::new(&mut state, net, channels as i64, classes as i64)?;
        Ok(Convnext { state, normalisation, body })
    }
}

impl Network for Convnext {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn normalisation(&self) -> Option<&Normalisation> {
        Some(&self.normalisation)
    }

    fn classify(&self, normalised: &Tensor, _: Mode) -> Result<Tensor, TchError> {
        self.body.head(&self.body.features(normalised)?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenConvnext { normalisation: self.normalisation.share(), kind, body: self.body.freeze(kind)? }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

#[derive(Debug)]
struct FrozenConvnext {
    normalisation: Normalisation,
    kind: Kind,
    body: Body,
}

impl Frozen for FrozenConvnext {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        self.body.features(&normalised.f_to_kind(self.kind)?)
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.body.head(features)
    }
}

/// All layers.
#[derive(Debug)]
struct Body {
    stem: Conv,
    stem_norm: LayerNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    linear: Linear,
}

impl Body {
    fn new(state: &mut State, net: &Description, channels: i64, classes: i64) -> Result<Self, TchError> {
        let [patch, width] = [net.patch, net.width].map(i64::from);
        let stem = ConvShape { from: channels, to: width, kernel: patch, stride: patch };
        let stem = convolution(state, "stem.0", stem, Padding::None)?;
        let stem_norm = LayerNorm::new(state, "stem.1", width)?;
        let mut stages = Vec::with_capacity(net.blocks.len());
        let mut from = width;
        for (index, &count) in net.blocks.iter().enumerate() {
            let to = width << index;
            // timm halves before the first stage, too, if the stem halves.
            let halves = index > 0 || patch == 2;
            stages.push(Stage::new(state, &format!("stages.{index}"), [from, to], count, halves)?);
            from = to;
        }
        Ok(Body {
            stem,
            stem_norm,
            stages,
            norm: LayerNorm::new(state, "head.norm", from)?,
            linear: Linear::normal(state, HEAD, [from, classes], DEVIATION)?,
        })
    }

    /// Computes the last feature maps: N × channels × height × width.
    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let stem = self.stem.forward(&channels_last(normalised)?)?;
        let mut features = self.stem_norm.of_channels(&stem)?;
        for stage in &self.stages {
            features = stage.forward(&features)?;
        }
        Ok(features)
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.linear.forward(&self.norm.forward(&pool(features)?)?)
    }

    fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Body {
            stem: self.stem.freeze(kind)?,
            stem_norm: self.stem_norm.freeze()?,
            stages: self.stages.iter().map(|stage| stage.freeze(kind)).collect::<Result<_, _>>()?,
            norm: self.norm.freeze()?,
            linear: self.linear.freeze(kind)?,
        })
    }
}

/// A layer norm and a 2 × 2 convolution of stride 2, except in the first stage, and blocks.
#[derive(Debug)]
struct Stage {
    halving: Option<(LayerNorm, Conv)>,
    blocks: Vec<Block>,
}

impl Stage {
    fn new(state: &mut State, name: &str, [from, to]: [i64; 2], count: u32, halves: bool) -> Result<Self, TchError> {
        let mut halving = None;
        if halves {
            let norm = LayerNorm::new(state, &format!("{name}.downsample.0"), from)?;
            let shape = ConvShape { from, to, kernel: 2, stride: 2 };
            let conv = convolution(state, &format!("{name}.downsample.1"), shape, Padding::None)?;
            halving = Some((norm, conv));
        }
        let blocks = (0..count).map(|index| Block::new(state, &format!("{name}.blocks.{index}"), to));
        Ok(Stage { halving, blocks: blocks.collect::<Result<_, _>>()? })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let mut features = match &self.halving {
            Some((norm, conv)) => conv.forward(&norm.of_channels(input)?)?,
            None => input.shallow_clone(),
        };
        for block in &self.blocks {
            features = block.forward(&features)?;
        }
        Ok(features)
    }

    fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        let frozen =
            |(norm, conv): &(LayerNorm, Conv)| -> Result<_, TchError> { Ok((norm.freeze()?, conv.freeze(kind)?)) };
        Ok(Stage {
            halving: self.halving.as_ref().map(frozen).transpose()?,
            blocks: self.blocks.iter().map(|block| block.freeze(kind)).collect::<Result<_, _>>()?,
        })
    }
}

/// A block: x + scale · perceptron(norm(depthwise convolution(x))).
#[derive(Debug)]
struct Block {
    depthwise: Conv,
    norm: LayerNorm,
    perceptron: Perceptron,
    scale: Tensor,
}

impl Block {
    fn new(state: &mut State, name: &str, channels: i64) -> Result<Self, TchError> {
        let named = |part: &str| format!("{name}.{part}");
        let depthwise = ConvShape { from: 1, to: channels, kernel: KERNEL, stride: 1 };
        Ok(Block {
            scale: state.constant(named("gamma"), Role::Parameter, &[channels], SCALE)?,
            depthwise: convolution(state, &named("conv_dw"), depthwise, Padding::Around)?,
            norm: LayerNorm::new(state, &named("norm"), channels)?,
            perceptron: Perceptron::new(state, &named("mlp"), channels, EXPANSION * channels)?,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let features = channels_at_end(&self.depthwise.forward(input)?)?;
        let features = self.perceptron.forward(&self.norm.forward(&features)?)?;
        let features = features.f_mul(&self.scale.f_to_kind(input.kind())?)?;
        channels_first(&features)?.f_add(input)
    }

    fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Block {
            depthwise: self.depthwise.freeze(kind)?,
            norm: self.norm.freeze()?,
            perceptron: self.perceptron.freeze(kind)?,
            scale: copy(&self.scale, kind)?,
        })
    }
}
