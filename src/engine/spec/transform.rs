//! Checks that a transform has the needs that its operation requires, beyond the schema.

use serde_yaml::Value;

use super::diagnostics::Diagnostics;
use super::origin::Origin;
use super::source::Part;
use super::stage::StageSpec;
use super::validate::key;
use crate::stage_kinds::{StageKind, TransformParams};

/// Checks the needs of a transform against its operation; ignores other kinds.
///
/// `with` holds its parameters, `axes` the axes over instances.
pub(super) fn check(stage: &StageSpec, axes: &[&str], with: &Value, origin: &Origin, notes: &mut Diagnostics) {
    let op = with.get("op").and_then(Value::as_str);
    let (Some(StageKind::Transform), Some(op)) = (stage.kind, op) else { return };
    let Some(wanted) = TransformParams::needs_of(op) else { return };
    for slot in StageKind::Transform.slots().iter().filter(|slot| slot.optional) {
        // Another check covers whether the need's value is valid.
        let is_filled = stage.needs.iter().any(|(name, _)| name == slot.name) || axes.contains(&slot.name);
        let (message, label, help) = match (wanted.contains(&slot.name), is_filled) {
            (true, false) if !stage.may_have_meant(slot.name) => (
                format!("`{op}` needs `{}`, {}", slot.name, slot.takes.name()),
                format!("needs `{}`", slot.name),
                format!("add `{}: STAGE` to the stage's needs", slot.name),
            ),
            (false, true) => (
                format!("`{op}` has no use for the need `{}`", slot.name),
                format!("takes no `{}`", slot.name),
                format!("remove `{}` from the stage's needs", slot.name),
            ),
            _ => continue,
        };
        notes.tell_at(origin.place(&[key("op")], Part::Value), message, &label, Some(help));
    }
}
