//! Fourier heat maps as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// Measures how often models err when a wave of a single frequency is added to the images, for every frequency: a
/// Fourier heat map (Yin et al. 2019, "A Fourier perspective on model robustness in computer vision", section 2).
///
/// Needs: `models`, one or more checkpoints; `set`, an image set. Outputs: `png`, `svg` and `pdf`, a map for each model
/// with one scale for all, frequency 0 in the middle; `csv`, `json` and `markdown`, the numbers.
///
/// The wave of a frequency is a cosine over the image whose 2-norm is 1. It is multiplied by `norm`, added to each
/// channel with a sign drawn from (seed, image index), and the result is clamped to [0, 1]. All models see the same
/// signs. Real images have about H × W / 2 frequencies, and the stage classifies all its images once for each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FourierMapParams {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The 2-norm of what is added to each channel, for pixels in [0, 1]; above 0. Yin et al. take 4 for CIFAR-10 and
    /// 15.7 for ImageNet.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub norm: Real,
    /// Images computed at a time; changes results by rounding only.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Only the first so many images of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
}

fn default_batch_size() -> u32 {
    256
}
