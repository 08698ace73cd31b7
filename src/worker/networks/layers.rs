//! Network layers with PyTorch's defaults, and their frozen counterparts. Knows no particular network.
//!
//! A layer computes in the type of its input. Convolutions and linear layers cast their weights to it; batch norm keeps
//! its parameters and statistics in F32 for any input.

use atflow::number::Real;
use tch::{Device, Kind, TchError, Tensor};

use super::Mode;
use super::state::{Role, State, channels_last};
use crate::arithmetic::square_root;
use crate::error::StageError;

/// PyTorch's default for `BatchNorm2d`: the constant added to the variance.
const EPSILON: f64 = 1e-5;
/// PyTorch's default for `BatchNorm2d`: the weight of the batch statistics in the running update.
const MOMENTUM: f64 = 0.1;

/// Per-channel normalisation, (image − mean) / std.
#[derive(Debug)]
pub(super) struct Normalisation(Option<(Tensor, Tensor)>);

impl Normalisation {
    /// Creates the normalisation from the author's lists: both empty, or one number per channel.
    pub(super) fn new(mean: &[Real], std: &[Real], channels: usize, device: Device) -> Result<Self, StageError> {
        for (name, list) in [("net.mean", mean), ("net.std", std)] {
            if !list.is_empty() && list.len() != channels {
                let problem = format!("has {} numbers, but the images have {channels} channels", list.len());
                return Err(StageError::setting(name, problem));
            }
        }
        if std.iter().any(|std| std.get() <= 0.0) {
            return Err(StageError::setting("net.std", "must be above 0"));
        }
        if mean.is_empty() && std.is_empty() {
            return Ok(Normalisation(None));
        }
        let column = |list: &[Real], default: f32| -> Result<Tensor, TchError> {
            let values: Vec<f32> =
                (0..channels).map(|c| list.get(c).map_or(default, |real| real.get() as f32)).collect();
            Tensor::f_from_slice(&values)?.f_view([1, channels as i64, 1, 1])?.f_to_device(device)
        };
        Ok(Normalisation(Some((column(mean, 0.0)?, column(std, 1.0)?))))
    }

    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        match &self.0 {
            Some((mean, std)) => images.f_sub(mean)?.f_div(std),
            None => Ok(images.shallow_clone()),
        }
    }

    pub(super) fn share(&self) -> Self {
        Normalisation(self.0.as_ref().map(|(mean, std)| (mean.shallow_clone(), std.shallow_clone())))
    }
}

/// A batch norm layer.
#[derive(Debug)]
pub(super) struct Norm {
    gamma: Tensor,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl Norm {
    pub(super) fn new(state: &mut State, name: &str, channels: i64) -> Result<Self, TchError> {
        let size = [channels];
        Ok(Norm {
            gamma: state.constant(format!("{name}.weight"), Role::Parameter, &size, 1.0)?,
            beta: state.constant(format!("{name}.bias"), Role::Parameter, &size, 0.0)?,
            running_mean: state.constant(format!("{name}.running_mean"), Role::Buffer, &size, 0.0)?,
            running_var: state.constant(format!("{name}.running_var"), Role::Buffer, &size, 1.0)?,
        })
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        input.f_batch_norm(
            Some(&self.gamma),
            Some(&self.beta),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode == Mode::Train,
            MOMENTUM,
            EPSILON,
            true,
        )
    }

    /// Returns the scale and shift per channel that equal a batch norm with fixed statistics.
    fn scale_and_shift(&self) -> Result<(Tensor, Tensor), TchError> {
        let scale = self.gamma.f_div(&square_root(&self.running_var.f_add_scalar(EPSILON)?)?)?;
        let shift = self.beta.f_sub(&self.running_mean.f_mul(&scale)?)?;
        Ok((scale, shift))
    }

    /// Freezes the current batch norm for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Affine, TchError> {
        let _guard = tch::no_grad_guard();
        let column = |values: Tensor| values.f_view([1, -1, 1, 1])?.f_to_kind(kind);
        let (scale, shift) = self.scale_and_shift()?;
        Ok(Affine { scale: column(scale)?, shift: column(shift)? })
    }
}

/// A scale and shift per channel: a frozen batch norm without a preceding convolution.
#[derive(Debug)]
pub(super) struct Affine {
    scale: Tensor,
    shift: Tensor,
}

