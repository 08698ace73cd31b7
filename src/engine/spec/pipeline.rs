//! From YAML values to the stages as their author wrote them, with every key known and every name valid. Parameters of
//! stages are not looked at here: they have values only once the matrix is expanded.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::diagnostics::Lost;
use super::expand;
use super::include::{self, Read, TOP_KEYS};
use super::poison::is_unknown;
use super::problem::{Problem, Problems};
use super::schema_check::describe;
use super::settings::{Settings, declared_twice};
use super::source::{Place, SourceFile, YamlPath};
use super::stage::{StageSpec, is_lost};

/// A pipeline, read from its files but not expanded.
#[derive(Debug)]
pub struct PipelineSpec {
    /// The file that was asked for.
    pub file: Arc<SourceFile>,
    /// Every file that was read: those included, and the one asked for last.
    pub files: Vec<Arc<SourceFile>>,
    /// Its name: names the folder of its results.
    pub name: String,
    pub(super) params: Mapping,
    pub(super) stages: Vec<StageSpec>,
    /// Stages that are declared but could not be read.
    pub(super) unreadable: HashSet<String>,
    pub(super) lost: Lost,
    places: HashMap<String, Place>,
    by_name: HashMap<String, usize>,
}

/// What the command line changes in a pipeline before it is expanded.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set key=value`, in order.
    pub set: Vec<(String, String)>,
}

