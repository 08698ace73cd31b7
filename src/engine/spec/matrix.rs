//! Points of a stage's matrix: the product of its axes, minus `exclude`, plus `include`. Knows labels, not parameters.

use std::collections::HashSet;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::pattern::is_pattern;
use super::poison::{is_unknown, unknown};
use super::problem::{Problem, suggestion};
use super::refs::Reference;
use super::source::{Place, YamlPath};
use super::stage::{AxisSpec, AxisValues, StageSpec, axis_values, check_label, label_of};
use super::substitute::LABEL;

/// Maximum number of instances per stage; a larger matrix is a mistake or an attack.
const MAX_INSTANCES: usize = 200_000;

/// A position on an axis: a label, its value, and the instance if the axis is an `each` axis.
pub(super) struct Stand {
    pub label: Arc<str>,
    pub value: Arc<Value>,
    pub reference: Option<Reference>,
}

/// The axes of a stage and its points: for each axis, the index of its position.
pub(super) struct Matrix {
    pub axes: Vec<Vec<Stand>>,
    pub points: Vec<Vec<usize>>,
    /// Whether the points are complete and every position is known.
    pub is_known: bool,
}

impl Expander<'_> {
    /// Returns the points of a stage: first those of the product, then those of `include`.
    ///
    /// An unknown axis has a single position with an unknown value.
    pub(super) fn matrix(&self, stage: &StageSpec, notes: &mut Diagnostics) -> Matrix {
        let mut is_known = !stage.lost.matrix;
        let mut axes: Vec<Vec<Stand>> = stage.matrix.iter().map(|axis| self.axis(stage, axis, notes)).collect();
        for axis in axes.iter_mut().filter(|axis| axis.is_empty()) {
            is_known = false;
            axis.push(Stand { label: "".into(), value: unknown().into(), reference: None });
        }
        let is_axis_known = |axis: &[Stand]| !axis.iter().any(|stand| is_unknown(&stand.value));
        let are_known: Vec<bool> = axes.iter().map(|axis| is_axis_known(axis)).collect();
        let too_many = |axes: &[Vec<Stand>], count: usize, notes: &mut Diagnostics| {
            let is_too_many = count.saturating_add(self.instances.len()) > MAX_INSTANCES;
            if is_too_many {
                let sizes: Vec<String> = axes.iter().map(|axis| axis.len().to_string()).collect();
                let message = format!("the matrix of stage `{}` makes more than {MAX_INSTANCES} instances", stage.name);
                let place = Place::key(&stage.file, stage.path.key("matrix"));
                notes.tell_at(place, message, &format!("{} instances", sizes.join(" × ")), None);
            }
            is_too_many
        };
        let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.len())).unwrap_or(usize::MAX);
        if too_many(&axes, count, notes) {
            let first = vec![0; axes.len()];
            return Matrix { axes, points: vec![first], is_known: false };
        }
        let mut points: Vec<Vec<usize>> = vec![Vec::new()];
        for axis in &axes {
            let extend = |point: Vec<usize>| (0..axis.len()).map(move |at| [point.as_slice(), &[at]].concat());
            points = points.into_iter().flat_map(extend).collect();
        }
        let told = notes.problems.len();
        let patterns = self.excluded(stage, &axes, &are_known, notes);
        let fits = |point: &[usize], pattern: &[(usize, HashSet<usize>)]| {
            pattern.iter().all(|(axis, stands)| stands.contains(&point[*axis]))
        };
        let (left_out, mut points): (Vec<_>, Vec<_>) =
            points.into_iter().partition(|point| patterns.iter().any(|pattern| fits(point, pattern)));
        let mut seen: HashSet<Vec<usize>> =
            if stage.include.is_empty() { HashSet::new() } else { points.iter().cloned().collect() };
        for index in 0..stage.include.len() {
            let Some(added) = include(stage, index, &mut axes, &are_known, notes) else { continue };
            let count = added.iter().map(Vec::len).try_fold(points.len().max(1), usize::checked_mul);
            if too_many(&axes, count.unwrap_or(usize::MAX), notes) {
                break;
            }
            let mut new: Vec<Vec<usize>> = vec![Vec::new()];
            for axis in &added {
                let extend = |point: Vec<usize>| axis.iter().map(move |at| [point.as_slice(), &[*at]].concat());
                new = new.into_iter().flat_map(extend).collect();
            }
            points.extend(new.into_iter().filter(|point| seen.insert(point.clone())));
        }
        is_known &= notes.problems.len() == told;
        if points.is_empty() {
            if is_known {
                let place = Place::key(&stage.file, stage.path.key("exclude"));
                let message = format!("`exclude` leaves stage `{}` with no instance", stage.name);
                let help = Some("exclude less, or remove the stage".to_owned());
                notes.tell_at(place, message, "nothing is left", help);
            }
            // The remaining points are unknown, but the rest of the stage is still checked.
            (points, is_known) = (left_out, false);
        }
        Matrix { axes, points, is_known }
    }

    /// Returns the positions of an axis; empty if they are unknown.
    fn axis(&self, stage: &StageSpec, axis: &AxisSpec, notes: &mut Diagnostics) -> Vec<Stand> {
        let nothing = Mapping::new();
        let path = || stage.path.key("matrix").key(&axis.name);
        let wrong = |messages: Vec<String>, notes: &mut Diagnostics| {
            for message in messages {
                let place = Place::value(&stage.file, path());
                notes.tell_at(place, format!("axis `{}` {message}", axis.name), "here", None);
            }
            Vec::new()
        };
        let substituted;
        let values = match &axis.values {
            AxisValues::Substituted(text) => {
                let value = self.substitute(stage, text, &nothing, &path, &[], notes);
                if is_unknown(&value) {
                    return Vec::new();
                }
                match axis_values(&value) {
                    Ok(values) => {
                        substituted = values;
                        &substituted
                    }
                    Err(messages) => return wrong(messages, notes),
                }
            }
            values => values,
        };
        match values {
            AxisValues::Each(what) => {
                let path = || path().key("each");
                let what = self.substitute(stage, what, &nothing, &path, &[], notes);
                let slot = stage.slots().iter().find(|slot| slot.name == axis.name);
                let found = self.references(stage, &what, &path, notes);
                let found = self.choose(stage, found, slot, &path, notes);
                match found.is_whole {
                    true => found.references.into_iter().map(|reference| self.stand(reference)).collect(),
                    false => Vec::new(),
                }
            }
            AxisValues::Listed(listed) => {
                let stand = |(label, value): &(String, Value)| Stand {
                    label: label.as_str().into(),
                    value: value.clone().into(),
                    reference: None,
                };
                listed.iter().map(stand).collect()
            }
            AxisValues::Substituted(value) => wrong(vec![format!("is {}", describe(value))], notes),
            AxisValues::Unknown => Vec::new(),
        }
    }

    /// Turns an instance into an axis position.
    ///
    /// `${axis.part}` gives the instance's own axes. `${axis.label}` gives its label here, as in table rows, unless it
    /// has an axis of that name.
    fn stand(&self, reference: Reference) -> Stand {
        let instance = self.instance(reference.instance);
        let mut value = instance.axes();
        value.insert("stage".into(), instance.stage.clone().into());
        value.entry("label".into()).or_insert_with(|| reference.label.clone().into());
        value.insert(LABEL.into(), reference.text(instance).into());
        Stand {
            label: reference.label.as_str().into(),
            value: Value::Mapping(value).into(),
            reference: Some(reference),
        }
    }

    /// Returns, for each item of `exclude`, the matching positions of the axes that it names.
    fn excluded(
        &self,
        stage: &StageSpec,
        axes: &[Vec<Stand>],
        are_known: &[bool],
        notes: &mut Diagnostics,
    ) -> Vec<Vec<(usize, HashSet<usize>)>> {
        let path = stage.path.key("exclude");
        let mut out = Vec::new();
        for (index, item) in stage.exclude.iter().enumerate() {
            let mut pattern = Vec::new();
            for Condition { axis, value, path } in conditions(stage, "exclude", item, &path.index(index), notes) {
                let Some(text) = label_of(value) else {
                    let message = format!("a label is a word or a number; this is {}", describe(value));
                    notes.tell_at(Place::value(&stage.file, path), message, "not a label", None);
                    continue;
                };
                let stands = matching(&axes[axis], &text);
                // Axes filled from parameters or other stages may lack a label at times.
                if stands.is_empty() && matches!(stage.matrix[axis].values, AxisValues::Listed(_)) && are_known[axis] {
                    notes.tell(no_label(stage, axis, &axes[axis], &text, path));
                }
                pattern.push((axis, stands.into_iter().collect()));
            }
            // An empty pattern would match every point.
            if !pattern.is_empty() {
                out.push(pattern);
            }
        }
        out
    }
}

