//! Vision transformers (Dosovitskiy et al. 2021): patches and a class token through blocks of attention and perceptron.
//!
//! Tensor names (`cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.0.attn.qkv`, `head`) and initial weights are
//! those of timm's `VisionTransformer`. No dropout, no stochastic depth.

use atflow::stage_kinds::Vit as Description;
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Conv, Linear, Normalisation, Padding, copy};
use super::state::{ConvInit, State};
use super::tokens::{Attention, DEVIATION, LayerNorm, Perceptron};
use super::{Frozen, Mode, Network};
use crate::rng::Rng;

/// The name of the last layer.
pub(super) const HEAD: &str = "head";

/// Initial standard deviation of the class token, timm's.
const CLASS_TOKEN: f32 = 1e-6;

/// The network.
#[derive(Debug)]
pub(super) struct Vit {
    state: State,
    normalisation: Normalisation,
    body: Body,
}

impl Vit {
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
        Ok(Vit { state, normalisation, body })
    }
}

impl Network for Vit {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    fn normalisation(&self) -> Option<&Normalisation> {
        Some(&self.normalisation)
    }

    fn classify(&self, normalised: &Tensor, _: Mode) -> Result<Tensor, TchError> {
        self.body.linear.forward(&self.body.class_token(normalised)?)
    }

    fn freeze_as(&self, kind: Kind) -> Result<Box<dyn Frozen>, TchError> {
        Ok(Box::new(FrozenVit { normalisation: self.normalisation.share(), kind, body: self.body.freeze(kind)? }))
    }

    fn state(&self) -> &State {
        &self.state
    }
}

#[derive(Debug)]
struct FrozenVit {
    normalisation: Normalisation,
    kind: Kind,
    body: Body,
}

impl Frozen for FrozenVit {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.normalisation.forward(images)
    }

    /// Returns the class token, N × size × 1 × 1: the last layer sees no maps.
    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        self.body.class_token(&normalised.f_to_kind(self.kind)?)?.f_unsqueeze(-1)?.f_unsqueeze(-1)
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.body.linear.forward(&features.f_flatten(1, -1)?)
    }
}

/// All layers.
#[derive(Debug)]
struct Body {
    /// Height and width of the images.
    side: i64,
    class_token: Tensor,
    positions: Tensor,
    patches: Conv,
    blocks: Vec<Block>,
    norm: LayerNorm,
    linear: Linear,
}

impl Body {
    fn new(state: &mut State, net: &Description, channels: i64, classes: i64) -> Result<Self, TchError> {
        let [side, patch, size] = [net.side, net.patch, net.dim].map(i64::from);
        let tokens = 1 + (side / patch) * (side / patch);
        let class_token = state.normal("cls_token".to_owned(), &[1, 1, size], CLASS_TOKEN)?;
        let positions = state.normal("pos_embed".to_owned(), &[1, tokens, size], DEVIATION)?;
        // The patches start as PyTorch starts any convolution.
        let fan_in = channels * patch * patch;
        let weight = state.convolution("patch_embed.proj.weight".to_owned(), &[size, channels, patch, patch])?;
        let bias = state.uniform("patch_embed.proj.bias".to_owned(), &[size], fan_in)?;
        let blocks = (0..net.depth).map(|index| Block::new(state, &format!("blocks.{index}"), net));
        Ok(Body {
            side,
            class_token,
            positions,
            patches: Conv::with_bias(weight, bias, patch, Padding::None),
            blocks: blocks.collect::<Result<_, _>>()?,
            norm: LayerNorm::new(state, "norm", size)?,
            linear: Linear::normal(state, HEAD, [size, classes], DEVIATION)?,
        })
    }

    /// Computes the class token after the last norm: N × size.
    fn class_token(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let mut tokens = self.embed(normalised)?;
        for block in &self.blocks {
            tokens = block.forward(&tokens)?;
        }
        self.norm.forward(&tokens.f_select(1, 0)?)
    }

    /// Returns the class token and the patches with their positions: N × tokens × size.
    fn embed(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        let (images, _, height, width) = normalised.size4()?;
        if [height, width] != [self.side, self.side] {
            let problem = format!("images of {height} × {width} pixels, and `net.side` is {}", self.side);
            return Err(TchError::Torch(problem));
        }
        let kind = normalised.kind();
        let patches = self.patches.forward(normalised)?.f_flatten(2, -1)?.f_transpose(1, 2)?;
        let class_token = self.class_token.f_to_kind(kind)?.f_expand([images, -1, -1], false)?;
        Tensor::f_cat(&[class_token, patches], 1)?.f_add(&self.positions.f_to_kind(kind)?)
    }

    fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Body {
            side: self.side,
            class_token: copy(&self.class_token, kind)?,
            positions: copy(&self.positions, kind)?,
            patches: self.patches.freeze(kind)?,
            blocks: self.blocks.iter().map(|block| block.freeze(kind)).collect::<Result<_, _>>()?,
            norm: self.norm.freeze()?,
            linear: self.linear.freeze(kind)?,
        })
    }
}

/// A block: x + attention(norm(x)), and of that x + perceptron(norm(x)).
#[derive(Debug)]
struct Block {
    first: LayerNorm,
    attention: Attention,
    second: LayerNorm,
    perceptron: Perceptron,
}

impl Block {
    fn new(state: &mut State, name: &str, net: &Description) -> Result<Self, TchError> {
        let [size, heads, mlp] = [net.dim, net.heads, net.mlp].map(i64::from);
        let named = |part: &str| format!("{name}.{part}");
        Ok(Block {
            first: LayerNorm::new(state, &named("norm1"), size)?,
            attention: Attention::new(state, &named("attn"), size, heads)?,
            second: LayerNorm::new(state, &named("norm2"), size)?,
            perceptron: Perceptron::new(state, &named("mlp"), size, mlp * size)?,
        })
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor, TchError> {
        let tokens = tokens.f_add(&self.attention.forward(&self.first.forward(tokens)?)?)?;
        tokens.f_add(&self.perceptron.forward(&self.second.forward(&tokens)?)?)
    }

    fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Block {
            first: self.first.freeze()?,
            attention: self.attention.freeze(kind)?,
            second: self.second.freeze()?,
            perceptron: self.perceptron.freeze(kind)?,
        })
    }
}
