//! Random changes of training images as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Random changes of the training images, drawn from (seed, epoch, image).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Mirror left and right with probability one half.
    pub flip: bool,
    /// Pad with so many black pixels on each side and crop back to size at random; 0 leaves images whole.
    pub pad_crop: u32,
    /// Cut a square of this side out of each image at random: of the whole stored image, where otherwise only its
    /// middle is seen. 0 leaves images as they are seen.
    #[serde(skip_serializing_if = "is_zero")]
    pub random_crop: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
