//! One file per command. Shared by several: reading and expanding a pipeline, and finding its targets.

pub(crate) mod agent;
mod attempts;
mod bench;
pub(crate) mod bundle;
pub(crate) mod cancel;
mod cluster_bucket;
mod cluster_check;
mod cluster_limits;
mod cluster_run;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod keep;
pub(crate) mod keygen;
mod lay_out;
mod live_log;
pub(crate) mod log;
pub(crate) mod man;
mod noop;
pub(crate) mod plan;
pub(crate) mod pull;
pub(crate) mod push;
mod ran_pipeline;
mod remote_results;
pub(crate) mod report;
mod result_list;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod saved_plan;
pub(crate) mod schema;
mod shared_runs;
pub(crate) mod show;
mod show_file;
mod spot_check;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod verify;
pub(crate) mod why;

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atflow::address::masked;
use atflow::cache::{Access, Cache, Manifest, RunRecord, ShownFile, StatMemo};
use atflow::external_inputs::ExternalInputs;
use atflow::fetch::Patience;
use atflow::graph::Graph;
use atflow::numerics::{Arithmetic, Numerics};
use atflow::plan::missing::{Missing, missing};
use atflow::plan::rerun_from::{RerunFrom, reads_only_predictions};
use atflow::plan::{CacheStatus, CacheStatuses, Goals, History, PlanContext, RerunRequest, survey};
use atflow::scheduler::Interrupt;
use atflow::signing::PublicKey;
use atflow::spec::{
    Instance, InstanceId, OutputSpec, Overrides, PerInstance, PipelineSpec, Problem, Problems, Warning, expand,
    suggestion, warnings,
};
use atflow::stage_kinds::StageKind;

use crate::again;
use crate::args::{CacheArgs, ChangeArgs, FindArgs, PipelineArgs};
use crate::report::{CliError, Exit, eprint};

/// How many names a hint lists.
const SHOWN: usize = 10;

/// How many results that are nowhere an error lists: whoever has to get them wants all of a paper's networks named.
const NAMED: usize = 40;

/// A pipeline ready to be planned or run.
pub(crate) struct Loaded {
    pub file: PathBuf,
    /// Neither is ever freed: a program that ends need not take thousands of stages apart.
    pub spec: ManuallyDrop<PipelineSpec>,
    pub overrides: Overrides,
    /// What the pipeline has most likely by mistake.
    pub warnings: Vec<Warning>,
    pub graph: ManuallyDrop<Graph>,
    pub cache: Cache,
    pub sources: ExternalInputs,
    /// What the command line wants of each instance. Outputs must exist of those that were asked for by name; if none
    /// was and there is no remote cache, of those that nothing else reads.
    pub goals: Goals,
    /// Targets, as named; empty for all.
    targets: Vec<String>,
}

impl Loaded {
    /// Reads a pipeline and checks all that can be checked before anything runs.
    pub(crate) fn new(args: &PipelineArgs, access: Access) -> Result<Self, CliError> {
        Self::open(&args.pipeline, &args.targets, &args.changes, access)
    }

    /// The same from its parts.
    pub(crate) fn open(file: &Path, targets: &[String], args: &ChangeArgs, access: Access) -> Result<Self, CliError> {
        let overrides = Overrides { profile: args.profile.clone(), set: args.set.clone() };
        let spec = ManuallyDrop::new(PipelineSpec::read(file, &overrides)?);
        let instances = expand(&spec)?;
        let warnings = warnings(&spec, &overrides, &instances);
        let graph = ManuallyDrop::new(Graph::new(instances));
        let (named, are_named) = (targets.to_vec(), !targets.is_empty());
        let targets = graph.targets(targets).map_err(Problems)?;
        let wanted = graph.reached_from(&targets);
        let forced = match args.force.as_slice() {
            [] => Vec::new(),
            force => graph.targets(force).map_err(Problems)?,
        };
        if let Some(id) = forced.iter().find(|id| !wanted[**id]) {
            let name = &graph.instance(*id).name;
            let problem = Problem::anywhere(format!("--force {name}: none of the targets needs it"));
            return Err(Problems(vec![problem.help("name it as a target too, or leave the targets out")]).into());
        }
        let open = |access| Cache::open_to(access, &args.cache.cache);
        let cache = match (args.remote(), args.offline) {
            (_, true) => open(access)?.offline(),
            // Whatever is asked, what a remote cache answers is kept here.
            (Some(remote), false) => open(Access::Write)?.read_through(remote, patience(args.patience))?,
            (None, false) => open(access)?,
        };
        let cache = cache.trusting(trusted(args)?);
        let mut memo = StatMemo::open(&cache);
        let sources = ExternalInputs::check(&graph, &wanted, &mut memo)?;
        // A hint for the next time; a cache that can only be read does without it.
        _ = memo.save();
        // It is enough to know what lies between; what was asked for by name, or what all of it is for, must be there.
        // What a remote cache keeps is not lost: it is fetched when somebody names it.
        let is_last = |id: &InstanceId| !cache.has_remote() && graph.consumers(*id).next().is_none();
        let asked_for = if are_named { targets } else { graph.ids().filter(is_last).collect() };
        let needed = graph.marking(asked_for);
        let is_forced = graph.marking(forced);
        let forced = is_forced.values().map(|is_forced| is_forced.then_some(RerunRequest::Force)).collect();
        let file = file.to_owned();
        let goals = Goals { wanted, forced, needed, rerun_from: None };
        Ok(Loaded { file, spec, overrides, warnings, graph, cache, sources, goals, targets: named })
    }

