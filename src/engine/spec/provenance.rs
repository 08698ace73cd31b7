//! Finds where a parameter of an instance is written.
//!
//! That is its stage and, through `${…}`, the matrix, the pipeline's parameters or the command line. Walks the spec
//! like substitution does, and reads values only to find the path.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_yaml::{Mapping, Value};

use super::instance::Instance;
use super::pipeline::PipelineSpec;
use super::settings::Overrides;
use super::source::{Place, SourceFile, YamlPath};
use super::stage::{AxisValues, StageSpec};
use super::substitute::Scope;
use super::template::changed;

/// Maximum depth of references to references; no pipeline that expands has more.
const MAX_DEPTH: usize = 140;

/// One place that contributes to a value.
#[derive(Debug, Clone)]
pub struct Written {
    /// The `${name}` that led here; `None` for the stage itself.
    pub name: Option<String>,
    /// The place.
    pub at: At,
}

/// Where something is written.
#[derive(Debug, Clone)]
pub enum At {
    /// In a file.
    File(Place),
    /// In a `--set` of this key.
    Set(String),
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(name) = &self.name {
            map.serialize_entry("name", name)?;
        }
        match &self.at {
            At::File(place) => {
                let (line, column) = place.file.line_column(place.span().start);
                map.serialize_entry("file", &place.file.name())?;
                map.serialize_entry("line", &line)?;
                map.serialize_entry("column", &column)?;
            }
            At::Set(key) => map.serialize_entry("set", key)?,
        }
        map.end()
    }
}

/// Returns the places that a parameter comes from, the stage's own first.
///
/// `path` leads to the parameter (`adversary.eps`, `rates[2].lr`), or is `seed` or `numerics`. A value that is a single
/// reference adds one place per reference followed. In a text with several references, only those that changed it add
/// places. If `texts` (old and new text) does not reveal them, all of them do.
pub fn written(
    spec: &PipelineSpec,
    overrides: &Overrides,
    instance: &Instance,
    path: &str,
    texts: Option<(String, String)>,
) -> Vec<Written> {
    let Some(stage) = spec.stages.iter().find(|stage| stage.name == instance.stage) else { return Vec::new() };
    let mut trace = Trace { spec, overrides, texts, out: Vec::new() };
    let steps = steps(path);
    let defaults = stage.kind.zip(stage.defaults.as_deref());
    let (value, path, rest) = match (path, defaults) {
        ("seed", _) => match &stage.seed {
            Some(seed) => (seed, stage.path.key("seed"), Vec::new()),
            None => return Vec::new(),
        },
        ("numerics", _) => match &stage.numerics {
            Some((numerics, path)) => (numerics, path.clone(), Vec::new()),
            None => return Vec::new(),
        },
        // Mappings are joined: only the leaf reveals its source.
        (_, Some((kind, defaults))) if !leads_on(&stage.with, &steps) && leads_on(defaults, &steps) => {
            (defaults, YamlPath::of(&["defaults", kind.name()]), steps)
        }
        _ => (&stage.with, stage.path.key("with"), steps),
    };
    let cursor = Cursor { rest: &rest, axes: &instance.axes(), stage, name: None, depth: 0 };
    trace.follow(value, Spot { file: stage.file.clone(), path }, cursor);
    trace.out
}

/// Splits a path into steps: keys, and list indices with their brackets.
fn steps(path: &str) -> Vec<&str> {
    path.split('.')
        .flat_map(|key| {
            let end = if key.ends_with(']') { key.find('[').unwrap_or(key.len()) } else { key.len() };
            std::iter::once(&key[..end]).chain(key[end..].split_inclusive(']'))
        })
        .filter(|step| !step.is_empty())
        .collect()
}

