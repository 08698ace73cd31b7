//! Formal parameters: what the workflow and its tools take and give, and how these are connected.

use serde_json::{Value as Json, json};

use super::builder::Builder;
use super::entities::iri;
use crate::parameters::shown;

/// A formal parameter.
pub(super) struct Formal<'n> {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: &'n str,
    /// The type of its values.
    pub is: &'static str,
}

impl Builder<'_> {
    /// Adds a formal parameter with a value or a file that it had in the run.
    pub(super) fn add_formal(&mut self, formal: &Formal<'_>, example: &str) {
        let properties = json!({ "name": formal.name, "additionalType": formal.is });
        self.entities.add(&formal.id, &["FormalParameter"], properties);
        self.entities.link(&formal.id, "workExample", example);
        self.entities.link(example, "exampleOfWork", &formal.id);
    }

    /// Connects two formal parameters. `by` is who receives: a step, or the workflow for its own outputs.
    pub(super) fn connect(&mut self, source: &str, target: &str, by: &str) {
        // Within the workflow's file, the part after `#` names a parameter.
        let part = |id: &str| id.split_once('#').map_or(id, |(_, part)| part).to_owned();
        let id = format!("#connection/{}/to/{}", part(source), part(target));
        self.entities.add(&id, &["ParameterConnection"], json!({}));
        self.entities.link(&id, "sourceParameter", source);
        self.entities.link(&id, "targetParameter", target);
        self.entities.link(by, "connection", &id);
    }

    /// Adds the parameters of the pipeline that a stage uses, as inputs of the workflow and of the stage's tool;
    /// returns the ids of their values.
    pub(super) fn add_parameters(&mut self, stage: &str) -> Vec<String> {
        let names = self.uses.get(stage).cloned().unwrap_or_default();
        let values = self.from.spec.parameters();
        let used = names.iter().filter_map(|name| Some((name, values.get(name)?)));
        used.map(|(name, value)| self.add_parameter(stage, name, value)).collect()
    }

    fn add_parameter(&mut self, stage: &str, name: &str, value: &Json) -> String {
        let (is, value) = typed(value);
        let id = format!("#parameter/{}", iri(name));
        let value = if let Json::String(text) = &value { json!(self.shown(text)) } else { value };
        self.entities.add(&id, &["PropertyValue"], json!({ "name": name, "value": value }));
        let (outer, inner) = (self.input("", name), self.input(stage, name));
        self.add_formal(&Formal { id: outer.clone(), name, is }, &id);
        self.add_formal(&Formal { id: inner.clone(), name, is }, &id);
        let (workflow, tool, step) = (self.workflow.clone(), self.tool(stage), self.step(stage));
        self.entities.link(&workflow, "input", &outer);
        self.entities.link(&tool, "input", &inner);
        self.connect(&outer, &inner, &step);
        id
    }
}

/// Returns the type of a parameter's value, and the value as the profile has it: a list is its JSON text.
fn typed(value: &Json) -> (&'static str, Json) {
    match value {
        Json::Bool(_) => ("Boolean", value.clone()),
        Json::Number(number) if number.is_f64() => ("Float", value.clone()),
        Json::Number(_) => ("Integer", value.clone()),
        other => ("Text", shown(Some(other)).into()),
    }
}
