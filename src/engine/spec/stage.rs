//! One stage as its author wrote it: its keys, its kind, its matrix. Knows no other stage.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::allow::Lint;
use super::describe::describe;
use super::origin::LostParts;
use super::params;
use super::poison::is_unknown;
use super::problem::{Problem, nearest};
use super::reader::{Reader, TOP_KEYS, is_name};
use super::source::{Place, SourceFile, YamlPath};
use crate::stage_kinds::{Slot, StageKind};

/// A stage as written.
#[derive(Debug)]
pub(super) struct StageSpec {
    pub name: String,
    /// `None` if it is unreadable.
    pub kind: Option<StageKind>,
    pub seed: Option<Value>,
    /// Its own numerics or its file's, and where they are written.
    pub numerics: Option<(Value, YamlPath)>,
    pub threads: Option<Value>,
    pub gpu: Option<Value>,
    pub time_limit: Option<Value>,
    /// Warnings that are meant.
    pub allow: Vec<Lint>,
    pub matrix: Vec<AxisSpec>,
    /// Points added to the matrix, and points excluded from it.
    pub include: Vec<Value>,
    pub exclude: Vec<Value>,
    pub needs: Vec<(String, Value)>,
    pub with: Value,
    /// The file's defaults for stages of this kind.
    pub defaults: Option<Arc<Value>>,
    pub path: YamlPath,
    pub file: Arc<SourceFile>,
    pub lost: LostParts,
}

impl StageSpec {
    /// Returns the slots of its kind; none if the kind is unknown or names its own.
    pub(super) fn slots(&self) -> &'static [Slot] {
        self.kind.map_or(&[], StageKind::slots)
    }

    /// Returns whether its needs may have any names.
    pub(super) fn names_own_needs(&self) -> bool {
        matches!(self.kind, None | Some(StageKind::Command))
    }

    /// Returns whether a missing need was written under another name or at another place.
    pub(super) fn may_have_meant(&self, need: &str) -> bool {
        let slots = self.slots();
        let is_meant = |name: &String| nearest(name, slots.iter().map(|slot| slot.name)) == Some(need);
        let is_strange = |name: &String| slots.iter().all(|slot| slot.name != name);
        // An axis may have filled it.
        self.lost.needs
            || self.lost.matrix
            || self.lost.misplaced.iter().any(|key| key == need)
            || self.needs.iter().any(|(name, _)| is_strange(name) && is_meant(name))
    }
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
    /// A value that gives a list or a mapping after substitution.
    Substituted(Value),
    /// The instances of other stages: references.
    Each(Value),
    /// Unreadable values, already reported.
    Unknown,
}

pub(super) const STAGE_KEYS: [&str; 13] = [
    "kind",
    "about",
    "allow",
    "matrix",
    "include",
    "exclude",
    "needs",
    "with",
    "seed",
    "numerics",
    "threads",
    "gpu",
    "time_limit",
];

/// A file's defaults by kind, and the kinds with unreadable defaults.
struct Defaults {
    by_kind: Vec<(StageKind, Arc<Value>)>,
    lost: Vec<StageKind>,
    is_lost: bool,
}

impl Defaults {
    fn are_lost(&self, kind: Option<StageKind>) -> bool {
        self.is_lost || kind.is_none_or(|kind| self.lost.contains(&kind))
    }
}