impl Affine {
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_mul(&self.scale)?.f_add_(&self.shift)
    }
}

/// Sizes of a convolution without bias.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    /// Input channels.
    pub(super) from: i64,
    /// Output channels.
    pub(super) to: i64,
    /// Kernel side, odd; zero padding keeps the size at stride 1.
    pub(super) kernel: i64,
    /// Stride of the kernel.
    pub(super) stride: i64,
}

/// A convolution without bias.
#[derive(Debug)]
pub(super) struct Plain {
    weight: Tensor,
    stride: i64,
}

impl Plain {
    pub(super) fn new(state: &mut State, name: &str, shape: ConvShape) -> Result<Self, TchError> {
        let ConvShape { from, to, kernel, stride } = shape;
        Ok(Plain { weight: state.convolution(format!("{name}.weight"), &[to, from, kernel, kernel])?, stride })
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, None, self.stride)
    }

    /// Freezes the current convolution for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Conv, TchError> {
        Ok(Conv { weight: copy(&self.weight, kind)?, bias: None, stride: self.stride })
    }

    /// Freezes the convolution and folds in the batch norm that follows it.
    pub(super) fn freeze_with(&self, norm: &Norm, kind: Kind) -> Result<Conv, TchError> {
        let _guard = tch::no_grad_guard();
        let (scale, shift) = norm.scale_and_shift()?;
        let weight = channels_last(&self.weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?)?;
        Ok(Conv { weight: weight.f_to_kind(kind)?, bias: Some(shift.f_to_kind(kind)?), stride: self.stride })
    }
}

/// A convolution without bias, followed by a batch norm.
#[derive(Debug)]
pub(super) struct ConvNorm {
    conv: Plain,
    norm: Norm,
}

impl ConvNorm {
    /// Creates both layers; `conv` and `norm` are their names.
    pub(super) fn new(state: &mut State, conv: &str, norm: &str, shape: ConvShape) -> Result<Self, TchError> {
        Ok(ConvNorm { conv: Plain::new(state, conv, shape)?, norm: Norm::new(state, norm, shape.to)? })
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.norm.forward(&self.conv.forward(input)?, mode)
    }

    /// Freezes both layers into one convolution for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Conv, TchError> {
        self.conv.freeze_with(&self.norm, kind)
    }
}

/// A frozen convolution.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
}

impl Conv {
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, self.bias.as_ref(), self.stride)
    }
}

fn convolve(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64) -> Result<Tensor, TchError> {
    let padding = weight.size4()?.3 / 2;
    let weight = weight.f_to_kind(input.kind())?;
    input.f_conv2d(&weight, bias, [stride, stride], [padding, padding], [1, 1], 1)
}

/// The last layer: maps features to logits.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Creates the layer with PyTorch's initial values.
    pub(super) fn new(state: &mut State, name: &str, from: i64, to: i64) -> Result<Self, TchError> {
        Ok(Linear {
            weight: state.uniform(format!("{name}.weight"), &[to, from], from)?,
            bias: state.uniform(format!("{name}.bias"), &[to], from)?,
        })
    }

    /// Creates the layer with PyTorch's initial weights and a bias of 0.
    pub(super) fn without_initial_bias(state: &mut State, name: &str, from: i64, to: i64) -> Result<Self, TchError> {
        Ok(Linear {
            weight: state.uniform(format!("{name}.weight"), &[to, from], from)?,
            bias: state.constant(format!("{name}.bias"), Role::Parameter, &[to], 0.0)?,
        })
    }

    /// Computes logits, F32, from pooled features.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let kind = features.kind();
        let logits = features.f_linear(&self.weight.f_to_kind(kind)?, Some(&self.bias.f_to_kind(kind)?))?;
        logits.f_to_kind(Kind::Float)
    }

    pub(super) fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Linear { weight: copy(&self.weight, kind)?, bias: copy(&self.bias, kind)? })
    }
}

/// Averages each feature map. Uses `mean`, because the gradient of adaptive pooling on CUDA is not deterministic.
pub(super) fn pool(features: &Tensor) -> Result<Tensor, TchError> {
    features.f_mean_dim([2i64, 3].as_slice(), false, None)
}

fn copy(tensor: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    let mut own = tensor.f_empty_like()?;
    own.f_copy_(tensor)?;
    own.f_to_kind(kind)
}
