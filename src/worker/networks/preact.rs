//! Networks of pre-activation blocks (He et al. 2016b; Zagoruyko and Komodakis 2016): batch norm and activation precede
//! each convolution.
//!
//! One implementation serves every family. A [`Plan`] says what a family has of its own: names, sizes, activation,
//! padding, and what the shortcut takes.

use atflow::stage_kinds::Activation;
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Affine, Conv, ConvNorm, ConvShape, Linear, Norm, Normalisation, Padding, Plain, pool};
use super::state::{ConvInit, State, channels_last};
use super::{Frozen, Mode, Network};
use crate::rng::Rng;

/// The names of the tensors of a family.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) stem: &'static str,
    /// Within a block: the first batch norm, the first convolution, the second batch norm, the second convolution.
    pub(super) inner: [&'static str; 4],
    pub(super) shortcut: &'static str,
    /// The batch norm after the last block.
    pub(super) norm: &'static str,
    pub(super) head: &'static str,
}

/// What the projection of a shortcut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShortcutOf {
    /// The input of the block after batch norm and activation.
    Activated,
    /// The input of the block itself.
    Input,
}

/// A block of a network.
#[derive(Debug)]
pub(super) struct BlockPlan {
    /// What its tensors' names begin with, without the dot.
    pub(super) name: String,
    /// Output channels.
    pub(super) to: i64,
    pub(super) stride: i64,
}

/// A network, described completely.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) names: &'static Names,
    /// Channels of the images.
    pub(super) channels: i64,
    /// Output channels of the first convolution.
    pub(super) stem: i64,
    pub(super) blocks: Vec<BlockPlan>,
    /// Whether batch norm and activation follow the last block.
    pub(super) final_norm: bool,
    pub(super) classes: i64,
    pub(super) activation: Activation,
    pub(super) shortcut_of: ShortcutOf,
    /// The padding of 3 × 3 convolutions of stride 2.
    pub(super) strided: Padding,
    pub(super) init: ConvInit,
    /// Whether the bias of the last layer starts at 0, and not as PyTorch has it.
    pub(super) without_initial_bias: bool,
}

/// The network.
#[derive(Debug)]
pub(super) struct PreactResnet {
    state: State,
    normalisation: Normalisation,
    stem: Plain,
    blocks: Vec<Block>,
    norm: Option<Norm>,
    activation: Activation,
    linear: Linear,
}

impl PreactResnet {
    /// Creates the network; without `rng` every weight is 0.
    pub(super) fn new(
        plan: &Plan,
        normalisation: Normalisation,
        rng: Option<Rng>,
        device: Device,
    ) -> Result<Self, TchError> {
        let mut state = State::new(plan.init, rng, device);
        let stem = ConvShape { from: plan.channels, to: plan.stem, kernel: 3, stride: 1 };
        let stem = Plain::new(&mut state, plan.names.stem, stem)?;
        let mut from = plan.stem;
        let mut blocks = Vec::with_capacity(plan.blocks.len());
        for block in &plan.blocks {
            blocks.push(Block::new(&mut state, plan, block, from)?);
            from = block.to;
        }
        let norm = plan.final_norm.then(|| Norm::new(&mut state, plan.names.norm, from)).transpose()?;
        let head = if plan.without_initial_bias { Linear::without_initial_bias } else { Linear::new };
        let linear = head(&mut state, plan.names.head, from, plan.classes)?;
        Ok(PreactResnet { state, normalisation, stem, blocks, norm, activation: plan.activation, linear })
    }
}

