//! Layers without batch norm, which vision transformers and ConvNeXt consist of: layer norm, perceptron, attention.
//!
//! A layer is the same in training and evaluation, so freezing only copies it. Layer norm and softmax compute in F32
//! for any input, and return its type.

use tch::{Kind, TchError, Tensor};

use super::layers::{Conv, ConvShape, Linear, Padding, copy};
use super::state::{Role, State};

/// The constant that layer norm adds to the variance: that of timm's vision transformers and ConvNeXt.
const EPSILON: f64 = 1e-6;
/// Standard deviation of initial weights: timm's `trunc_normal_(std=0.02)`. It cuts at ±2, which is a hundred
/// deviations away and never drawn.
pub(super) const DEVIATION: f32 = 0.02;

/// A layer norm of the last dimension.
#[derive(Debug)]
pub(super) struct LayerNorm {
    gamma: Tensor,
    beta: Tensor,
}

impl LayerNorm {
    pub(super) fn new(state: &mut State, name: &str, size: i64) -> Result<Self, TchError> {
        Ok(LayerNorm {
            gamma: state.constant(format!("{name}.weight"), Role::Parameter, &[size], 1.0)?,
            beta: state.constant(format!("{name}.bias"), Role::Parameter, &[size], 0.0)?,
        })
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let single = input.f_to_kind(Kind::Float)?;
        let normed = single.f_layer_norm(self.gamma.size(), Some(&self.gamma), Some(&self.beta), EPSILON, false)?;
        normed.f_to_kind(input.kind())
    }

    /// Normalises over the channels of N × C × H × W.
    pub(super) fn of_channels(&self, input: &Tensor) -> Result<Tensor, TchError> {
        channels_first(&self.forward(&channels_at_end(input)?)?)
    }

    pub(super) fn freeze(&self) -> Result<Self, TchError> {
        Ok(LayerNorm { gamma: copy(&self.gamma, Kind::Float)?, beta: copy(&self.beta, Kind::Float)? })
    }
}

/// Returns N × C × H × W as a view of N × H × W × C.
pub(super) fn channels_at_end(input: &Tensor) -> Result<Tensor, TchError> {
    input.f_permute([0, 2, 3, 1])
}

/// Returns N × H × W × C as a view of N × C × H × W, in channels-last layout.
pub(super) fn channels_first(input: &Tensor) -> Result<Tensor, TchError> {
    input.f_permute([0, 3, 1, 2])
}

/// Creates a convolution with a bias of 0 and weights from Normal(0, 0.02²); `from` counts the channels of one group.
pub(super) fn convolution(state: &mut State, name: &str, shape: ConvShape, padding: Padding) -> Result<Conv, TchError> {
    let ConvShape { from, to, kernel, stride } = shape;
    let weight = state.normal(format!("{name}.weight"), &[to, from, kernel, kernel], DEVIATION)?;
    let bias = state.constant(format!("{name}.bias"), Role::Parameter, &[to], 0.0)?;
    Ok(Conv::with_bias(weight, bias, stride, padding))
}

/// Two linear layers with an exact GELU between them, on the last dimension.
#[derive(Debug)]
pub(super) struct Perceptron {
    first: Linear,
    second: Linear,
}

impl Perceptron {
    /// Creates `NAME.fc1` and `NAME.fc2`; `hidden` counts the units between them.
    pub(super) fn new(state: &mut State, name: &str, size: i64, hidden: i64) -> Result<Self, TchError> {
        Ok(Perceptron {
            first: Linear::normal(state, &format!("{name}.fc1"), [size, hidden], DEVIATION)?,
            second: Linear::normal(state, &format!("{name}.fc2"), [hidden, size], DEVIATION)?,
        })
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        self.second.map(&self.first.map(input)?.f_gelu("none")?)
    }

    pub(super) fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Perceptron { first: self.first.freeze(kind)?, second: self.second.freeze(kind)? })
    }
}

/// Self-attention with several heads (Vaswani et al. 2017, section 3.2.2).
#[derive(Debug)]
pub(super) struct Attention {
    heads: i64,
    /// Query, key and value, one after the other.
    qkv: Linear,
    projection: Linear,
}

impl Attention {
    /// Creates `NAME.qkv` and `NAME.proj`; `heads` divides `size`.
    pub(super) fn new(state: &mut State, name: &str, size: i64, heads: i64) -> Result<Self, TchError> {
        Ok(Attention {
            heads,
            qkv: Linear::normal(state, &format!("{name}.qkv"), [size, 3 * size], DEVIATION)?,
            projection: Linear::normal(state, &format!("{name}.proj"), [size, size], DEVIATION)?,
        })
    }

    /// Mixes tokens, N × tokens × size.
    pub(super) fn forward(&self, tokens: &Tensor) -> Result<Tensor, TchError> {
        let (images, count, size) = tokens.size3()?;
        let of_head = size / self.heads;
        let parts = self.qkv.map(tokens)?.f_view([images, count, 3, self.heads, of_head])?;
        let parts = parts.f_permute([2, 0, 3, 1, 4])?;
        let (query, key, value) = (parts.f_get(0)?, parts.f_get(1)?, parts.f_get(2)?);
        let query = query.f_mul_scalar((of_head as f64).sqrt().recip())?;
        let scores = query.f_matmul(&key.f_transpose(-2, -1)?)?;
        let shares = scores.f_softmax(-1, Kind::Float)?.f_to_kind(tokens.kind())?;
        let mixed = shares.f_matmul(&value)?.f_transpose(1, 2)?.f_reshape([images, count, size])?;
        self.projection.map(&mixed)
    }

    pub(super) fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Attention { heads: self.heads, qkv: self.qkv.freeze(kind)?, projection: self.projection.freeze(kind)? })
    }
}