impl Reader<'_> {
    /// Returns the stages of a file; adds the names of unreadable ones to `unreadable`.
    pub(super) fn stages(&mut self, top: &Mapping, unreadable: &mut HashSet<String>) -> Vec<StageSpec> {
        let root = YamlPath::default();
        let defaults = self.defaults(top);
        let Some(stages) = self.mapping(top, "stages", &root) else { return Vec::new() };
        let path = root.key("stages");
        let numerics = top.get("numerics").map(|value| (value.clone(), root.key("numerics")));
        let mut out = Vec::new();
        for (name, stage) in self.words(stages, &path) {
            match self.stage(name, stage, &defaults, &numerics) {
                Some(stage) => out.push(stage),
                None => _ = unreadable.insert(name.to_owned()),
            }
        }
        out
    }

    /// Reads the file's default parameters by kind.
    fn defaults(&mut self, top: &Mapping) -> Defaults {
        let root = YamlPath::default();
        let mut out = Defaults { by_kind: Vec::new(), lost: Vec::new(), is_lost: is_lost(top, "defaults", &TOP_KEYS) };
        let Some(defaults) = self.mapping(top, "defaults", &root) else { return out };
        let path = root.key("defaults");
        for (name, value) in self.words(defaults, &path) {
            let path = path.key(name);
            let Some(kind) = kind_of(name) else {
                let problem =
                    Problem::at(Place::key(self.file, path), format!("there is no kind `{name}`"), "unknown kind");
                self.problems.push(problem.suggest(name, StageKind::ALL.map(StageKind::name)));
                out.is_lost = true;
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
                    // Report unknown keys once here, not again in each stage.
                    let known: Mapping = map
                        .iter()
                        .filter(|(key, _)| key.as_str().is_some_and(|key| known.contains(&key)))
                        .map(|(key, value)| (key.clone(), value.clone()))
                        .collect();
                    if known.len() < map.len() {
                        out.lost.push(kind);
                    }
                    out.by_kind.push((kind, Arc::new(Value::Mapping(known))));
                }
                Value::Null => {}
                other => {
                    let message =
                        format!("the defaults of a kind are a mapping of parameters; this is {}", describe(other));
                    self.problem(Place::value(self.file, path), message, "expected a mapping");
                    out.lost.push(kind);
                }
            }
        }
        out
    }

    fn stage(
        &mut self,
        name: &str,
        value: &Value,
        defaults: &Defaults,
        numerics: &Option<(Value, YamlPath)>,
    ) -> Option<StageSpec> {
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
        let strange: Vec<&str> = map.keys().filter_map(Value::as_str).filter(|key| !STAGE_KEYS.contains(key)).collect();
        let absent: Vec<&str> = STAGE_KEYS.into_iter().filter(|key| !map.contains_key(*key)).collect();
        let meant = strange.iter().find(|wrong| nearest(wrong, absent.iter().copied()) == Some("kind")).copied();
        let kind = self.kind(name, map, meant, &path);
        self.known_keys(map, &path, &STAGE_KEYS, "a stage", |key, _| misplaced(kind, key));
        let lost = LostParts {
            matrix: is_lost(map, "matrix", &STAGE_KEYS),
            needs: is_lost(map, "needs", &STAGE_KEYS),
            with: is_lost(map, "with", &STAGE_KEYS) || defaults.are_lost(kind),
            misplaced: strange.iter().map(|key| (*key).to_owned()).collect(),
        };
        self.check_about(map, &path);
        let allow = self.allow(map, &path);
        let matrix = self.matrix(map, &path);
        let include = self.points(map, "include", lost.matrix, &path);
        let exclude = self.points(map, "exclude", lost.matrix, &path);
        let needs = match self.mapping(map, "needs", &path) {
            Some(needs) => {
                let needs = self.words(needs, &path.key("needs"));
                needs.into_iter().map(|(slot, needed)| (slot.to_owned(), needed.clone())).collect()
            }
            None => Vec::new(),
        };
        let with = self.mapping(map, "with", &path).cloned().unwrap_or_default();
        if let Some(kind) = kind {
            self.check_options(kind, map, &path);
        }
        Some(StageSpec {
            name: name.to_owned(),
            kind,
            seed: map.get("seed").cloned(),
            numerics: map.get("numerics").map(|own| (own.clone(), path.key("numerics"))).or_else(|| numerics.clone()),
            threads: map.get("threads").cloned(),
            gpu: map.get("gpu").cloned(),
            time_limit: map.get("time_limit").cloned(),
            allow,
            matrix,
            include,
            exclude,
            needs,
            with: Value::Mapping(with),
            defaults: defaults.by_kind.iter().find(|(of, _)| Some(*of) == kind).map(|(_, defaults)| defaults.clone()),
            path,
            file: self.file.clone(),
            lost,
        })
    }

    fn check_about(&mut self, map: &Mapping, path: &YamlPath) {
        if let Some(about) = map.get("about").filter(|about| !about.is_string() && !is_unknown(about)) {
            let message = format!("`about` is a text; this is {}", describe(about));
            self.problem(Place::value(self.file, path.key("about")), message, "expected a text");
        }
    }

    /// Checks that a stage has no option that its kind makes no use of.
    fn check_options(&mut self, kind: StageKind, map: &Mapping, path: &YamlPath) {
        let (seeded, by_worker) = (kind.takes_seed(), kind.needs_worker());
        let options = [
            ("seed", "its seed", seeded),
            ("numerics", "numerics", by_worker),
            ("threads", "threads", seeded),
            ("gpu", "a GPU", by_worker),
        ];
        for (key, what, _) in options.into_iter().filter(|(key, _, of_use)| !of_use && map.contains_key(*key)) {
            let place = Place::key(self.file, path.key(key));
            let message = format!("a stage of kind `{kind}` makes no use of {what}, which would change nothing");
            let help = match params::names(kind).contains(&key) {
                true => "remove it; the `seed` of a division stands under `with`",
                false => "remove it",
            };
            self.problems.push(Problem::at(place, message, "no use here").help(help));
        }
    }

    /// Reads the kind of a stage; `meant` is a key that looks like a misspelt `kind`.
    fn kind(&mut self, name: &str, map: &Mapping, meant: Option<&str>, path: &YamlPath) -> Option<StageKind> {
        let names = StageKind::ALL.map(StageKind::name);
        match map.get("kind") {
            None if meant.is_some() => kind_of(map[meant?].as_str()?),
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
            Some(other) if is_unknown(other) => None,
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
            let values = axis_values(value).unwrap_or_else(|messages| {
                for message in messages {
                    self.problem(Place::value(self.file, path.clone()), format!("axis `{name}` {message}"), "here");
                }
                AxisValues::Unknown
            });
            out.push(AxisSpec { name: name.to_owned(), values });
        }
        out
    }

    /// Returns the items of `include` or `exclude`.
    fn points(&mut self, map: &Mapping, key: &str, is_matrix_lost: bool, path: &YamlPath) -> Vec<Value> {
        match map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(items)) => {
                if !map.contains_key("matrix") && !is_matrix_lost {
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

fn kind_of(word: &str) -> Option<StageKind> {
    StageKind::ALL.into_iter().find(|kind| kind.name() == word)
}

/// Returns whether the mapping under a key is unreadable: it is no mapping, or its key is a misspelling of `key`.
pub(super) fn is_lost(map: &Mapping, key: &str, known: &[&str]) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => {
            let absent = || known.iter().copied().filter(|name| !map.contains_key(*name));
            let mut strange = map.keys().filter_map(Value::as_str).filter(|name| !known.contains(name));
            strange.any(|name| nearest(name, absent()) == Some(key))
        }
        Some(value) => !value.is_mapping(),
    }
}

