//! Adaptive instance normalisation (Huang & Belongie 2017): an encoder, a decoder, and the step between them.
//!
//! Knows neither sets nor how paintings are chosen.
//!
//! The networks are those of the public PyTorch code (naoto0804/pytorch-AdaIN, `net.py`). The encoder is VGG-19 up to
//! relu4_1, with scaled weights; its first layer maps colours by a 1 × 1 convolution. The decoder mirrors the encoder.
//! Tensors have their `nn.Sequential` names. Widths come from the weights, so a narrow pair of networks works too.

use std::collections::BTreeMap;

use tch::{Device, Kind, TchError, Tensor};

use crate::arithmetic::square_root;

/// Added to the variance of a channel.
const EPSILON: f64 = 1e-5;
/// The shortest side of an image: after three halvings, reflection padding needs a side of two pixels.
pub const SHORTEST_SIDE: i64 = 9;

/// A step of a network.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The convolution of this number in the `nn.Sequential`. A 3 × 3 kernel is preceded by reflection padding of one
    /// pixel, and `relu` adds a relu after it.
    Conv { number: u32, kernel: i64, relu: bool },
    /// 2 × 2 max pooling; a last odd row or column is pooled alone.
    Pool,
    /// Upscaling of each pixel to 2 × 2.
    Enlarge,
}

const fn conv(number: u32) -> Step {
    Step::Conv { number, kernel: 3, relu: true }
}

/// `vgg_normalised` up to relu4_1, the layers before number 31.
const ENCODER: &[Step] = &[
    Step::Conv { number: 0, kernel: 1, relu: false },
    conv(2),
    conv(5),
    Step::Pool,
    conv(9),
    conv(12),
    Step::Pool,
    conv(16),
    conv(19),
    conv(22),
    conv(25),
    Step::Pool,
    conv(29),
];

const DECODER: &[Step] = &[
    conv(1),
    Step::Enlarge,
    conv(5),
    conv(8),
    conv(11),
    conv(14),
    Step::Enlarge,
    conv(18),
    conv(21),
    Step::Enlarge,
    conv(25),
    Step::Conv { number: 28, kernel: 3, relu: false },
];

/// Why weights do not fit the networks.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A tensor is missing.
    #[error("it has no tensor `{name}`: the file is no {network} of AdaIN")]
    Missing {
        /// The tensor.
        name: String,
        /// `encoder` or `decoder`.
        network: &'static str,
    },
    /// A tensor has the wrong shape.
    #[error("its tensor `{name}` has the shape {found:?}, not {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<i64>,
        /// The required shape, for messages.
        expected: String,
    },
    /// An operator of libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

struct Layer {
    step: Step,
    weight: Option<(Tensor, Tensor)>,
}

/// One of the two networks.
struct Network {
    layers: Vec<Layer>,
    from: i64,
    to: i64,
}

impl Network {
    fn new(
        name: &'static str,
        steps: &[Step],
        weights: &BTreeMap<String, Tensor>,
        device: Device,
    ) -> Result<Self, WeightsError> {
        let mut layers = Vec::with_capacity(steps.len());
        let mut channels: Option<(i64, i64)> = None;
        for &step in steps {
            let Step::Conv { number, kernel, .. } = step else {
                layers.push(Layer { step, weight: None });
                continue;
            };
            let tensor = |part: &str| -> Result<(String, Tensor), WeightsError> {
                let key = format!("{number}.{part}");
                let missing = || WeightsError::Missing { name: key.clone(), network: name };
                let tensor = weights.get(&key).ok_or_else(missing)?;
                Ok((key, tensor.f_to_kind(Kind::Float)?.f_to_device(device)?.f_contiguous()?))
            };
            let (key, weight) = tensor("weight")?;
            let shape = weight.size();
            let before = channels.map(|(_, to)| to);
            match shape[..] {
                [to, from, high, wide] if (high, wide) == (kernel, kernel) && before.is_none_or(|b| b == from) => {
                    channels = Some((channels.map_or(from, |(first, _)| first), to));
                }
                _ => {
                    let from = before.map_or("any".to_owned(), |before| before.to_string());
                    let expected = format!("[any, {from}, {kernel}, {kernel}]");
                    return Err(WeightsError::Shape { name: key, found: shape, expected });
                }
            }
            let (key, bias) = tensor("bias")?;
            if bias.size() != [shape[0]] {
                let expected = format!("[{}]", shape[0]);
                return Err(WeightsError::Shape { name: key, found: bias.size(), expected });
            }
            layers.push(Layer { step, weight: Some((weight, bias)) });
        }
        let (from, to) = channels.unwrap_or_default();
        Ok(Network { layers, from, to })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let mut values = input.shallow_clone();
        for Layer { step, weight } in &self.layers {
            values = match (step, weight) {
                (Step::Conv { kernel, relu, .. }, Some((weight, bias))) => {
                    let padded = match kernel {
                        1 => values,
                        _ => values.f_reflection_pad2d([1, 1, 1, 1])?,
                    };
                    let mut out = padded.f_conv2d(weight, Some(bias), [1, 1], [0, 0], [1, 1], 1)?;
                    if *relu { out.f_relu_()? } else { out }
                }
                (Step::Pool, _) => values.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], true)?,
                _ => {
                    let (_, _, height, width) = values.size4()?;
                    values.f_upsample_nearest2d([2 * height, 2 * width], None, None)?
                }
            };
        }
        Ok(values)
    }
}

