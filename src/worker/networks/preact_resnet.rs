//! Pre-activation ResNet-18 for small images (He et al. 2016b, "Identity Mappings in Deep Residual Networks").
//!
//! Tensor names (`layer2.0.bn1`, `layer2.0.shortcut.0`, `linear`) are those of kuangliu's code, which the builds below
//! copied; initial weights are PyTorch's, as there.

use atflow::stage_kinds::{Activation, PreactBuild, PreactResnet18};

use super::layers::Padding;
use super::preact::{BlockPlan, Names, Plan, ShortcutOf};
use super::state::ConvInit;
use crate::error::StageError;

/// Blocks of a group.
const BLOCKS: u32 = 2;
/// Groups; channels double and resolution halves from one to the next.
const GROUPS: u32 = 4;
/// Maximum width; a larger one is a mistake in the description.
const WIDEST: u32 = 1 << 10;

/// The names of the tensors.
pub(super) const NAMES: Names = Names {
    stem: "conv1",
    inner: ["bn1", "conv1", "bn2", "conv2"],
    shortcut: "shortcut.0",
    norm: "bn",
    head: "linear",
};

/// Plans a `preact_resnet18`.
pub(super) fn plan(net: &PreactResnet18, channels: usize, classes: usize) -> Result<Plan, StageError> {
    if net.width == 0 || net.width > WIDEST {
        return Err(StageError::setting("net.width", format!("must be between 1 and {WIDEST}, not {}", net.width)));
    }
    let (final_norm, shortcut_of) = match net.build {
        PreactBuild::Rice => (true, ShortcutOf::Activated),
        PreactBuild::Wong => (false, ShortcutOf::Input),
        PreactBuild::Kuangliu => (false, ShortcutOf::Activated),
    };
    let width = i64::from(net.width);
    let of_group = |group: u32| {
        (0..BLOCKS).map(move |index| BlockPlan {
            name: format!("layer{}.{index}", group + 1),
            to: width << group,
            stride: if group > 0 && index == 0 { 2 } else { 1 },
        })
    };
    Ok(Plan {
        names: &NAMES,
        channels: channels as i64,
        stem: width,
        blocks: (0..GROUPS).flat_map(of_group).collect(),
        final_norm,
        classes: classes as i64,
        activation: Activation::Relu,
        shortcut_of,
        strided: Padding::Around,
        init: ConvInit::Default,
        without_initial_bias: false,
    })
}