    /// The same with results made anew from some depth; an error names what that depth needs and cannot make.
    pub(crate) fn from(mut self, depth: Option<RerunFrom>) -> Result<Self, CliError> {
        let Some(depth) = depth else { return Ok(self.assembling()) };
        self.goals.rerun_from = Some(depth);
        let barred = self.goals.forbidden(&self.graph);
        if let Some(id) = self.graph.ids().find(|id| self.goals.forced[*id].is_some() && barred[*id]) {
            let message =
                format!("--force {}: it does not run with --from {}", self.graph.instance(id).name, depth.name());
            return Err(CliError::environment(message).help("leave one of the two out"));
        }
        for (forced, is_anew) in self.goals.forced.values_mut().zip(depth.forced_stages(&self.graph).into_values()) {
            *forced = forced.or(is_anew.then_some(RerunRequest::From(depth)));
        }
        // What may not be made, and was not asked for, need only be known.
        for (needed, is_barred) in self.goals.needed.values_mut().zip(barred.into_values()) {
            *needed &= !self.targets.is_empty() || !is_barred;
        }
        match missing(self.context(), &self.goals, &self.survey()?)?.as_slice() {
            [] => Ok(self.assembling()),
            missing => Err(too_shallow(depth, missing, self.cache.has_remote())),
        }
    }

    /// The same with tables and curves assembled here, whatever a remote cache has of them.
    fn assembling(mut self) -> Self {
        let graph = &self.graph;
        for (id, forced) in graph.ids().zip(self.goals.forced.values_mut()) {
            let is_assembled = reads_only_predictions(graph.instance(id));
            *forced = forced.or(is_assembled.then_some(RerunRequest::Assemble));
        }
        self
    }

    /// Which wanted instances run in any case, by id.
    pub(crate) fn forced_stages(&self) -> PerInstance<bool> {
        let runs = |order: &Option<RerunRequest>| matches!(order, Some(RerunRequest::From(_) | RerunRequest::Force));
        self.goals
            .wanted
            .values()
            .zip(self.goals.forced.values())
            .map(|(is_wanted, order)| *is_wanted && runs(order))
            .collect()
    }

    /// What the record of a run says of it from the start.
    pub(crate) fn about(&self) -> RunRecord {
        RunRecord {
            pipeline: self.name().to_owned(),
            file: self.file.clone(),
            profile: self.overrides.profile.clone(),
            // For people only: no later run reads these values back.
            set: self.overrides.set.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
            host: Some(gethostname::gethostname().to_string_lossy().into_owned()),
            user: ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty()),
            targets: self.targets.clone(),
            stages: self.spec.stage_names(),
            parameters: Some(self.spec.parameters()),
            overridden: self.spec.overridden(),
            shown: self.shown(),
            ..RunRecord::default()
        }
    }

    /// The files that commands lay among the results, by name.
    fn shown(&self) -> BTreeMap<String, ShownFile> {
        let commands = self.goals.wanted.marked().map(|id| self.graph.instance(id));
        let shown = |instance: &Instance| {
            let outputs = instance.outputs.iter().filter_map(|output| Some((output, output.result.clone()?)));
            let file = |output: &OutputSpec| ShownFile { stage: instance.name.clone(), output: output.name.clone() };
            outputs.map(|(output, name)| (name, file(output))).collect::<Vec<_>>()
        };
        commands.filter(|instance| instance.kind == StageKind::Command).flat_map(shown).collect()
    }

    /// The command that runs targets of this pipeline, all if there is none.
    pub(crate) fn run_command(&self, targets: &[String]) -> String {
        again::run_command(&self.file, targets, &self.overrides, self.cache.root())
    }

    /// The pipeline's name.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// What instances are looked up in.
    pub(crate) fn context(&self) -> PlanContext<'_> {
        PlanContext { graph: &self.graph, cache: &self.cache, sources: &self.sources }
    }

    /// How every wanted instance stands.
    pub(crate) fn survey(&self) -> Result<CacheStatuses, CliError> {
        Ok(survey(self.context(), &self.goals)?)
    }

    /// Every wanted instance that is fresh, and its manifest.
    pub(crate) fn fresh(&self) -> Result<Vec<(InstanceId, Manifest)>, CliError> {
        let fresh = self.survey()?.into_iter().filter_map(|(id, status)| match status {
            Some(CacheStatus::Fresh(_, manifest)) => Some((id, *manifest)),
            _ => None,
        });
        Ok(fresh.collect())
    }

    /// What earlier runs of the pipeline knew.
    pub(crate) fn history(&self) -> History<'_> {
        History::new(&self.cache, self.name())
    }
}

