//! A crate in the making, and the ids of its entities.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entities::{Entities, iri};
use super::{Contents, Files};
use crate::report::JoinedStage;
use crate::spec::InstanceId;

/// A crate in the making.
pub(super) struct Builder<'a> {
    pub(super) from: &'a Contents<'a>,
    pub(super) entities: Entities,
    pub(super) files: Files,
    /// The id of the workflow: the path of the pipeline file.
    pub(super) workflow: String,
    /// The results of the run by instance.
    pub(super) results: HashMap<&'a str, &'a JoinedStage>,
    /// The instances of the run that have a result or failed, producers first.
    pub(super) instances: Vec<InstanceId>,
    /// The parameters that each stage refers to.
    pub(super) uses: BTreeMap<String, BTreeSet<String>>,
    /// Who made each result, as far as the records of runs know.
    pub(super) makers: HashMap<String, String>,
}

impl<'a> Builder<'a> {
    /// A crate without content.
    pub(super) fn new(from: &'a Contents<'a>) -> Self {
        let run = &from.results.run;
        let results: HashMap<&str, &JoinedStage> =
            from.results.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect();
        let is_part = |id: &InstanceId| {
            let name = from.graph.instance(*id).name.as_str();
            results.contains_key(name) || run.failed.contains_key(name)
        };
        let path = from.layout.get(&from.spec.file.path).unwrap_or_default();
        Builder {
            entities: Entities::default(),
            files: Files::new(),
            workflow: iri(path),
            instances: from.graph.ids().filter(is_part).collect(),
            results,
            uses: from.spec.parameter_uses(),
            makers: makers(from),
            from,
        }
    }

    /// The id of a stage's step.
    pub(super) fn step(&self, stage: &str) -> String {
        format!("{}#step/{}", self.workflow, iri(stage))
    }

    /// The id of a stage's tool.
    pub(super) fn tool(&self, stage: &str) -> String {
        format!("{}#tool/{}", self.workflow, iri(stage))
    }

    /// The id of an input of a stage's tool, or of the workflow if `stage` is empty.
    pub(super) fn input(&self, stage: &str, name: &str) -> String {
        self.formal("input", stage, name)
    }

    /// The id of an output of a stage's tool, or of the workflow if `stage` is empty.
    pub(super) fn output(&self, stage: &str, name: &str) -> String {
        self.formal("output", stage, name)
    }

    fn formal(&self, way: &str, stage: &str, name: &str) -> String {
        let owner = if stage.is_empty() { String::new() } else { format!("tool/{}/", iri(stage)) };
        format!("{}#{owner}{way}/{}", self.workflow, iri(name))
    }

    /// The id of what an instance did.
    pub(super) fn action(&self, instance: &str) -> String {
        format!("#action/{}", iri(instance))
    }

    /// A text that may be shown.
    pub(super) fn shown(&self, text: &str) -> String {
        self.from.redaction.shown(text)
    }
}

/// Returns who made each result, by instance: the user of the run in which it ran.
fn makers(from: &Contents<'_>) -> HashMap<String, String> {
    let own = &from.results.run;
    let mut makers = HashMap::new();
    let mut note = |run: &crate::cache::RunRecord| {
        let Some(user) = &run.user else { return };
        let ran = run.ran.keys().chain(run.failed.keys());
        for name in ran.filter(|name| run.keys.get(*name) == own.keys.get(*name)) {
            makers.entry(name.clone()).or_insert_with(|| user.clone());
        }
    };
    note(own);
    from.cache.runs(Some(&own.pipeline)).filter(|run| run.id < own.id).for_each(|run| note(&run));
    makers
}