impl Network for PreactResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn normalisation(&self) -> Option<&Normalisation> {
        Some(&self.normalisation)
    }

    fn classify(&self, normalised: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(normalised)?)?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        if let Some(norm) = &self.norm {
            features = activate(norm.forward(&features, mode)?, self.activation)?;
        }
        self.linear.forward(&pool(&features)?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenPreactResnet {
            normalisation: self.normalisation.share(),
            kind,
            stem: self.stem.freeze(kind)?,
            blocks: self.blocks.iter().map(|block| block.freeze(kind)).collect::<Result<_, _>>()?,
            norm: self.norm.as_ref().map(|norm| norm.freeze(kind)).transpose()?,
            activation: self.activation,
            linear: self.linear.freeze(kind)?,
        }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

/// Applies an activation; a relu is applied in place.
fn activate(mut features: Tensor, activation: Activation) -> Result<Tensor, TchError> {
    match activation {
        Activation::Relu => features.f_relu_(),
        // The gradient needs the input, so it stays.
        Activation::Swish => features.f_silu(),
    }
}

/// A block: conv(act(bn(conv(act(bn(x)))))) + x; if the size changes, a 1 × 1 projection stands for x.
#[derive(Debug)]
struct Block {
    norm: Norm,
    /// The first convolution and the batch norm after it.
    first: ConvNorm,
    second: Plain,
    shortcut: Option<Plain>,
    shortcut_of: ShortcutOf,
    activation: Activation,
}

impl Block {
    fn new(state: &mut State, plan: &Plan, block: &BlockPlan, from: i64) -> Result<Self, TchError> {
        let BlockPlan { name, to, stride } = block;
        let named = |part: &str| format!("{name}.{part}");
        let [norm, first, second_norm, second] = plan.names.inner.map(named);
        let shape = ConvShape { from, to: *to, kernel: 3, stride: *stride };
        let padding = if *stride == 1 { Padding::Around } else { plan.strided };
        Ok(Block {
            norm: Norm::new(state, &norm, from)?,
            first: ConvNorm::new(state, &first, &second_norm, shape)?.padded(padding),
            second: Plain::new(state, &second, ConvShape { from: *to, stride: 1, ..shape })?,
            shortcut: match from != *to || *stride != 1 {
                true => Some(Plain::new(state, &named(plan.names.shortcut), ConvShape { kernel: 1, ..shape })?),
                false => None,
            },
            shortcut_of: plan.shortcut_of,
            activation: plan.activation,
        })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let active = activate(self.norm.forward(input, mode)?, self.activation)?;
        let inner = activate(self.first.forward(&active, mode)?, self.activation)?;
        let inner = self.second.forward(&inner)?;
        match (&self.shortcut, self.shortcut_of) {
            (Some(shortcut), ShortcutOf::Activated) => shortcut.forward(&active)?.f_add(&inner),
            (Some(shortcut), ShortcutOf::Input) => shortcut.forward(input)?.f_add(&inner),
            (None, _) => input.f_add(&inner),
        }
    }

    fn freeze(&self, kind: Kind) -> Result<FrozenBlock, TchError> {
        Ok(FrozenBlock {
            norm: self.norm.freeze(kind)?,
            first: self.first.freeze(kind)?,
            second: self.second.freeze(kind)?,
            shortcut: self.shortcut.as_ref().map(|shortcut| shortcut.freeze(kind)).transpose()?,
            shortcut_of: self.shortcut_of,
            activation: self.activation,
        })
    }
}

/// The network with its batch norms frozen: those after a convolution are folded in, the others become scale and shift.
#[derive(Debug)]
struct FrozenPreactResnet {
    normalisation: Normalisation,
    kind: Kind,
    stem: Conv,
    blocks: Vec<FrozenBlock>,
    norm: Option<Affine>,
    activation: Activation,
    linear: Linear,
}

impl Frozen for FrozenPreactResnet {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let mut features = self.stem.forward(&channels_last(&normalised.f_to_kind(self.kind)?)?)?;
        for block in &self.blocks {
            features = block.forward(&features)?;
        }
        match &self.norm {
            Some(norm) => activate(norm.forward(&features)?, self.activation),
            None => Ok(features),
        }
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
    shortcut_of: ShortcutOf,
    activation: Activation,
}

impl FrozenBlock {
    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let active = activate(self.norm.forward(input)?, self.activation)?;
        let inner = activate(self.first.forward(&active)?, self.activation)?;
        let mut inner = self.second.forward(&inner)?;
        match (&self.shortcut, self.shortcut_of) {
            (Some(shortcut), ShortcutOf::Activated) => inner.f_add_(&shortcut.forward(&active)?),
            (Some(shortcut), ShortcutOf::Input) => inner.f_add_(&shortcut.forward(input)?),
            (None, _) => inner.f_add_(input),
        }
    }
}
