//! A checkpoint with layers that have lost what they learned, as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes a checkpoint whose upper layers are random: cascading randomisation (Adebayo et al. 2018, "Sanity checks for
/// saliency maps", section 3).
///
/// Needs: `model`, a checkpoint. Output: `checkpoint`.
///
/// All parameters from the last layer down to `down_to` get the initial weights that a training would start from, drawn
/// by the stage's seed. All other parameters stay, and so do the running statistics of batch norms: the authors' code
/// initialises trainable variables alone. A saliency map of such a network that looks like the trained one's shows
/// little of what those layers learned. A saliency stage with `similarity` measures how alike they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomisedParams {
    /// The lowest layer that is randomised, by the name that its tensors begin with: `linear` or `fc` is the last layer
    /// of a ResNet alone, `layer3` randomises that group and all after it, `conv1` all layers. The order is that of the
    /// tensors in the checkpoint.
    #[schemars(length(min = 1))]
    pub down_to: String,
}
