//! From stages as written to instances: matrices multiplied out, `${…}` replaced, parameters checked, references resolved. The order of the file does
//! not matter: a stage is expanded once those that it refers to are, and a circle of references is found on the way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_yaml::{Mapping, Value};

use super::check::describe;
use super::grid;
use super::instance::{Instance, InstanceId, Need, OutputSpec, SourceNeed};
use super::params;
use super::pipeline::{AxisValues, PipelineSpec, StageSpec, axis_values};
use super::problem::{Problem, Problems};
use super::refs::{Missing, Reference};
use super::source::{Place, Step, YamlPath};
use super::substitute::{LABEL, Scope};
use crate::kinds::{Kind, Slot};

/// A matrix beyond this is a mistake, or an attack.
const MAX_INSTANCES: usize = 200_000;

/// The coordinate that every instance has: the name of its stage.
const STAGE_COORDINATE: &str = "stage";

/// Beyond so many problems of one file nobody reads on.
const MAX_PROBLEMS: usize = 50;

/// What a stage gives while it is expanded: nothing yet because another stage has to come first, or problems.
pub(super) enum Stop {
    Missing(String, YamlPath),
    Problems(Vec<Problem>),
}

/// Expands a pipeline into its instances, producers before consumers.
///
/// # Errors
/// Every problem of the file.
pub fn expand(spec: &PipelineSpec) -> Result<Vec<Instance>, Problems> {
    let mut expander = Expander { spec, instances: Vec::new(), by_name: HashMap::new(), by_stage: BTreeMap::new() };
    let mut problems: Vec<Problem> = Vec::new();
    let mut failed: HashSet<&str> = HashSet::new();
    for stage in &spec.stages {
        // Stages that wait for the one on top, and where each names the next.
        let mut waiting: Vec<(&StageSpec, YamlPath)> = vec![(stage, stage.path.clone())];
        while let Some((stage, _)) = waiting.last() {
            if expander.by_stage.contains_key(&stage.name) || failed.contains(stage.name.as_str()) {
                waiting.pop();
                continue;
            }
            match expander.stage(stage) {
                Ok(instances) => expander.add(stage, instances, &mut problems),
                Err(Stop::Problems(found)) => {
                    problems.extend(found);
                    failed.insert(&stage.name);
                }
                Err(Stop::Missing(name, at)) => match spec.stages.iter().find(|stage| stage.name == name) {
                    // It fails for its own reasons, and these are told already.
                    Some(_) if failed.contains(name.as_str()) => {
                        failed.insert(&stage.name);
                    }
                    Some(next) => match waiting.iter().position(|(stage, _)| stage.name == name) {
                        Some(start) => {
                            problems.push(circle(spec, &waiting[start..], at));
                            failed.extend(waiting[start..].iter().map(|(stage, _)| stage.name.as_str()));
                        }
                        None => {
                            waiting.last_mut().expect("the loop holds an element").1 = at;
                            waiting.push((next, YamlPath::default()));
                        }
                    },
                    None => {
                        let names = spec.stages.iter().map(|stage| stage.name.as_str());
                        let place = Place::value(&spec.file, at);
                        let problem = Problem::at(place, format!("there is no stage `{name}`"), "unknown stage");
                        problems.push(problem.suggest(&name, names));
                        failed.insert(&stage.name);
                    }
                },
            }
        }
    }
    if problems.is_empty() {
        return Ok(expander.instances);
    }
    // Instances of one stage share their mistakes.
    let mut seen = HashSet::new();
    problems.retain(|problem| seen.insert((problem.place.as_ref().map(Place::span), problem.message.clone())));
    problems.sort_by_key(|problem| problem.place.as_ref().map(|place| place.span().start));
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(Problem::anywhere(format!("and {more} more problems")));
    }
    Err(Problems(problems))
}

fn circle(spec: &PipelineSpec, stages: &[(&StageSpec, YamlPath)], at: YamlPath) -> Problem {
    let first = &stages[0].0.name;
    let names: Vec<&str> = stages.iter().map(|(stage, _)| stage.name.as_str()).chain([first.as_str()]).collect();
    let message = format!("stages need one another in a circle: {}", names.join(" needs "));
    Problem::at(Place::value(&spec.file, at), message, "this closes the circle").help("remove one of these needs")
}

