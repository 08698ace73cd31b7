//! What a stage needs: references of its slots resolved to outputs of instances, of the right type and number.

use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::expand::{Expander, Stop};
use super::instance::Need;
use super::matrix::Stand;
use super::problem::Problem;
use super::refs::{Missing, Reference};
use super::source::{Place, YamlPath};
use super::stage::StageSpec;
use crate::kinds::{Kind, Slot};

impl Expander<'_> {
    /// The inputs of a stage at one point of its matrix.
    pub(super) fn needs(&self, stage: &StageSpec, stands: &[&Stand], axes: &Mapping) -> Result<Vec<Need>, Stop> {
        let slots = stage.kind.slots();
        let mut problems = Vec::new();
        let mut missing = Vec::new();
        let mut needs = Vec::new();
        let mut push = |slot: &str, many: bool, reference: Reference| {
            let label = if many { reference.label } else { String::new() };
            let output = reference.output.unwrap_or_default();
            needs.push(Need { slot: slot.to_owned(), label, from: reference.instance, output });
        };
        for (name, value) in &stage.needs {
            let path = || stage.path.key("needs").key(name);
            let slot = slots.iter().find(|slot| slot.name == name);
            if slot.is_none() && stage.kind != Kind::Command {
                let place = Place::key(&stage.file, path());
                let problem =
                    Problem::at(place, format!("a `{}` stage has no need `{name}`", stage.kind), "unknown need");
                let unfilled = slots.iter().map(|slot| slot.name);
                problems.push(match slots {
                    [] => problem.help("this kind needs no other stage: remove `needs`"),
                    _ => problem.suggest(name, unfilled),
                });
                continue;
            }
            let found = self
                .substitute(stage, value, axes, &path, &[])
                .and_then(|value| self.references(stage, &value, &path))
                .and_then(|found| self.choose(stage, found, slot, &path));
            let references = match found {
                Ok(references) => references,
                Err(Stop::Problems(found)) => {
                    problems.extend(found);
                    continue;
                }
                Err(Stop::Missing(names)) => {
                    missing.extend(names);
                    continue;
                }
            };
            let many = slot.map_or(references.len() > 1, |slot| slot.many);
            if !many && references.len() > 1 {
                problems.push(self.too_many(stage, name, &references, path()));
                continue;
            }
            references.into_iter().for_each(|reference| push(name, many, reference));
        }
        for slot in slots.iter().filter(|slot| stage.needs.iter().all(|(name, _)| name != slot.name)) {
            // An axis that stands at instances fills the need of its name.
            let axis = stage.matrix.iter().zip(stands).find(|(axis, _)| axis.name == slot.name);
            if let Some((_, Stand { reference: Some(reference), .. })) = axis {
                push(slot.name, slot.many, reference.clone());
            } else if !slot.optional {
                let message = format!("stage `{}` needs `{}`, {}", stage.name, slot.name, slot.takes.name());
                let place = Place::key(&stage.file, stage.path.clone());
                let problem = Problem::at(place, message, format!("needs `{}`", slot.name));
                problems.push(problem.help(format!("add `needs: {{{}: STAGE}}`", slot.name)));
            }
        }
        match (missing.is_empty(), problems.is_empty()) {
            (true, true) => Ok(needs),
            // What is missing may be misspelt: it is told together with the rest.
            (false, _) => Err(Stop::Missing(missing)),
            (true, false) => Err(Stop::Problems(problems)),
        }
    }

    fn too_many(&self, stage: &StageSpec, name: &str, references: &[Reference], path: YamlPath) -> Problem {
        let shown: Vec<String> =
            references.iter().take(4).map(|found| format!("`{}`", self.instance(found.instance).name)).collect();
        let message = format!("`{name}` takes one input, and {} instances fit", references.len());
        Problem::at(Place::value(&stage.file, path), message, "more than one")
            .help(format!("name one, such as {}, or fan out with `matrix: {{{name}: {{each: …}}}}`", shown.join(", ")))
    }

    /// The instances that a reference or a list of references means.
    pub(super) fn references(
        &self,
        stage: &StageSpec,
        value: &Value,
        path: &dyn Fn() -> YamlPath,
    ) -> Result<Vec<Reference>, Stop> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        let mut problems = Vec::new();
        let mut one = |value: &Value, path: &dyn Fn() -> YamlPath| {
            let mut wrong = |message: String, label: &str, help: Option<String>| {
                let mut problem = Problem::at(Place::value(&stage.file, path()), message, label);
                problem.help = help;
                problems.push(problem);
            };
            let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
                let message = format!("expected the name of a stage or of an instance; this is {}", describe(value));
                return wrong(message, "not a name", None);
            };
            match self.find(text) {
                Ok(references) => found.extend(references),
                Err(Missing::Stage(name)) => missing.push((name, path())),
                Err(Missing::Instance { message, help }) => wrong(message, "fits nothing", help),
            }
        };
        match value {
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    one(item, &|| path().index(index));
                }
            }
            value => one(value, path),
        }
        if !missing.is_empty() {
            return Err(Stop::Missing(missing));
        }
        if value.as_sequence().is_some_and(Vec::is_empty) {
            let message = "this list names no stage";
            let problem = Problem::at(Place::value(&stage.file, path()), message, "empty");
            problems.push(problem.help("name at least one, or remove the need"));
        }
        if !problems.is_empty() {
            return Err(Stop::Problems(problems));
        }
        self.label(&mut found);
        Ok(found)
    }

    /// Chooses the output that each reference means.
    pub(super) fn choose(
        &self,
        stage: &StageSpec,
        mut found: Vec<Reference>,
        slot: Option<&Slot>,
        path: &dyn Fn() -> YamlPath,
    ) -> Result<Vec<Reference>, Stop> {
        for reference in &mut found {
            let instance = self.instance(reference.instance);
            reference.output = Some(reference.choose_output(instance, slot).map_err(|(message, help)| {
                let mut problem = Problem::at(Place::value(&stage.file, path()), message, "does not fit");
                problem.help = help;
                Stop::Problems(vec![problem])
            })?);
        }
        Ok(found)
    }
}