/// The error for results that a depth needs and cannot make.
fn too_shallow(depth: RerunFrom, missing: &[Missing], has_remote: bool) -> CliError {
    let what = |missing: &Missing| {
        let sort = match missing.kind {
            StageKind::Evaluate => "predictions",
            StageKind::Train | StageKind::Pretrained | StageKind::Randomised => "checkpoint",
            _ => "result",
        };
        let more = match &missing.hidden_by {
            _ if missing.is_known => " (known, but the file is gone)".to_owned(),
            Some(stage) => format!(" (cannot be asked for before {stage} is made)"),
            None => String::new(),
        };
        format!("  {}: {sort}{more}", missing.stage)
    };
    let mut lines: Vec<String> = missing.iter().take(NAMED).map(what).collect();
    if missing.len() > NAMED {
        lines.push(format!("  and {} more", missing.len() - NAMED));
    }
    let place = if has_remote { "in neither the cache nor the remote one" } else { "not in the cache" };
    let needs = if missing.len() == 1 { "a result that is" } else { "results that are" };
    let message =
        format!("--from {} needs {needs} {place}, and does not make such:\n{}", depth.name(), lines.join("\n"));
    let deeper = missing.iter().map(|missing| missing.made_from).max().unwrap_or(RerunFrom::Scratch);
    let elsewhere = if has_remote { "" } else { "; --remote URL takes them from elsewhere" };
    let hidden = match missing.iter().find_map(|missing| missing.hidden_by.as_ref()) {
        Some(stage) => format!("; if the remote cache has such, run `{stage}` alone first, without --from"),
        None => String::new(),
    };
    CliError::environment(message).help(format!("--from {} makes what is missing{elsewhere}{hidden}", deeper.name()))
}

/// The keys whose signatures count; none where all results do. One without a name, as an empty variable gives it, is
/// none.
pub(crate) fn trusted(args: &ChangeArgs) -> Result<Vec<PublicKey>, CliError> {
    let names = args.trust.iter().filter(|name| !name.is_empty());
    Ok(names.map(|name| PublicKey::named(name)).collect::<Result<_, _>>()?)
}

/// How long servers of a remote cache are waited for.
pub(crate) fn patience(seconds: u16) -> Patience {
    Patience::of(Duration::from_secs(seconds.into()))
}

/// How long a run may take to notice that the user wants to stop. It waits for a server or a disk if it takes longer,
/// and nothing is lost then.
const UNHEARD: Duration = Duration::from_secs(3);

