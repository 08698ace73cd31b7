//! The points of a stage's matrix: axes multiplied out, points left out and points added. Knows labels, and no parameters.

use std::collections::HashSet;

use globset::{GlobBuilder, GlobMatcher};
use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::expand::{Expander, Stop};
use super::problem::{Problem, suggestion};
use super::refs::Reference;
use super::source::{Place, YamlPath};
use super::stage::{AxisValues, StageSpec, axis_values, check_label, label_of};
use super::substitute::LABEL;

/// A matrix beyond this is a mistake, or an attack.
const MAX_INSTANCES: usize = 200_000;

/// Where an axis can stand: a label, the value that it is for, and the instance that an `each` axis stands at.
pub(super) struct Stand {
    pub label: String,
    pub value: Value,
    pub reference: Option<Reference>,
}

/// The axes of a stage, and its points: for each axis, which of its stands.
pub(super) struct Matrix {
    pub axes: Vec<Vec<Stand>>,
    pub points: Vec<Vec<usize>>,
}

impl Expander<'_> {
    /// The points of a stage, those of the product first and those of `include` after them.
    pub(super) fn matrix(&self, stage: &StageSpec) -> Result<Matrix, Stop> {
        let mut axes = self.axes(stage)?;
        let too_many = |axes: &[Vec<Stand>], count: usize| {
            if count.saturating_add(self.instances.len()) <= MAX_INSTANCES {
                return Ok(());
            }
            let sizes: Vec<String> = axes.iter().map(|axis| axis.len().to_string()).collect();
            let message = format!("the matrix of stage `{}` makes more than {MAX_INSTANCES} instances", stage.name);
            let place = Place::key(&stage.file, stage.path.key("matrix"));
            let label = format!("{} instances", sizes.join(" × "));
            Err(Stop::Problems(vec![Problem::at(place, message, label)]))
        };
        let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.len())).unwrap_or(usize::MAX);
        too_many(&axes, count)?;
        let mut points: Vec<Vec<usize>> = vec![Vec::new()];
        for axis in &axes {
            let extend = |point: Vec<usize>| (0..axis.len()).map(move |at| [point.as_slice(), &[at]].concat());
            points = points.into_iter().flat_map(extend).collect();
        }
        let mut problems = Vec::new();
        let patterns = self.excluded(stage, &axes, &mut problems);
        let fits = |point: &[usize], pattern: &[(usize, HashSet<usize>)]| {
            pattern.iter().all(|(axis, stands)| stands.contains(&point[*axis]))
        };
        points.retain(|point| !patterns.iter().any(|pattern| fits(point, pattern)));
        let mut seen: HashSet<Vec<usize>> =
            if stage.include.is_empty() { HashSet::new() } else { points.iter().cloned().collect() };
        for index in 0..stage.include.len() {
            match include(stage, index, &mut axes) {
                Ok(added) => {
                    let count = added.iter().map(Vec::len).try_fold(points.len().max(1), usize::checked_mul);
                    too_many(&axes, count.unwrap_or(usize::MAX))?;
                    let mut new: Vec<Vec<usize>> = vec![Vec::new()];
                    for axis in &added {
                        let extend = |point: Vec<usize>| axis.iter().map(move |at| [point.as_slice(), &[*at]].concat());
                        new = new.into_iter().flat_map(extend).collect();
                    }
                    points.extend(new.into_iter().filter(|point| seen.insert(point.clone())));
                }
                Err(problem) => problems.push(problem),
            }
        }
        if points.is_empty() && problems.is_empty() {
            let place = Place::key(&stage.file, stage.path.key("exclude"));
            let message = format!("`exclude` leaves stage `{}` with no instance", stage.name);
            problems.push(Problem::at(place, message, "nothing is left").help("exclude less, or remove the stage"));
        }
        if problems.is_empty() { Ok(Matrix { axes, points }) } else { Err(Stop::Problems(problems)) }
    }

    fn axes(&self, stage: &StageSpec) -> Result<Vec<Vec<Stand>>, Stop> {
        let mut axes = Vec::with_capacity(stage.matrix.len());
        let mut missing = Vec::new();
        let nothing = Mapping::new();
        for axis in &stage.matrix {
            let path = || stage.path.key("matrix").key(&axis.name);
            let wrong = |message: String| {
                let place = Place::value(&stage.file, path());
                Stop::Problems(vec![Problem::at(place, format!("axis `{}` {message}", axis.name), "here")])
            };
            let substituted;
            let values = match &axis.values {
                AxisValues::Substituted(text) => {
                    let value = self.substitute(stage, text, &nothing, &path, &[])?;
                    substituted = axis_values(&value).map_err(wrong)?;
                    &substituted
                }
                values => values,
            };
            axes.push(match values {
                AxisValues::Each(what) => {
                    let path = || path().key("each");
                    let what = self.substitute(stage, what, &nothing, &path, &[])?;
                    let slot = stage.kind.slots().iter().find(|slot| slot.name == axis.name);
                    match self.references(stage, &what, &path).and_then(|found| self.choose(stage, found, slot, &path))
                    {
                        Ok(references) => references.into_iter().map(|reference| self.stand(reference)).collect(),
                        Err(Stop::Missing(names)) => {
                            missing.extend(names);
                            Vec::new()
                        }
                        Err(problems) => return Err(problems),
                    }
                }
                AxisValues::Listed(listed) => {
                    let stand = |(label, value): &(String, Value)| Stand {
                        label: label.clone(),
                        value: value.clone(),
                        reference: None,
                    };
                    listed.iter().map(stand).collect()
                }
                AxisValues::Substituted(value) => return Err(wrong(format!("is {}", describe(value)))),
            });
        }
        if missing.is_empty() { Ok(axes) } else { Err(Stop::Missing(missing)) }
    }

    /// An instance as a place for an axis to stand: `${axis.part}` gives its own axes, `${axis.label}` the label that it has here, as rows of tables do, unless it has an axis of that name.
    fn stand(&self, reference: Reference) -> Stand {
        let instance = self.instance(reference.instance);
        let mut value = instance.axes.clone();
        value.insert("stage".into(), instance.stage.clone().into());
        value.entry("label".into()).or_insert_with(|| reference.label.clone().into());
        value.insert(LABEL.into(), reference.text(instance).into());
        Stand { label: reference.label.clone(), value: Value::Mapping(value), reference: Some(reference) }
    }

    /// For each item of `exclude`: for the axes that it names, the stands that fit.
    fn excluded(
        &self,
        stage: &StageSpec,
        axes: &[Vec<Stand>],
        problems: &mut Vec<Problem>,
    ) -> Vec<Vec<(usize, HashSet<usize>)>> {
        let path = stage.path.key("exclude");
        let mut out = Vec::new();
        for (index, item) in stage.exclude.iter().enumerate() {
            let path = path.index(index);
            let mut pattern = Vec::new();
            match conditions(stage, "exclude", item, &path) {
                Ok(conditions) => {
                    for Condition { axis, value, path } in conditions {
                        let Some(text) = label_of(value) else {
                            let message = format!("a label is a word or a number; this is {}", describe(value));
                            problems.push(Problem::at(Place::value(&stage.file, path), message, "not a label"));
                            continue;
                        };
                        let stands = matching(&axes[axis], &text);
                        // Axes that parameters or other stages decide may well be without a label at times.
                        if stands.is_empty() && matches!(stage.matrix[axis].values, AxisValues::Listed(_)) {
                            problems.push(no_label(stage, axis, &axes[axis], &text, path));
                        }
                        pattern.push((axis, stands.into_iter().collect()));
                    }
                }
                Err(problem) => problems.push(problem),
            }
            out.push(pattern);
        }
        out
    }
}

