//! `atflow run --executor`: the run is written down for agents, and agents are submitted and watched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atflow::address::masked;
use atflow::cache::{Cache, CacheError, RunOutcome, RunRecord};
use atflow::cluster::classes::{ClusterFile, ExecutorKind, USUAL_FILE};
use atflow::cluster::command::CommandSite;
use atflow::cluster::controller::{self, ControllerError, Ended, Pace, SharedRun, Told, Wish};
use atflow::cluster::folder::RunFolder;
use atflow::cluster::frozen_plan::{FreezeError, FrozenPlan, prices};
use atflow::cluster::site::Site;
use atflow::cluster::slurm::Slurm;
use atflow::cluster::thawed_plan::ThawedPlan;
use atflow::event::RunSummary;
use atflow::plan::{CacheStatus, PlanContext};
use atflow::scheduler::Interrupt;
use atflow::spec::PerInstance;
use console::Term;

use super::Loaded;
use super::cluster_bucket::{Bucket, CHANGED};
use crate::again;
use crate::args::{ClusterArgs, ExecutorName, RunArgs};
use crate::progress::Progress;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Copy of the description of the cluster in the folder of a run: whoever looks after the run needs it.
const CLUSTER_COPY: &str = "cluster.yaml";

/// Makes the intervals of a controller shorter, for tests.
const PACE: &str = "ATFLOW_CLUSTER_PACE";

/// Seconds between two notes that a controller expects of an agent, for tests.
const HEARTBEAT: &str = "ATFLOW_CLUSTER_HEARTBEAT";

/// Variables that agents get from here, beside those of their class. Credentials are not among them.
const PASSED: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME",
    "ATFLOW_WORKER",
    "ATFLOW_TRUST",
    // Where a bucket is.
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ALLOW_HTTP",
    "AWS_PROFILE",
];

/// How a run on a cluster ended, or that there was nothing to submit.
pub(super) enum Submitted {
    /// Everything is fresh: the run goes on here, with nothing to do.
    Nothing,
    /// The run is over.
    Over(RunSummary),
    /// Its agents go on.
    Detached,
}

/// Refuses what agents cannot do.
pub(super) fn check(args: &RunArgs) -> Result<(), CliError> {
    let ClusterArgs { executor, cluster, detach, cancel_on_exit } = &args.cluster;
    if *executor == ExecutorName::Local {
        let named = [(cluster.is_some(), "--cluster"), (*detach, "--detach"), (*cancel_on_exit, "--cancel-on-exit")];
        let Some((_, option)) = named.into_iter().find(|(is_given, _)| *is_given) else { return Ok(()) };
        let error = CliError::environment(format!("{option} is for runs on a cluster"));
        return Err(error.help("add --executor slurm, or leave it out"));
    }
    if args.from.is_some() {
        let error =
            CliError::environment("--from does not go with --executor: agents share results, and run none twice");
        return Err(error.help("leave --from out, or leave --executor out to run here"));
    }
    Ok(())
}

