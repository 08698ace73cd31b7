//! `atflow run`.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use atflow::cache::remote::Remote;
use atflow::cache::{Access, CacheError, RunRecord};
use atflow::event::{RunEvent, RunSummary};
use atflow::plan::rerun_from::RerunFrom;
use atflow::scheduler::{self, Ended, Options};
use atflow::spec::{PerInstance, Problem, Problems};
use atflow::stage_kinds::StageKind;
use atflow::verify::reproduce::{Published, Reproduction, ReproductionCheck};

use super::cluster_run::{self, Submitted};
use super::lay_out::{LaidOut, lay_out};
use super::noop::{NoOp, nothing_to_do};
use super::{
    Loaded, check_worker, diff, interrupt, jobs, keeper_program, patience, plan, remote_results, report, saved_plan,
    worker_program,
};
use crate::args::{ExecutorName, RunArgs};
use crate::progress::{Progress, RunFacts, likely_mistakes, run_finished};
use crate::report::{CliError, Exit, eprint, warn};
use crate::ui;

/// By so many percentage points numbers may differ from published ones, where another processor or device may round
/// otherwise. Chosen, not measured: 5 images of 1,000. `--tolerance` changes it.
pub(crate) const TOLERANCE: f64 = 0.5;

/// How far a run came, and what is told of it beside its counts.
struct Outcome {
    summary: RunSummary,
    reproduced: Option<Reproduction>,
    passed_over: Option<serde_json::Value>,
    results: Option<serde_json::Value>,
}

/// Runs, and ends with the last line for programs, whatever comes between.
pub(crate) fn run(args: &RunArgs) -> Result<Exit, CliError> {
    let mut progress = Progress::new(args);
    let so_far = progress.so_far();
    let mut ended = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| go(args, &mut progress, &mut ended)));
    if let Some(so_far) = so_far.filter(|_| !args.dry_run) {
        let error = match &result {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.words()),
            Err(_) => Some("atflow broke off: a mistake of its own".to_owned()),
        };
        let told = ended.as_ref().map(|Outcome { reproduced, passed_over, results, .. }| RunFacts {
            reproduced: reproduced.as_ref(),
            passed_over: passed_over.clone(),
            results: results.clone(),
        });
        let summary = ended.as_ref().map_or_else(|| so_far.summary(), |ended| ended.summary.clone());
        run_finished(&summary, error.as_deref(), &told.unwrap_or_default());
    }
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs; leaves in `ended` how far the run came.
fn go(args: &RunArgs, progress: &mut Progress, ended: &mut Option<Outcome>) -> Result<Exit, CliError> {
    let noop = NoOp::of(args);
    if let Some(noop) = &noop
        && noop.answer(args)?
    {
        return Ok(Exit::Done);
    }
    cluster_run::check(args)?;
    let access = if args.dry_run { Access::Look } else { Access::Write };
    // Agents with a remote cache share it, and no folder.
    let shares_work =
        args.share_work || (args.cluster.executor != ExecutorName::Local && args.changes.remote().is_some());
    if let (true, Some(remote)) = (shares_work && !args.dry_run, args.changes.remote()) {
        // The first of several runs finds an empty bucket.
        Remote::create(remote, patience(args.changes.patience)).map_err(CacheError::from)?;
    }
    let mut loaded = match (&args.plan, &args.pipeline) {
        (Some(plan), _) => saved_plan::open(plan, &args.changes, access)?,
        (None, Some(file)) => {
            Loaded::open(file, &args.targets, &args.changes, access)?.from(args.from.map(RerunFrom::from))?
        }
        (None, None) => return Err(CliError::environment("no pipeline is named")),
    };
    if shares_work {
        loaded.cache = loaded.cache.sharing_work()?;
    }
    loaded.cache = loaded.cache.with_durability(args.durability.into());
    let jobs = jobs(args.machine.jobs);
    if args.dry_run {
        return plan::show(&loaded, &plan::Shown { json: args.json, all: false, jobs, sizes: false });
    }
    if args.json {
        likely_mistakes(&loaded.warnings);
    } else if !args.quiet {
        warn(&loaded.warnings);
    }
    if !args.keep_going {
        check_worker(&loaded)?;
    }
    // Hours of work are not begun that cannot end well, unless somebody wants what there can be.
    if !args.keep_going && !loaded.sources.awaited().is_empty() {
        let rest = "name targets that do without it, or add --keep-going to run what does";
        let also = |problem: &Problem| match &problem.help {
            Some(help) => problem.clone().help(format!("{}\n{rest}", help.trim_end())),
            None => problem.clone().help(rest),
        };
        return Err(Problems(loaded.sources.awaited().iter().map(also).collect()).into());
    }
    if args.tolerance.is_some() && loaded.goals.rerun_from.is_none() {
        let message = "--tolerance compares what --from makes anew with what was published";
        return Err(CliError::environment(message).help("add --from, or leave --tolerance out"));
    }
    let forced = loaded.forced_stages();
    let published = match loaded.goals.rerun_from {
        Some(_) => Some(Published::find(loaded.context(), &loaded.goals.wanted, &forced)?),
        None => None,
    };
    loaded.cache.clear_abandoned();
    let interrupt = interrupt(progress.last_words())?;
    let options = Options {
        goals: loaded.goals.clone(),
        jobs,
        device: args.machine.device.clone(),
        keep_going: args.keep_going,
        worker: worker_program(),
        keeper: keeper_program(),
        about: RunRecord { results: args.out.as_deref().map(from_root), ..loaded.about() },
        part: None,
    };
    let submitted = match args.cluster.executor {
        ExecutorName::Local => Submitted::Nothing,
        ExecutorName::Slurm | ExecutorName::Command => cluster_run::run(args, &loaded, progress, &interrupt)?,
    };
    let (summary, broken) = match submitted {
        Submitted::Nothing => {
            let observer = &mut |event: RunEvent| progress.event(event);
            let Ended { summary, broken, .. } = scheduler::run(loaded.context(), &options, &interrupt, observer);
            (summary, broken)
        }
        Submitted::Over(summary) => (summary, None),
        Submitted::Detached => return Ok(Exit::Done),
    };
    progress.finish();
    let passed_over = remote_results::passed_over_json(&loaded.cache);
    let Outcome { summary, reproduced, results, .. } =
        ended.insert(Outcome { summary, reproduced: None, passed_over, results: None });
    // What is there is laid out, whatever else went wrong.
    let is_told = !args.json && !args.quiet;
    let (mut laid_out, not_laid_out) = lay_out(&loaded, summary, args.out.as_deref(), is_told);
    ui::print(&laid_out.tables)?;
    let not_reported = report_on(args, &loaded, summary, &mut laid_out).err();
    *results = Some(laid_out.json());
    if let Some(error) = broken.map(CliError::from).or(not_laid_out).or(not_reported) {
        return Err(error);
    }
    *reproduced = compare(args, &loaded, &forced, published.as_ref(), summary)?;
    let told = reproduced.as_ref();
    let mut words = String::new();
    if is_told {
        words.push_str(&laid_out.words());
        words.push_str(&moved(&loaded, summary));
        words.push_str(&remote_results::taken_words(summary));
        words.push_str(&remote_results::passed_over_words(&loaded.cache));
        eprint(&closing_words(summary));
        eprint(&words);
    }
    if noop.is_some_and(|noop| noop.keep(&loaded, summary, &laid_out, words)) {
        let wrong = "the memo of this command was wrong: it says that nothing has changed";
        let help = "it is removed, and this run did without it; please report what you changed before this run";
        if args.check {
            return Err(CliError::environment(wrong).help(help).exits(Exit::Differs));
        }
        eprint(&format!("warning: {wrong}; {help}\n"));
    }
    if let Some(told) = told.filter(|told| !args.json && (!args.quiet || !told.different.is_empty())) {
        eprint(&remote_results::reproduced_words(told));
    }
    Ok(match summary {
        _ if summary.interrupted => Exit::Interrupted,
        _ if told.is_some_and(|told| !told.different.is_empty()) => Exit::Differs,
        RunSummary { failed: 1.., .. } => Exit::StageFailed,
        _ => Exit::Done,
    })
}