/// Returns the list index that a step denotes.
fn position(step: &str) -> Option<usize> {
    step.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Returns whether the steps lead to something in a value, directly or behind a reference.
fn leads_on(mut value: &Value, steps: &[&str]) -> bool {
    for step in steps {
        let next = match value {
            Value::Mapping(map) => map.get(*step),
            Value::Sequence(items) => position(step).and_then(|position| items.get(position)),
            _ => return true,
        };
        let Some(next) = next else { return false };
        value = next;
    }
    true
}

/// A path into one of the pipeline's files.
#[derive(Clone)]
struct Spot {
    file: Arc<SourceFile>,
    path: YamlPath,
}

/// What is left of the way to a value, and what the names in its `${…}` mean.
#[derive(Clone, Copy)]
struct Cursor<'c> {
    /// The steps still to take.
    rest: &'c [&'c str],
    /// The values of the axes by name, at one point of a matrix.
    axes: &'c Mapping,
    /// The stage with that matrix.
    stage: &'c StageSpec,
    /// The `${name}` that led here; `None` for the stage itself.
    name: Option<&'c str>,
    /// How many references led here.
    depth: usize,
}

struct Trace<'a> {
    spec: &'a PipelineSpec,
    overrides: &'a Overrides,
    /// The old and the new text at the path.
    texts: Option<(String, String)>,
    out: Vec<Written>,
}

impl Trace<'_> {
    /// Follows a value, written at a spot, down the rest of the way, and on through the references that it meets.
    fn follow(&mut self, mut value: &Value, mut at: Spot, mut cursor: Cursor<'_>) {
        while let [step, further @ ..] = cursor.rest {
            (value, at.path) = match value {
                Value::Mapping(map) if map.contains_key(*step) => (&map[*step], at.path.key(step)),
                Value::Sequence(items) => match position(step).filter(|position| *position < items.len()) {
                    Some(position) => (&items[position], at.path.index(position)),
                    None => break,
                },
                _ => break,
            };
            cursor.rest = further;
        }
        let name = cursor.name.map(str::to_owned);
        self.out.push(Written { name, at: At::File(Place::value(&at.file, at.path)) });
        let Value::String(text) = value else { return };
        if cursor.depth < MAX_DEPTH {
            let is_value = |name: &str| {
                let first = name.split('.').next().unwrap_or_default();
                cursor.axes.contains_key(first) || self.spec.params.contains_key(first)
            };
            for part in changed(text, is_value, self.texts.take()) {
                self.texts = part.texts;
                self.reference(part.name, cursor);
            }
        }
    }

    /// Follows the reference `${name}` in the value at a cursor.
    fn reference(&mut self, name: &str, from: Cursor<'_>) {
        let mut steps: Vec<&str> = name.split('.').collect();
        let first = steps.remove(0);
        steps.extend(from.rest);
        let cursor = Cursor { rest: &steps, name: Some(name), depth: from.depth + 1, ..from };
        if let Some(current) = from.axes.get(first) {
            self.axis(first, current, cursor);
        } else if let Some(value) = self.spec.params.get(first) {
            self.parameter(first, value, cursor);
        }
    }

    /// Follows the current value of an axis.
    fn axis(&mut self, axis: &str, current: &Value, cursor: Cursor<'_>) {
        let stage = cursor.stage;
        let file = stage.file.clone();
        let path = stage.path.key("matrix").key(axis);
        match stage.matrix.iter().find(|candidate| candidate.name == axis).map(|axis| &axis.values) {
            Some(AxisValues::Listed(listed)) => {
                let position = listed.iter().position(|(_, value)| value == current);
                let by_label = position.map(|position| path.key(&listed[position].0));
                let by_index = position.map(|position| path.index(position));
                let found = [by_label, by_index].into_iter().flatten().find(|path| file.has(path));
                self.follow(current, Spot { file, path: found.unwrap_or(path) }, cursor);
            }
            Some(AxisValues::Substituted(value)) => {
                let label = self.label(value, current);
                let rest: Vec<&str> = match &label {
                    Some(label) => std::iter::once(label.as_str()).chain(cursor.rest.iter().copied()).collect(),
                    None => Vec::new(),
                };
                self.follow(value, Spot { file, path }, Cursor { rest: &rest, ..cursor });
            }
            Some(AxisValues::Each(_)) => self.axis_of_instance(current, cursor),
            None | Some(AxisValues::Unknown) => {}
        }
    }

    /// Follows a part of an instance that an axis names. Parts from the instance's own matrix are written there.
    fn axis_of_instance(&mut self, instance: &Value, cursor: Cursor<'_>) {
        let axes = instance.as_mapping();
        let of = axes.and_then(|axes| axes.get("stage")).and_then(Value::as_str);
        let stage = of.and_then(|of| self.spec.stages.iter().find(|stage| stage.name == of));
        if let (Some(axes), Some(stage), [first, rest @ ..]) = (axes, stage, cursor.rest)
            && let Some(current) = axes.get(*first)
        {
            self.axis(first, current, Cursor { rest, axes, stage, ..cursor });
        }
    }

    /// Returns the label of the current value on an axis given by a parameter; `None` if the axis is a list.
    fn label(&self, axis: &Value, current: &Value) -> Option<String> {
        let nothing = Mapping::new();
        let (params, lost) = (&self.spec.params, &self.spec.lost);
        let (are_axes_lost, is_command) = (false, false);
        let scope = Scope { axes: &nothing, params, reserved: &[], lost, are_axes_lost, is_command, watch: None };
        let (values, _) = scope.apply(axis);
        let (label, _) = values.as_mapping()?.iter().find(|(_, value)| *value == current)?;
        label.as_str().map(str::to_owned)
    }

    /// Follows the parameter `first` of the pipeline.
    fn parameter(&mut self, first: &str, value: &Value, cursor: Cursor<'_>) {
        let full = [&[first], cursor.rest].concat().join(".");
        let is_set = |key: &String| full == *key || full.starts_with(&format!("{key}."));
        if let Some((key, _)) = self.overrides.set.iter().rev().find(|(key, _)| is_set(key)) {
            self.out.push(Written { name: cursor.name.map(str::to_owned), at: At::Set(key.clone()) });
            return;
        }
        let in_profile = self.overrides.profile.as_ref().and_then(|profile| {
            let path = YamlPath::of(&["profiles", profile, first]);
            let file = self.spec.files.iter().find(|file| file.has(&path))?;
            Some(Spot { file: file.clone(), path })
        });
        let file = self.spec.param_place(first).map_or(&self.spec.file, |place| &place.file);
        let declared = Spot { file: file.clone(), path: YamlPath::of(&["params", first]) };
        self.follow(value, in_profile.unwrap_or(declared), cursor);
    }
}

