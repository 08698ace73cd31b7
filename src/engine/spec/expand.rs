//! From stages as written to instances, in the right order: a stage is expanded once those that it refers to are, whatever the order of the file, and a
//! circle of references is found on the way. What a stage gives is decided in `build`.

use std::collections::HashMap;

use super::instance::{Instance, InstanceId};
use super::pipeline::PipelineSpec;
use super::problem::{Problem, Problems};
use super::source::{Place, YamlPath};
use super::stage::StageSpec;

/// Beyond so many problems of one pipeline nobody reads on.
pub(super) const MAX_PROBLEMS: usize = 50;

/// What a stage gives while it is expanded: nothing yet because other stages have to come first, or problems.
#[derive(Debug)]
pub(super) enum Stop {
    /// Names of stages that are not expanded, and where each is named.
    Missing(Vec<(String, YamlPath)>),
    Problems(Vec<Problem>),
}

/// Expands a pipeline into its instances, producers before consumers.
///
/// # Errors
/// Every problem of the pipeline.
pub fn expand(spec: &PipelineSpec) -> Result<Vec<Instance>, Problems> {
    let expander = Expander { spec, instances: Vec::new(), by_name: HashMap::new(), by_stage: HashMap::new() };
    let progress = vec![Progress::Untouched; spec.stages.len()];
    let mut order = Order { expander, progress, open: Vec::new(), problems: Vec::new() };
    for stage in 0..spec.stages.len() {
        order.visit(stage);
    }
    let Order { expander, problems, .. } = order;
    if problems.is_empty() {
        return Ok(expander.instances);
    }
    let mut problems = spec.in_order(problems);
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(Problem::anywhere(format!("and {more} more problems")));
    }
    Err(Problems(problems))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Untouched,
    /// It waits for the stages opened after it.
    Open,
    Done,
    Failed,
}

/// A stage that waits for others. The walk keeps its own stack, because a chain may be longer than the thread's.
struct Frame {
    stage: usize,
    /// What it still waits for, and where each is named; the next one last.
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
    /// Expands a stage, and before it all that it needs.
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
                // A stage that needs a failed one fails for reasons that are told already.
                Progress::Failed => self.pop(Progress::Failed),
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

    fn pop(&mut self, progress: Progress) {
        if let Some(frame) = self.open.pop() {
            self.progress[frame.stage] = progress;
        }
    }

    fn expand_top(&mut self, index: usize) {
        let spec = self.expander.spec;
        let stage = &spec.stages[index];
        match self.expander.stage(stage) {
            Ok(instances) => {
                self.expander.add(stage, instances, &mut self.problems);
                self.pop(Progress::Done);
            }
            Err(Stop::Problems(found)) => {
                self.problems.extend(found);
                self.pop(Progress::Failed);
            }
            Err(Stop::Missing(names)) => {
                let mut missing = Vec::new();
                let mut unknown = false;
                for (name, at) in names {
                    match spec.stage(&name) {
                        Some(next) => missing.push((next, at)),
                        None => {
                            unknown = true;
                            let place = Place::value(&stage.file, at);
                            let problem = Problem::at(place, format!("there is no stage `{name}`"), "unknown stage");
                            // Names are compared with all others: where everything is wrong, nobody reads that much advice.
                            let advised = self.problems.len() < 2 * MAX_PROBLEMS;
                            let others = spec.stages.iter().filter(|other| advised && other.name != stage.name);
                            self.problems.push(problem.suggest(&name, others.map(|other| other.name.as_str())));
                        }
                    }
                }
                if unknown {
                    return self.pop(Progress::Failed);
                }
                missing.reverse();
                if let Some(frame) = self.open.last_mut() {
                    frame.missing = missing;
                }
            }
        }
    }

    /// The stage on top needs one that waits for it.
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
        while self.open.len() > start {
            self.pop(Progress::Failed);
        }
    }
}

/// The instances that are there already.
pub(super) struct Expander<'a> {
    pub spec: &'a PipelineSpec,
    pub instances: Vec<Instance>,
    by_name: HashMap<String, InstanceId>,
    by_stage: HashMap<String, Vec<InstanceId>>,
}

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
                let place = Place::key(&stage.file, stage.path.key("matrix"));
                problems.push(Problem::at(place, message, "in this matrix").help("give their values different labels"));
            }
            ids.push(id);
            self.instances.push(instance);
        }
        self.by_stage.insert(stage.name.clone(), ids);
    }
}
