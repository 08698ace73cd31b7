//! One stage as its author wrote it: its keys, its kind, its matrix. Knows no other stage.

use std::sync::Arc;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::params;
use super::pipeline::{Reader, is_name};
use super::problem::Problem;
use super::source::{Place, SourceFile, YamlPath};
use crate::kinds::Kind;

/// A stage as written.
#[derive(Debug)]
pub(super) struct StageSpec {
    pub name: String,
    pub kind: Kind,
    pub seed: Option<Value>,
    pub threads: Option<Value>,
    pub time_limit: Option<Value>,
    pub matrix: Vec<AxisSpec>,
    /// Points beside the matrix, and points of it that are left out.
    pub include: Vec<Value>,
    pub exclude: Vec<Value>,
    pub needs: Vec<(String, Value)>,
    pub with: Value,
    /// What the file says of all its stages of this kind.
    pub defaults: Option<Arc<Value>>,
    pub path: YamlPath,
    pub file: Arc<SourceFile>,
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

pub(super) const STAGE_KEYS: [&str; 10] =
    ["kind", "about", "matrix", "include", "exclude", "needs", "with", "seed", "threads", "time_limit"];

impl Reader<'_> {
    /// The stages of a file.
    pub(super) fn stages(&mut self, top: &Mapping) -> Vec<StageSpec> {
        let root = YamlPath::default();
        let defaults = self.defaults(top);
        let Some(stages) = self.mapping(top, "stages", &root) else { return Vec::new() };
        let path = root.key("stages");
        let words = self.words(stages, &path);
        words.into_iter().filter_map(|(name, stage)| self.stage(name, stage, &defaults)).collect()
    }

    /// Parameters by kind that the file's stages of the kind have unless they say otherwise.
    fn defaults(&mut self, top: &Mapping) -> Vec<(Kind, Arc<Value>)> {
        let root = YamlPath::default();
        let Some(defaults) = self.mapping(top, "defaults", &root) else { return Vec::new() };
        let path = root.key("defaults");
        let mut out = Vec::new();
        for (name, value) in self.words(defaults, &path) {
            let path = path.key(name);
            let Some(kind) = kind_of(name) else {
                let problem =
                    Problem::at(Place::key(self.file, path), format!("there is no kind `{name}`"), "unknown kind");
                self.problems.push(problem.suggest(name, Kind::ALL.map(Kind::name)));
                continue;
            };
            match value {
                Value::Mapping(map) => {
                    let known = params::names(kind);
                    for (key, _) in self.words(map, &path) {
                        if !known.contains(&key) {
                            let message = format!("a stage of kind `{kind}` has no parameter `{key}`");
                            let problem =
                                Problem::at(Place::key(self.file, path.key(key)), message, "unknown parameter");
                            self.problems.push(problem.suggest(key, known.iter().copied()));
                        }
                    }
                    out.push((kind, Arc::new(value.clone())));
                }
                Value::Null => {}
                other => {
                    let message =
                        format!("the defaults of a kind are a mapping of parameters; this is {}", describe(other));
                    self.problem(Place::value(self.file, path), message, "expected a mapping");
                }
            }
        }
        out
    }

    fn stage(&mut self, name: &str, value: &Value, defaults: &[(Kind, Arc<Value>)]) -> Option<StageSpec> {
        let path = YamlPath::of(&["stages", name]);
        if !is_name(name) {
            let message = format!("`{name}` cannot name a stage: a name is made of letters, digits, `-` and `_`");
            self.problem(Place::key(self.file, path.clone()), message, "not a name");
        }
        let Some(map) = value.as_mapping() else {
            let message = format!("stage `{name}` must be a mapping; it is {}", describe(value));
            let problem = Problem::at(Place::value(self.file, path), message, "expected a mapping");
            self.problems.push(problem.help("write at least `{kind: …}`, or its keys indented below its name"));
            return None;
        };
        let kind = self.kind(name, map, &path);
        self.known_keys(map, &path, &STAGE_KEYS, "a stage", |key, _| misplaced(kind, key));
        if let Some(about) = map.get("about").filter(|about| !about.is_string()) {
            let message = format!("`about` is a text; this is {}", describe(about));
            self.problem(Place::value(self.file, path.key("about")), message, "expected a text");
        }
        let matrix = self.matrix(map, &path);
        let include = self.points(map, "include", &path);
        let exclude = self.points(map, "exclude", &path);
        let needs = match self.mapping(map, "needs", &path) {
            Some(needs) => {
                let needs = self.words(needs, &path.key("needs"));
                needs.into_iter().map(|(slot, needed)| (slot.to_owned(), needed.clone())).collect()
            }
            None => Vec::new(),
        };
        let with = self.mapping(map, "with", &path).cloned().unwrap_or_default();
        let kind = kind?;
        if map.contains_key("seed") && !kind.takes_seed() {
            let place = Place::key(self.file, path.key("seed"));
            let message = format!("a stage of kind `{kind}` makes no use of its seed, which would change nothing");
            let within = params::names(kind).contains(&"seed");
            let help = if within { "remove it; the `seed` of a division stands under `with`" } else { "remove it" };
            self.problems.push(Problem::at(place, message, "no use here").help(help));
        }
        Some(StageSpec {
            name: name.to_owned(),
            kind,
            seed: map.get("seed").cloned(),
            threads: map.get("threads").cloned(),
            time_limit: map.get("time_limit").cloned(),
            matrix,
            include,
            exclude,
            needs,
            with: Value::Mapping(with),
            defaults: defaults.iter().find(|(of, _)| *of == kind).map(|(_, defaults)| defaults.clone()),
            path,
            file: self.file.clone(),
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
                let kind = kind_of(word);
                if kind.is_none() {
                    let place = Place::value(self.file, path.key("kind"));
                    let problem = Problem::at(place, format!("there is no kind `{word}`"), "unknown kind");
                    self.problems.push(problem.suggest(word, names));
                }
                kind
            }
            Some(other) => {
                let message = format!("a kind is a word; this is {}", describe(other));
                let problem = Problem::at(Place::value(self.file, path.key("kind")), message, "expected a word");
                self.problems.push(problem.help(format!("one of {}", names.join(", "))));
                None
            }
        }
    }