/// The stands of each axis that one item of `include` names; a value that an axis does not have becomes a new stand of it.
fn include(stage: &StageSpec, index: usize, axes: &mut [Vec<Stand>]) -> Result<Vec<Vec<usize>>, Problem> {
    let path = stage.path.key("include").index(index);
    let mut chosen: Vec<Option<Vec<usize>>> = vec![None; axes.len()];
    for Condition { axis, value, path } in conditions(stage, "include", &stage.include[index], &path)? {
        let name = &stage.matrix[axis].name;
        let wrong = |message: String| Problem::at(Place::value(&stage.file, path.clone()), message, "here");
        let is_each = axes[axis].iter().any(|stand| stand.reference.is_some());
        let (label, value) = match value {
            Value::Mapping(map) if map.len() == 1 && !is_each => {
                let (label, value) = map.iter().next().expect("its length is 1");
                let label = label_of(label).ok_or_else(|| wrong("a label is a word or a number".to_owned()))?;
                if axes[axis].iter().any(|stand| stand.label == label && stand.value != *value) {
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
        if stands.is_empty() {
            if is_each || is_pattern(&label) {
                return Err(no_label(stage, axis, &axes[axis], &label, path));
            }
            check_label(&label).map_err(|message| wrong(format!("axis `{name}` {message}")))?;
            stands.push(axes[axis].len());
            axes[axis].push(Stand { label, value: value.clone(), reference: None });
        }
        chosen[axis] = Some(stands);
    }
    let unnamed = stage.matrix.iter().zip(&chosen).find(|(_, chosen)| chosen.is_none());
    if let Some((axis, _)) = unnamed {
        let message = format!("a point of the matrix has a label for each axis; this one has none for `{}`", axis.name);
        let place = Place::value(&stage.file, path);
        return Err(Problem::at(place, message, "one is missing")
            .help(format!("add `{}: LABEL`, or `{0}: \"*\"` for all", axis.name)));
    }
    Ok(chosen.into_iter().flatten().collect())
}

/// What one item of `include` or `exclude` says of one axis.
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
) -> Result<Vec<Condition<'v>>, Problem> {
    let Some(map) = item.as_mapping().filter(|map| !map.is_empty()) else {
        let message = format!("`{what}` lists mappings from axes to labels; this is {}", describe(item));
        let place = Place::value(&stage.file, path.clone());
        return Err(Problem::at(place, message, "expected a mapping").help("write `{AXIS: LABEL}`"));
    };
    let mut conditions = Vec::new();
    for (axis, value) in map {
        let axis = axis.as_str().unwrap_or_default();
        let Some(position) = stage.matrix.iter().position(|candidate| candidate.name == axis) else {
            let place = Place::key(&stage.file, path.key(axis));
            let problem = Problem::at(place, format!("stage `{}` has no axis `{axis}`", stage.name), "unknown axis");
            return Err(problem.suggest(axis, stage.matrix.iter().map(|axis| axis.name.as_str())));
        };
        conditions.push(Condition { axis: position, value, path: path.key(axis) });
    }
    Ok(conditions)
}

fn no_label(stage: &StageSpec, axis: usize, stands: &[Stand], label: &str, path: YamlPath) -> Problem {
    let name = &stage.matrix[axis].name;
    let what = if is_pattern(label) { "no label of axis" } else { "no label" };
    let message = match is_pattern(label) {
        true => format!("{what} `{name}` fits `{label}`"),
        false => format!("axis `{name}` has {what} `{label}`"),
    };
    let mut problem = Problem::at(Place::value(&stage.file, path), message, "fits nothing");
    problem.help = suggestion(label, stands.iter().map(|stand| stand.label.as_str()));
    problem
}

fn is_pattern(label: &str) -> bool {
    label.contains(['*', '?', '[', '{'])
}

/// The stands of an axis whose label a label or pattern means.
fn matching(stands: &[Stand], label: &str) -> Vec<usize> {
    let glob: Option<GlobMatcher> = is_pattern(label)
        .then(|| GlobBuilder::new(label).literal_separator(true).build().ok().map(|glob| glob.compile_matcher()))
        .flatten();
    let fits = |stand: &Stand| stand.label == label || glob.as_ref().is_some_and(|glob| glob.is_match(&stand.label));
    stands.iter().enumerate().filter(|(_, stand)| fits(stand)).map(|(index, _)| index).collect()
}
