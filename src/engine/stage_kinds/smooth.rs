//! A blur of feature maps as a parameter of networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::number::Real;

/// A fixed Gaussian blur of feature maps, each channel on its own, in training and in use. It has no weights.
///
/// The kernel reaches ⌈3 σ⌉ places to each side. At the border it is divided by the part of it that lies inside, so
/// that a constant map stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smooth {
    /// Standard deviation in places of the feature map, above 0 and at most 16.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 16))]
    pub sigma: Real,
    /// Which feature maps are blurred.
    pub after: SmoothAfter,
}

/// Which feature maps are blurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmoothAfter {
    /// Those of the stem, after its ReLU, and after its max-pool if it has one.
    Stem,
    /// Those of every group of blocks.
    Groups,
}