/// Returns the positions on each axis that one item of `include` names; a new value adds a position to its axis.
fn include(
    stage: &StageSpec,
    index: usize,
    axes: &mut [Vec<Stand>],
    are_known: &[bool],
    notes: &mut Diagnostics,
) -> Option<Vec<Vec<usize>>> {
    let path = stage.path.key("include").index(index);
    let told = notes.problems.len();
    let mut chosen: Vec<Option<Vec<usize>>> = vec![None; axes.len()];
    for Condition { axis, value, path } in conditions(stage, "include", &stage.include[index], &path, notes) {
        match included(stage, axis, value, path, axes, are_known[axis]) {
            Ok(stands) => chosen[axis] = Some(stands),
            Err(problem) => {
                notes.tell(problem);
                chosen[axis] = Some(Vec::new());
            }
        }
    }
    // An axis that does not exist may be a misspelling of the missing one.
    let is_clear = notes.problems.len() == told;
    for (axis, _) in stage.matrix.iter().zip(&chosen).filter(|(_, chosen)| chosen.is_none() && is_clear) {
        let message = format!("a point of the matrix has a label for each axis; this one has none for `{}`", axis.name);
        let help = Some(format!("add `{}: LABEL`, or `{0}: \"*\"` for all", axis.name));
        notes.tell_at(Place::value(&stage.file, path.clone()), message, "one is missing", help);
    }
    (notes.problems.len() == told).then(|| chosen.into_iter().flatten().collect())
}

