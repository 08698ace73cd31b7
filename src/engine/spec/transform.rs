//! What a schema cannot say of a transform: which needs its operation cannot do without.

use serde_yaml::Value;

use super::diagnostics::Notes;
use super::origin::Origin;
use super::source::Part;
use super::stage::StageSpec;
use super::validate::key;
use crate::stage_kinds::{StageKind, TransformParams};

/// Holds the needs of a transform against what its operation has use for; `with` are its parameters, `axes` those that
/// stand at instances. Says nothing of other kinds.
pub(super) fn check(stage: &StageSpec, axes: &[&str], with: &Value, origin: &Origin, notes: &mut Notes) {
    let op = with.get("op").and_then(Value::as_str);
    let (Some(StageKind::Transform), Some(op)) = (stage.kind, op) else { return };
    let Some(wanted) = TransformParams::needs_of(op) else { return };
    for slot in StageKind::Transform.slots().iter().filter(|slot| slot.optional) {
        // Whether what fills the need is right is told elsewhere.
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
