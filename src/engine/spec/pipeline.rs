//! From a YAML value to the stages as their author wrote them, with every key known and every name valid. Parameters are not looked at here: they
//! have values only once the matrix is expanded.

use std::path::Path;
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::problem::{Problem, Problems};
use super::source::{Place, SourceFile, YamlPath};
use super::yaml;
use crate::kinds::Kind;

/// A pipeline file, read but not expanded.
#[derive(Debug)]
pub struct PipelineSpec {
    /// Where it was read.
    pub file: Arc<SourceFile>,
    /// Its name: names the folder of its results.
    pub name: String,
    pub(super) params: Mapping,
    pub(super) stages: Vec<StageSpec>,
}

/// A stage as written.
#[derive(Debug)]
pub(super) struct StageSpec {
    pub name: String,
    pub kind: Kind,
    pub seed: Option<Value>,
    pub threads: Option<Value>,
    pub matrix: Vec<AxisSpec>,
    pub exclude: Vec<Value>,
    pub needs: Vec<(String, Value)>,
    pub with: Value,
    pub path: YamlPath,
}

/// An axis of a matrix.
#[derive(Debug)]
pub(super) struct AxisSpec {
    pub name: String,
    pub values: AxisValues,
}

#[derive(Debug)]
pub(super) enum AxisValues {
    /// Labels and values.
    Listed(Vec<(String, Value)>),
    /// Whatever this gives after substitution: a list or a mapping.
    Substituted(Value),
    /// The instances of other stages: references.
    Each(Value),
}

/// What the command line changes in a pipeline before it is expanded.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set key=value`, in order.
    pub set: Vec<(String, String)>,
}

pub(super) const TOP_KEYS: [&str; 4] = ["pipeline", "params", "profiles", "stages"];
pub(super) const STAGE_KEYS: [&str; 8] = ["kind", "about", "matrix", "exclude", "needs", "with", "seed", "threads"];

impl PipelineSpec {
    /// Reads a pipeline file.
    ///
    /// # Errors
    /// Every [`Problem`] that can be told without expanding it.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Problems> {
        let (file, value) = yaml::read(path)?;
        Self::parse(file, &value, overrides)
    }

    /// The same from a text, for tests.
    ///
    /// # Errors
    /// As [`PipelineSpec::read`].
    pub fn from_text(name: &str, text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        let (file, value) = yaml::parse(SourceFile::new(name, text))?;
        Self::parse(file, &value, overrides)
    }

    fn parse(file: Arc<SourceFile>, value: &Value, overrides: &Overrides) -> Result<Self, Problems> {
        let mut reader = Reader { file: &file, problems: Vec::new() };
        let root = YamlPath::default();
        let Some(top) = value.as_mapping() else {
            let message = format!("a pipeline file is a mapping with `stages`; this is {}", describe(value));
            return Err(Problem::at(Place::value(&file, root), message, "expected a mapping").into());
        };
        reader.known_keys(top, &root, &TOP_KEYS, "a pipeline file");
        let stem = || file.path.file_stem().map_or("pipeline".into(), |stem| stem.to_string_lossy().into_owned());
        let name = match top.get("pipeline") {
            None => stem(),
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(other) => {
                let message =
                    format!("a pipeline's name is made of letters, digits, `-` and `_`; this is {}", describe(other));
                reader.problem(Place::value(reader.file, root.key("pipeline")), message, "not a name");
                stem()
            }
        };
        let params = reader.params(top, overrides);
        let stages = reader.stages(top);
        let problems = reader.problems;
        if problems.is_empty() { Ok(PipelineSpec { file, name, params, stages }) } else { Err(Problems(problems)) }
    }
}

struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, place: Place, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::at(place, message, label));
    }

    fn known_keys(&mut self, map: &Mapping, path: &YamlPath, known: &[&str], what: &str) {
        for key in map.keys() {
            match key.as_str() {
                Some(key) if known.contains(&key) => {}
                Some(key) => {
                    let place = Place::key(self.file, path.key(key));
                    let unused = known.iter().copied().filter(|name| !map.contains_key(*name));
                    let problem = Problem::at(place, format!("{what} has no `{key}`"), "unknown key");
                    self.problems.push(problem.suggest(key, unused));
                }
                None => self.problem(Place::key(self.file, path.clone()), "a key must be a word", "in here"),
            }
        }
    }

    /// The mapping under a key; an absent or empty one is an empty mapping.
    fn mapping<'v>(&mut self, map: &'v Mapping, key: &str, path: &YamlPath) -> Option<&'v Mapping> {
        match map.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Mapping(inner)) => Some(inner),
            Some(other) => {
                let message = format!("`{key}` must be a mapping; this is {}", describe(other));
                self.problem(Place::value(self.file, path.key(key)), message, "expected a mapping");
                None
            }
        }
    }

    fn params(&mut self, top: &Mapping, overrides: &Overrides) -> Mapping {
        let root = YamlPath::default();
        let mut params = self.mapping(top, "params", &root).cloned().unwrap_or_default();
        let declared = params.clone();
        let names = || declared.keys().filter_map(Value::as_str);
        let empty = Mapping::new();
        let profiles = self.mapping(top, "profiles", &root).unwrap_or(&empty);
        for (name, profile) in profiles {
            let name = name.as_str().unwrap_or_default();
            let path = YamlPath::of(&["profiles", name]);
            let Some(values) = profile.as_mapping() else {
                let message =
                    format!("profile `{name}` must be a mapping of parameters; this is {}", describe(profile));
                self.problem(Place::value(self.file, path), message, "expected a mapping");
                continue;
            };
            for key in values.keys().filter_map(Value::as_str).filter(|key| !declared.contains_key(*key)) {
                let place = Place::key(self.file, path.key(key));
                let problem = Problem::at(
                    place,
                    format!("profile `{name}` sets `{key}`, which is no parameter"),
                    "unknown parameter",
                );
                self.problems.push(problem.suggest(key, names()));
            }
            if overrides.profile.as_deref() == Some(name) {
                params.extend(values.clone());
            }
        }
        if let Some(wanted) = &overrides.profile
            && !profiles.contains_key(wanted.as_str())
        {
            let problem = Problem::anywhere(format!("{} has no profile `{wanted}`", self.file.name()));
            self.problems.push(problem.suggest(wanted, profiles.keys().filter_map(Value::as_str)));
        }
        for (key, text) in &overrides.set {
            // What is set is a YAML value like any other: `4`, `8/255`, `[1, 2]`.
            let value = serde_yaml::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
            let mut steps = key.split('.');
            let first = steps.next().unwrap_or_default();
            let mut target = params.get_mut(first);
            for step in steps {
                target = target.and_then(|value| value.get_mut(step));
            }
            match target {
                Some(target) => *target = value,
                None => {
                    let problem =
                        Problem::anywhere(format!("--set {key}: {} has no parameter `{key}`", self.file.name()));
                    self.problems.push(problem.suggest(first, names()));
                }
            }
        }
        params
    }

    fn stages(&mut self, top: &Mapping) -> Vec<StageSpec> {
        let root = YamlPath::default();
        let stages = self.mapping(top, "stages", &root);
        let Some(stages) = stages.filter(|stages| !stages.is_empty()) else {
            if self.problems.is_empty() {
                let place = Place::value(self.file, root.key("stages"));
                self.problem(
                    place,
                    format!("{} has no stages", self.file.name()),
                    "expected `stages:` with at least one stage",
                );
            }
            return Vec::new();
        };
        stages.iter().filter_map(|(name, stage)| self.stage(name.as_str()?, stage)).collect()
    }

    fn stage(&mut self, name: &str, value: &Value) -> Option<StageSpec> {
        let path = YamlPath::of(&["stages", name]);
        if !is_name(name) {
            let message = format!("`{name}` cannot name a stage: a name is made of letters, digits, `-` and `_`");
            self.problem(Place::key(self.file, path.clone()), message, "not a name");
        }
        let Some(map) = value.as_mapping() else {
            let message = format!("stage `{name}` must be a mapping; it is {}", describe(value));
            self.problem(Place::value(self.file, path), message, "expected a mapping");
            return None;
        };
        self.known_keys(map, &path, &STAGE_KEYS, "a stage");
        let kind = self.kind(name, map, &path);
        let matrix = self.matrix(map, &path);
        let exclude = match map.get("exclude") {
            None => Vec::new(),
            Some(Value::Sequence(items)) => items.clone(),
            Some(other) => {
                let message =
                    format!("`exclude` must be a list of mappings from axes to labels; this is {}", describe(other));
                self.problem(Place::value(self.file, path.key("exclude")), message, "expected a list");
                Vec::new()
            }
        };
        let needs = self.mapping(map, "needs", &path).into_iter().flatten();
        let needs = needs.filter_map(|(slot, needed)| Some((slot.as_str()?.to_owned(), needed.clone()))).collect();
        let with = self.mapping(map, "with", &path).cloned().unwrap_or_default();
        Some(StageSpec {
            name: name.to_owned(),
            kind: kind?,
            seed: map.get("seed").cloned(),
            threads: map.get("threads").cloned(),
            matrix,
            exclude,
            needs,
            with: Value::Mapping(with),
            path,
        })
    }

    fn kind(&mut self, name: &str, map: &Mapping, path: &YamlPath) -> Option<Kind> {
        let names = Kind::ALL.map(Kind::name);
        match map.get("kind") {
            None => {
                let problem = Problem::at(
                    Place::key(self.file, path.clone()),
                    format!("stage `{name}` has no kind"),
                    "needs `kind:`",
                );
                self.problems.push(problem.help(format!("one of {}", names.join(", "))));
                None
            }
            Some(Value::String(word)) => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == word);
                if kind.is_none() {
                    let place = Place::value(self.file, path.key("kind"));
                    let problem = Problem::at(place, format!("there is no kind `{word}`"), "unknown kind");
                    self.problems.push(problem.suggest(word, names));
                }
                kind
            }
            Some(other) => {
                let message = format!("a kind is a word; this is {}", describe(other));
                self.problem(Place::value(self.file, path.key("kind")), message, "expected a word");
                None
            }
        }
    }

    fn matrix(&mut self, map: &Mapping, path: &YamlPath) -> Vec<AxisSpec> {
        let path = path.key("matrix");
        let Some(axes) = self.mapping(map, "matrix", &YamlPath(path.0[..path.0.len() - 1].to_vec())) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for (name, value) in axes {
            let name = name.as_str().unwrap_or_default();
            let path = path.key(name);
            if !is_name(name) {
                self.problem(
                    Place::key(self.file, path.clone()),
                    format!("`{name}` cannot name an axis"),
                    "not a name",
                );
            }
            match axis_values(value) {
                Ok(values) => out.push(AxisSpec { name: name.to_owned(), values }),
                Err(message) => self.problem(Place::value(self.file, path), format!("axis `{name}` {message}"), "here"),
            }
        }
        out
    }
}