/// Returns the positions that an item of `include` selects on one axis.
fn included(
    stage: &StageSpec,
    axis: usize,
    value: &Value,
    path: YamlPath,
    axes: &mut [Vec<Stand>],
    is_known: bool,
) -> Result<Vec<usize>, Problem> {
    let name = &stage.matrix[axis].name;
    let wrong = |message: String| Problem::at(Place::value(&stage.file, path.clone()), message, "here");
    let is_each = axes[axis].iter().any(|stand| stand.reference.is_some());
    let (label, value) = match value {
        Value::Mapping(map) if map.len() == 1 && !is_each => {
            let (label, value) = map.iter().next().expect("its length is 1");
            let label = label_of(label).ok_or_else(|| wrong("a label is a word or a number".to_owned()))?;
            if axes[axis].iter().any(|stand| *stand.label == *label && *stand.value != *value) {
                let message = format!("axis `{name}` has the label `{label}` already, with another value");
                return Err(wrong(message).help("choose another label"));
            }
            (label, value)
        }
        value => match label_of(value) {
            Some(label) => (label, value),
            None => {
                let message = format!("expected a label, or {{LABEL: VALUE}}; this is {}", describe(value));
                return Err(wrong(message));
            }
        },
    };
    let mut stands = matching(&axes[axis], &label);
    if stands.is_empty() && is_known {
        if is_each || is_pattern(&label) {
            return Err(no_label(stage, axis, &axes[axis], &label, path));
        }
        check_label(&label).map_err(|message| wrong(format!("axis `{name}` {message}")))?;
        stands.push(axes[axis].len());
        axes[axis].push(Stand { label: label.into(), value: value.clone().into(), reference: None });
    }
    Ok(stands)
}

/// The condition of one `include` or `exclude` item on one axis.
struct Condition<'v> {
    axis: usize,
    value: &'v Value,
    path: YamlPath,
}

fn conditions<'v>(
    stage: &StageSpec,
    what: &str,
    item: &'v Value,
    path: &YamlPath,
    notes: &mut Diagnostics,
) -> Vec<Condition<'v>> {
    let Some(map) = item.as_mapping().filter(|map| !map.is_empty()) else {
        let message = format!("`{what}` lists mappings from axes to labels; this is {}", describe(item));
        let place = Place::value(&stage.file, path.clone());
        notes.tell_at(place, message, "expected a mapping", Some("write `{AXIS: LABEL}`".to_owned()));
        return Vec::new();
    };
    let mut conditions = Vec::new();
    for (axis, value) in map {
        let axis = axis.as_str().unwrap_or_default();
        match stage.matrix.iter().position(|candidate| candidate.name == axis) {
            Some(position) => conditions.push(Condition { axis: position, value, path: path.key(axis) }),
            // Without a matrix there is nothing to compare with; that is already reported.
            None if stage.matrix.is_empty() => {}
            None => {
                let place = Place::key(&stage.file, path.key(axis));
                let problem =
                    Problem::at(place, format!("stage `{}` has no axis `{axis}`", stage.name), "unknown axis");
                notes.tell(problem.suggest(axis, stage.matrix.iter().map(|axis| axis.name.as_str())));
            }
        }
    }
    conditions
}

fn no_label(stage: &StageSpec, axis: usize, stands: &[Stand], label: &str, path: YamlPath) -> Problem {
    let name = &stage.matrix[axis].name;
    let what = if is_pattern(label) { "no label of axis" } else { "no label" };
    let message = match is_pattern(label) {
        true => format!("{what} `{name}` fits `{label}`"),
        false => format!("axis `{name}` has {what} `{label}`"),
    };
    let mut problem = Problem::at(Place::value(&stage.file, path), message, "fits nothing");
    problem.help = suggestion(label, stands.iter().map(|stand| &*stand.label));
    problem
}

/// Returns the positions whose label matches a label or pattern.
fn matching(stands: &[Stand], label: &str) -> Vec<usize> {
    let glob: Option<GlobMatcher> = is_pattern(label)
        .then(|| GlobBuilder::new(label).literal_separator(true).build().ok().map(|glob| glob.compile_matcher()))
        .flatten();
    let fits = |stand: &Stand| *stand.label == *label || glob.as_ref().is_some_and(|glob| glob.is_match(&*stand.label));
    stands.iter().enumerate().filter(|(_, stand)| fits(stand)).map(|(index, _)| index).collect()
}
