//! `cluster.yaml`: which machines a site gives, and which stages run on which of them.
//!
//! Read as pipelines are: every mistake is told with its place in the file. Knows no site and starts nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use super::fields::Fields;
use crate::spec::{
    Instance, Pattern, Place, Problem, Problems, Reader, SourceFile, YamlPath, describe, is_name, parse_yaml, yaml_text,
};
use crate::stage_kinds::StageKind;

/// Usual name of the file, beside a pipeline or in the folder that a person is in.
pub const USUAL_FILE: &str = "cluster.yaml";

pub(super) const TOP: [&str; 5] = ["executor", "classes", "submit", "list", "cancel"];

pub(super) const CLASS: [&str; 17] = [
    "match",
    "partition",
    "account",
    "qos",
    "gres",
    "cpus",
    "memory",
    "max_memory",
    "time",
    "max_agents",
    "exclude_nodes",
    "sbatch",
    "device",
    "setup",
    "env",
    "idle",
    "hang",
];

/// Most agents of a class if the file does not say.
pub(super) const MAX_AGENTS: usize = 16;

/// What starts the agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// `sbatch`, `squeue` and `scancel`.
    Slurm,
    /// Commands that the file names.
    Command,
}

impl ExecutorKind {
    /// The word in the file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ExecutorKind::Slurm => "slurm",
            ExecutorKind::Command => "command",
        }
    }
}

/// The commands of `executor: command`. `{agent}` stands for the agent's command, `{job}` for what `submit` printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Starts one agent; the last word that it prints is the name of the job.
    pub submit: String,
    /// Prints a line for each job that waits or runs: its name, and perhaps its state.
    pub list: Option<String>,
    /// Ends a job.
    pub cancel: Option<String>,
}

/// The file.
#[derive(Debug, Clone)]
pub struct ClusterFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What starts the agents.
    pub executor: ExecutorKind,
    /// The commands, if the executor is [`ExecutorKind::Command`].
    pub commands: Option<Commands>,
    /// The classes in the order of the file: the first that fits an instance is its class.
    pub classes: Vec<Class>,
}

/// Machines of one sort: what an agent asks the site for, and which instances it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Kinds of stage that it runs; empty for all.
    pub kinds: Vec<StageKind>,
    /// Patterns of instances that it runs; empty for all.
    pub stages: Vec<String>,
    /// Partition of Slurm.
    pub partition: Option<String>,
    /// Account that pays.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Generic resources of Slurm, such as `gpu:1`.
    pub gres: Option<String>,
    /// CPU threads of one agent.
    pub cpus: usize,
    /// Memory of one agent in MiB; `None` for what the site gives.
    pub memory: Option<u64>,
    /// Memory in MiB up to which an agent is given more after it ran out of it.
    pub max_memory: Option<u64>,
    /// Time limit of one agent.
    pub time: Duration,
    /// Most agents at a time.
    pub max_agents: usize,
    /// Nodes that are never used.
    pub exclude_nodes: Vec<String>,
    /// Further options of `sbatch`.
    pub sbatch: Vec<String>,
    /// Device for tensors: `auto`, `cpu`, `cuda:N`.
    pub device: String,
    /// Shell lines before the agent starts, such as `module load cuda`.
    pub setup: Option<String>,
    /// Variables of the agent's environment.
    pub env: Vec<(String, String)>,
    /// How long an agent waits for work before it ends.
    pub idle: Duration,
    /// An agent without a sign of life for so long is ended.
    pub hang: Duration,
}

