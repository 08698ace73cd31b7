//! The programs: atflow, libtorch, the kinds of stages, and the tool that each stage is.

use serde_json::json;

use super::builder::Builder;
use super::data::ENVIRONMENT;
use super::entities::iri;
use crate::cache::Made;
use crate::spec::Instance;

/// The language of pipeline files.
const LANGUAGE: &str = "#pipeline-language";

/// Home page of libtorch.
const PYTORCH: &str = "https://pytorch.org/";

/// Version of this program.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Builder<'_> {
    /// Adds the workflow itself.
    pub(super) fn add_workflow(&mut self) {
        let run = &self.from.results.run;
        let id = self.workflow.clone();
        let types = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"];
        let version = run.commit.clone().map_or_else(|| self.digest_of_pipeline(), |commit| format!("commit {commit}"));
        let about = json!({
            "name": run.pipeline,
            "description": "The pipeline: what is trained, attacked and measured, with every parameter.",
            "version": version,
            "programmingLanguage": { "@id": LANGUAGE },
            "conformsTo": { "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE" },
        });
        self.entities.add(&id, &types, about);
        let about = json!({ "name": "pipeline file of atflow", "alternateName": "atflow", "version": OWN_VERSION });
        self.entities.add(LANGUAGE, &["ComputerLanguage"], about);
    }

    /// Returns a version for a pipeline that no repository keeps: a digest of its files.
    fn digest_of_pipeline(&self) -> String {
        let texts: String = self.from.spec.files.iter().map(|file| file.text.as_str()).collect();
        format!("blake3 {}", crate::digest::Digest::of(texts.as_bytes()))
    }

    /// Adds the engine that ran the workflow; returns its id.
    pub(super) fn add_engine(&mut self) -> String {
        let ran = self.from.results.stages.iter().filter(|stage| stage.ran.is_some());
        let version = ran.map(|stage| stage.manifest.made.atflow.clone()).max();
        self.add_atflow(&version.unwrap_or_else(|| OWN_VERSION.to_owned()))
    }

    fn add_atflow(&mut self, version: &str) -> String {
        let id = format!("pkg:generic/atflow@{}", iri(version));
        let about = json!({
            "name": "atflow",
            "description": "A build system for experiments on adversarially trained networks.",
            "softwareVersion": version,
        });
        self.entities.add(&id, &["SoftwareApplication"], about);
        id
    }

    /// Adds the code of a kind in the version that made a result; returns its id.
    fn add_kind(&mut self, instance: &Instance, made: Option<&Made>) -> String {
        let (kind, version) = (instance.kind, instance.code_version());
        let atflow = self.add_atflow(made.map_or(OWN_VERSION, |made| made.atflow.as_str()));
        let id = format!("{atflow}#{}-{version}", kind.name());
        let about = json!({
            "name": format!("atflow {}", kind.name()),
            "description": format!("The code of stages of the kind `{}`.", kind.name()),
            "version": version.to_string(),
        });
        self.entities.add(&id, &["SoftwareApplication"], about);
        self.entities.link(&id, "softwareRequirements", &atflow);
        if let Some(libtorch) = made.and_then(|made| made.libtorch.as_ref()) {
            let library = format!("pkg:generic/libtorch@{}", iri(libtorch));
            let about = json!({ "name": "libtorch", "softwareVersion": libtorch, "url": PYTORCH });
            self.entities.add(&library, &["SoftwareApplication"], about);
            self.entities.link(&id, "softwareRequirements", &library);
        }
        id
    }

    /// Adds the step and the tool of an instance's stage.
    pub(super) fn add_step(&mut self, instance: &Instance, position: usize) {
        let stage = instance.stage.as_str();
        let (step, tool, workflow) = (self.step(stage), self.tool(stage), self.workflow.clone());
        let about = json!({ "name": stage, "position": position.to_string() });
        self.entities.add(&step, &["HowToStep"], about);
        self.entities.link(&workflow, "step", &step);
        self.entities.link(&step, "workExample", &tool);
        self.entities.link(&step, "buildInstructions", ENVIRONMENT);
        let kind = instance.kind.name();
        let about = json!({
            "name": format!("{stage} ({kind})"),
            "description": format!("The stage `{stage}`, of the kind `{kind}`, with the parameters that the pipeline gives it."),
            "version": instance.code_version().to_string(),
        });
        self.entities.add(&tool, &["SoftwareApplication"], about);
        self.entities.link(&workflow, "hasPart", &tool);
        let made = self.results.get(instance.name.as_str()).map(|stage| stage.manifest.made.clone());
        let kind = self.add_kind(instance, made.as_ref());
        self.entities.link(&tool, "softwareRequirements", &kind);
        self.entities.link(&tool, "mainEntity", &kind);
    }
}
