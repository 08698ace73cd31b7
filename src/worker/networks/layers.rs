//! Network layers with PyTorch's defaults, and their frozen counterparts. Knows no particular network.
//!
//! A layer computes in the type of its input. Convolutions and linear layers cast their weights to it; batch norm keeps
//! its parameters and statistics in F32 for any input. Layer norms and attention are in `tokens`.

use atflow::number::Real;
use atflow::stage_kinds::Net;
use tch::{Device, Kind, TchError, Tensor};

use super::Mode;
use super::state::{Role, State, channels_last};
use crate::arithmetic::square_root;
use crate::error::StageError;

/// PyTorch's default for `BatchNorm2d`: the constant added to the variance.
const EPSILON: f64 = 1e-5;
/// PyTorch's default for `BatchNorm2d`: the weight of the batch statistics in the running update.
pub(super) const MOMENTUM: f64 = 0.1;

/// What is done to images in [0, 1] before the first layer.
#[derive(Debug)]
pub enum Normalisation {
    /// Nothing.
    None,
    /// (image − mean) / std, with a mean and a deviation for each channel.
    Channels(Tensor, Tensor),
    /// (image − m) / max(s, 1/√n), with m and s of all n values of the image.
    PerImage,
}

impl Normalisation {
    /// Creates the normalisation of a network for images of so many channels: its lists are empty, or have one number
    /// per channel.
    pub(super) fn new(net: &Net, channels: usize, device: Device) -> Result<Self, StageError> {
        let (mean, std) = net.normalisation();
        if net.standardises() {
            return match mean.is_empty() && std.is_empty() {
                true => Ok(Normalisation::PerImage),
                false => Err(StageError::setting("net.standardise", "stands beside `mean` and `std`")),
            };
        }
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
            return Ok(Normalisation::None);
        }
        let column = |list: &[Real], default: f32| -> Result<Tensor, TchError> {
            let values: Vec<f32> =
                (0..channels).map(|c| list.get(c).map_or(default, |real| real.get() as f32)).collect();
            Tensor::f_from_slice(&values)?.f_view([1, channels as i64, 1, 1])?.f_to_device(device)
        };
        Ok(Normalisation::Channels(column(mean, 0.0)?, column(std, 1.0)?))
    }

    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Normalisation::Channels(mean, std) => images.f_sub(mean)?.f_div(std),
            Normalisation::None => Ok(images.shallow_clone()),
            Normalisation::PerImage => standardised(images),
        }
    }

    /// Returns the mean and the standard deviation of each channel; `None` if channels have none.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn values(&self) -> Result<Option<[Vec<f64>; 2]>, TchError> {
        let list = |column: &Tensor| Vec::try_from(column.f_to_device(Device::Cpu)?.f_flatten(0, -1)?);
        match self {
            Normalisation::Channels(mean, std) => Ok(Some([list(mean)?, list(std)?])),
            Normalisation::None | Normalisation::PerImage => Ok(None),
        }
    }

    pub(super) fn share(&self) -> Self {
        match self {
            Normalisation::None => Normalisation::None,
            Normalisation::Channels(mean, std) => Normalisation::Channels(mean.shallow_clone(), std.shallow_clone()),
            Normalisation::PerImage => Normalisation::PerImage,
        }
    }
}

/// Standardises each image of N × C × H × W by its own mean and deviation, with a gradient.
///
/// The floor stands under the root, where it is that of the deviation, so an image of one colour has a gradient, too.
fn standardised(images: &Tensor) -> Result<Tensor, TchError> {
    let values: i64 = images.size()[1..].iter().product();
    let all = [1i64, 2, 3];
    let centred = images.f_sub(&images.f_mean_dim(all.as_slice(), true, None)?)?;
    let variance = centred.f_mul(&centred)?.f_mean_dim(all.as_slice(), true, None)?;
    centred.f_div(&square_root(&variance.f_clamp_min(1.0 / values.max(1) as f64)?)?)
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

/// Zeros around the input of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// Half a kernel on every side, which keeps the size at stride 1.
    Around,
    /// One row below and one column to the right: TensorFlow's `SAME` for a 3 × 3 kernel of stride 2 on an even side.
    After,
    /// None: the kernel tiles the input.
    None,
}

/// A convolution without bias.
#[derive(Debug)]
pub(super) struct Plain {
    weight: Tensor,
    stride: i64,
    padding: Padding,
}

impl Plain {
    pub(super) fn new(state: &mut State, name: &str, shape: ConvShape) -> Result<Self, TchError> {
        let ConvShape { from, to, kernel, stride } = shape;
        let weight = state.convolution(format!("{name}.weight"), &[to, from, kernel, kernel])?;
        Ok(Plain { weight, stride, padding: Padding::Around })
    }