impl ClusterFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Every [`Problem`] of it.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let text = yaml_text(path).map_err(|message| {
            Problem::anywhere(message).help("name the file that describes the cluster with --cluster FILE")
        })?;
        Self::from_text(path, text)
    }

    /// Reads a text; `path` is what messages name.
    ///
    /// # Errors
    /// As [`ClusterFile::read`].
    pub fn from_text(path: &Path, text: impl Into<String>) -> Result<Self, Problems> {
        let file = SourceFile::new(path, text);
        let mut problems = Vec::new();
        let value = parse_yaml(&file, &mut problems)?;
        let mut reader = Reader { file: &file, problems };
        let read = read_top(&mut reader, &value);
        match (read, reader.problems) {
            (Some(read), problems) if problems.is_empty() => Ok(ClusterFile { path: path.to_owned(), ..read }),
            (_, problems) => Err(Problems(problems)),
        }
    }

    /// Returns the class of an instance: the first that fits.
    pub fn class_of(&self, instance: &Instance) -> Option<&Class> {
        self.classes.iter().find(|class| class.fits(instance))
    }

    /// Returns a class by its name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }

    /// Returns the class of each instance, in the order given.
    ///
    /// # Errors
    /// A [`Problem`] at the first instance without a class.
    pub fn classes_of<'a>(&self, instances: impl Iterator<Item = &'a Instance>) -> Result<Vec<String>, Problems> {
        let class = |instance: &Instance| {
            self.class_of(instance).map(|class| class.name.clone()).ok_or_else(|| {
                let (name, kind) = (&instance.name, instance.kind);
                let message = format!("{name}, a stage of kind `{kind}`, fits no class of {}", self.path.display());
                let help = "add a class with `match: {}` at the end: it takes what no other class takes";
                Problems::from(Problem::at(instance.place(), message, "no class").help(help))
            })
        };
        instances.map(class).collect()
    }
}

impl Class {
    fn fits(&self, instance: &Instance) -> bool {
        self.fits_name(instance.kind, &instance.name)
    }

    fn fits_name(&self, kind: StageKind, name: &str) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.stages.is_empty() || self.stages.iter().any(|pattern| Pattern::new(pattern).fits(name)))
    }

    /// Returns the memory of an agent after it ran out of it `times` times: half as much again each time, up to
    /// `max_memory`.
    pub fn memory_after(&self, times: u32) -> Option<u64> {
        let first = self.memory?;
        let most = self.max_memory.unwrap_or(first.saturating_mul(2)).max(first);
        Some((0..times).fold(first, |memory, _| memory.saturating_add(memory / 2)).min(most))
    }
}

fn read_top(reader: &mut Reader, value: &Value) -> Option<ClusterFile> {
    let root = YamlPath::default();
    let Value::Mapping(top) = value else {
        let message = format!("the description of a cluster is a mapping; this is {}", describe(value));
        let problem = Problem::at(Place::value(reader.file, root), message, "expected a mapping");
        reader.problems.push(problem.help("write `executor: slurm` and `classes: {NAME: {match: {}, time: 1h}}`"));
        return None;
    };
    reader.known_keys(top, &root, &TOP, "the description of a cluster", |_, _| None);
    let mut at = Fields { reader, map: top, path: root.clone(), what: String::new() };
    let executor = match at.text("executor").as_deref() {
        Some("slurm") | None if at.is_absent_or_text("executor") => ExecutorKind::Slurm,
        Some("command") => ExecutorKind::Command,
        Some(other) => {
            let message = format!("there is no executor `{other}`");
            let place = Place::value(at.reader.file, root.key("executor"));
            at.reader.problems.push(Problem::at(place, message, "unknown").suggest(other, ["slurm", "command"]));
            ExecutorKind::Slurm
        }
        None => ExecutorKind::Slurm,
    };
    let (submit, list, cancel) = (at.text("submit"), at.text("list"), at.text("cancel"));
    let commands = match (executor, submit) {
        (ExecutorKind::Command, Some(submit)) => {
            at.must_have("submit", &submit, &["{agent}", "{script}"], "the command of the agent goes");
            if let Some(cancel) = &cancel {
                at.must_have("cancel", cancel, &["{job}"], "the name of the job goes");
            }
            Some(Commands { submit, list, cancel })
        }
        (ExecutorKind::Command, None) => {
            let place = Place::key(at.reader.file, root.key("executor"));
            let problem = Problem::at(place, "`executor: command` needs `submit`", "submits how");
            let help = "write `submit: \"…\"`, the command that starts an agent: `{agent}` stands for what it starts";
            at.reader.problems.push(problem.help(help));
            None
        }
        (ExecutorKind::Slurm, _) => {
            for key in ["submit", "list", "cancel"].into_iter().filter(|key| top.contains_key(*key)) {
                let message = format!("`{key}` is for `executor: command`; Slurm has its own commands");
                let place = Place::key(at.reader.file, root.key(key));
                at.reader.problems.push(Problem::at(place, message, "not used").help("remove it"));
            }
            None
        }
    };
    let classes = read_classes(reader, top);
    Some(ClusterFile { path: PathBuf::new(), executor, commands, classes })
}

