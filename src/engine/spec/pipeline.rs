//! Reads YAML values into stages as the author wrote them, with every key and name checked.
//!
//! Stage parameters are not checked here: they have values only after the matrix is expanded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::allow::Lint;
use super::diagnostics::Lost;
use super::include::Read;
use super::problem::{Problem, Problems};
use super::reader::{Reader, TOP_KEYS};
use super::settings::{Overrides, Settings, declared_twice};
use super::source::{Place, SourceFile, YamlPath};
use super::stage::{StageSpec, is_lost};
use super::sweep::Sweep;
use crate::parameters::{ParameterChanges, Parameters, changes, parameters};

/// A pipeline that is read but not expanded.
#[derive(Debug)]
pub struct PipelineSpec {
    /// The requested file.
    pub file: Arc<SourceFile>,
    /// All files read: the includes first, the requested file last.
    pub files: Vec<Arc<SourceFile>>,
    /// The pipeline's name, which names its results folder.
    pub name: String,
    /// The profiles, in the order of the files.
    pub profiles: Vec<String>,
    /// The parameters; one that is swept has its values as one text.
    pub(super) params: Mapping,
    /// The parameters with several values, and those that are coordinates.
    pub(super) sweep: Sweep,
    /// Whether the selected profile is a mock-up.
    pub(super) is_mockup: bool,
    /// The parameters as declared, before a profile or the command line changed them.
    declared: Mapping,
    pub(super) stages: Vec<StageSpec>,
    /// The warnings that each file allows.
    allow: Vec<(Arc<SourceFile>, Vec<Lint>)>,
    /// Stages that are declared but unreadable.
    pub(super) unreadable: HashSet<String>,
    pub(super) lost: Lost,
    places: HashMap<String, Place>,
    by_name: HashMap<String, usize>,
}

impl PipelineSpec {
    /// Returns whether the pipeline declares a profile.
    pub fn has_profile(&self, name: &str) -> bool {
        let path = YamlPath::of(&["profiles", name]);
        self.files.iter().any(|file| file.has(&path))
    }

    /// Returns the parameters in effect.
    pub fn parameters(&self) -> Parameters {
        parameters(&self.params)
    }

    /// Returns the parameters that a profile or the command line changed, from the value in the file.
    pub fn overridden(&self) -> ParameterChanges {
        changes(&parameters(&self.declared), &self.parameters())
    }

    /// Returns the place where a parameter is declared.
    pub fn param_place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Returns the names of the stages, in the order of the files.
    pub fn stage_names(&self) -> Vec<String> {
        self.stages.iter().map(|stage| stage.name.clone()).collect()
    }

    /// Returns whether a warning is allowed: by the file of its place, or by one of its stages.
    pub(super) fn allows(&self, lint: Lint, place: Option<&Place>, stages: &[String]) -> bool {
        let is_its = |file: &Arc<SourceFile>| place.is_some_and(|place| Arc::ptr_eq(&place.file, file));
        let by_file = self.allow.iter().any(|(file, allowed)| is_its(file) && allowed.contains(&lint));
        let by_stage = |stage: &StageSpec| stages.contains(&stage.name) && stage.allow.contains(&lint);
        by_file || self.stages.iter().any(by_stage)
    }

