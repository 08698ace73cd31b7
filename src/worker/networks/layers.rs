//! The layers that networks are made of, with the defaults of PyTorch's, and their frozen counterparts. Knows no particular network.

use atflow::number::Real;
use tch::{Device, TchError, Tensor};

use super::Mode;
use super::state::{Role, State, channels_last};
use crate::error::StageError;

/// PyTorch's default for `BatchNorm2d`: added to the variance.
const EPSILON: f64 = 1e-5;
/// PyTorch's default for `BatchNorm2d`: the share of a batch's statistics in the new running ones.
const MOMENTUM: f64 = 0.1;

/// (image − mean) / std, by channel.
#[derive(Debug)]
pub(super) struct Normalisation(Option<(Tensor, Tensor)>);

impl Normalisation {
    /// From the author's lists: both empty, or one number for each channel.
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

/// A convolution without bias and the batch norm after it.
#[derive(Debug)]
pub(super) struct ConvNorm {
    weight: Tensor,
    stride: i64,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

/// The names and sizes of a [`ConvNorm`].
pub(super) struct ConvNormShape<'a> {
    /// Name of the convolution.
    pub(super) conv: &'a str,
    /// Name of the batch norm.
    pub(super) norm: &'a str,
    /// Channels in.
    pub(super) from: i64,
    /// Channels out.
    pub(super) to: i64,
    /// Side of the kernel, odd; the border is padded with zeros so that a stride of 1 keeps the size.
    pub(super) kernel: i64,
    /// Step of the kernel.
    pub(super) stride: i64,
}

impl ConvNorm {
    pub(super) fn new(state: &mut State, shape: &ConvNormShape<'_>) -> Result<Self, TchError> {
        let &ConvNormShape { conv, norm, from, to, kernel, stride } = shape;
        Ok(ConvNorm {
            weight: state.uniform(format!("{conv}.weight"), &[to, from, kernel, kernel], from * kernel * kernel)?,
            stride,
            gamma: state.constant(format!("{norm}.weight"), Role::Parameter, &[to], 1.0)?,
            beta: state.constant(format!("{norm}.bias"), Role::Parameter, &[to], 0.0)?,
            running_mean: state.constant(format!("{norm}.running_mean"), Role::Buffer, &[to], 0.0)?,
            running_var: state.constant(format!("{norm}.running_var"), Role::Buffer, &[to], 1.0)?,
        })
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, None, self.stride)?.f_batch_norm(
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

    /// Batch norm with fixed statistics is a scale and a shift of each channel: they go into the convolution.
    pub(super) fn freeze(&self) -> Result<Conv, TchError> {
        let _guard = tch::no_grad_guard();
        let scale = self.gamma.f_div(&self.running_var.f_add_scalar(EPSILON)?.f_sqrt()?)?;
        Ok(Conv {
            weight: channels_last(&self.weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?)?,
            bias: self.beta.f_sub(&self.running_mean.f_mul(&scale)?)?,
            stride: self.stride,
        })
    }
}

/// A convolution with bias, frozen.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
}

impl Conv {
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, Some(&self.bias), self.stride)
    }
}

fn convolve(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64) -> Result<Tensor, TchError> {
    let padding = weight.size4()?.3 / 2;
    input.f_conv2d(weight, bias, [stride, stride], [padding, padding], [1, 1], 1)
}

/// The last layer: features to logits.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(super) fn new(state: &mut State, name: &str, from: i64, to: i64) -> Result<Self, TchError> {
        Ok(Linear {
            weight: state.uniform(format!("{name}.weight"), &[to, from], from)?,
            bias: state.uniform(format!("{name}.bias"), &[to], from)?,
        })
    }

    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor, TchError> {
        features.f_linear(&self.weight, Some(&self.bias))
    }

    pub(super) fn freeze(&self) -> Result<Self, TchError> {
        Ok(Linear { weight: copy(&self.weight)?, bias: copy(&self.bias)? })
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    let mut own = tensor.f_empty_like()?;
    own.f_copy_(tensor)?;
    Ok(own)
}