fn read_classes(reader: &mut Reader, top: &Mapping) -> Vec<Class> {
    let root = YamlPath::default();
    let path = root.key("classes");
    let is_empty = match top.get("classes") {
        Some(Value::Mapping(map)) => map.is_empty(),
        Some(Value::Null) | None => true,
        Some(_) => false,
    };
    if is_empty {
        let place = Place::key(reader.file, if top.contains_key("classes") { path.clone() } else { root.clone() });
        let problem = Problem::at(place, "a cluster has at least one class of machines", "no class");
        let help = "write `classes: {cpu: {match: {}, cpus: 4, memory: 8G, time: 1h}}`: stages that a class matches run \
                    on its machines";
        reader.problems.push(problem.help(help));
        return Vec::new();
    }
    let Some(classes) = reader.mapping(top, "classes", &root) else { return Vec::new() };
    let mut read = Vec::new();
    for (name, value) in reader.words(classes, &path) {
        let path = path.key(name);
        if !is_name(name) {
            let message = format!("the name of a class is made of letters, digits, `-` and `_`; this is `{name}`");
            reader.problem(Place::key(reader.file, path.clone()), message, "not a name");
        }
        let empty = Mapping::new();
        match value {
            Value::Mapping(map) => read.push(read_class(reader, name, map, path)),
            Value::Null => read.push(read_class(reader, name, &empty, path)),
            other => {
                let message = format!("class `{name}` must be a mapping; this is {}", describe(other));
                reader.problem(Place::value(reader.file, path), message, "expected a mapping");
            }
        }
    }
    read
}

fn read_class(reader: &mut Reader, name: &str, map: &Mapping, path: YamlPath) -> Class {
    reader.known_keys(map, &path, &CLASS, &format!("class `{name}`"), |key, _| {
        let meant = match key {
            "mem" => "memory",
            "nodes" | "exclude" => "exclude_nodes",
            "gpus" => "gres",
            "kind" | "stage" => "match",
            "max" | "agents" => "max_agents",
            "walltime" => "time",
            _ => return None,
        };
        Some(format!("did you mean `{meant}`?"))
    });
    let (kinds, stages) = read_match(reader, name, map, &path);
    let mut of = Fields { reader, map, path, what: format!("class `{name}`") };
    let gres = of.text("gres");
    let memory = of.memory("memory");
    let time = of.time("time").unwrap_or_else(|| {
        if !map.contains_key("time") {
            let place = Place::key(of.reader.file, of.path.clone());
            let problem = Problem::at(place, format!("class `{name}` has no `time`"), "how long");
            of.reader
                .problems
                .push(problem.help("write `time: 4h`: the time limit of one agent; it stops before that"));
        }
        Duration::from_secs(3600)
    });
    let max_memory = of.memory("max_memory");
    if let (Some(most), Some(memory)) = (max_memory, memory)
        && most < memory
    {
        let place = Place::value(of.reader.file, of.path.key("max_memory"));
        of.reader.problem(place, "`max_memory` is less than `memory`", "too little");
    }
    Class {
        name: name.to_owned(),
        kinds,
        stages,
        partition: of.text("partition"),
        account: of.text("account"),
        qos: of.text("qos"),
        cpus: of.number("cpus").unwrap_or(1),
        memory,
        max_memory,
        time,
        max_agents: of.number("max_agents").unwrap_or(MAX_AGENTS),
        exclude_nodes: of.texts("exclude_nodes"),
        sbatch: of.texts("sbatch"),
        device: of.text("device").unwrap_or_else(|| if gres.is_some() { "auto" } else { "cpu" }.to_owned()),
        setup: of.lines("setup"),
        env: of.variables("env"),
        idle: of.time("idle").unwrap_or(Duration::from_secs(300)),
        hang: of.time("hang").unwrap_or(Duration::from_secs(600)),
        gres,
    }
}

