//! Expands stages into instances in dependency order, whatever their order in the file.
//!
//! A stage is expanded after the stages it refers to; reference cycles are detected on the way. `build` creates the
//! instances of each stage. Invalid stages are expanded too, so their dependents are checked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_yaml::Mapping;

use super::diagnostics::{Diagnostics, MAX_PROBLEMS};
use super::idle_seed;
use super::instance::{Instance, InstanceId, PerInstance};
use super::pipeline::PipelineSpec;
use super::problem::{Problem, Problems};
use super::shown;
use super::source::{Place, YamlPath};
use super::stage::StageSpec;
use super::view::View;
use super::watch::Watch;

/// Expands a pipeline into its instances, producers before consumers.
///
/// # Errors
/// Returns every problem of the pipeline.
pub fn expand(spec: &PipelineSpec) -> Result<Vec<Instance>, Problems> {
    let (expander, mut problems) = walk(spec);
    if problems.is_empty() {
        let is_whole = |instance: &Instance| instance.knows_needs && instance.knows_params;
        if expander.unknown.is_empty() && expander.instances.values().all(is_whole) {
            return Ok(expander.instances.into_values());
        }
        // An incomplete pipeline must not run. An unreported cause would be a bug in atflow.
        problems.push(Problem::anywhere("something in this pipeline is wrong, and atflow cannot say what"));
    }
    Err(Problems(shown(spec, problems)))
}

/// Returns every problem of a pipeline that could be read only in part.
pub(super) fn problems(spec: &PipelineSpec) -> Vec<Problem> {
    walk(spec).1
}

/// Sorts problems by place and truncates them to the reporting limit.
pub(super) fn shown(spec: &PipelineSpec, problems: Vec<Problem>) -> Vec<Problem> {
    let mut problems = spec.in_order(problems);
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(Problem::anywhere(format!("and {more} more problems")));
    }
    problems
}

fn walk(spec: &PipelineSpec) -> (Expander<'_>, Vec<Problem>) {
    let expander = Expander::new(spec);
    let progress = vec![Progress::Untouched; spec.stages.len()];
    let mut order = Order { expander, progress, open: Vec::new(), problems: Vec::new() };
    for stage in 0..spec.stages.len() {
        order.visit(stage);
    }
    order.expander.instances.values_mut().for_each(Instance::name_sweep);
    let clashes = shown::clashes(&order.expander.instances);
    order.problems.extend(clashes);
    (order.expander, order.problems)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Untouched,
    /// It waits for the stages opened after it.
    Open,
    Done,
}

/// A stage that waits for others. The walk keeps its own stack, because a chain may be longer than the thread's stack.
struct Frame {
    stage: usize,
    /// The stages it still waits for and where each is named; the next one is last.
    missing: Vec<(usize, YamlPath)>,
    /// Where the stage above this one is named.
    at: YamlPath,
}

struct Order<'a> {
    expander: Expander<'a>,
    progress: Vec<Progress>,
    open: Vec<Frame>,
    problems: Vec<Problem>,
}

impl Order<'_> {
    /// Expands a stage after everything it needs.
    fn visit(&mut self, stage: usize) {
        self.push(stage);
        while let Some(frame) = self.open.last_mut() {
            let stage = frame.stage;
            let Some((next, at)) = frame.missing.pop() else {
                self.expand_top(stage);
                continue;
            };
            frame.at = at;
            match self.progress[next] {
                Progress::Untouched => self.push(next),
                Progress::Done => {}
                Progress::Open => self.circle(next),
            }
        }
    }

    fn push(&mut self, stage: usize) {
        if self.progress[stage] == Progress::Untouched {
            self.progress[stage] = Progress::Open;
            self.open.push(Frame { stage, missing: Vec::new(), at: YamlPath::default() });
        }
    }

    fn expand_top(&mut self, index: usize) {
        let spec = self.expander.spec;
        let stage = &spec.stages[index];
        let mut notes = Diagnostics::default();
        let instances = self.expander.at_every_point(stage, &mut notes);
        if !notes.missing.is_empty() {
            return self.wait(stage, notes.missing);
        }
        let is_well = notes.problems.is_empty();
        self.problems.extend(notes.problems);
        let all = || instances.iter().flatten().flatten();
        self.problems.extend(is_well.then(|| idle_seed::check(spec, stage, all())).flatten());
        match instances {
            Some(instances) => self.expander.add(stage, instances, &mut self.problems),
            None => _ = self.expander.unknown.insert(stage.name.clone()),
        }
        self.progress[index] = Progress::Done;
        self.open.pop();
    }

    /// Makes the top stage wait for the named stages. Names of stages that do not exist are cut from it.
    fn wait(&mut self, stage: &StageSpec, names: Vec<(String, YamlPath)>) {
        let spec = self.expander.spec;
        let mut missing = Vec::new();
        for (name, at) in names {
            let Some(next) = spec.stage(&name) else {
                let place = Place::value(&stage.file, at);
                let problem = Problem::at(place, format!("there is no stage `{name}`"), "unknown stage");
                // Each suggestion compares a name with all others: skip them once many problems are found.
                let advised = self.problems.len() < 2 * MAX_PROBLEMS;
                let others = spec.stages.iter().filter(|other| advised && other.name != stage.name);
                self.problems.push(problem.suggest(&name, others.map(|other| other.name.as_str())));
                self.expander.cut.insert((stage.name.clone(), name));
                continue;
            };
            missing.push((next, at));
        }
        missing.reverse();
        if let Some(frame) = self.open.last_mut() {
            frame.missing = missing;
        }
    }

    /// Reports a cycle: the top stage needs one that waits for it, so it is expanded without that one.
    fn circle(&mut self, next: usize) {
        let start = self.open.iter().position(|frame| frame.stage == next).unwrap_or(0);
        let stages: Vec<&StageSpec> =
            self.open[start..].iter().map(|frame| &self.expander.spec.stages[frame.stage]).collect();
        let mut names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        let around = names.len();
        if around > 12 {
            names.truncate(10);
            names.push("…");
        }
        names.push(&stages[0].name);
        let names = names.join(" needs ");
        let message = match around {
            1 => format!("stage `{}` needs itself", stages[0].name),
            _ => format!("stages need one another in a circle: {names}"),
        };
        let last = stages[around - 1];
        let at = self.open.last().map(|frame| frame.at.clone()).unwrap_or_default();
        let help = if around == 1 { "remove this need" } else { "remove one of these needs" };
        self.problems.push(Problem::at(Place::value(&last.file, at), message, "this closes the circle").help(help));
        self.expander.cut.insert((last.name.clone(), stages[0].name.clone()));
    }
}