#[cfg(test)]
mod tests {
    use super::super::expand;
    use super::*;

    const TEXT: &str = r#"params: {eps: 8/255, level: 3, radii: {near: {at: "${eps}"}, far: {at: 3/255}}}
profiles:
  fast: {level: 4}
stages:
  data: {kind: command, with: {run: "x ${level} ${eps}", outputs: {n: n}}}
  dark:
    kind: transform
    matrix:
      p: [1, 2]
    needs: {data: data}
    with:
      op: saturate
      level: "${p}"
  model:
    kind: train
    matrix:
      variant:
        pgd: {adversary: {attack: pgd, eps: "${eps}", step: 2/255, steps: 5}}
    needs: {data: data}
    seed: "${level}"
    with: {net: {arch: resnet, width: 16, blocks: [1]}, epochs: 4, adversary: "${variant.adversary}"}
  listed: {kind: command, matrix: {radius: "${radii}"}, with: {run: "x ${radius.at}", outputs: {n: n}}}
"#;

    fn places(instance: &str, path: &str, overrides: &Overrides) -> Vec<String> {
        let spec = PipelineSpec::from_text("p", TEXT, overrides).unwrap();
        let instances = expand(&spec).unwrap();
        let instance = instances.iter().find(|candidate| candidate.name == instance).unwrap();
        let shown = |written: &Written| match &written.at {
            At::File(place) => place.to_string(),
            At::Set(key) => format!("--set {key}"),
        };
        written(&spec, overrides, instance, path, None).iter().map(shown).collect()
    }

