//! Transformed test sets as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::corrupt::Corrupt;
use crate::number::Real;

/// A change made to every image of a set, or a draw of some of its images. Labels and order stay.
///
/// Needs: `data`, an image set; for `stylize` also `style`, an image set of paintings; for `stylize` and `cue_conflict`
/// the files `encoder` and `decoder`, the weights of AdaIN's two networks. Output: `images`, an image set of 8-bit
/// pixels, clamped to [0, 1] and rounded as a saved picture is; of `sample`, images as they are stored in `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum TransformParams {
    /// Pushes pixels towards black and white (Zhang & Zhu 2019, section 3.2): v' = sign(2v−1) |2v−1|^(2/level) / 2 +
    /// 1/2, clamped to [0, 1].
    Saturate(Saturate),
    /// Cuts the image into k × k equal pieces and puts them back in an order drawn for each image from (seed, image
    /// index), the identity included (Zhang & Zhu 2019, section 3.2).
    PatchShuffle(PatchShuffle),
    /// Removes some of the image's frequencies (Zhang & Zhu 2019, appendix; Jo & Bengio 2017): the two-dimensional
    /// spectrum of each channel is multiplied by a mask of zeros and ones. A filtered image leaves [0, 1] here and
    /// there; the authors' code neither clamps nor rounds it, here both is done, as with every transformed set.
    Fourier(Fourier),
    /// Repaints the image in the style of a painting, by adaptive instance normalisation (Huang & Belongie 2017,
    /// equation 8) as in Stylized-ImageNet (Geirhos et al. 2019). The painting is drawn for each image from (seed,
    /// image index), every one equally likely.
    ///
    /// The networks are those of the public PyTorch code (naoto0804/pytorch-AdaIN): `vgg_normalised` up to relu4_1, and
    /// its decoder, with the names and shapes of their files; widths are taken from the files. Images need at least 9 ×
    /// 9 pixels; what comes out larger, since pooling rounds up, is cut to the size of the image. A set of one channel
    /// is shown to the networks as grey, and the result is turned to grey (0.299 R + 0.587 G + 0.114 B).
    Stylize(Stylize),
    /// Repaints the image in the style of an image of another class of the same set: a cue conflict (Geirhos et al.
    /// 2019, section 2.3). The class is drawn for each image from (seed, image index), then the image within it, each
    /// equally likely. The output says the class of each texture, so that shape bias can be computed. The networks are
    /// those of `stylize`.
    CueConflict(CueConflict),
    /// Draws images of the set without replacement, every choice equally likely, by the stage's seed; they keep the
    /// set's order, and are stored and seen as in the set. Many published test sets are stored class by class: their
    /// first images are of few classes, a draw is of all. Of one set and seed, a smaller draw is part of a larger one.
    Sample(Sample),
    /// Corrupts the image as CIFAR-10-C and ImageNet-C do (Hendrycks & Dietterich 2019), with the strengths of the
    /// authors' code. Random numbers are drawn for each image from (seed, image index), so that images differ from
    /// the published ones where a corruption is random. Of the 15 corruptions, only frost is missing, which needs
    /// photographs. The authors' code cuts values off to bytes, here they are rounded.
    Corrupt(Corrupt),
}

impl TransformParams {
    /// The optional needs that the operation of a name cannot do without, it has no use for the others; none if there
    /// is no such operation.
    pub fn needs_of(name: &str) -> Option<&'static [&'static str]> {
        match name {
            "saturate" | "patch_shuffle" | "fourier" | "sample" | "corrupt" => Some(&[]),
            "stylize" => Some(&["style", "encoder", "decoder"]),
            "cue_conflict" => Some(&["encoder", "decoder"]),
            _ => None,
        }
    }

    /// The operation's name, as a pipeline file has it.
    pub const fn name(&self) -> &'static str {
        match self {
            TransformParams::Saturate(_) => "saturate",
            TransformParams::PatchShuffle(_) => "patch_shuffle",
            TransformParams::Fourier(_) => "fourier",
            TransformParams::Stylize(_) => "stylize",
            TransformParams::CueConflict(_) => "cue_conflict",
            TransformParams::Sample(_) => "sample",
            TransformParams::Corrupt(_) => "corrupt",
        }
    }
}