    fn matrix(&mut self, map: &Mapping, stage: &YamlPath) -> Vec<AxisSpec> {
        let path = stage.key("matrix");
        let Some(axes) = self.mapping(map, "matrix", stage) else { return Vec::new() };
        if axes.is_empty() {
            let problem = Problem::at(Place::value(self.file, path), "a matrix has at least one axis", "no axis");
            self.problems.push(problem.help("write `{AXIS: [VALUE, …]}`, or remove `matrix`"));
            return Vec::new();
        }
        let mut out = Vec::new();
        for (name, value) in self.words(axes, &path) {
            let path = path.key(name);
            if !is_name(name) {
                let message = format!("`{name}` cannot name an axis: a name is made of letters, digits, `-` and `_`");
                self.problem(Place::key(self.file, path.clone()), message, "not a name");
            }
            match axis_values(value) {
                Ok(values) => out.push(AxisSpec { name: name.to_owned(), values }),
                Err(message) => self.problem(Place::value(self.file, path), format!("axis `{name}` {message}"), "here"),
            }
        }
        out
    }

    /// The items of `include` or `exclude`.
    fn points(&mut self, map: &Mapping, key: &str, path: &YamlPath) -> Vec<Value> {
        match map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(items)) => {
                if !map.contains_key("matrix") {
                    let place = Place::key(self.file, path.key(key));
                    let message = format!("`{key}` changes a matrix, and this stage has none");
                    self.problems.push(Problem::at(place, message, "no matrix").help("add `matrix:`, or remove this"));
                }
                items.clone()
            }
            Some(other) => {
                let message =
                    format!("`{key}` must be a list of mappings from axes to labels; this is {}", describe(other));
                let problem = Problem::at(Place::value(self.file, path.key(key)), message, "expected a list");
                self.problems.push(problem.help(format!("write `{key}: [{{AXIS: LABEL}}, …]`")));
                Vec::new()
            }
        }
    }
}

fn kind_of(word: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == word)
}

/// Where a key belongs that stands among the keys of a stage and is none.
fn misplaced(kind: Option<Kind>, key: &str) -> Option<String> {
    let kind = kind?;
    if kind.slots().iter().any(|slot| slot.name == key) {
        return Some(format!("`{key}` is a need: write `needs: {{{key}: STAGE}}`"));
    }
    params::names(kind).contains(&key).then(|| format!("`{key}` is a parameter: it stands under `with:`"))
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
    let mut seen = std::collections::HashSet::new();
    for (label, _) in &listed {
        check_label(label)?;
        if !seen.insert(label) {
            return Err(format!("has the label `{label}` twice"));
        }
    }
    Ok(AxisValues::Listed(listed))
}

/// Refuses what cannot be part of a name.
///
/// # Errors
/// What is wrong, to be read after "axis `x` ".
pub(super) fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty label".to_owned());
    }
    if label.contains(|c: char| c.is_whitespace() || c.is_control() || "*?[]{}\\".contains(c)) {
        return Err(format!("has the label `{label}`: a label has no space and none of * ? [ ] {{ }} \\"));
    }
    Ok(())
}

/// A scalar as part of an instance's name; a fraction's bar becomes an underscore, since `/` parts a name.
pub(super) fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.replace('/', "_")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Reads `90 s`, `10 min`, `2 h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit.trim_end() {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    // A limit of centuries is none that anybody means.
    let seconds = number * seconds;
    (seconds > 0.0 && seconds < 1e10).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("90 s"), Some(90.0));
        assert_eq!(seconds("10min"), Some(600.0));
        assert_eq!(seconds("1.5 h"), Some(5400.0));
        for text in ["", "90", "s", "-1 s", "0 s", "1 week", "1 h 30 min", "inf s", "NaN h", "1e99 d"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
