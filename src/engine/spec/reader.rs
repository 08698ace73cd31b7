//! Reader of one file: its mappings and words, and the problems found.

use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::poison::is_unknown;
use super::problem::Problem;
use super::source::{Place, SourceFile, YamlPath};

/// The keys of a pipeline file.
pub(super) const TOP_KEYS: [&str; 9] =
    ["pipeline", "include", "allow", "numerics", "params", "seeds", "profiles", "defaults", "stages"];

/// Reads one file and collects its problems.
pub(crate) struct Reader<'a> {
    pub file: &'a Arc<SourceFile>,
    pub problems: Vec<Problem>,
}

impl Reader<'_> {
    pub(crate) fn problem(&mut self, place: Place, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::at(place, message, label));
    }

    /// Reports unknown keys; `hint` may suggest the intended meaning of a key.
    pub(crate) fn known_keys(
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

    /// Returns the entries of a mapping whose keys are words; reports the others.
    pub(crate) fn words<'v>(&mut self, map: &'v Mapping, path: &YamlPath) -> Vec<(&'v str, &'v Value)> {
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

    /// Returns the mapping under a key; `None` if it is absent, empty or invalid.
    pub(crate) fn mapping<'v>(&mut self, map: &'v Mapping, key: &str, path: &YamlPath) -> Option<&'v Mapping> {
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

    /// Returns the pipeline's name: the given one, or the file's stem.
    pub(super) fn name(&mut self, top: &Mapping) -> String {
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

/// Returns whether a text can name a stage, axis or pipeline. A leading `-` would read as a command-line option.
pub(crate) fn is_name(text: &str) -> bool {
    !text.starts_with('-')
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