fn read_match(reader: &mut Reader, name: &str, map: &Mapping, path: &YamlPath) -> (Vec<StageKind>, Vec<String>) {
    let at = path.key("match");
    let empty = Mapping::new();
    let matched = match map.get("match") {
        Some(Value::Mapping(matched)) => matched,
        Some(Value::Null) => &empty,
        Some(other) => {
            let message = format!("`match` must be a mapping; this is {}", describe(other));
            let problem = Problem::at(Place::value(reader.file, at), message, "expected a mapping");
            reader.problems.push(problem.help("write `match: {kind: [train, evaluate]}`, or `match: {}` for all"));
            return (Vec::new(), Vec::new());
        }
        None => {
            let place = Place::key(reader.file, path.clone());
            let problem = Problem::at(place, format!("class `{name}` has no `match`"), "for which stages");
            let help = "write `match: {kind: [train, evaluate]}`, or `match: {}` for what no class before it takes";
            reader.problems.push(problem.help(help));
            return (Vec::new(), Vec::new());
        }
    };
    reader.known_keys(matched, &at, &["kind", "stage"], "`match`", |_, _| None);
    let mut of = Fields { reader, map: matched, path: at, what: "`match`".to_owned() };
    let (words, stages) = (of.texts("kind"), of.texts("stage"));
    let mut kinds = Vec::new();
    for (index, word) in words.iter().enumerate() {
        match StageKind::ALL.into_iter().find(|kind| kind.name() == word) {
            Some(kind) => kinds.push(kind),
            None => {
                let at = of.path.key("kind");
                let is_list = matches!(matched.get("kind"), Some(Value::Sequence(_)));
                let place = Place::value(of.reader.file, if is_list { at.index(index) } else { at });
                let problem = Problem::at(place, format!("there is no kind `{word}`"), "unknown kind");
                let names: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.name()).collect();
                of.reader.problems.push(problem.suggest(word, names));
            }
        }
    }
    (kinds, stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ClusterFile, Problems> {
        ClusterFile::from_text(Path::new("cluster.yaml"), text)
    }

    /// The problems of a text: place, message and advice.
    fn problems(text: &str) -> Vec<String> {
        let told = |problem: Problem| {
            let place = problem.place.map(|place| place.to_string()).unwrap_or_default();
            format!("{place}: {} ({})", problem.message, problem.help.unwrap_or_default())
        };
        read(text).unwrap_err().0.into_iter().map(told).collect()
    }

    #[test]
    fn a_whole_file_is_read() {
        let file = read(
            "executor: slurm\nclasses:\n  gpu: {match: {kind: [train, evaluate], stage: 'model/*'}, partition: gpu, \
             account: lab, gres: 'gpu:1', cpus: 8, memory: 32G, max_memory: 64G, time: 4h, max_agents: 4, \
             exclude_nodes: [n1], sbatch: ['--constraint=a100'], setup: module load cuda, env: {A: 1}}\n  \
             cpu: {match: {}, time: 30 min}\n",
        )
        .unwrap();
        assert_eq!((file.executor, file.classes.len()), (ExecutorKind::Slurm, 2));
        let gpu = &file.classes[0];
        assert_eq!((gpu.memory, gpu.time.as_secs(), gpu.max_agents), (Some(32 << 10), 4 * 3600, 4));
        assert_eq!((gpu.device.as_str(), gpu.env.as_slice()), ("auto", &[("A".to_owned(), "1".to_owned())][..]));
        assert_eq!((0..4).map(|times| gpu.memory_after(times).unwrap() >> 10).collect::<Vec<_>>(), [32, 48, 64, 64]);
        assert!(gpu.fits_name(StageKind::Train, "model/a") && !gpu.fits_name(StageKind::Train, "other/a"));
        assert!(!gpu.fits_name(StageKind::Table, "model/a"));
        let cpu = &file.classes[1];
        assert_eq!((cpu.device.as_str(), cpu.cpus, cpu.memory, cpu.max_agents), ("cpu", 1, None, 16));
        assert!(cpu.fits_name(StageKind::Table, "anything"));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        assert_eq!(
            problems(
                "executor: slrum\nclasses:\n  gpu:\n    match: {kind: [trian]}\n    mem: 3\n    time: 4\n  \
                 'a b': {match: {}, time: 1h, memory: 32, cpus: 0, sbatch: {}, env: {1: a}}\n  c: {time: 1h}\n  \
                 d: {match: {}}\n  e: 3\n"
            ),
            [
                "cluster.yaml:1:11: there is no executor `slrum` (did you mean `slurm`?)",
                "cluster.yaml:5:5: class `gpu` has no `mem` (did you mean `memory`?)",
                "cluster.yaml:4:20: there is no kind `trian` (did you mean `train`?)",
                "cluster.yaml:6:11: `time` of class `gpu` must be a time with its unit; this is `4` \
                 (write it as `90 s`, `10 min`, `4h` or `1 d`)",
                "cluster.yaml:7:3: the name of a class is made of letters, digits, `-` and `_`; this is `a b` ()",
                "cluster.yaml:7:40: `memory` of class `a b` must be a size with its unit; this is `32` \
                 (write it as `512M`, `32G` or `1T`)",
                "cluster.yaml:7:50: `cpus` of class `a b` must be a whole number above 0; this is `0` \
                 (write it in digits)",
                "cluster.yaml:7:61: `sbatch` of class `a b` must be a list of texts; this is a mapping \
                 (write `[ONE, ANOTHER]`)",
                "cluster.yaml:7:70: `env` of class `a b` must be a mapping of variables to texts; this is a mapping \
                 (write `{OMP_NUM_THREADS: 1}`)",
                "cluster.yaml:8:3: class `c` has no `match` (write `match: {kind: [train, evaluate]}`, or `match: {}` \
                 for what no class before it takes)",
                "cluster.yaml:9:3: class `d` has no `time` (write `time: 4h`: the time limit of one agent; it stops \
                 before that)",
                "cluster.yaml:10:6: class `e` must be a mapping; this is `3` ()",
            ]
        );
    }

    #[test]
    fn commands_are_for_the_executor_that_has_them() {
        let classes = "classes: {all: {match: {}, time: 1h}}\n";
        let file = read(&format!("executor: command\nsubmit: 'qsub {{agent}}'\ncancel: 'qdel {{job}}'\n{classes}"));
        let commands = file.unwrap().commands.unwrap();
        assert_eq!((commands.submit.as_str(), commands.list), ("qsub {agent}", None));
        // The same command, as one word.
        assert!(read(&format!("executor: command\nsubmit: 'echo {{script}} | qsub'\n{classes}")).is_ok());
        let wrong = |text: &str| problems(&format!("{text}\n{classes}")).join("\n");
        assert!(wrong("executor: command").contains("`executor: command` needs `submit`"));
        assert!(wrong("executor: command\nsubmit: qsub").contains("cluster.yaml:2:9: `submit` has no `{agent}`"));
        let cancel = "executor: command\nsubmit: 'q {agent}'\ncancel: qdel";
        assert!(wrong(cancel).contains("cluster.yaml:3:9: `cancel` has no `{job}`"));
        assert!(wrong("submit: 'q {agent}'").contains("`submit` is for `executor: command`"));
        assert!(problems("executor: slurm\n")[0].contains("at least one class"));
        assert!(problems("[]")[0].contains("is a mapping; this is a list"));
    }
}
