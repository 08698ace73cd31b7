//! Checks that a stage which makes a network has the files that the network comes from, beyond the schema.

use serde_yaml::Value;

use super::diagnostics::Diagnostics;
use super::origin::Origin;
use super::source::{Part, Step};
use super::stage::StageSpec;
use super::validate::key;
use crate::stage_kinds::StageKind;

/// Checks the needs `network` and `weights` of a stage against its `net`.
///
/// `with` holds its parameters, `axes` the axes over instances.
pub(super) fn check(stage: &StageSpec, axes: &[&str], with: &Value, origin: &Origin, notes: &mut Diagnostics) {
    let Some(arch) = with.get("net").and_then(|net| net.get("arch")).and_then(Value::as_str) else { return };
    let is_script = arch == "torchscript";
    let is_filled = |slot: &str| stage.needs.iter().any(|(name, _)| name == slot) || axes.contains(&slot);
    let lacks = |slot: &str| !is_filled(slot) && !stage.may_have_meant(slot);
    let mut tell = |trail: &[Step], message: String, label: &str, help: &str| {
        notes.tell_at(origin.place(trail, Part::Value), message, label, Some(help.to_owned()));
    };
    let at_arch = [key("net"), key("arch")];
    if is_script && lacks("network") {
        let help = "add `network: STAGE`, a stage of kind `file`, to the stage's needs";
        tell(&at_arch, "`torchscript` needs `network`, a TorchScript file".to_owned(), "needs `network`", help);
    }
    if !is_script && is_filled("network") {
        let message = format!("`{arch}` is built in and has no use for the need `network`");
        let help = "write `arch: torchscript`, or remove `network` from the stage's needs";
        tell(&at_arch, message, "takes no `network`", help);
    }
    if stage.kind != Some(StageKind::Pretrained) || !lacks("weights") {
        return;
    }
    let help = "add `weights: STAGE`, a stage of kind `file`, to the stage's needs";
    if !is_script {
        tell(&at_arch, format!("`{arch}` needs `weights`, a file of weights"), "needs `weights`", help);
    }
    for name in ["head", "entry"].iter().filter(|name| with.get(**name).is_some_and(|value| !value.is_null())) {
        let message = format!("`{name}` says what is taken of weights, and there are none");
        tell(&[key(name)], message, "needs `weights`", help);
    }
}
