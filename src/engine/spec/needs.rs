//! Resolves the needs of a stage: references become outputs of instances, checked for type and number.

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::instance::Need;
use super::matrix::Stand;
use super::poison::is_unknown;
use super::problem::Problem;
use super::refs::{Maker, Missing, Reference};
use super::source::{Place, YamlPath};
use super::stage::StageSpec;
use crate::stage_kinds::{Slot, StageKind};

/// Resolved references; `is_whole` is false if some are unknown.
pub(super) struct Resolved {
    pub references: Vec<Reference>,
    /// Stages with unknown instances, and the output named for each.
    pub unknown: Vec<(String, Option<String>)>,
    pub is_whole: bool,
}

/// The inputs of an instance; `is_whole` is false if some are unknown.
pub(super) struct Needs {
    pub needs: Vec<Need>,
    pub is_whole: bool,
}

impl Expander<'_> {
    /// Returns the inputs of a stage at one point of its matrix.
    pub(super) fn needs(&self, stage: &StageSpec, stands: &[&Stand], axes: &Mapping, notes: &mut Diagnostics) -> Needs {
        let slots = stage.slots();
        let mut found = Needs { needs: Vec::new(), is_whole: !stage.lost.needs };
        for (name, value) in &stage.needs {
            let path = || stage.path.key("needs").key(name);
            let slot = slots.iter().find(|slot| slot.name == name);
            if slot.is_none() && !stage.names_own_needs() {
                self.unknown_need(stage, name, path(), notes);
            }
            let value = self.substitute(stage, value, axes, &path, &[], notes);
            let references = self.references(stage, &value, &path, notes);
            if slot.is_none() && !stage.names_own_needs() {
                continue;
            }
            let Resolved { references, is_whole, .. } = self.choose(stage, references, slot, &path, notes);
            found.is_whole &= is_whole;
            let many = slot.map_or(references.len() > 1, |slot| slot.many);
            if !many && references.len() > 1 {
                notes.tell(self.too_many(stage, name, &references, path()));
                found.is_whole = false;
                continue;
            }
            let is_labelled = many && (references.len() > 1 || slot.is_none_or(|slot| !slot.parts));
            found.needs.extend(references.into_iter().map(|reference| reference.fills(name, is_labelled)));
        }
        for slot in slots.iter().filter(|slot| stage.needs.iter().all(|(name, _)| name != slot.name)) {
            // An axis over instances fills the need of the same name.
            let axis = stage.matrix.iter().zip(stands).find(|(axis, _)| axis.name == slot.name);
            match axis {
                Some((_, Stand { reference: Some(reference), .. })) => {
                    found.needs.push(reference.clone().fills(slot.name, slot.many && !slot.parts));
                }
                Some((_, stand)) if is_unknown(&stand.value) => found.is_whole = false,
                _ if slot.optional => {}
                _ => {
                    found.is_whole = false;
                    if !stage.may_have_meant(slot.name) {
                        let message = format!("stage `{}` needs `{}`, {}", stage.name, slot.name, slot.takes.name());
                        let help = Some(format!("add `needs: {{{}: STAGE}}`", slot.name));
                        let label = format!("needs `{}`", slot.name);
                        notes.tell_at(Place::key(&stage.file, stage.path.clone()), message, &label, help);
                    }
                }
            }
        }
        found
    }

    fn unknown_need(&self, stage: &StageSpec, name: &str, path: YamlPath, notes: &mut Diagnostics) {
        let (kind, slots) = (stage.kind.unwrap_or(StageKind::Command), stage.slots());
        let message = format!("a `{kind}` stage has no need `{name}`");
        let problem = Problem::at(Place::key(&stage.file, path), message, "unknown need");
        notes.tell(match slots {
            [] => problem.help("this kind needs no other stage: remove `needs`"),
            _ => problem.suggest(name, slots.iter().map(|slot| slot.name)),
        });
    }

    fn too_many(&self, stage: &StageSpec, name: &str, references: &[Reference], path: YamlPath) -> Problem {
        let shown: Vec<String> =
            references.iter().take(4).map(|found| format!("`{}`", self.instance(found.instance).name)).collect();
        let message = format!("`{name}` takes one input, and {} instances fit", references.len());
        Problem::at(Place::value(&stage.file, path), message, "more than one")
            .help(format!("name one, such as {}, or fan out with `matrix: {{{name}: {{each: …}}}}`", shown.join(", ")))
    }

    /// Resolves a reference or a list of references to instances.
    pub(super) fn references(
        &self,
        stage: &StageSpec,
        value: &Value,
        path: &dyn Fn() -> YamlPath,
        notes: &mut Diagnostics,
    ) -> Resolved {
        let mut found = Resolved { references: Vec::new(), unknown: Vec::new(), is_whole: true };
        match value {
            Value::Sequence(items) if items.is_empty() => {
                let help = Some("name at least one, or remove the need".to_owned());
                notes.tell_at(Place::value(&stage.file, path()), "this list names no stage", "empty", help);
                found.is_whole = false;
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.reference(stage, item, &|| path().index(index), &mut found, notes);
                }
            }
            value => self.reference(stage, value, path, &mut found, notes),
        }
        self.label(&mut found.references);
        found
    }

    fn reference(
        &self,
        stage: &StageSpec,
        value: &Value,
        path: &dyn Fn() -> YamlPath,
        found: &mut Resolved,
        notes: &mut Diagnostics,
    ) {
        let place = || Place::value(&stage.file, path());
        let missing = match value.as_str() {
            Some(text) if !text.is_empty() => match self.find(stage, text) {
                Ok(references) => return found.references.extend(references),
                Err(missing) => Some(missing),
            },
            _ => None,
        };
        found.is_whole = false;
        match missing {
            None if is_unknown(value) => {}
            None => {
                let message = format!("expected the name of a stage or of an instance; this is {}", describe(value));
                notes.tell_at(place(), message, "not a name", None);
            }
            Some(Missing::Stage(name)) => notes.missing.push((name, path())),
            Some(Missing::Instance { message, help }) => notes.tell_at(place(), message, "fits nothing", help),
            Some(Missing::Told(name, output)) => found.unknown.push((name, output)),
        }
    }

    /// Chooses the output of each reference.
    pub(super) fn choose(
        &self,
        stage: &StageSpec,
        found: Resolved,
        slot: Option<&Slot>,
        path: &dyn Fn() -> YamlPath,
        notes: &mut Diagnostics,
    ) -> Resolved {
        let Resolved { references, unknown, mut is_whole } = found;
        let mut wrong = |(message, help): (String, Option<String>)| {
            notes.tell_at(Place::value(&stage.file, path()), message, "does not fit", help);
        };
        // The kind of such a stage may still be known. The outputs of an evaluation depend on its parameters.
        let is_told = |output: &Option<String>, kind: StageKind| kind == StageKind::Evaluate && output.is_some();
        for (name, output) in &unknown {
            let kind = self.spec.stage(name).and_then(|stage| self.spec.stages[stage].kind);
            if let Some(Err(error)) = kind
                .filter(|kind| !is_told(output, *kind))
                .and_then(|kind| Maker::of_kind(name, kind))
                .map(|maker| maker.choose(output.as_deref(), slot))
            {
                wrong(error);
            }
        }
        let mut chosen = Vec::with_capacity(references.len());
        for mut reference in references {
            let Some(maker) = Maker::of(self.instance(reference.instance)) else {
                is_whole = false;
                continue;
            };
            match maker.choose(reference.output.as_deref(), slot) {
                Ok(output) => {
                    reference.output = Some(output);
                    chosen.push(reference);
                }
                Err(error) => {
                    wrong(error);
                    is_whole = false;
                }
            }
        }
        Resolved { references: chosen, unknown, is_whole }
    }
}