impl TransformParams {
    /// Whether the operation draws random numbers; otherwise its seed changes nothing.
    pub fn draws(&self) -> bool {
        match self {
            TransformParams::Saturate(_) => false,
            TransformParams::Fourier(fourier) => fourier.filter == Filter::Random,
            TransformParams::Corrupt(corrupt) => corrupt.kind.draws(),
            TransformParams::PatchShuffle(_)
            | TransformParams::Stylize(_)
            | TransformParams::CueConflict(_)
            | TransformParams::Sample(_) => true,
        }
    }
}

/// Saturation as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saturate {
    /// Saturation level p, above 0; 2 leaves the image as it is, larger values wipe out texture.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub level: Real,
}

/// Patch shuffle as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchShuffle {
    /// Pieces per side, at least 1; height and width must be multiples of it.
    #[schemars(range(min = 1))]
    pub k: u32,
    /// Where the shuffled pieces are laid.
    #[serde(default, skip_serializing_if = "Assembly::is_default")]
    pub assembly: Assembly,
}

/// Where shuffled pieces are laid; the pieces themselves are counted along rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Assembly {
    /// Along rows: an order that changes nothing leaves the image as it is.
    #[default]
    Rows,
    /// Along columns, as the authors' code does it: an order that changes nothing transposes the grid. Every order is
    /// as likely as with `rows`.
    Columns,
}

impl Assembly {
    fn is_default(&self) -> bool {
        *self == Assembly::Rows
    }
}

/// A Fourier filter as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fourier {
    /// Which frequencies are kept.
    pub filter: Filter,
    /// Where the mask has its centre.
    #[serde(default)]
    pub mask: Mask,
    /// Radius of the disc in modes, 0 or more; required by `low_pass` and `high_pass`. It does not scale with the size
    /// of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub radius: Option<Real>,
    /// Of `random`: the probability with which a mode is set to 0, from 0 to 1; 0.1 if not given, as in the authors'
    /// code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub p: Option<Real>,
}

/// The authors' default for [`Fourier::p`].
const DROPPED: f64 = 0.1;

impl Fourier {
    /// The probability with which the random filter drops a mode.
    pub fn dropped(&self) -> f64 {
        self.p.map_or(DROPPED, Real::get)
    }

    /// What a schema cannot say of the parameters: the name of the one that is wrong, and what is wrong with it.
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        match (self.filter, &self.radius, &self.p) {
            (Filter::Random, Some(_), _) => Some(("radius", "belongs to `low_pass` and `high_pass`; `random` has `p`")),
            (Filter::LowPass | Filter::HighPass, _, Some(_)) => {
                Some(("p", "belongs to `random`; `low_pass` and `high_pass` have `radius`"))
            }
            (Filter::LowPass | Filter::HighPass, None, _) => {
                Some(("filter", "needs a `radius`, in modes of the spectrum"))
            }
            _ => None,
        }
    }
}

/// Which frequencies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The low ones.
    LowPass,
    /// The high ones.
    HighPass,
    /// Each mode of each channel with probability 1 − `p`, drawn from (seed, image index).
    Random,
}

/// Where the mask has its centre, and how the masked spectrum becomes an image again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// As in the authors' code: the disc lies in the unshifted spectrum round (H/2 − 1, W/2 − 1), next to the highest
    /// frequency; `low_pass` keeps the modes farther from there than `radius`, `high_pass` those nearer. A larger
    /// radius thus removes more of the image with `low_pass` and less with `high_pass`. The mask is not symmetric; the
    /// image is the inverse of the half spectrum of columns 0 to W/2.
    #[default]
    Authors,
    /// A disc round frequency 0: `low_pass` keeps the modes whose frequency is at most `radius`, `high_pass` the
    /// others. Masks are symmetric, so that exactly the dropped modes are missing from the image.
    Centred,
}

/// Style transfer as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stylize {
    /// How much of the style is taken on, 0 to 1 (Huang & Belongie 2017, equation 14).
    #[serde(default = "default_alpha")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub alpha: Real,
}

/// A cue conflict as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CueConflict {
    /// How much of the style is taken on, 0 to 1.
    #[serde(default = "default_alpha")]
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub alpha: Real,
}

/// A draw of images as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Images that are drawn, at least 1 and no more than the set has.
    #[schemars(range(min = 1))]
    pub count: u32,
}

fn default_alpha() -> Real {
    Real::new(1.0)
}