/// Reads the values of an axis.
///
/// # Errors
/// What is wrong with them, to be read after "axis `x` ".
pub(super) fn axis_values(value: &Value) -> Result<AxisValues, String> {
    match value {
        Value::Mapping(map) if map.len() == 1 && map.contains_key("each") => Ok(AxisValues::Each(map["each"].clone())),
        Value::Mapping(map) => {
            let listed: Vec<(String, Value)> =
                map.iter().map(|(label, value)| (label_of(label).unwrap_or_default(), value.clone())).collect();
            listed_or_empty(listed)
        }
        Value::Sequence(items) => {
            let label = |item: &Value| label_of(item).map(|label| (label, item.clone()));
            let listed: Option<Vec<_>> = items.iter().map(label).collect();
            match listed {
                Some(listed) => listed_or_empty(listed),
                None => {
                    Err("lists values that have no label of their own: write a mapping of labels to values".to_owned())
                }
            }
        }
        Value::String(text) if text.starts_with("${") => Ok(AxisValues::Substituted(value.clone())),
        other => Err(format!(
            "must be a list of values, a mapping of labels to values, or {{each: STAGE}}; this is {}",
            describe(other)
        )),
    }
}

fn listed_or_empty(listed: Vec<(String, Value)>) -> Result<AxisValues, String> {
    if listed.is_empty() {
        return Err("has no values, so the stage would have no instance".to_owned());
    }
    for (index, (label, _)) in listed.iter().enumerate() {
        if label.is_empty() || label.contains(|c: char| c.is_whitespace() || c.is_control() || "*?[]{}\\".contains(c)) {
            return Err(format!("has the label `{label}`: a label has no space and none of * ? [ ] {{ }} \\"));
        }
        if listed[..index].iter().any(|(other, _)| other == label) {
            return Err(format!("has the label `{label}` twice"));
        }
    }
    Ok(AxisValues::Listed(listed))
}

/// A scalar as part of an instance's name; a fraction's bar becomes an underscore, since `/` parts a name.
fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.replace('/', "_")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
