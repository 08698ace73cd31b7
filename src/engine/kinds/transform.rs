//! Transformed test sets as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// A change made to every image of a set. Labels and order stay.
///
/// Need: `data`, an image set. Output: `images`, an image set of 8-bit pixels, rounded as a saved picture is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum TransformParams {
    /// Pushes pixels towards black and white.
    Saturate(Saturate),
    /// Cuts the image into a grid and shuffles the pieces.
    PatchShuffle(PatchShuffle),
}

/// Saturation (Zhang & Zhu 2019, section 3.2): v' = sign(2v−1) |2v−1|^(2/level) / 2 + 1/2, clamped to [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saturate {
    /// Saturation level p, above 0; 2 leaves the image as it is, larger values wipe out texture.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub level: Real,
}

/// Patch shuffle (Zhang & Zhu 2019, section 3.2): the image is cut into k × k equal pieces, which are put back in an order drawn
/// for each image from (seed, image index), the identity included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchShuffle {
    /// Pieces per side, at least 1; height and width must be multiples of it.
    #[schemars(range(min = 1))]
    pub k: u32,
}