impl PipelineSpec {
    /// Reads a pipeline file and those that it includes.
    ///
    /// # Errors
    /// Every [`Problem`] that can be told without expanding it; if there is one, with every one that expanding the rest
    /// tells.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Problems> {
        Self::assemble(include::read(path)?, overrides)
    }

    /// The same from a text; what it includes is still read from files beside `name`.
    ///
    /// # Errors
    /// As [`PipelineSpec::read`].
    pub fn from_text(name: &str, text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        Self::assemble(include::read_text(SourceFile::new(name, text))?, overrides)
    }

    /// Whether the pipeline declares a profile.
    pub fn has_profile(&self, name: &str) -> bool {
        let path = YamlPath::of(&["profiles", name]);
        self.files.iter().any(|file| file.has(&path))
    }

    /// Where a parameter is declared.
    pub fn param_place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// The position of a stage.
    pub(super) fn stage(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn assemble(read: Read, overrides: &Overrides) -> Result<Self, Problems> {
        let Read { documents, mut problems, is_whole } = read;
        let files: Vec<Arc<SourceFile>> = documents.iter().map(|document| document.file.clone()).collect();
        let Some(file) = files.last().cloned() else { return Err(Problem::anywhere("no file was read").into()) };
        let mut settings = Settings::default();
        let mut stages: Vec<StageSpec> = Vec::new();
        let mut by_name = HashMap::new();
        let mut unreadable = HashSet::new();
        let mut lost = Lost { anything: !is_whole, names: HashSet::new() };
        let mut name = String::new();
        for document in &documents {
            let mut reader = Reader { file: &document.file, problems: Vec::new() };
            reader.known_keys(&document.top, &YamlPath::default(), &TOP_KEYS, "a pipeline file", top_hint);
            find_lost(&document.top, &mut lost);
            // A file that can be run by itself can be included as well: its own name counts only in the first case.
            name = reader.name(&document.top);
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
        settings.apply(overrides, &file.name(), &lost, &mut problems);
        if stages.is_empty() && problems.is_empty() {
            let place = Place::value(&file, YamlPath::of(&["stages"]));
            let problem = Problem::at(place, format!("{} has no stages", file.name()), "no stage here");
            problems.push(problem.help("a stage is `NAME: {kind: …, needs: …, with: …}` under `stages:`"));
        }
        let Settings { params, places, .. } = settings;
        let spec = PipelineSpec { file, files, name, params, stages, unreadable, lost, places, by_name };
        if problems.is_empty() {
            return Ok(spec);
        }
        // The rest is right or wrong by itself.
        problems.extend(expand::problems(&spec));
        Err(Problems(expand::shown(&spec, problems)))
    }

    /// Problems in the order of their places, each told once.
    pub(super) fn in_order(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        let position = |place: &Place| {
            let file = self.files.iter().position(|file| Arc::ptr_eq(file, &place.file)).unwrap_or(usize::MAX);
            let span = place.span();
            (file, span.start, span.end)
        };
        let mut placed: Vec<_> =
            problems.drain(..).map(|problem| (problem.place.as_ref().map(position), problem)).collect();
        placed.sort_by_key(|(place, _)| *place);
        // Instances of one stage share their mistakes, and so do all that use one parameter.
        let mut told = HashSet::new();
        placed.retain(|(place, problem)| {
            let place = if problem.is_shared { None } else { *place };
            told.insert((place, problem.message.clone()))
        });
        placed.into_iter().map(|(_, problem)| problem).collect()
    }
}

/// Finds the names that a file declares, but not where they would be read.
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

/// What a key at the top of a file may have been meant as.
fn top_hint(_: &str, value: &Value) -> Option<String> {
    let is_stage = value.as_mapping().is_some_and(|map| map.contains_key("kind"));
    is_stage.then(|| "this looks like a stage: stages stand under `stages:`, indented".to_owned())
}

/// Reads one file, and keeps what is wrong with it.
pub(super) struct Reader<'a> {
    pub file: &'a Arc<SourceFile>,
    pub problems: Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn problem(&mut self, place: Place, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::at(place, message, label));
    }

    /// Complains of keys that are not known; `hint` may know what one of them was meant as.
    pub(super) fn known_keys(
        &mut self,
        map: &Mapping,
        path: &YamlPath,
        known: &[&str],
        what: &str,
        hint: impl Fn(&str, &Value) -> Option<String>,
    ) {
        for (key, value) in self.words(map, path) {
            if known.contains(&key) {
                continue;
            }
            let place = Place::key(self.file, path.key(key));
            let unused = known.iter().copied().filter(|name| !map.contains_key(*name));
            let problem = Problem::at(place, format!("{what} has no `{key}`"), "unknown key");
            self.problems.push(match hint(key, value) {
                Some(hint) => problem.help(hint),
                None => problem.suggest(key, unused),
            });
        }
    }

    /// The entries of a mapping whose keys are words; others are complained of.
    pub(super) fn words<'v>(&mut self, map: &'v Mapping, path: &YamlPath) -> Vec<(&'v str, &'v Value)> {
        let mut words = Vec::with_capacity(map.len());
        for (key, value) in map {
            match key {
                Value::String(word) => words.push((word.as_str(), value)),
                Value::Null | Value::Bool(_) | Value::Number(_) => {
                    let text = serde_yaml::to_string(key).unwrap_or_default();
                    let text = text.trim();
                    let message = format!("a key must be a word; `{text}` is none");
                    let place = Place::key(self.file, path.key(text));
                    self.problems
                        .push(Problem::at(place, message, "not a word").help(format!("write \"{text}\" in quotes")));
                }
                other => {
                    let message = format!("a key must be a word; one here is {}", describe(other));
                    self.problem(Place::key(self.file, path.clone()), message, "in here");
                }
            }
        }
        words
    }

    /// The mapping under a key; an absent or empty one is an empty mapping.
    pub(super) fn mapping<'v>(&mut self, map: &'v Mapping, key: &str, path: &YamlPath) -> Option<&'v Mapping> {
        match map.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Mapping(inner)) => Some(inner),
            Some(other) => {
                let message = format!("`{key}` must be a mapping; this is {}", describe(other));
                let mut problem = Problem::at(Place::value(self.file, path.key(key)), message, "expected a mapping");
                problem.help = match key {
                    "stages" => Some("write `NAME: {kind: …, needs: …, with: …}` for each stage".to_owned()),
                    "needs" => Some("write `needs: {NEED: STAGE}`; the needs of each kind have names".to_owned()),
                    "matrix" => Some("write `matrix: {AXIS: [VALUE, …]}`".to_owned()),
                    "params" => Some("write `params: {NAME: VALUE}`".to_owned()),
                    _ => None,
                };
                self.problems.push(problem);
                None
            }
        }
    }

    /// The pipeline's name: the one given, or the file's.
    fn name(&mut self, top: &Mapping) -> String {
        let stem = || self.file.path.file_stem().map_or("pipeline".into(), |stem| stem.to_string_lossy().into_owned());
        match top.get("pipeline") {
            None => stem(),
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(other) if is_unknown(other) => stem(),
            Some(other) => {
                let stem = stem();
                let message =
                    format!("a pipeline's name is made of letters, digits, `-` and `_`; this is {}", describe(other));
                self.problem(Place::value(self.file, YamlPath::of(&["pipeline"])), message, "not a name");
                stem
            }
        }
    }
}

/// Whether a text can name a stage, an axis or a pipeline. What begins with `-` would be an option on the command line.
pub(super) fn is_name(text: &str) -> bool {
    !text.starts_with('-')
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
