//! Several evaluations as one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pointwise worst case of several evaluations of one model on the same images: an image counts as correct only if
/// it is correct in all of them. So attacks of other programs, several norms, or one attack with several radii become
/// one ensemble (Croce and Hein 2020, section 5).
///
/// Need: `results`, predictions of the same images in the same order, at least two. Output: `predictions`. An image
/// that some of them broke has the row of the first that did, in the order of `needs`; one that none broke has the row
/// of its largest loss. `broken_by` tells which it was, by the names of the instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorstCaseParams {}