pub(super) struct Expander<'a> {
    pub spec: &'a PipelineSpec,
    pub instances: Vec<Instance>,
    by_name: HashMap<String, InstanceId>,
    by_stage: BTreeMap<String, Vec<InstanceId>>,
}

/// A point of a matrix: the label and value of each axis, and what an `each` axis stands at.
type Point = Vec<(String, Value, Option<Reference>)>;

impl Expander<'_> {
    pub(super) fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id.0]
    }

    pub(super) fn named(&self, name: &str) -> Option<InstanceId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn of_stage(&self, stage: &str) -> Option<&[InstanceId]> {
        self.by_stage.get(stage).map(Vec::as_slice)
    }

    fn add(&mut self, stage: &StageSpec, instances: Vec<Instance>, problems: &mut Vec<Problem>) {
        let mut ids = Vec::with_capacity(instances.len());
        for instance in instances {
            let id = InstanceId(self.instances.len());
            if self.by_name.insert(instance.name.clone(), id).is_some() {
                let message = format!("two instances have the name `{}`", instance.name);
                let place = Place::key(&self.spec.file, stage.path.key("matrix"));
                problems.push(Problem::at(place, message, "in this matrix").help("give their values different labels"));
            }
            ids.push(id);
            self.instances.push(instance);
        }
        self.by_stage.insert(stage.name.clone(), ids);
    }

    fn stage(&self, stage: &StageSpec) -> Result<Vec<Instance>, Stop> {
        let axes = self.axes(stage)?;
        let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.len())).unwrap_or(usize::MAX);
        if count.saturating_add(self.instances.len()) > MAX_INSTANCES {
            let message = format!("the matrix of stage `{}` makes more than {MAX_INSTANCES} instances", stage.name);
            let place = Place::key(&self.spec.file, stage.path.key("matrix"));
            return Err(Stop::Problems(vec![Problem::at(place, message, "here")]));
        }
        let mut points: Vec<Point> = vec![Vec::new()];
        for axis in axes {
            let extend = |point: &Point| {
                axis.iter().map(|value| [point.as_slice(), std::slice::from_ref(value)].concat()).collect::<Vec<_>>()
            };
            points = points.iter().flat_map(extend).collect();
        }
        let excluded = self.excluded(stage)?;
        let left: Vec<&Point> = points.iter().filter(|point| !is_excluded(stage, point, &excluded)).collect();
        if left.is_empty() {
            let place = Place::key(&self.spec.file, stage.path.key("exclude"));
            let message = format!("`exclude` leaves stage `{}` with no instance", stage.name);
            return Err(Stop::Problems(vec![Problem::at(place, message, "nothing is left")]));
        }
        let mut instances = Vec::with_capacity(left.len());
        let mut problems = Vec::new();
        for point in left {
            match self.at(stage, point) {
                Ok(instance) => instances.push(instance),
                Err(Stop::Problems(found)) => problems.extend(found),
                Err(missing @ Stop::Missing(..)) => return Err(missing),
            }
            if problems.len() > MAX_PROBLEMS {
                break;
            }
        }
        if problems.is_empty() { Ok(instances) } else { Err(Stop::Problems(problems)) }
    }

    fn axes(&self, stage: &StageSpec) -> Result<Vec<Point>, Stop> {
        let mut axes = Vec::new();
        let nothing = Mapping::new();
        for axis in &stage.matrix {
            let path = stage.path.key("matrix").key(&axis.name);
            let wrong = |message: String| {
                let place = Place::value(&self.spec.file, path.clone());
                Stop::Problems(vec![Problem::at(place, format!("axis `{}` {message}", axis.name), "here")])
            };
            let substituted;
            let values = match &axis.values {
                AxisValues::Substituted(text) => {
                    let value = self.substitute(text, &nothing, &path, &[])?;
                    substituted = match axis_values(&value).map_err(wrong)? {
                        AxisValues::Substituted(_) => return Err(wrong(format!("is {}", describe(&value)))),
                        values => values,
                    };
                    &substituted
                }
                values => values,
            };
            axes.push(match values {
                AxisValues::Each(what) => {
                    let path = path.key("each");
                    let what = self.substitute(what, &nothing, &path, &[])?;
                    let slot = stage.kind.slots().iter().find(|slot| slot.name == axis.name);
                    let references = self.references(&what, &path)?;
                    let references = self.choose_outputs(references, slot, &path)?;
                    let value =
                        |reference: Reference| (reference.label.clone(), self.axis_value(&reference), Some(reference));
                    references.into_iter().map(value).collect()
                }
                AxisValues::Listed(listed) => {
                    listed.iter().map(|(label, value)| (label.clone(), value.clone(), None)).collect()
                }
                AxisValues::Substituted(_) => Vec::new(),
            });
        }
        Ok(axes)
    }

    /// What `${axis}` and `${axis.part}` mean where an axis stands at an instance.
    fn axis_value(&self, reference: &Reference) -> Value {
        let instance = self.instance(reference.instance);
        let mut value = instance.axes.clone();
        value.insert("stage".into(), instance.stage.clone().into());
        value.insert(LABEL.into(), reference.text(instance).into());
        Value::Mapping(value)
    }

    fn excluded(&self, stage: &StageSpec) -> Result<Vec<Vec<(usize, String)>>, Stop> {
        let path = stage.path.key("exclude");
        let mut out = Vec::new();
        for (index, pattern) in stage.exclude.iter().enumerate() {
            let path = path.index(index);
            let wrong = |message: String, help: Option<String>| {
                let mut problem = Problem::at(Place::value(&self.spec.file, path.clone()), message, "here");
                problem.help = help;
                Stop::Problems(vec![problem])
            };
            let Some(map) = pattern.as_mapping() else {
                return Err(wrong(
                    format!("`exclude` lists mappings from axes to labels; this is {}", describe(pattern)),
                    None,
                ));
            };
            let mut conditions = Vec::new();
            for (axis, label) in map {
                let axis = axis.as_str().unwrap_or_default();
                let Some(position) = stage.matrix.iter().position(|candidate| candidate.name == axis) else {
                    let names = stage.matrix.iter().map(|axis| axis.name.as_str());
                    let help = super::problem::suggestion(axis, names);
                    return Err(wrong(format!("stage `{}` has no axis `{axis}`", stage.name), help));
                };
                let label = match label {
                    Value::String(text) => text.replace('/', "_"),
                    Value::Number(number) => number.to_string(),
                    Value::Bool(flag) => flag.to_string(),
                    other => {
                        return Err(wrong(format!("a label is a word or a number; this is {}", describe(other)), None));
                    }
                };
                conditions.push((position, label));
            }
            out.push(conditions);
        }
        Ok(out)
    }

    fn at(&self, stage: &StageSpec, point: &Point) -> Result<Instance, Stop> {
        let file = &self.spec.file;
        let mut axes = Mapping::new();
        let mut name = stage.name.clone();
        let mut coordinates = BTreeMap::from([(STAGE_COORDINATE.to_owned(), stage.name.clone())]);
        for (axis, (label, value, _)) in stage.matrix.iter().zip(point) {
            axes.insert(axis.name.clone().into(), value.clone());
            name = format!("{name}/{label}");
            coordinates.insert(format!("{}.{}", stage.name, axis.name), label.clone());
        }
        let reserved: &[&str] = if stage.kind == Kind::Command { &["in", "file", "out"] } else { &[] };
        let with_path = stage.path.key("with");
        let with = self.substitute(&stage.with, &axes, &with_path, reserved)?;
        let params = params::read(stage.kind, &with, file, &with_path).map_err(Stop::Problems)?;
        let needs = self.needs(stage, point, &axes)?;
        let outputs = if stage.kind == Kind::Command {
            let result = |name: &String| OutputSpec { name: name.clone(), result: None };
            params.declared_outputs.keys().map(result).collect()
        } else {
            let result = |ending| format!("{}.{ending}", name.replace('/', "-"));
            let output = |output: &crate::kinds::Output| OutputSpec {
                name: output.name.into(),
                result: output.result.map(result),
            };
            stage.kind.outputs().iter().map(output).collect()
        };
        let source = |(slot, source, path)| SourceNeed { slot, source, path };
        let mut instance = Instance {
            stage: stage.name.clone(),
            kind: stage.kind,
            params: params.json,
            seed: self.whole_number(stage, "seed", stage.seed.as_ref(), &axes, 0)?,
            threads: self.whole_number(stage, "threads", stage.threads.as_ref(), &axes, 1)?.clamp(1, 1024) as usize,
            time_limit: None,
            needs,
            sources: params.sources.into_iter().map(source).collect(),
            outputs,
            coordinates,
            axes,
            path: stage.path.clone(),
            file: file.clone(),
            name,
        };
        self.inherit_coordinates(&mut instance);
        if matches!(stage.kind, Kind::Table | Kind::Figure) {
            grid::resolve(self, &mut instance).map_err(Stop::Problems)?;
        }
        if instance.params.get("stop_at_accuracy").is_some() && instance.need("validation").is_none() {
            let place = Place::value(file, with_path.key("stop_at_accuracy"));
            let problem = Problem::at(place, "`stop_at_accuracy` needs images to measure it on", "needs `validation`");
            let help = "add `validation: STAGE.test` to the stage's needs";
            return Err(Stop::Problems(vec![problem.help(help)]));
        }
        Ok(instance)
    }

    /// An instance stands where its inputs stand; where two of them differ, the coordinate says nothing of it.
    fn inherit_coordinates(&self, instance: &mut Instance) {
        let mut inherited: BTreeMap<&String, Option<&String>> = BTreeMap::new();
        for need in instance.needs.iter().filter(|need| need.label.is_empty()) {
            for (name, label) in &self.instance(need.from).coordinates {
                inherited
                    .entry(name)
                    .and_modify(|known| *known = known.filter(|known| *known == label))
                    .or_insert(Some(label));
            }
        }
        for (name, label) in inherited {
            if let Some(label) = label {
                instance.coordinates.entry(name.clone()).or_insert_with(|| label.clone());
            }
        }
    }

    fn needs(&self, stage: &StageSpec, point: &Point, axes: &Mapping) -> Result<Vec<Need>, Stop> {
        let file = &self.spec.file;
        let slots = stage.kind.slots();
        let path = stage.path.key("needs");
        let mut problems = Vec::new();
        let mut needs = Vec::new();
        let mut push = |slot: &str, many: bool, reference: Reference| {
            let label = if many { reference.label } else { String::new() };
            let output = reference.output.unwrap_or_default();
            needs.push(Need { slot: slot.to_owned(), label, from: reference.instance, output });
        };
        for (name, value) in &stage.needs {
            let path = path.key(name);
            let slot = slots.iter().find(|slot| slot.name == name);
            if slot.is_none() && stage.kind != Kind::Command {
                let place = Place::key(file, path.clone());
                let problem =
                    Problem::at(place, format!("a `{}` stage has no need `{name}`", stage.kind), "unknown need");
                problems.push(problem.suggest(name, slots.iter().map(|slot| slot.name)));
                continue;
            }
            let value = self.substitute(value, axes, &path, &[])?;
            let references =
                match self.references(&value, &path).and_then(|found| self.choose_outputs(found, slot, &path)) {
                    Ok(references) => references,
                    Err(Stop::Problems(found)) => {
                        problems.extend(found);
                        continue;
                    }
                    Err(missing) => return Err(missing),
                };
            let many = slot.map_or(references.len() > 1, |slot| slot.many);
            if !many && references.len() > 1 {
                let names: Vec<&str> =
                    references.iter().map(|found| self.instance(found.instance).name.as_str()).collect();
                let message = format!("`{name}` takes one input, and {} instances fit", names.len());
                let problem = Problem::at(Place::value(file, path), message, "more than one");
                let shown = names.iter().take(4).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                problems.push(
                    problem
                        .help(format!("name one, such as {shown}, or fan out with `matrix: {{{name}: {{each: …}}}}`")),
                );
                continue;
            }
            references.into_iter().for_each(|reference| push(name, many, reference));
        }
        for slot in slots.iter().filter(|slot| stage.needs.iter().all(|(name, _)| name != slot.name)) {
            // An axis that stands at instances fills the need of its name.
            let axis = stage.matrix.iter().zip(point).find(|(axis, _)| axis.name == slot.name);
            if let Some((_, (_, _, Some(reference)))) = axis {
                push(slot.name, slot.many, reference.clone());
            } else if !slot.optional {
                let message = format!("stage `{}` needs `{}`, {}", stage.name, slot.name, slot.takes.name());
                let place = Place::key(file, stage.path.clone());
                let problem = Problem::at(place, message, format!("needs `{}`", slot.name));
                problems.push(problem.help(format!("add `needs: {{{}: STAGE}}`", slot.name)));
            }
        }
        if problems.is_empty() { Ok(needs) } else { Err(Stop::Problems(problems)) }
    }

    fn references(&self, value: &Value, path: &YamlPath) -> Result<Vec<Reference>, Stop> {
        let one = |value: &Value, path: &YamlPath| -> Result<Vec<Reference>, Stop> {
            let Some(text) = value.as_str() else {
                let message = format!("expected the name of a stage or of an instance; this is {}", describe(value));
                let problem = Problem::at(Place::value(&self.spec.file, path.clone()), message, "not a name");
                return Err(Stop::Problems(vec![problem]));
            };
            self.find(text).map_err(|missing| match missing {
                Missing::Stage(name) => Stop::Missing(name, path.clone()),
                Missing::Instance { message, help } => {
                    let mut problem = Problem::at(Place::value(&self.spec.file, path.clone()), message, "fits nothing");
                    problem.help = help;
                    Stop::Problems(vec![problem])
                }
            })
        };
        let mut found = match value {
            Value::Sequence(items) => {
                let mut found = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    found.extend(one(item, &path.index(index))?);
                }
                found
            }
            value => one(value, path)?,
        };
        self.label(&mut found);
        Ok(found)
    }

    fn choose_outputs(
        &self,
        mut found: Vec<Reference>,
        slot: Option<&Slot>,
        path: &YamlPath,
    ) -> Result<Vec<Reference>, Stop> {
        for reference in &mut found {
            let instance = self.instance(reference.instance);
            reference.output = Some(reference.choose_output(instance, slot).map_err(|(message, help)| {
                let mut problem = Problem::at(Place::value(&self.spec.file, path.clone()), message, "does not fit");
                problem.help = help;
                Stop::Problems(vec![problem])
            })?);
        }
        Ok(found)
    }

    fn whole_number(
        &self,
        stage: &StageSpec,
        key: &str,
        value: Option<&Value>,
        axes: &Mapping,
        default: u64,
    ) -> Result<u64, Stop> {
        let Some(value) = value else { return Ok(default) };
        let path = stage.path.key(key);
        let value = self.substitute(value, axes, &path, &[])?;
        value.as_u64().ok_or_else(|| {
            let message = format!("`{key}` must be a whole number, 0 or more; this is {}", describe(&value));
            Stop::Problems(vec![Problem::at(Place::value(&self.spec.file, path), message, "expected a whole number")])
        })
    }

    fn substitute(&self, value: &Value, axes: &Mapping, path: &YamlPath, reserved: &[&str]) -> Result<Value, Stop> {
        let scope = Scope { axes, params: &self.spec.params, reserved };
        scope.apply(value).map_err(|(trail, error)| {
            let mut path = path.clone();
            path.0.extend(trail.into_iter().map(|step| step.parse().map_or(Step::Key(step), Step::Index)));
            let mut problem = Problem::at(Place::value(&self.spec.file, path), error.message, "here");
            problem.help = error.help;
            Stop::Problems(vec![problem])
        })
    }
}

fn is_excluded(stage: &StageSpec, point: &Point, excluded: &[Vec<(usize, String)>]) -> bool {
    debug_assert_eq!(stage.matrix.len(), point.len());
    excluded.iter().any(|conditions| conditions.iter().all(|(axis, label)| point[*axis].0 == *label))
}