/// Submits agents for what is stale, and watches them unless the run is detached.
pub(super) fn run(
    args: &RunArgs,
    loaded: &Loaded,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<Submitted, CliError> {
    let path = cluster_file(&args.cluster, Some(&loaded.file));
    let cluster = ClusterFile::read(&path)?;
    check_executor(args.cluster.executor, &cluster)?;
    let instances = loaded.graph.ids().map(|id| loaded.graph.instance(id));
    let classes: PerInstance<String> = cluster.classes_of(instances)?.into_iter().collect();
    let context = loaded.context();
    let survey = loaded.survey()?;
    let seconds = prices(&loaded.graph, &survey, &loaded.goals, &loaded.history());
    let results = args.out.as_deref().map(|out| std::path::absolute(out).unwrap_or_else(|_| out.to_owned()));
    let about = RunRecord { results, ..loaded.about() };
    let mut frozen = FrozenPlan::new(context, &loaded.goals, about, &classes, &seconds).map_err(unfit)?;
    let is_told = !args.json && !args.quiet;
    let is_stale = |status: &Option<CacheStatus>| !matches!(status, None | Some(CacheStatus::Fresh(..)));
    let is_stale: PerInstance<bool> = survey.values().map(is_stale).collect();
    let is_nothing_stale = is_stale.marked().next().is_none();
    // Files are read for the sake of agents.
    if is_nothing_stale && live_runs(&loaded.cache).next().is_none() {
        return Ok(Submitted::Nothing);
    }
    let sources = frozen.keep_sources(&loaded.cache, &is_stale).map_err(unfit)?;
    let identity = frozen.identity();
    let is_same = |folder: &RunFolder| FrozenPlan::read(folder).is_ok_and(|found| found.identity() == identity);
    let found = live_runs(&loaded.cache).find(is_same);
    if found.is_none() && is_nothing_stale {
        return Ok(Submitted::Nothing);
    }
    if loaded.cache.shared().is_some() {
        let mut bucket = Bucket::new(&loaded.cache, progress, is_told);
        bucket.send_sources(&sources)?;
        bucket.send_results(&survey)?;
    }
    let folder = match &found {
        Some(folder) => folder.clone(),
        None => RunFolder::of(&loaded.cache, &RunFolder::new_id()),
    };
    let short = folder.id().short();
    if found.is_none() {
        frozen.write(&folder, context, &loaded.goals).map_err(CacheError::from)?;
    } else if is_told {
        progress.line(&format!("run {short} of the same plan is under way: this command joins it"));
    }
    let copy = std::fs::read(&path).and_then(|text| std::fs::write(folder.path().join(CLUSTER_COPY), text));
    copy.map_err(|error| CliError::environment(format!("cannot copy {}: {error}", path.display())))?;
    let plan = FrozenPlan::read(&folder).map_err(|error| CliError::environment(error.to_string()))?;
    let (since, thawed) = (plan.at.clone(), plan.thaw());
    let (program, env, pace, started) = (own_program()?, environment(), pace(), Instant::now());
    let shared = SharedRun {
        context: PlanContext { graph: &thawed.graph, cache: &loaded.cache, sources: &thawed.sources },
        goals: &thawed.goals,
        folder: &folder,
        about: thawed.about.clone(),
        since: &since,
        classes: &thawed.classes,
        class_of: &thawed.class_of,
        seconds: &thawed.seconds,
        cluster: &cluster,
        program: &program,
        env: &env,
        pace,
    };
    let mut site = site_of(&cluster, pace);
    if args.cluster.detach {
        let tell = &mut |told: Told| show(progress, told);
        let agents = controller::submit(&shared, &mut *site, tell).map_err(|error| broken(error, &path))?;
        progress.finish();
        if is_told {
            eprint(&detached_words(&short, agents, &loaded.cache));
        }
        return Ok(Submitted::Detached);
    }
    if is_told {
        progress
            .line(&format!("run {short} on {}: agents work on it, with or without this command", args_name(&cluster)));
    }
    let cancels = args.cluster.cancel_on_exit;
    let asked = interrupt.clone();
    let shown = std::cell::RefCell::new(&mut *progress);
    let wish = &mut || {
        shown.borrow_mut().finish();
        wish(cancels, &asked)
    };
    let tell = &mut |told: Told| show(&mut shown.borrow_mut(), told);
    let ended = controller::watch(&shared, &mut *site, interrupt, wish, tell).map_err(|error| broken(error, &path))?;
    match ended {
        Ended::Over(summary, outcome) => {
            let mut interrupted = summary.interrupted || outcome == RunOutcome::Interrupted;
            if loaded.cache.shared().is_some() {
                // The stages' own display would be drawn over the bar.
                progress.finish();
                interrupted |=
                    Bucket::new(&loaded.cache, progress, is_told).fetch_results(loaded, &summary, interrupt)?;
            }
            Ok(Submitted::Over(RunSummary { interrupted, seconds: started.elapsed().as_secs_f64(), ..summary }))
        }
        Ended::Detached(_) => {
            if is_told {
                let agents = folder.agents().len();
                eprint(&detached_words(&short, agents, &loaded.cache));
            }
            Ok(Submitted::Detached)
        }
        Ended::GivenUp(_, reasons) => {
            progress.finish();
            let help =
                format!("look at the logs in {}; what was finished is kept", folder.path().join("logs").display());
            let error = CliError::environment(format!("the run cannot go on: {}", reasons.join("; ")));
            Err(error.help(help).exits(Exit::StageFailed))
        }
    }
}

fn detached_words(short: &str, agents: usize, cache: &Cache) -> String {
    let status = again::with_cache(&["status"], cache.root());
    let cancel = again::with_cache(&["cancel", short], cache.root());
    let agents = ui::count(agents, "agent");
    format!("run {short} goes on without this command ({agents}): `{status}` shows it, `{cancel}` ends it\n")
}

fn args_name(cluster: &ClusterFile) -> &'static str {
    match cluster.executor {
        ExecutorKind::Slurm => "Slurm",
        ExecutorKind::Command => "the site",
    }
}

/// Shows what a controller tells.
fn show(progress: &mut Progress, told: Told) {
    match told {
        Told::Run(event) => progress.event(event),
        Told::Site(text) => progress.line(&text),
    }
}

/// Asks what to do with the run when the user stops its controller. Where nobody can answer, it goes on.
fn wish(cancels: bool, interrupt: &Interrupt) -> Wish {
    if cancels {
        return Wish::Cancel;
    }
    let is_terminal = Term::stderr().is_term() && std::io::IsTerminal::is_terminal(&std::io::stdin());
    if !is_terminal {
        return Wish::Detach;
    }
    // Counted before the question shows: whoever reads it may press Ctrl-C at once.
    let before = interrupt.requests();
    eprint("the run goes on without this command. Leave it (Enter), or cancel it (c)? ");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        _ = std::io::stdin().read_line(&mut line);
        _ = sender.send(line);
    });
    loop {
        if let Ok(line) = receiver.recv_timeout(Duration::from_millis(50)) {
            let is_cancel = line.trim().to_ascii_lowercase().starts_with('c');
            return if is_cancel { Wish::Cancel } else { Wish::Detach };
        }
        // Ctrl-C again.
        if interrupt.requests() > before {
            eprint("\n");
            return Wish::Detach;
        }
    }
}