    /// Returns the index of a stage.
    pub(super) fn stage(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Assembles the pipeline from all files read. If there are problems, it contains the readable stages.
    ///
    /// # Errors
    /// No file was read.
    pub(super) fn assemble(read: Read, overrides: &Overrides) -> Result<(Self, Vec<Problem>), Problems> {
        let Read { documents, mut problems, is_whole } = read;
        let files: Vec<Arc<SourceFile>> = documents.iter().map(|document| document.file.clone()).collect();
        let Some(file) = files.last().cloned() else { return Err(Problem::anywhere("no file was read").into()) };
        let mut settings = Settings::default();
        let mut stages: Vec<StageSpec> = Vec::new();
        let mut by_name = HashMap::new();
        let mut unreadable = HashSet::new();
        let mut lost = Lost { anything: !is_whole, names: HashSet::new() };
        let mut name = String::new();
        let mut allow = Vec::new();
        for document in &documents {
            let mut reader = Reader { file: &document.file, problems: Vec::new() };
            reader.known_keys(&document.top, &YamlPath::default(), &TOP_KEYS, "a pipeline file", top_hint);
            find_lost(&document.top, &mut lost);
            // A standalone pipeline can also be included: its name counts only when it is the requested file.
            name = reader.name(&document.top);
            allow.push((document.file.clone(), reader.allow(&document.top, &YamlPath::default())));
            settings.declare(&mut reader, &document.top, &mut lost);
            for stage in reader.stages(&document.top, &mut unreadable) {
                match by_name.get(&stage.name) {
                    Some(first) => {
                        let first: &StageSpec = &stages[*first];
                        let place = Place::key(reader.file, stage.path.clone());
                        let first = Place::key(&first.file, first.path.clone());
                        reader.problems.push(declared_twice("stage", &stage.name, place, &first));
                    }
                    None => {
                        by_name.insert(stage.name.clone(), stages.len());
                        stages.push(stage);
                    }
                }
            }
            problems.append(&mut reader.problems);
        }
        settings.apply_seeds(&lost, &mut problems);
        let declared = settings.params.clone();
        settings.apply(overrides, &file.name(), &lost, &mut problems);
        if stages.is_empty() && problems.is_empty() {
            let place = Place::value(&file, YamlPath::of(&["stages"]));
            let problem = Problem::at(place, format!("{} has no stages", file.name()), "no stage here");
            problems.push(problem.help("a stage is `NAME: {kind: …, needs: …, with: …}` under `stages:`"));
        }
        let profiles = settings.profile_names();
        let Settings { params, places, is_mockup, sweeps, .. } = settings;
        let sweep = Sweep::new(sweeps, &stages, &params, &lost)?;
        let spec = PipelineSpec {
            file,
            files,
            name,
            profiles,
            params,
            sweep,
            is_mockup,
            declared,
            stages,
            allow,
            unreadable,
            lost,
            places,
            by_name,
        };
        Ok((spec, problems))
    }

    /// Sorts problems by place and removes duplicates.
    pub(super) fn in_order(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        let position = |place: &Place| {
            let file = self.files.iter().position(|file| Arc::ptr_eq(file, &place.file)).unwrap_or(usize::MAX);
            let span = place.span();
            (file, span.start, span.end)
        };
        let mut placed: Vec<_> =
            problems.drain(..).map(|problem| (problem.place.as_ref().map(position), problem)).collect();
        placed.sort_by_key(|(place, _)| *place);
        // Instances of one stage share mistakes, as do all uses of one parameter.
        let mut told = HashSet::new();
        placed.retain(|(place, problem)| {
            let place = if problem.is_shared { None } else { *place };
            told.insert((place, problem.message.clone()))
        });
        placed.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// Collects names that a file declares in the wrong place.
fn find_lost(top: &Mapping, lost: &mut Lost) {
    let keys = |value: &Value| -> Vec<String> {
        let keys = value.as_mapping().into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
        keys.map(str::to_owned).collect()
    };
    lost.anything |= is_lost(top, "include", &TOP_KEYS) && !top.contains_key("include");
    for (key, value) in top {
        let Some(key) = key.as_str().filter(|key| !TOP_KEYS.contains(key)) else { continue };
        // A stage that is not indented, or parameters and stages under a misspelt key.
        lost.names.insert(key.to_owned());
        lost.names.extend(keys(value));
    }
    for key in ["params", "stages"] {
        lost.anything |= top.get(key).is_some_and(|value| !value.is_null() && !value.is_mapping());
    }
}

/// Suggests the intended place of an unknown top-level key.
fn top_hint(_: &str, value: &Value) -> Option<String> {
    let is_stage = value.as_mapping().is_some_and(|map| map.contains_key("kind"));
    is_stage.then(|| "this looks like a stage: stages stand under `stages:`, indented".to_owned())
}
