//! Wide residual networks for small images (Zagoruyko and Komodakis 2016), in the two builds of which weights are
//! published. No dropout.
//!
//! - `wideresnet`: names (`block1.layer.0.convShortcut`, `fc`) and initial weights of the most widely copied PyTorch
//!   code, which TRADES and RobustBench copied, too.
//! - `dm_wide_resnet`: names (`layer.0.block.0.batchnorm_0`, `logits`) of DeepMind's PyTorch code (Gowal et al. 2020),
//!   PyTorch's initial weights, and the padding of TensorFlow at stride 2.

use atflow::stage_kinds::{Activation, DmWideResnet, WideResnet};

use super::layers::Padding;
use super::preact::{BlockPlan, Names, Plan, ShortcutOf};
use super::state::ConvInit;
use crate::error::StageError;

/// Output channels of the first convolution.
const STEM: i64 = 16;
/// Maximum depth and width; larger ones are mistakes in the description.
const DEEPEST: u32 = 1 << 12;
const WIDEST: u32 = 1 << 7;

/// The names of the widely copied code.
pub(super) const NAMES: Names =
    Names { stem: "conv1", inner: ["bn1", "conv1", "bn2", "conv2"], shortcut: "convShortcut", norm: "bn1", head: "fc" };

/// The names of DeepMind's code.
pub(super) const DM_NAMES: Names = Names {
    stem: "init_conv",
    inner: ["batchnorm_0", "conv_0", "batchnorm_1", "conv_1"],
    shortcut: "shortcut",
    norm: "batchnorm",
    head: "logits",
};

/// Plans a `wideresnet`.
pub(super) fn plan(net: &WideResnet, channels: usize, classes: usize) -> Result<Plan, StageError> {
    Ok(Plan {
        names: &NAMES,
        channels: channels as i64,
        stem: STEM,
        blocks: blocks(net.depth, net.widen, |group, index| format!("block{}.layer.{index}", group + 1))?,
        final_norm: true,
        classes: classes as i64,
        activation: Activation::Relu,
        shortcut_of: ShortcutOf::Activated,
        strided: Padding::Around,
        init: ConvInit::FanOut,
        without_initial_bias: true,
    })
}

/// Plans a `dm_wide_resnet`.
pub(super) fn dm_plan(net: &DmWideResnet, channels: usize, classes: usize) -> Result<Plan, StageError> {
    Ok(Plan {
        names: &DM_NAMES,
        channels: channels as i64,
        stem: STEM,
        blocks: blocks(net.depth, net.widen, |group, index| format!("layer.{group}.block.{index}"))?,
        final_norm: true,
        classes: classes as i64,
        activation: net.activation,
        shortcut_of: ShortcutOf::Activated,
        strided: Padding::After,
        init: ConvInit::Default,
        without_initial_bias: false,
    })
}

/// Returns three groups of blocks; the second and the third begin with stride 2.
fn blocks(depth: u32, widen: u32, name: impl Fn(u32, u32) -> String) -> Result<Vec<BlockPlan>, StageError> {
    if !(10..=DEEPEST).contains(&depth) || !(depth - 4).is_multiple_of(6) {
        return Err(StageError::setting("net.depth", format!("must be 10, 16, 22, 28, …, not {depth}")));
    }
    if widen == 0 || widen > WIDEST {
        return Err(StageError::setting("net.widen", format!("must be between 1 and {WIDEST}, not {widen}")));
    }
    let of_group = |group: u32| {
        let name = &name;
        (0..(depth - 4) / 6).map(move |index| BlockPlan {
            name: name(group, index),
            to: (STEM << group) * i64::from(widen),
            stride: if group > 0 && index == 0 { 2 } else { 1 },
        })
    };
    Ok((0..3).flat_map(of_group).collect())
}
