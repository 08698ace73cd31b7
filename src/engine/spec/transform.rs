//! What a schema cannot say of a transform: which needs its operation cannot do without, and which parameters go together.

use serde::Deserialize;

use super::defaults::Origin;
use super::instance::Instance;
use super::problem::Problem;
use super::source::{Part, Step};
use crate::kinds::{Kind, Slot, TransformParams};

/// Everything that is wrong with an instance of a transform whose parameters have been read; nothing of other kinds.
pub(super) fn check(instance: &Instance, origin: &Origin) -> Vec<Problem> {
    if instance.kind != Kind::Transform {
        return Vec::new();
    }
    let Ok(params) = TransformParams::deserialize(&instance.params) else { return Vec::new() };
    let place = |name: &str| origin.place(&[Step::Key(name.to_owned())], Part::Value);
    let (op, wanted) = (params.name(), params.needs());
    let need = |slot: &Slot| {
        let (message, label, help) = match (wanted.contains(&slot.name), instance.need(slot.name)) {
            (true, None) => (
                format!("`{op}` needs `{}`, {}", slot.name, slot.takes.name()),
                format!("needs `{}`", slot.name),
                format!("add `{}: STAGE` to the stage's needs", slot.name),
            ),
            (false, Some(_)) => (
                format!("`{op}` has no use for the need `{}`", slot.name),
                format!("takes no `{}`", slot.name),
                format!("remove `{}` from the stage's needs", slot.name),
            ),
            _ => return None,
        };
        Some(Problem::at(place("op"), message, label).help(help))
    };
    let mut problems: Vec<Problem> =
        Kind::Transform.slots().iter().filter(|slot| slot.optional).filter_map(need).collect();
    if let TransformParams::Fourier(fourier) = &params
        && let Some((name, problem)) = fourier.problem()
    {
        problems.push(Problem::at(place(name), format!("`{name}` {problem}"), "here"));
    }
    problems
}
