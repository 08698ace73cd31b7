//! `atflow run --executor`: the run is written down for agents, and agents are submitted and watched.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atflow::address::masked;
use atflow::cache::remote::at_once;
use atflow::cache::{Blob, Cache, CacheError, Manifest, Origin, RunOutcome, RunRecord};
use atflow::cluster::classes::{ClusterFile, ExecutorKind, USUAL_FILE};
use atflow::cluster::command::CommandSite;
use atflow::cluster::controller::{self, ControllerError, Ended, Pace, SharedRun, Told, Wish};
use atflow::cluster::folder::RunFolder;
use atflow::cluster::frozen_plan::{FreezeError, FrozenPlan, prices};
use atflow::cluster::kept_sources::KeptSources;
use atflow::cluster::site::Site;
use atflow::cluster::slurm::Slurm;
use atflow::cluster::thawed_plan::ThawedPlan;
use atflow::event::RunSummary;
use atflow::plan::{CacheStatus, CacheStatuses, PlanContext, must_be_there};
use atflow::publish::{self, PublishError};
use atflow::scheduler::Interrupt;
use atflow::spec::PerInstance;
use console::Term;

use super::Loaded;
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

/// What to do if a file is not what it was when the pipeline was read.
const CHANGED: &str = "a file changed since the pipeline was read; run again";

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
        let tell = &mut |line: &str| {
            if is_told {
                progress.line(line);
            }
        };
        send_sources(&loaded.cache, &sources, tell)?;
        send_results(&loaded.cache, &survey, tell)?;
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
            if loaded.cache.shared().is_some() {
                fetch_results(loaded, &summary, interrupt, &mut |line| {
                    if is_told {
                        progress.line(line);
                    }
                })?;
            }
            let interrupted = summary.interrupted || outcome == RunOutcome::Interrupted;
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

/// Sends files that stages read to the bucket that agents share.
fn send_sources(cache: &Cache, sources: &KeptSources, tell: &mut dyn FnMut(&str)) -> Result<(), CliError> {
    for line in &sources.left_out {
        tell(&format!("warning: {line}"));
    }
    let unsent = &sources.unsent;
    if !unsent.is_empty() {
        let bytes = ui::bytes(unsent.iter().map(|(blob, _)| blob.size).sum());
        let count = ui::count(unsent.len(), "file");
        tell(&format!("sending {count} ({bytes}) that stages read, as far as the bucket lacks them"));
    }
    publish::share_blobs(cache, unsent).map_err(|error| {
        let is_loss = error.is_loss();
        let error = CliError::from(CacheError::from(error));
        if is_loss { error.help(CHANGED) } else { error }
    })
}

/// Sends results of this cache to the bucket that agents share: they would make them again.
fn send_results(cache: &Cache, survey: &CacheStatuses, tell: &mut dyn FnMut(&str)) -> Result<(), CliError> {
    let is_from_there = |from: &Origin| cache.shared().is_some_and(|remote| remote.name().secret() == from.remote);
    let own: Vec<&Manifest> = survey
        .values()
        .filter_map(|status| match status {
            Some(CacheStatus::Fresh(_, manifest)) => Some(manifest.as_ref()),
            _ => None,
        })
        .filter(|manifest| !manifest.from.as_ref().is_some_and(is_from_there))
        .collect();
    if !own.is_empty() {
        tell(&format!("sending {} that are here, as far as the bucket lacks them", ui::count(own.len(), "result")));
    }
    for sent in at_once(&own, |manifest| publish::share(cache, manifest)) {
        sent.map_err(|error| match error {
            PublishError::Remote(error) => CliError::from(CacheError::from(error)),
            PublishError::Key(error) => CliError::environment(error.to_string()),
        })?;
    }
    Ok(())
}

/// Fetches what the user asked for from the bucket that agents share.
fn fetch_results(
    loaded: &Loaded,
    summary: &RunSummary,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(&str),
) -> Result<(), CliError> {
    let cache = &loaded.cache;
    let mut blobs = BTreeMap::new();
    for id in loaded.goals.wanted.marked() {
        let instance = loaded.graph.instance(id);
        let Some(key) = summary.keys.get(&instance.name) else { continue };
        let Some(manifest) = cache.lookup(*key) else { continue };
        for output in instance.outputs.iter().filter(|output| must_be_there(output, loaded.goals.needed[id])) {
            let blob = cache.output(&manifest, &output.name)?;
            blobs.insert(blob.digest, blob);
        }
    }
    let absent: Vec<Blob> = blobs.into_values().filter(|blob| !cache.has(*blob)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let bytes = ui::bytes(absent.iter().map(|blob| blob.size).sum());
    tell(&format!("fetching {} ({bytes}) from the bucket", ui::count(absent.len(), "file")));
    let go_on = |_| if interrupt.requests() > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    match cache.obtain_all(&absent, &go_on) {
        Err(error) if !error.is_stopped() => Err(error.into()),
        // What is not there is told where it is laid out.
        _ => Ok(()),
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
