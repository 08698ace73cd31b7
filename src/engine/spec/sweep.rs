//! Sweeps: parameters with several values in one run, as in `--set eps=1/255,2/255`.
//!
//! A sweep has a point for each combination of values. A pipeline is expanded at every point as if that point were a
//! run of its own, so keys are those of the single runs. Instances that read none of the parameters are the same at
//! every point, and exist once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde_yaml::{Mapping, Value};

use super::diagnostics::Lost;
use super::problem::Problem;
use super::stage::{StageSpec, check_label, label_of};
use super::substitute::{Scope, scalar_text};
use super::sweep_stand::SweepStand;
use super::watch::Watch;
use crate::stage_kinds::StageKind;

/// Maximum number of points; more is a mistake.
const MAX_POINTS: usize = 1000;

/// The coordinate that every instance has, whatever parameters there are.
const STAGE: &str = "stage";

/// A parameter that is a coordinate of the instances that read it.
#[derive(Debug, Clone)]
pub(super) struct SweptParam {
    /// Its name; `net.width` is a value in the mapping `net`.
    pub name: Arc<str>,
    /// Its values and their labels.
    values: Vec<(Arc<str>, Arc<Value>)>,
    /// Whether names of instances have the value: it was given on the command line, or by `seeds`.
    is_named: bool,
    /// Whether tables and curves average over the values unless they name the parameter.
    is_averaged: bool,
}

/// All swept parameters, and the points.
#[derive(Debug)]
pub(super) struct Sweep {
    params: Vec<SweptParam>,
    /// At least one.
    points: Vec<Point>,
}

#[derive(Debug)]
struct Point {
    /// For each swept parameter, the index of its value.
    at: Vec<usize>,
    /// The pipeline's parameters at this point.
    params: Mapping,
}

impl SweptParam {
    /// Reads the values of a parameter from the command line.
    ///
    /// # Errors
    /// Returns the problem if a value cannot be part of a name, or if there is one value twice.
    pub(super) fn new(name: &str, values: Vec<Value>) -> Result<Self, Problem> {
        let quotes = format!("a text with a comma in it stands in quotes: --set '{name}=\"a, b\"'");
        let mut labelled = Vec::new();
        let mut seen = HashSet::new();
        for value in values {
            let Some(label) = label_of(&value) else {
                let message = format!("--set {name}: each value of a sweep is a word or a number");
                return Err(Problem::anywhere(message).help(format!("write `--set {name}=1,2`; {quotes}")));
            };
            if let Err(message) = check_label(&label) {
                return Err(Problem::anywhere(format!("--set {name}: the sweep {message}")).help(quotes));
            }
            if !seen.insert(label.clone()) {
                let message = format!("--set {name}: the sweep has the value `{}` twice", written(&value));
                return Err(Problem::anywhere(message).help("remove one of the two"));
            }
            labelled.push((label.into(), value.into()));
        }
        Ok(SweptParam { name: name.into(), values: labelled, is_named: true, is_averaged: false })
    }

    /// Has tables and curves average over the values.
    pub(super) fn averaged(self) -> Self {
        SweptParam { is_averaged: true, ..self }
    }

    /// Returns all values as one text: `1/255,2/255`.
    pub(super) fn written(&self) -> Value {
        let values: Vec<String> = self.values.iter().map(|(_, value)| written(value)).collect();
        Value::String(values.join(","))
    }
}

fn written(value: &Value) -> String {
    scalar_text(value).unwrap_or_default()
}

/// Splits `1/255,2/255` at its commas. A text in quotes, a list and a mapping are one value each.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let text = text.trim();
    if text.starts_with(['[', '{']) {
        return vec![text];
    }
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if "\"'".contains(c) && text[start..at].trim().is_empty() => quote = Some(c),
            None if c == ',' => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

impl Sweep {
    /// Joins the swept parameters of the command line and those that tables and figures name as coordinates.
    ///
    /// # Errors
    /// Returns the problem if there are too many points.
    pub(super) fn new(
        mut swept: Vec<SweptParam>,
        stages: &[StageSpec],
        params: &Mapping,
        lost: &Lost,
    ) -> Result<Self, Problem> {
        let count = swept.iter().try_fold(1_usize, |count, param| count.checked_mul(param.values.len()));
        if count.is_none_or(|count| count > MAX_POINTS) {
            let message = format!("the values of --set make more than {MAX_POINTS} combinations");
            return Err(Problem::anywhere(message).help("sweep over fewer values at a time"));
        }
        swept.extend(read_by_coordinates(&swept, stages, params, lost));
        let mut points = vec![Point { at: Vec::new(), params: params.clone() }];
        for param in &swept {
            let extended = points.iter().flat_map(|point| (0..param.values.len()).map(move |at| point.with(param, at)));
            points = extended.collect();
        }
        Ok(Sweep { params: swept, points })
    }

    /// Returns the number of points, at least 1.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// Returns the pipeline's parameters at a point.
    pub(super) fn params(&self, point: usize) -> &Mapping {
        &self.points[point].params
    }

    /// Returns what notes which swept parameters are read.
    pub(super) fn watch(&self) -> Watch {
        Watch::new(self.params.iter().map(|param| param.name.to_string()).collect())
    }

    /// Returns where a parameter stands at a point.
    pub(super) fn stand(&self, param: usize, point: usize) -> SweepStand {
        let SweptParam { name, values, is_named, .. } = &self.params[param];
        let (label, value) = &values[self.points[point].at[param]];
        SweepStand { param, name: name.clone(), label: label.clone(), value: value.clone(), is_named: *is_named }
    }

