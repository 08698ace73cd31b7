//! Common corruptions as parameters: which one, how strong, by whose table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A corruption as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Corrupt {
    /// What is done to the image.
    pub kind: Corruption,
    /// How strong it is, from 1 to 5.
    #[schemars(range(min = 1, max = 5))]
    pub severity: u8,
    /// Whose strengths the severity means; if not given, `cifar` for images whose longer side is below 64 pixels,
    /// `imagenet` for larger ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<SeverityTable>,
}

/// Images with a side of at least this are corrupted by the table of ImageNet-C, unless a stage says otherwise.
const LARGE: usize = 64;

impl Corrupt {
    /// The table for images of `height` × `width`.
    pub fn table(&self, height: usize, width: usize) -> SeverityTable {
        let by_size = if height.max(width) < LARGE { SeverityTable::Cifar } else { SeverityTable::Imagenet };
        self.table.unwrap_or(by_size)
    }
}

/// What is done to an image. Values are in [0, 1]; c is the strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Corruption {
    /// Adds normal noise of standard deviation c to each value.
    GaussianNoise,
    /// Replaces each value by a Poisson count of mean c × value, divided by c.
    ShotNoise,
    /// Sets each value with probability c to 0 or 1, each equally likely.
    ImpulseNoise,
    /// Blurs with a disc, smoothed at its edge; beyond its border the image is mirrored.
    DefocusBlur,
    /// Adds c to the value V of HSV; to the value itself in images of one channel.
    Brightness,
    /// Draws each channel towards its mean: c is what is left of the contrast.
    Contrast,
    /// Makes the image smaller by the factor c and large again, both with Pillow's box filter.
    Pixelate,
    /// Smooths the image, copies pixels from nearby places at random, and smooths again.
    GlassBlur,
    /// Blurs along a line of random direction, to one side, as ImageMagick does.
    MotionBlur,
    /// Takes the mean of the image and of its middle, enlarged by several factors.
    ZoomBlur,
    /// Whitens the image and adds flakes, which are noise above a threshold, blurred along the line of their fall.
    Snow,
    /// Adds a fractal surface of random heights (diamond-square), and darkens all so that the brightest value stays.
    Fog,
    /// Moves three points of the image at random and all others with them, then each pixel by a smooth random field.
    /// Lengths are parts of the image's shorter side.
    ElasticTransform,
    /// Saves the image as a JPEG file of quality c and reads it again, with the arithmetic of libjpeg and Pillow.
    JpegCompression,
}

impl Corruption {
    /// Whether it draws random numbers; otherwise its seed changes nothing.
    pub const fn draws(self) -> bool {
        match self {
            Corruption::GaussianNoise
            | Corruption::ShotNoise
            | Corruption::ImpulseNoise
            | Corruption::GlassBlur
            | Corruption::MotionBlur
            | Corruption::Snow
            | Corruption::Fog
            | Corruption::ElasticTransform => true,
            Corruption::DefocusBlur
            | Corruption::Brightness
            | Corruption::Contrast
            | Corruption::Pixelate
            | Corruption::ZoomBlur
            | Corruption::JpegCompression => false,
        }
    }
}

/// Whose strengths a severity means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeverityTable {
    /// Those of CIFAR-10-C, for images of about 32 × 32.
    Cifar,
    /// Those of ImageNet-C, for images of about 224 × 224.
    Imagenet,
}