/// A folder that is found from every other.
fn from_root(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Writes the report of a run that changed anything. It shows what is here: nothing is fetched for it.
fn report_on(args: &RunArgs, loaded: &Loaded, summary: &RunSummary, laid_out: &mut LaidOut) -> Result<(), CliError> {
    if args.no_report || summary.ran + summary.failed == 0 {
        return Ok(());
    }
    let Some(run) = &summary.run else { return Ok(()) };
    laid_out.report = report::write_at_end(&loaded.cache.clone().offline(), run, &laid_out.folder)?;
    Ok(())
}

/// Which numbers of the tables differ from the run before.
fn moved(loaded: &Loaded, summary: &RunSummary) -> String {
    let graph = &loaded.graph;
    let tables = graph.ids().map(|id| graph.instance(id)).filter(|instance| instance.kind == StageKind::Table);
    let names: Vec<&str> = tables.map(|instance| instance.name.as_str()).collect();
    let run = RunRecord { id: summary.run.clone().unwrap_or_default(), keys: summary.keys.clone(), ..loaded.about() };
    diff::words::moved_words(&loaded.cache, &run, &names)
}

/// How what was made anew compares with what was published; nothing where nobody asked for it.
fn compare(
    args: &RunArgs,
    loaded: &Loaded,
    forced: &PerInstance<bool>,
    published: Option<&Published>,
    summary: &RunSummary,
) -> Result<Option<Reproduction>, CliError> {
    let (Some(depth), Some(published)) = (loaded.goals.rerun_from, published) else { return Ok(None) };
    let made = |id| summary.keys.get(&loaded.graph.instance(id).name).and_then(|key| loaded.cache.lookup(*key));
    let question = ReproductionCheck {
        graph: &loaded.graph,
        cache: &loaded.cache,
        depth,
        forced,
        tolerance: args.tolerance.or((depth != RerunFrom::Predictions).then_some(TOLERANCE)),
    };
    Ok(Some(question.compare(published, made)?))
}

fn closing_words(summary: &RunSummary) -> String {
    let mut parts = Vec::new();
    for (number, word) in
        [(summary.ran, "ran"), (summary.cached, "cached"), (summary.failed, "failed"), (summary.skipped, "skipped")]
    {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    let what = match summary {
        RunSummary { ran: 0, failed: 0, skipped: 0, .. } => nothing_to_do(summary.cached, summary.seconds),
        _ => format!("{} ({})\n", parts.join(", "), ui::duration(summary.seconds)),
    };
    let mut words = what;
    if summary.interrupted {
        words.push_str("stopped; run the same command again to go on\n");
    }
    words
}