    /// Replaces the padding.
    pub(super) fn padded(self, padding: Padding) -> Self {
        Plain { padding, ..self }
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, None, self.stride, self.padding)
    }

    /// Freezes the current convolution for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Conv, TchError> {
        Ok(Conv { weight: copy(&self.weight, kind)?, bias: None, stride: self.stride, padding: self.padding })
    }

    /// Freezes the convolution and folds in the batch norm that follows it.
    pub(super) fn freeze_with(&self, norm: &Norm, kind: Kind) -> Result<Conv, TchError> {
        let _guard = tch::no_grad_guard();
        let (scale, shift) = norm.scale_and_shift()?;
        let weight = channels_last(&self.weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?)?;
        let (weight, bias) = (weight.f_to_kind(kind)?, Some(shift.f_to_kind(kind)?));
        Ok(Conv { weight, bias, stride: self.stride, padding: self.padding })
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

    /// Replaces the padding.
    pub(super) fn padded(self, padding: Padding) -> Self {
        ConvNorm { conv: self.conv.padded(padding), ..self }
    }

    pub(super) fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.norm.forward(&self.conv.forward(input)?, mode)
    }

    /// Freezes both layers into one convolution for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Conv, TchError> {
        self.conv.freeze_with(&self.norm, kind)
    }
}

/// A convolution with a bias, or a frozen one.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: Padding,
}

impl Conv {
    /// Creates a convolution from its weights and its bias.
    pub(super) fn with_bias(weight: Tensor, bias: Tensor, stride: i64, padding: Padding) -> Self {
        Conv { weight, bias: Some(bias), stride, padding }
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        convolve(input, &self.weight, self.bias.as_ref(), self.stride, self.padding)
    }

    /// Freezes the convolution for inputs of type `kind`.
    pub(super) fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        let bias = self.bias.as_ref().map(|bias| copy(bias, kind)).transpose()?;
        Ok(Conv { weight: copy(&self.weight, kind)?, bias, ..*self })
    }
}

/// Convolves; each group has as many channels as the weights take.
fn convolve(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: i64,
    padding: Padding,
) -> Result<Tensor, TchError> {
    let kind = input.kind();
    let (_, from, _, kernel) = weight.size4()?;
    let groups = input.size4()?.1 / from.max(1);
    let (input, around) = match padding {
        Padding::Around => (input.shallow_clone(), kernel / 2),
        Padding::After => (input.f_constant_pad_nd([0, 1, 0, 1])?, 0),
        Padding::None => (input.shallow_clone(), 0),
    };
    let bias = bias.map(|bias| bias.f_to_kind(kind)).transpose()?;
    input.f_conv2d(&weight.f_to_kind(kind)?, bias, [stride, stride], [around, around], [1, 1], groups)
}

/// A linear layer; the last one of each network maps features to logits.
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

    /// Creates the layer with weights from Normal(0, `deviation`²) and a bias of 0.
    pub(super) fn normal(
        state: &mut State,
        name: &str,
        [from, to]: [i64; 2],
        deviation: f32,
    ) -> Result<Self, TchError> {
        Ok(Linear {
            weight: state.normal(format!("{name}.weight"), &[to, from], deviation)?,
            bias: state.constant(format!("{name}.bias"), Role::Parameter, &[to], 0.0)?,
        })
    }

    /// Computes logits, F32, from pooled features.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.map(features)?.f_to_kind(Kind::Float)
    }

    /// Maps the last dimension of features, in their type.
    pub(super) fn map(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let kind = features.kind();
        features.f_linear(&self.weight.f_to_kind(kind)?, Some(&self.bias.f_to_kind(kind)?))
    }

    pub(super) fn freeze(&self, kind: Kind) -> Result<Self, TchError> {
        Ok(Linear { weight: copy(&self.weight, kind)?, bias: copy(&self.bias, kind)? })
    }
}

/// Averages each feature map. Uses `mean`, because the gradient of adaptive pooling on CUDA is not deterministic.
pub(super) fn pool(features: &Tensor) -> Result<Tensor, TchError> {
    features.f_mean_dim([2i64, 3].as_slice(), false, None)
}

/// Copies a tensor into a type; the copy requires no gradient.
pub(super) fn copy(tensor: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
    let _guard = tch::no_grad_guard();
    let mut own = tensor.f_empty_like()?;
    own.f_copy_(tensor)?;
    own.f_to_kind(kind)
}