/// The instances expanded so far.
pub(super) struct Expander<'a> {
    pub spec: &'a PipelineSpec,
    pub instances: PerInstance<Instance>,
    /// The instances that there are at each point of the sweep.
    views: Vec<View>,
    /// The instances by name and by their labels on the sweep.
    known: HashMap<(String, Vec<Arc<str>>), InstanceId>,
    /// The point at which a stage is expanded.
    point: usize,
    /// The points whose instances that stage sees.
    seen: Vec<usize>,
    /// The swept parameters whose values it joins.
    joined: BTreeSet<usize>,
    /// Notes which swept parameters it reads.
    pub watch: Watch,
    /// Stages with unknown instances; the causes are already reported.
    unknown: HashSet<String>,
    /// References that lead nowhere, already reported: the referring stage and the name.
    cut: HashSet<(String, String)>,
}

impl<'a> Expander<'a> {
    fn new(spec: &'a PipelineSpec) -> Self {
        Expander {
            spec,
            instances: PerInstance::default(),
            views: (0..spec.sweep.len()).map(|_| View::default()).collect(),
            known: HashMap::new(),
            point: 0,
            seen: vec![0],
            joined: BTreeSet::new(),
            watch: spec.sweep.watch(),
            unknown: spec.unreadable.clone(),
            cut: HashSet::new(),
        }
    }

    pub(super) fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id]
    }

    /// Returns the views of the points that the current stage sees.
    pub(super) fn views(&self) -> impl Iterator<Item = &View> {
        self.seen.iter().map(|point| &self.views[*point])
    }

    /// Returns the pipeline's parameters at the current point.
    pub(super) fn params(&self) -> &'a Mapping {
        self.spec.sweep.params(self.point)
    }

    /// Returns whether the reason a stage does not find another is already reported.
    pub(super) fn is_told(&self, stage: &StageSpec, name: &str) -> bool {
        self.unknown.contains(name)
            || (self.spec.stage(name).is_none() && self.spec.lost.may_have(name))
            || (!self.cut.is_empty() && self.cut.contains(&(stage.name.clone(), name.to_owned())))
    }

    /// Returns the instances of a stage at each point; those of the first alone if all points have the same.
    fn at_every_point(&mut self, stage: &StageSpec, notes: &mut Diagnostics) -> Option<Vec<Vec<Instance>>> {
        let spec = self.spec;
        self.joined = spec.sweep.joined_by(stage);
        let mut instances: Vec<Vec<Instance>> = Vec::new();
        for point in 0..spec.sweep.len() {
            self.point = point;
            self.seen = spec.sweep.seen_from(point, &self.joined);
            let here = self.stage(stage, notes)?;
            let is_shared = here.iter().all(|instance| instance.sweep.is_empty());
            instances.push(here);
            if !notes.problems.is_empty() || (point == 0 && is_shared) {
                instances.truncate(1);
                break;
            }
        }
        Some(instances)
    }

    /// Says at which values of the swept parameters an instance stands: those that it or an input reads. `read` are
    /// its own.
    pub(super) fn place_on_sweep(&self, instance: &mut Instance, mut read: BTreeSet<usize>) {
        for need in &instance.needs {
            let of_input = self.instance(need.from).sweep.iter().map(|stand| stand.param);
            read.extend(of_input.filter(|param| !self.joined.contains(param)));
        }
        instance.sweep = read.into_iter().map(|param| self.spec.sweep.stand(param, self.point)).collect();
        for stand in &instance.sweep {
            instance.coordinates.add(stand.name.clone(), stand.label.clone());
        }
    }

    /// Adds the instances of a stage: those of every point, or those that all points share.
    fn add(&mut self, stage: &StageSpec, instances: Vec<Vec<Instance>>, problems: &mut Vec<Problem>) {
        let mut named: Vec<Vec<(String, InstanceId)>> = Vec::new();
        for instances in instances {
            named.push(instances.into_iter().map(|one| (one.name.clone(), self.add_instance(one))).collect());
        }
        let mut twice = Vec::new();
        for (point, view) in self.views.iter_mut().enumerate() {
            twice.extend(named.get(point).or(named.first()).map(|named| view.add(&stage.name, named)));
        }
        for name in twice.into_iter().next().into_iter().flatten() {
            let message = format!("two instances have the name `{name}`");
            let place = Place::key(&stage.file, stage.path.key("matrix"));
            problems.push(Problem::at(place, message, "in this matrix").help("give their values different labels"));
        }
    }

    /// Adds an instance, unless another point has it already.
    fn add_instance(&mut self, instance: Instance) -> InstanceId {
        if self.views.len() == 1 {
            return self.instances.push(instance);
        }
        let labels = instance.sweep.iter().map(|stand| stand.label.clone()).collect();
        let key = (instance.name.clone(), labels);
        *self.known.entry(key).or_insert_with(|| self.instances.push(instance))
    }
}