    #[test]
    fn of_a_text_the_reference_is_followed_that_changed_it() {
        let spec = PipelineSpec::from_text("p", TEXT, &Overrides::default()).unwrap();
        let instances = expand(&spec).unwrap();
        let instance = instances.iter().find(|candidate| candidate.name == "data").unwrap();
        let lines = |old: &str, new: &str| -> Vec<String> {
            let texts = Some((old.to_owned(), new.to_owned()));
            let written = written(&spec, &Overrides::default(), instance, "run", texts);
            let column = |written: Written| match written.at {
                At::File(place) => place.to_string(),
                At::Set(key) => key,
            };
            written.into_iter().map(column).collect()
        };
        assert_eq!(lines("x 2 8/255", "x 3 8/255"), ["p:5:37", "p:1:29"]);
        assert_eq!(lines("x 3 4/255", "x 3 8/255"), ["p:5:37", "p:1:15"]);
        assert_eq!(lines("y 3 4/255", "x 3 8/255"), ["p:5:37", "p:1:29", "p:1:15"], "it cannot be told");
    }

    #[test]
    fn defaults_that_are_joined_to_a_mapping_and_items_of_lists_are_found() {
        let text = "params: {note: a, seconds: [1, 2]}\n\
            defaults:\n\
            \x20 command: {env: {NOTE: '${note}'}}\n\
            stages:\n\
            \x20 one: {kind: command, with: {run: x, env: {OWN: b}, files: [c, 'd${note}'], outputs: {n: n}}}\n";
        let spec = PipelineSpec::from_text("p", text, &Overrides::default()).unwrap();
        let instances = expand(&spec).unwrap();
        let lines = |path: &str| -> Vec<String> {
            let written = written(&spec, &Overrides::default(), &instances[0], path, None);
            let shown = |written: &Written| match &written.at {
                At::File(place) => place.to_string(),
                At::Set(key) => key.clone(),
            };
            written.iter().map(shown).collect()
        };
        assert_eq!(lines("env.NOTE"), ["p:3:25", "p:1:16"]);
        assert_eq!(lines("env.OWN"), ["p:5:50"]);
        assert_eq!(lines("files[1]"), ["p:5:65", "p:1:16"]);
    }

    #[test]
    fn values_are_followed_to_where_they_are_written() {
        let plain = Overrides::default();
        assert_eq!(places("model/pgd", "epochs", &plain), ["p:21:65"]);
        assert_eq!(places("model/pgd", "adversary.eps", &plain), ["p:21:79", "p:18:45", "p:1:15"]);
        assert_eq!(places("dark/2", "level", &plain), ["p:13:14", "p:9:14"]);
        assert_eq!(places("data", "run", &plain), ["p:5:37", "p:1:29", "p:1:15"], "each reference of a text");
        assert_eq!(places("model/pgd", "seed", &plain), ["p:20:11", "p:1:29"]);
    }

    #[test]
    fn values_of_an_axis_that_is_a_parameter_are_found_in_it() {
        let plain = Overrides::default();
        assert_eq!(places("listed/far", "run", &plain), ["p:22:69", "p:22:44", "p:1:72"]);
        assert_eq!(places("listed/near", "run", &plain), ["p:22:69", "p:22:44", "p:1:51", "p:1:15"]);
        let set = Overrides { profile: None, set: vec![("radii.far.at".into(), "4/255".into())] };
        assert_eq!(places("listed/far", "run", &set), ["p:22:69", "p:22:44", "--set radii.far.at"]);
    }

    #[test]
    fn overrides_are_where_a_value_is_written() {
        let set = Overrides { profile: None, set: vec![("eps".into(), "4/255".into())] };
        assert_eq!(places("model/pgd", "adversary.eps", &set), ["p:21:79", "p:18:45", "--set eps"]);
        let profile = Overrides { profile: Some("fast".into()), set: Vec::new() };
        assert_eq!(places("model/pgd", "seed", &profile), ["p:20:11", "p:3:17"]);
    }
}