/// Mean and standard deviation of each channel, each N × C × 1 × 1.
pub struct Statistics {
    /// Means.
    pub mean: Tensor,
    /// Square roots of the unbiased variance plus 1e-5.
    pub deviation: Tensor,
}

impl Statistics {
    /// Computes the statistics of features, N × C × H × W.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn of(features: &Tensor) -> Result<Self, TchError> {
        let flat = features.f_flatten(2, 3)?;
        let column = |values: Tensor| values.f_unsqueeze(-1)?.f_unsqueeze(-1);
        let mean = flat.f_mean_dim([-1].as_slice(), false, None)?;
        let variance = flat.f_var_dim([-1].as_slice(), true, false)?;
        let deviation = square_root(&variance.f_add_scalar(EPSILON)?)?;
        Ok(Statistics { mean: column(mean)?, deviation: column(deviation)? })
    }
}

/// Replaces the statistics of features by those of a style (Huang & Belongie 2017, equation 8).
///
/// # Errors
/// Returns the error from libtorch.
pub fn normalised(features: &Tensor, style: &Statistics) -> Result<Tensor, TchError> {
    let own = Statistics::of(features)?;
    features.f_sub(&own.mean)?.f_div(&own.deviation)?.f_mul(&style.deviation)?.f_add(&style.mean)
}

/// An encoder and its decoder.
pub struct Adain {
    encoder: Network,
    decoder: Network,
}

impl Adain {
    /// Returns the names of the tensors that encoder and decoder take.
    pub fn names() -> [Vec<String>; 2] {
        [ENCODER, DECODER].map(|steps| {
            let numbers = steps.iter().filter_map(|step| match step {
                Step::Conv { number, .. } => Some(number),
                Step::Pool | Step::Enlarge => None,
            });
            numbers.flat_map(|number| ["weight", "bias"].map(|part| format!("{number}.{part}"))).collect()
        })
    }

    /// Creates the networks from weights; ignores tensors of later encoder layers.
    ///
    /// # Errors
    /// Any [`WeightsError`], with the name of the need whose file is wrong: `encoder` or `decoder`.
    pub fn new(
        encoder: &BTreeMap<String, Tensor>,
        decoder: &BTreeMap<String, Tensor>,
        device: Device,
    ) -> Result<Self, (&'static str, WeightsError)> {
        let encoder = Network::new("encoder", ENCODER, encoder, device).map_err(|error| ("encoder", error))?;
        let decoder = Network::new("decoder", DECODER, decoder, device).map_err(|error| ("decoder", error))?;
        let fits = |slot, part: &str, expected: i64, found: i64| match expected == found {
            true => Ok(()),
            false => {
                let (name, found) = (format!("{part}.weight"), vec![found]);
                let expected = format!("{expected} channels there");
                Err((slot, WeightsError::Shape { name, found, expected }))
            }
        };
        fits("encoder", "0", 3, encoder.from)?;
        fits("decoder", "1", encoder.to, decoder.from)?;
        fits("decoder", "28", 3, decoder.to)?;
        Ok(Adain { encoder, decoder })
    }

    /// Computes the features of colour images (N × 3 × H × W, [0, 1]) at relu4_1.
    ///
    /// # Errors
    /// Returns the error from libtorch, such as one for images with a side below [`SHORTEST_SIDE`].
    pub fn encode(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.encoder.forward(images)
    }

    /// Decodes features to images; each side is eight times theirs, and values may leave [0, 1].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn decode(&self, features: &Tensor) -> Result<Tensor, TchError> {
        self.decoder.forward(features)
    }

    /// Repaints colour images at their size.
    ///
    /// `alpha` ranges from 0, their own style, to 1, the given style (Huang & Belongie 2017, equation 14).
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn repaint(&self, images: &Tensor, style: &Statistics, alpha: f64) -> Result<Tensor, TchError> {
        let (_, _, height, width) = images.size4()?;
        let features = self.encode(images)?;
        let target = normalised(&features, style)?;
        let mixed = target.f_mul_scalar(alpha)?.f_add(&features.f_mul_scalar(1.0 - alpha)?)?;
        // Pooling rounds sides up: crop the part beyond the image.
        self.decode(&mixed)?.f_narrow(2, 0, height)?.f_narrow(3, 0, width)
    }
}