/// The runs that are still under way.
fn live_runs(cache: &Cache) -> impl Iterator<Item = RunFolder> {
    RunFolder::all(cache).into_iter().filter(|folder| folder.is_live() && !folder.is_cancelled())
}

/// The description of the cluster: as named, beside the pipeline, or here.
pub(super) fn cluster_file(args: &ClusterArgs, pipeline: Option<&Path>) -> PathBuf {
    if let Some(file) = &args.cluster {
        return file.clone();
    }
    let beside = pipeline.map(|file| file.with_file_name(USUAL_FILE)).filter(|file| file.exists());
    beside.unwrap_or_else(|| USUAL_FILE.into())
}

pub(super) fn check_executor(asked: ExecutorName, cluster: &ClusterFile) -> Result<(), CliError> {
    let is_same = match asked {
        ExecutorName::Local => true,
        ExecutorName::Slurm => cluster.executor == ExecutorKind::Slurm,
        ExecutorName::Command => cluster.executor == ExecutorKind::Command,
    };
    if is_same {
        return Ok(());
    }
    let name = cluster.executor.name();
    let error = CliError::environment(format!("{} is of `executor: {name}`", cluster.path.display()));
    Err(error.help(format!("write --executor {name}, or name another file with --cluster")))
}

/// The description of the cluster that a run was submitted with.
pub(super) fn cluster_of(folder: &RunFolder) -> Result<ClusterFile, CliError> {
    Ok(ClusterFile::read(&folder.path().join(CLUSTER_COPY))?)
}

pub(super) fn site_of(cluster: &ClusterFile, pace: Pace) -> Box<dyn Site> {
    match &cluster.commands {
        Some(commands) => Box::new(CommandSite::new(commands.clone())),
        None => Box::new(Slurm::new(pace.list * 9 / 10)),
    }
}

pub(super) fn pace() -> Pace {
    let number = |name: &str| {
        let number = std::env::var(name).ok()?.parse::<f64>().ok()?;
        (number.is_finite() && number > 0.0).then_some(number)
    };
    let pace = number(PACE).map_or_else(Pace::default, |factor| Pace::default().scaled(factor));
    let heartbeat = number(HEARTBEAT).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Pace { heartbeat: heartbeat.unwrap_or(pace.heartbeat), ..pace }
}

pub(super) fn own_program() -> Result<String, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::environment(format!("this program cannot find itself: {error}")))?;
    // A build may have replaced the file since this program was started.
    let text = program.display().to_string();
    Ok(text.strip_suffix(" (deleted)").map_or(text.clone(), str::to_owned))
}

/// The environment of agents, without the credentials of this one.
pub(super) fn environment() -> Vec<(String, String)> {
    let is_passed = |name: &str| PASSED.contains(&name) || name.starts_with("LC_");
    std::env::vars().filter(|(name, value)| is_passed(name) && !value.contains('\n')).collect()
}

fn unfit(error: FreezeError) -> CliError {
    let help = match &error {
        FreezeError::Secrets { .. } => {
            "run these stages here first, without --executor: then their files are in the shared cache"
        }
        FreezeError::Reruns { .. } => "leave --force out, or leave --executor out to run here",
        FreezeError::File(_) | FreezeError::Folder(_) | FreezeError::Changed { .. } => CHANGED,
        FreezeError::List(_) => "look at the cache and its disk; nothing was submitted",
    };
    CliError::environment(masked(&error.to_string())).help(help)
}

fn broken(error: ControllerError, file: &Path) -> CliError {
    match error {
        ControllerError::Cache(error) => error.into(),
        ControllerError::File(error) => CacheError::File(error).into(),
        ControllerError::Site { class, source } => {
            let message = format!("no agent of class `{class}` can be started");
            let help = match source.may_pass() {
                true => "try again later: nothing was lost".to_owned(),
                false => format!("look at class `{class}` in {}, and at the site's own commands", file.display()),
            };
            CliError::environment(message).because(vec![source.to_string()]).help(help)
        }
    }
}

/// A run that agents share, for whoever looks at it without its pipeline file.
pub(super) struct Attached {
    pub(super) folder: RunFolder,
    pub(super) plan: ThawedPlan,
    pub(super) since: String,
}

impl Attached {
    /// Reads the plan of a run.
    pub(super) fn read(folder: &RunFolder) -> Result<Self, CliError> {
        let plan = FrozenPlan::read(folder).map_err(|error| CliError::environment(error.to_string()))?;
        Ok(Attached { folder: folder.clone(), since: plan.at.clone(), plan: plan.thaw() })
    }

    pub(super) fn context<'a>(&'a self, cache: &'a Cache) -> PlanContext<'a> {
        PlanContext { graph: &self.plan.graph, cache, sources: &self.plan.sources }
    }
}