/// Counts what the user does to stop the program, and ends it if nobody heeds that, after `last_words`.
pub(crate) fn interrupt(last_words: impl Fn() + Send + Sync + 'static) -> Result<Interrupt, CliError> {
    let interrupt = Interrupt::default();
    let (asked, last_words) = (interrupt.clone(), Arc::new(last_words));
    let heed = move || {
        let (count, asked, last_words) = (asked.request(), asked.clone(), Arc::clone(&last_words));
        std::thread::spawn(move || {
            std::thread::sleep(UNHEARD);
            if asked.acknowledged() < count {
                last_words();
                eprint("stopped; run the same command again to go on\n");
                std::process::exit(Exit::Interrupted as i32);
            }
        });
    };
    ctrlc::set_handler(heed).map_err(|error| CliError::environment(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(interrupt)
}

/// What a worker computes with on the CPU: what bytes may depend on beyond a pipeline.
pub(crate) fn describe_arithmetic(numerics: Numerics, arithmetic: &Arithmetic) -> String {
    let Arithmetic { isa, aten, onednn, mkl, libc } = arithmetic;
    format!("{numerics}: {isa}, ATen {aten}, oneDNN {onednn}, MKL {mkl}, {libc}")
}

/// The worker's program: `$ATFLOW_WORKER`, or the one that lies beside this program.
pub(crate) fn worker_program() -> PathBuf {
    if let Some(program) = std::env::var_os("ATFLOW_WORKER") {
        return program.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("atflow-worker")
}

/// Refuses a run that is sure to need a worker where there is none, before anything runs.
pub(crate) fn check_worker(loaded: &Loaded) -> Result<(), CliError> {
    let program = worker_program();
    if program.is_file() {
        return Ok(());
    }
    let (status_of, history) = (loaded.survey()?, loaded.history());
    let lacks = |id: &InstanceId| {
        let instance = loaded.graph.instance(*id);
        instance.kind.needs_worker()
            && match status_of[*id] {
                Some(CacheStatus::Stale(..)) => true,
                // What never ran here does not turn out fresh.
                Some(CacheStatus::Pending(_)) => !loaded.cache.has_remote() && history.last_key(instance).is_none(),
                _ => false,
            }
    };
    let stale: Vec<&str> = loaded.graph.ids().filter(lacks).map(|id| loaded.graph.instance(id).name.as_str()).collect();
    let Some((first, rest)) = stale.split_first() else { return Ok(()) };
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let message = format!("{first}{more} cannot run: the worker is missing, there is no {}", program.display());
    let help = "atflow-worker links libtorch and computes trainings, attacks and transforms; `cargo install` leaves it \
                out. `make install PREFIX=DIR` in atflow's repository builds both programs with libtorch and puts them \
                side by side, and $ATFLOW_WORKER names a worker elsewhere. Tables and figures of existing predictions \
                need none: `--from predictions`";
    Err(CliError::environment(message).help(help))
}

/// This program, for the processes that keep programs of stages.
pub(crate) fn keeper_program() -> PathBuf {
    // A build may have replaced the file since this program was started.
    let running = Path::new("/proc/self/exe");
    if running.exists() { running.to_owned() } else { std::env::current_exe().unwrap_or_default() }
}

/// How many CPU threads to use: those that were asked for, or all.
pub(crate) fn jobs(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// The pipeline file of the last run. `instead` is the command that names one.
pub(crate) fn file_of_last_run(cache: &CacheArgs, instead: &str) -> Result<PathBuf, CliError> {
    let how = format!("name the pipeline, too: `{instead}`");
    let Some(run) = Cache::open_to(Access::Look, &cache.cache)?.runs(None).next() else {
        let message = format!("no pipeline was run with the cache {}", cache.cache.display());
        return Err(CliError::environment(message).help(how));
    };
    if !run.file.exists() {
        let message = format!("the pipeline of the last run, {}, is not there", run.file.display());
        return Err(CliError::environment(message).help(how));
    }
    Ok(run.file)
}

/// The newest result of an instance by its name.
pub(crate) fn find(cache: &Cache, stage: &str, args: &FindArgs) -> Result<Manifest, CliError> {
    if let Some((_, manifest)) = attempts::found_now(cache, stage, args) {
        return Ok(manifest);
    }
    let mut known: Vec<String> = Vec::new();
    for run in cache.runs(args.pipeline.as_deref()) {
        match run.keys.get(stage).and_then(|key| cache.lookup(*key)) {
            Some(manifest) => return Ok(manifest),
            None => known.extend(run.keys.into_keys()),
        }
    }
    Err(not_found(cache, stage, known, args))
}

/// The error for an instance that no run knows.
pub(crate) fn not_found(cache: &Cache, stage: &str, mut known: Vec<String>, args: &FindArgs) -> CliError {
    known.sort_unstable();
    known.dedup();
    let of = args.pipeline.as_ref().map(|name| format!(" of pipeline {name}")).unwrap_or_default();
    let error = CliError::environment(format!("no run{of} in {} has made `{stage}`", args.cache.cache.display()));
    if live_log::living(cache, args).iter().any(|run| run.log_path(stage).is_some()) {
        let follow = again::with_cache(&["log", "--follow", stage], cache.root());
        return error.help(format!("a run is making it now: `{follow}`"));
    }
    // The instances of a stage are listed where the stage alone was named.
    let under: Vec<&str> =
        known.iter().map(String::as_str).filter(|name| name.starts_with(&format!("{stage}/"))).collect();
    let help = match under.as_slice() {
        [] => suggestion(stage, known.iter().map(String::as_str)),
        names => {
            let more = names.len().saturating_sub(SHOWN);
            let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
            Some(format!("name one of its instances: {}{rest}", names[..names.len() - more].join(", ")))
        }
    };
    error
        .help(help.unwrap_or_else(|| "`atflow run` makes it; `atflow plan PIPELINE --all` lists every name".to_owned()))
}