    /// Returns every value of a swept parameter.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.params.iter().flat_map(|param| param.values.iter().map(|(_, value)| value))
    }

    /// Returns the coordinate that a table or curves average over because the pipeline has several seeds, and they say
    /// nothing else.
    pub(super) fn averaged_by(&self, stage: &StageSpec) -> Option<&str> {
        let written = || [Some(&stage.with), stage.defaults.as_deref()].into_iter().flatten();
        let is_drawn = match stage.kind? {
            StageKind::Table => true,
            StageKind::Figure => {
                let draws = written().find_map(|with| with.get("draw")?.as_str());
                draws.is_none_or(|draws| draws == "curves")
            }
            _ => false,
        };
        let says_over = written().any(|with| with.get("over").is_some_and(|over| !over.is_null()));
        let named = coordinates(stage);
        let mut averaged = self.params.iter().filter(|param| param.is_averaged && !named.contains(&*param.name));
        averaged.next().filter(|_| is_drawn && !says_over).map(|param| &*param.name)
    }

    /// Returns the parameters whose values a stage joins: those that it names as coordinates, and the seeds that it
    /// averages over.
    pub(super) fn joined_by(&self, stage: &StageSpec) -> BTreeSet<usize> {
        if self.params.is_empty() {
            return BTreeSet::new();
        }
        let named = coordinates(stage);
        let averaged = self.averaged_by(stage);
        let is_named =
            |(_, param): &(usize, &SweptParam)| named.contains(&&*param.name) || averaged == Some(&*param.name);
        self.params.iter().enumerate().filter(is_named).map(|(position, _)| position).collect()
    }

    /// Returns the points whose instances a stage sees from one point: that point, and those that differ from it in
    /// nothing but the parameters whose values the stage joins.
    pub(super) fn seen_from(&self, point: usize, joined: &BTreeSet<usize>) -> Vec<usize> {
        if joined.is_empty() {
            return vec![point];
        }
        let at = &self.points[point].at;
        let is_alike =
            |other: &Point| (0..at.len()).all(|param| joined.contains(&param) || other.at[param] == at[param]);
        (0..self.points.len()).filter(|other| is_alike(&self.points[*other])).collect()
    }
}

impl Point {
    fn with(&self, param: &SweptParam, at: usize) -> Self {
        let mut params = self.params.clone();
        if let Some(value) = find(&mut params, &param.name) {
            *value = (*param.values[at].1).clone();
        }
        Point { at: [self.at.as_slice(), &[at]].concat(), params }
    }
}

/// Returns the value of a parameter; `net.width` is a value in the mapping `net`.
pub(super) fn find<'p>(params: &'p mut Mapping, name: &str) -> Option<&'p mut Value> {
    let mut steps = name.split('.');
    let first = params.get_mut(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get_mut(step))
}

/// Returns the parameters that tables and figures name as coordinates: each is a sweep of one value, so that `x: eps`
/// means the same whether `eps` has one value or several.
fn read_by_coordinates(swept: &[SweptParam], stages: &[StageSpec], params: &Mapping, lost: &Lost) -> Vec<SweptParam> {
    let named: BTreeSet<&str> = stages.iter().flat_map(coordinates).collect();
    let is_free = |name: &&str| {
        let is_swept = swept.iter().any(|param| *param.name == **name);
        let is_axis = name.split_once('.').is_some_and(|(first, _)| stages.iter().any(|stage| stage.name == first));
        *name != STAGE && !is_swept && !is_axis
    };
    let mut params = params.clone();
    let nothing = Mapping::new();
    let mut found = Vec::new();
    for name in named.into_iter().filter(is_free) {
        let Some(value) = find(&mut params, name).map(|value| value.clone()) else { continue };
        let scope = Scope {
            axes: &nothing,
            params: &params,
            reserved: &[],
            lost,
            are_axes_lost: false,
            is_command: false,
            watch: None,
        };
        let value = scope.apply(&value).0.into_owned();
        let label = label_of(&value).filter(|label| check_label(label).is_ok());
        let values = label.map(|label| vec![(label.into(), value.into())]);
        found.extend(values.map(|values| SweptParam {
            name: name.into(),
            values,
            is_named: false,
            is_averaged: false,
        }));
    }
    found
}

/// Returns the coordinates that a table or figure names.
fn coordinates(stage: &StageSpec) -> BTreeSet<&str> {
    if !matches!(stage.kind, Some(StageKind::Table | StageKind::Figure)) {
        return BTreeSet::new();
    }
    let written = [Some(&stage.with), stage.defaults.as_deref()].into_iter().flatten();
    written.flat_map(|with| sides(with).chain(filters(with))).collect()
}

fn sides(with: &Value) -> impl Iterator<Item = &str> {
    ["rows", "columns", "over", "x", "series"].into_iter().filter_map(|key| with.get(key)?.as_str())
}

fn filters(with: &Value) -> impl Iterator<Item = &str> {
    let columns = with.get("columns").and_then(Value::as_sequence).into_iter().flatten();
    let filters = columns.filter_map(|column| column.get("where")?.as_mapping());
    filters.flat_map(Mapping::keys).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_separate_values_but_not_in_quotes_lists_and_mappings() {
        assert_eq!(parts("1/255, 2/255"), ["1/255", "2/255"]);
        assert_eq!(parts("8/255"), ["8/255"]);
        assert_eq!(parts("[1, 2]"), ["[1, 2]"]);
        assert_eq!(parts("{a: 1, b: 2}"), ["{a: 1, b: 2}"]);
        assert_eq!(parts("\"a, b\""), ["\"a, b\""]);
        assert_eq!(parts("'a, b', c"), ["'a, b'", "c"]);
        assert_eq!(parts("1,,2,"), ["1", "", "2", ""]);
        assert_eq!(parts("it's,so"), ["it's", "so"], "a quote within a word is part of it");
    }
}
