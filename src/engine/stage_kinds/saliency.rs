//! Saliency maps as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::headings::Headings;
use super::images::Images;
use crate::number::Real;

/// Draws saliency maps of several models on the same images as one picture, and measures them: a row for each image in
/// each set, a column for each model.
///
/// Needs: `models`, one or more checkpoints; `set`, one or more image sets, such as an original and its transformed
/// versions. Outputs: `grid`, a PNG; `maps`, the maps drawn; `numbers`, `csv` and `markdown`, what was measured on all
/// images.
///
/// A gradient map is that of log p(true class) (paper, section 2.2) summed in absolute value over channels; a map is
/// drawn divided by its 99th percentile and clipped at 1 (authors' code).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaliencyParams {
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Headings of sets that shall have another than their label; a `*` in a label stands for any text.
    #[serde(default, skip_serializing_if = "Headings::is_empty")]
    pub headings: Headings,
    /// How a map is computed.
    #[serde(default)]
    pub method: Method,
    /// Which images of each set: a list of indices, `{first: N}` or `{count: N, seed: S}`, both also of one `class`, or
    /// `{each_class: N}`.
    pub images: Images,
    /// How many of the images are drawn and kept as maps, the first ones; all of a list and 8 of other choices if not
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<u32>,
    /// Also measures how similar the maps of each two models are: Spearman's rank correlation and SSIM (Adebayo et al.
    /// 2018, "Sanity checks for saliency maps"). Maps have no sign here: the correlation is that of absolute values.
    /// SSIM is that of Wang et al. 2004, of the maps as drawn: a Gaussian window of 11 × 11 pixels with σ = 1.5, so
    /// maps with a side below 11 have none. Both are 1 for equal maps. `markdown` has them for the first model and
    /// each other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub similarity: bool,
    /// Also measures how stable the maps are, with so many draws around each image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stability: Option<Stability>,
}

/// How far maps change when images hardly do: relative input and output stability, after Agarwal et al. 2022
/// ("Rethinking stability for attribution-based explanations").
///
/// With map e, logits h, and 2-norms, each image x has the largest of the ratios over the draws x′ of its predicted
/// class. The input ratio is (|e(x′) − e(x)| / |e(x)|) / (|x′ − x| / |x|), for pixels in [0, 1]. The output ratio is
/// (|e(x′) − e(x)| / |e(x)|) / |h(x′) − h(x)|. No denominator is below 1e-6. Small is stable. Agarwal et al. divide
/// pixel by pixel, which is infinite at black pixels; here norms are divided. The seed of the draws is the stage's.
/// SmoothGrad has the same noise for x and x′.
///
/// Measures: `relative_input_stability`, `relative_output_stability`, and `label_kept`, the share of draws that keep
/// the predicted class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stability {
    /// Each pixel is moved by up to this much, drawn uniformly, and cut at 0 and 1; above 0 and at most 1.
    #[serde(default = "default_radius")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub radius: Real,
    /// Draws around each image, at least 1.
    #[serde(default = "default_draws")]
    #[schemars(range(min = 1))]
    pub draws: u32,
}

fn default_radius() -> Real {
    Real::new(0.05)
}

fn default_draws() -> u32 {
    10
}

/// How many images are drawn where they are not listed one by one.
const SHOWN: usize = 8;

impl SaliencyParams {
    /// How many of `count` images are drawn.
    pub fn shown(&self, count: usize) -> usize {
        match (self.show, &self.images) {
            (Some(show), _) => count.min(show as usize),
            (None, Images::Listed(_)) => count,
            (None, Images::Chosen(_)) => count.min(SHOWN),
        }
    }
}

/// How a saliency map is computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// The plain gradient of log p(true class) (Simonyan et al. 2013, who take that of the class's score). It is the
    /// gradient with respect to the normalised image: `std` times the gradient with respect to pixels in [0, 1].
    Grad,
    /// The mean gradient over noisy copies of the image (Smilkov et al. 2017). As in the authors' code the noise is
    /// added to the normalised image, and its standard deviation is `spread` times the range (maximum minus minimum) of
    /// that normalised image.
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
    /// Integrated gradients (Sundararajan et al. 2017) of log p(true class): the mean gradient on the way from a black
    /// image, times the difference from it. Before absolute values are taken they sum to what the image adds to log p
    /// of black, and not to its probability or logit. The integral is computed by the midpoint rule.
    IntegratedGradients {
        /// Points on the way, at least 1.
        #[serde(default = "default_steps")]
        #[schemars(range(min = 1))]
        steps: u32,
    },
    /// Grad-CAM (Selvaraju et al. 2017): the channels of the last group of convolutions, weighted by the mean gradient
    /// of the true class's logit (before the softmax, as in their equation 1), summed, cut off below 0, and enlarged
    /// bilinearly to the image.
    GradCam,
}

impl Method {
    /// Whether the method draws random numbers. The images have a seed of their own.
    pub const fn draws(&self) -> bool {
        matches!(self, Method::Smoothgrad { .. })
    }
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

fn default_steps() -> u32 {
    50
}
