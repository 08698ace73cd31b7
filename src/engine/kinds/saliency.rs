//! Saliency maps as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// Draws saliency maps of several models on the same images as one picture: a row for each image, a column for each model.
///
/// Needs: `models`, one or more checkpoints; `set`, an image set. Outputs: `grid`, a PNG; `maps`, the numbers.
///
/// A map is the gradient of log p(true class) (paper, section 2.2); it is drawn as its absolute value summed over channels, divided by its
/// 99th percentile, clipped at 1 (authors' code).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaliencyParams {
    /// How a map is computed.
    #[serde(default)]
    pub method: Method,
    /// Which images, by their index in the set.
    pub images: Vec<u32>,
}

/// How a saliency map is computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Method {
    /// The plain gradient (Simonyan et al. 2013).
    Grad,
    /// The mean gradient over noisy copies of the image (Smilkov et al. 2017). As in the authors' code the noise is added to the normalised
    /// image, and its standard deviation is `spread` times the range (maximum minus minimum) of that normalised image.
    Smoothgrad {
        /// Noisy copies, at least 1.
        #[serde(default = "default_samples")]
        #[schemars(range(min = 1))]
        samples: u32,
        /// Standard deviation of the noise over the range of the image, 0 or more.
        #[serde(default = "default_spread")]
        #[schemars(extend("minimum" = 0))]
        spread: Real,
    },
}

impl Default for Method {
    fn default() -> Self {
        Method::Smoothgrad { samples: default_samples(), spread: default_spread() }
    }
}

fn default_samples() -> u32 {
    100
}

fn default_spread() -> Real {
    Real::new(0.1)
}