/// Returns where a key at stage level belongs, if it is not a stage key.
fn misplaced(kind: Option<StageKind>, key: &str) -> Option<String> {
    let kind = kind?;
    if kind.slots().iter().any(|slot| slot.name == key) {
        return Some(format!("`{key}` is a need: write `needs: {{{key}: STAGE}}`"));
    }
    params::names(kind).contains(&key).then(|| format!("`{key}` is a parameter: it stands under `with:`"))
}

/// Reads the values of an axis.
///
/// # Errors
/// Returns what is wrong with them, phrased to follow "axis `x` ".
pub(super) fn axis_values(value: &Value) -> Result<AxisValues, Vec<String>> {
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
                    let message = "lists values that have no label of their own: write a mapping of labels to values";
                    Err(vec![message.to_owned()])
                }
            }
        }
        Value::String(text) if text.starts_with("${") => Ok(AxisValues::Substituted(value.clone())),
        other => {
            let message = "must be a list of values, a mapping of labels to values, or {each: STAGE}; this is";
            Err(vec![format!("{message} {}", describe(other))])
        }
    }
}

fn listed_or_empty(listed: Vec<(String, Value)>) -> Result<AxisValues, Vec<String>> {
    if listed.is_empty() {
        return Err(vec!["has no values, so the stage would have no instance".to_owned()]);
    }
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for (label, _) in &listed {
        wrong.extend(check_label(label).err());
        if !seen.insert(label) {
            wrong.push(format!("has the label `{label}` twice"));
        }
    }
    if wrong.is_empty() { Ok(AxisValues::Listed(listed)) } else { Err(wrong) }
}

/// Rejects labels that cannot be part of a name.
///
/// # Errors
/// Returns what is wrong, phrased to follow "axis `x` ".
pub(super) fn check_label(label: &str) -> Result<(), String> {
    if label.is_empty() {
        return Err("has an empty label".to_owned());
    }
    if label.contains(|c: char| c.is_whitespace() || c.is_control() || "*?[]{}\\".contains(c)) {
        return Err(format!("has the label `{label}`: a label has no space and none of * ? [ ] {{ }} \\"));
    }
    Ok(())
}

/// Converts a scalar into part of an instance name; replaces the `/` of a fraction by `_`, since `/` separates names.
pub(super) fn label_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.replace('/', "_")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Reads a duration such as `90 s`, `10 min` or `2 h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
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
    // A limit of centuries is never intended.
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
