//! What was done: an action for each instance, one that controls it, one for the whole run, and one for the engine.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::builder::Builder;
use super::entities::iri;
use super::formal::Formal;
use super::times::{before, time};
use crate::cache::{FailedStage, Manifest, RunOutcome};
use crate::spec::{Instance, InstanceId};

/// The run of the whole workflow.
pub(super) const RUN: &str = "#run";

/// The run of the engine.
const ENGINE_RUN: &str = "#engine-run";

const COMPLETED: &str = "http://schema.org/CompletedActionStatus";
const FAILED: &str = "http://schema.org/FailedActionStatus";

impl Builder<'_> {
    /// Adds a step and a tool for each stage, and an action for each instance.
    pub(super) fn add_steps(&mut self) {
        let names = self.from.spec.stage_names();
        let position: HashMap<String, usize> = names.into_iter().zip(1..).collect();
        for id in self.instances.clone() {
            let instance = self.from.graph.instance(id);
            self.add_step(instance, position.get(&instance.stage).copied().unwrap_or(0));
            self.add_action(instance);
            self.add_inputs(id);
            self.add_outputs(instance);
        }
    }

    fn add_action(&mut self, instance: &Instance) {
        let id = self.action(&instance.name);
        let (manifest, failed) = (self.manifest(instance), self.from.results.run.failed.get(&instance.name));
        let properties = match (manifest, failed) {
            (Some(manifest), _) => self.completed(instance, manifest),
            (None, Some(failed)) => self.failed(failed),
            (None, None) => return,
        };
        let is_completed = manifest.is_some();
        self.entities.add(&id, &["CreateAction"], json!({ "name": format!("make {}", instance.name) }));
        self.entities.add(&id, &["CreateAction"], properties);
        let (tool, step) = (self.tool(&instance.stage), self.step(&instance.stage));
        self.entities.link(&id, "instrument", &tool);
        if let Some(user) = self.makers.get(&instance.name).cloned() {
            self.add_agent(&id, &user);
        }
        if let Some(manifest) = manifest {
            let file = self.add_manifest(manifest);
            self.entities.link(&id, "subjectOf", &file);
            self.add_usage(&id, manifest);
        }
        let control = format!("#control/{}", iri(&instance.name));
        let status = if is_completed { COMPLETED } else { FAILED };
        let about = json!({ "name": format!("schedule {}", instance.name), "actionStatus": status });
        self.entities.add(&control, &["ControlAction"], about);
        self.entities.link(&control, "instrument", &step);
        self.entities.link(&control, "object", &id);
        self.entities.link(ENGINE_RUN, "object", &control);
    }

    fn completed(&self, instance: &Instance, manifest: &Manifest) -> Json {
        let made = &manifest.made;
        let is_new = self.results.get(instance.name.as_str()).is_some_and(|stage| stage.ran.is_some());
        let summary = self.shown(&made.summary);
        let summary = if summary.is_empty() { "Made".to_owned() } else { summary };
        let whence = if is_new { "made in this run" } else { "taken from the cache, where an earlier run left it" };
        json!({
            "description": format!("{summary}; {whence}."),
            "startTime": before(&made.at, made.seconds),
            "endTime": time(&made.at),
            "actionStatus": COMPLETED,
        })
    }

    fn failed(&self, failed: &FailedStage) -> Json {
        let failure = &failed.failure;
        let words = [std::slice::from_ref(&failure.message), &failure.causes].concat().join(": ");
        json!({
            "description": "The stage failed in this run.",
            "startTime": before(&failed.at, failed.seconds),
            "endTime": time(&failed.at),
            "actionStatus": FAILED,
            "error": self.shown(&words),
        })
    }

    /// Adds how long an action took and how much memory its worker needed.
    fn add_usage(&mut self, action: &str, manifest: &Manifest) {
        let made = &manifest.made;
        let mut add = |name: &str, what: &str, value: Json, unit: &str| {
            let id = format!("{action}/{name}");
            let about = json!({ "name": what, "propertyID": name, "value": value, "unitCode": unit });
            self.entities.add(&id, &["PropertyValue"], about);
            self.entities.link(action, "resourceUsage", &id);
        };
        add("seconds", "duration", json!(made.seconds), "http://qudt.org/vocab/unit/SEC");
        add("threads", "CPU threads", json!(made.threads), "http://qudt.org/vocab/unit/NUM");
        if let Some(bytes) = made.peak_memory {
            add("peak_memory", "peak memory of the worker", json!(bytes), "http://qudt.org/vocab/unit/BYTE");
        }
    }

    /// Adds what an instance read: parameters, results of other instances, and source files.
    fn add_inputs(&mut self, id: InstanceId) {
        let graph = self.from.graph;
        let instance = graph.instance(id);
        let stage = instance.stage.as_str();
        let action = self.action(&instance.name);
        for value in self.add_parameters(stage) {
            self.entities.link(&action, "object", &value);
            self.entities.link(RUN, "object", &value);
        }
        for need in &instance.needs {
            let producer = graph.instance(need.from);
            let made = self.manifest(producer).and_then(|manifest| manifest.outputs.get(&need.output).copied());
            let Some(blob) = made else { continue };
            let file = self.add_output(producer, &need.output, blob);
            let source = self.output(&producer.stage, &need.output);
            self.add_input(stage, &need.slot, &file, &source);
            self.entities.link(&action, "object", &file);
        }
        let identities = self.manifest(instance).map(|manifest| manifest.record.inputs.clone()).unwrap_or_default();
        for need in &instance.sources {
            let Some(identity) = identities.get(&need.slot) else { continue };
            let file = self.add_source(need, identity);
            let name = format!("{stage}.{}", need.slot);
            let outer = self.input("", &name);
            self.add_formal(&Formal { id: outer.clone(), name: &name, is: "File" }, &file);
            let workflow = self.workflow.clone();
            self.entities.link(&workflow, "input", &outer);
            self.add_input(stage, &need.slot, &file, &outer);
            self.entities.link(&action, "object", &file);
            self.entities.link(RUN, "object", &file);
        }
    }

    fn add_input(&mut self, stage: &str, slot: &str, file: &str, source: &str) {
        let (input, tool, step) = (self.input(stage, slot), self.tool(stage), self.step(stage));
        self.add_formal(&Formal { id: input.clone(), name: slot, is: "File" }, file);
        self.entities.link(&tool, "input", &input);
        self.connect(source, &input, &step);
    }

    /// Adds what an instance made; what people look at is an output of the workflow, too.
    fn add_outputs(&mut self, instance: &Instance) {
        let Some(manifest) = self.manifest(instance) else { return };
        let (action, tool, workflow) = (self.action(&instance.name), self.tool(&instance.stage), self.workflow.clone());
        for (name, blob) in &manifest.outputs {
            let file = self.add_output(instance, name, *blob);
            let inner = self.output(&instance.stage, name);
            self.add_formal(&Formal { id: inner.clone(), name, is: "File" }, &file);
            self.entities.link(&tool, "output", &inner);
            self.entities.link(&action, "result", &file);
            let result = instance.outputs.iter().find(|output| output.name == *name);
            let Some(result) = result.and_then(|output| output.result.as_ref()) else { continue };
            let outer = self.output("", result);
            self.add_formal(&Formal { id: outer.clone(), name: result, is: "File" }, &file);
            self.entities.link(&workflow, "output", &outer);
            self.entities.link(RUN, "result", &file);
            self.connect(&inner, &outer, &workflow);
        }
    }

    /// Adds the run of the workflow, and that of the engine.
    pub(super) fn add_run(&mut self) {
        let run = &self.from.results.run;
        let error = self.error();
        let times = json!({
            "startTime": run.started.as_deref().and_then(time),
            "endTime": time(&run.at),
            "actionStatus": if error.is_some() { FAILED } else { COMPLETED },
            "error": error,
        });
        let (ran, cached) = (run.ran.len(), run.cached.unwrap_or(0));
        let about = json!({
            "name": format!("run {} of {}", run.id.short(), run.pipeline),
            "description": format!("Of its stages, {ran} ran and {cached} were taken from the cache."),
        });
        self.entities.add(RUN, &["CreateAction"], about);
        self.entities.add(RUN, &["CreateAction"], times.clone());
        let workflow = self.workflow.clone();
        self.entities.link(RUN, "instrument", &workflow);
        let engine = self.add_engine();
        let about = json!({ "name": format!("run of atflow for run {}", run.id.short()) });
        self.entities.add(ENGINE_RUN, &["OrganizeAction"], about);
        self.entities.add(ENGINE_RUN, &["OrganizeAction"], times);
        self.entities.link(ENGINE_RUN, "instrument", &engine);
        self.entities.link(ENGINE_RUN, "result", RUN);
        if let Some(user) = run.user.clone() {
            self.add_agent(RUN, &user);
            self.add_agent(ENGINE_RUN, &user);
        }
    }

    /// Why the run did not reach its end, if so.
    fn error(&self) -> Option<String> {
        let run = &self.from.results.run;
        let failed: Vec<&str> = run.failed.keys().map(String::as_str).collect();
        match run.outcome {
            Some(RunOutcome::Interrupted) => Some("the user stopped the run".to_owned()),
            Some(RunOutcome::Broken) => Some("an error of the cache or of all workers stopped the run".to_owned()),
            _ if failed.is_empty() => None,
            _ => Some(format!("failed: {}", failed.join(", "))),
        }
    }

    fn add_agent(&mut self, action: &str, user: &str) {
        let id = format!("#person/{}", iri(user));
        let about =
            json!({ "name": user, "description": "A user of the machine that ran the workflow, by login name." });
        self.entities.add(&id, &["Person"], about);
        self.entities.link(action, "agent", &id);
    }
}
