//! Expands stages into instances in dependency order, whatever their order in the file.
//!
//! A stage is expanded after the stages it refers to; reference cycles are detected on the way. `build` creates the
//! instances of each stage. Invalid stages are expanded too, so their dependents are checked.

use std::collections::{HashMap, HashSet};

use super::diagnostics::{Diagnostics, MAX_PROBLEMS};
use super::instance::{Instance, InstanceId, PerInstance};
use super::pipeline::PipelineSpec;
use super::problem::{Problem, Problems};
use super::shown;
use super::source::{Place, YamlPath};
use super::stage::StageSpec;

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
    let unknown = spec.unreadable.clone();
    let (by_name, by_stage, cut) = (HashMap::new(), HashMap::new(), HashSet::new());
    let expander = Expander { spec, instances: PerInstance::default(), by_name, by_stage, unknown, cut };
    let progress = vec![Progress::Untouched; spec.stages.len()];
    let mut order = Order { expander, progress, open: Vec::new(), problems: Vec::new() };
    for stage in 0..spec.stages.len() {
        order.visit(stage);
    }
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
        let instances = self.expander.stage(stage, &mut notes);
        if !notes.missing.is_empty() {
            return self.wait(stage, notes.missing);
        }
        self.problems.extend(notes.problems);
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
    by_name: HashMap<String, InstanceId>,
    by_stage: HashMap<String, Vec<InstanceId>>,
    /// Stages with unknown instances; the causes are already reported.
    unknown: HashSet<String>,
    /// References that lead nowhere, already reported: the referring stage and the name.
    cut: HashSet<(String, String)>,
}

impl Expander<'_> {
    pub(super) fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id]
    }

    pub(super) fn named(&self, name: &str) -> Option<InstanceId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn of_stage(&self, stage: &str) -> Option<&[InstanceId]> {
        self.by_stage.get(stage).map(Vec::as_slice)
    }

    /// Returns whether the reason a stage does not find another is already reported.
    pub(super) fn is_told(&self, stage: &StageSpec, name: &str) -> bool {
        self.unknown.contains(name)
            || (self.spec.stage(name).is_none() && self.spec.lost.may_have(name))
            || (!self.cut.is_empty() && self.cut.contains(&(stage.name.clone(), name.to_owned())))
    }

    fn add(&mut self, stage: &StageSpec, instances: Vec<Instance>, problems: &mut Vec<Problem>) {
        let mut ids = Vec::with_capacity(instances.len());
        for instance in instances {
            let name = instance.name.clone();
            let id = self.instances.push(instance);
            ids.push(id);
            if self.by_name.insert(name.clone(), id).is_some() {
                let message = format!("two instances have the name `{name}`");
                let place = Place::key(&stage.file, stage.path.key("matrix"));
                problems.push(Problem::at(place, message, "in this matrix").help("give their values different labels"));
            }
        }
        self.by_stage.insert(stage.name.clone(), ids);
    }
}
