//! `atflow run`.

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use atflow::cache::{Access, CacheError, Manifest};
use atflow::event::{RunEvent, RunSummary};
use atflow::export::export;
use atflow::plan::rerun_from::RerunFrom;
use atflow::results::TableDocument;
use atflow::scheduler::{self, Ended, Options};
use atflow::spec::{PerInstance, Problem, Problems};
use atflow::stage_kinds::StageKind;
use atflow::verify::reproduce::{Published, Question, Reproduction};

use super::{Loaded, elsewhere, interrupt, jobs, keeper_program, plan, saved_plan, worker_program};
use crate::args::RunArgs;
use crate::progress::{Progress, RunFacts, run_finished};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// By so many percentage points numbers may differ from published ones, where another processor or device may round
/// otherwise. Chosen, not measured: 5 images of 1,000. `--tolerance` changes it.
pub(crate) const TOLERANCE: f64 = 0.5;

/// How far a run came, and what is told of it beside its counts.
struct Outcome {
    summary: RunSummary,
    reproduced: Option<Reproduction>,
    passed_over: Option<serde_json::Value>,
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
        let told = ended.as_ref().map(|Outcome { reproduced, passed_over, .. }| RunFacts {
            reproduced: reproduced.as_ref(),
            passed_over: passed_over.clone(),
        });
        let summary = ended.as_ref().map_or_else(|| so_far.summary(), |ended| ended.summary.clone());
        run_finished(&summary, error.as_deref(), &told.unwrap_or_default());
    }
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs; leaves in `ended` how far the run came.
fn go(args: &RunArgs, progress: &mut Progress, ended: &mut Option<Outcome>) -> Result<Exit, CliError> {
    let access = if args.dry_run { Access::Look } else { Access::Write };
    let loaded = match (&args.plan, &args.pipeline) {
        (Some(plan), _) => saved_plan::open(plan, &args.changes, access)?,
        (None, Some(file)) => {
            Loaded::open(file, &args.targets, &args.changes, access)?.from(args.from.map(RerunFrom::from))?
        }
        (None, None) => return Err(CliError::environment("no pipeline is named")),
    };
    let jobs = jobs(args.jobs);
    if args.dry_run {
        return plan::show(&loaded, &plan::Shown { json: args.json, all: false, jobs, sizes: false });
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
    let anew = loaded.forced_stages();
    let published = match loaded.goals.rerun_from {
        Some(_) => Some(Published::find(loaded.context(), &loaded.goals.wanted, &anew)?),
        None => None,
    };
    loaded.cache.clear_abandoned();
    let so_far = progress.so_far();
    let last_words = move || {
        if let Some(so_far) = &so_far {
            run_finished(&so_far.summary(), None, &RunFacts::default());
        }
    };
    let interrupt = interrupt(last_words)?;
    let options = Options {
        goals: loaded.goals.clone(),
        jobs,
        device: args.device.clone(),
        keep_going: args.keep_going,
        worker: worker_program(),
        keeper: keeper_program(),
        pipeline: loaded.name().to_owned(),
        file: loaded.file.clone(),
        overrides: loaded.overrides.clone(),
    };
    let observer = &mut |event: RunEvent| progress.event(event);
    let Ended { summary, broken } = scheduler::run(loaded.context(), &options, &interrupt, observer);
    progress.finish();
    let folder = args.out.clone().unwrap_or_else(|| Path::new("results").join(loaded.name()));
    let passed_over = elsewhere::passed_over_json(&loaded.cache);
    let Outcome { summary, reproduced, .. } = ended.insert(Outcome { summary, reproduced: None, passed_over });
    // What is there is laid out, whatever else went wrong.
    let (files, not_laid_out) = lay_out(&loaded, summary, &folder, !args.json && !args.quiet);
    if let Some(error) = broken.map(CliError::from).or(not_laid_out) {
        return Err(error);
    }
    *reproduced = compare(args, &loaded, &anew, published.as_ref(), summary)?;
    let told = reproduced.as_ref();
    if !args.json && !args.quiet {
        eprint(&closing_words(summary, &folder, &files));
        eprint(&elsewhere::taken_words(summary));
        eprint(&elsewhere::passed_over_words(&loaded.cache));
    }
    if let Some(told) = told.filter(|told| !args.json && (!args.quiet || !told.different.is_empty())) {
        eprint(&elsewhere::reproduced_words(told));
    }
    Ok(match summary {
        _ if summary.interrupted => Exit::Interrupted,
        _ if told.is_some_and(|told| !told.different.is_empty()) => Exit::Differs,
        RunSummary { failed: 1.., .. } => Exit::StageFailed,
        _ => Exit::Done,
    })
}

/// How what was made anew compares with what was published; nothing where nobody asked for it.
fn compare(
    args: &RunArgs,
    loaded: &Loaded,
    anew: &PerInstance<bool>,
    published: Option<&Published>,
    summary: &RunSummary,
) -> Result<Option<Reproduction>, CliError> {
    let (Some(depth), Some(published)) = (loaded.goals.rerun_from, published) else { return Ok(None) };
    let made = |id| summary.keys.get(&loaded.graph.instance(id).name).and_then(|key| loaded.cache.lookup(*key));
    let question = Question {
        graph: &loaded.graph,
        cache: &loaded.cache,
        depth,
        anew,
        tolerance: args.tolerance.or((depth != RerunFrom::Predictions).then_some(TOLERANCE)),
    };
    Ok(Some(question.compare(published, made)?))
}

/// Lays results in their folder, and prints the tables among them. One that cannot be laid out keeps no other from it;
/// gives the files, and the first error.
fn lay_out(loaded: &Loaded, summary: &RunSummary, folder: &Path, print: bool) -> (Vec<PathBuf>, Option<CliError>) {
    let (mut files, mut first) = (Vec::new(), None);
    for id in loaded.goals.wanted.marked() {
        let instance = loaded.graph.instance(id);
        if instance.outputs.iter().all(|output| output.result.is_none()) {
            continue;
        }
        let Some(manifest) = summary.keys.get(&instance.name).and_then(|key| loaded.cache.lookup(*key)) else {
            continue;
        };
        let laid_out = export(&loaded.cache, instance, &manifest, folder).map_err(cannot_lay_out);
        let laid_out = laid_out.and_then(|paths| {
            files.extend(paths);
            if print && instance.kind == StageKind::Table { print_table(loaded, &manifest) } else { Ok(()) }
        });
        first = first.or(laid_out.err());
    }
    (files, first)
}

fn print_table(loaded: &Loaded, manifest: &Manifest) -> Result<(), CliError> {
    let bytes = loaded.cache.read(loaded.cache.output(manifest, "json")?.digest);
    let bytes = bytes.map_err(|error| CliError::environment(error.to_string()))?;
    let table = TableDocument::from_json(&bytes).map_err(|error| CliError::environment(error.to_string()))?;
    ui::print(&format!("{}\n", atflow::results::markdown(&table)))
}

fn cannot_lay_out(error: CacheError) -> CliError {
    // What is only read is in the cache; what cannot be written is the folder.
    let is_folder = matches!(&error, CacheError::File(error) if error.source.kind() != ErrorKind::StorageFull);
    let error = CliError::from(error);
    if is_folder { error.help("check the folder and its permissions, or name another one with --out") } else { error }
}

fn closing_words(summary: &RunSummary, folder: &Path, files: &[PathBuf]) -> String {
    let mut parts = Vec::new();
    for (number, word) in
        [(summary.ran, "ran"), (summary.cached, "cached"), (summary.failed, "failed"), (summary.skipped, "skipped")]
    {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    let what = match summary {
        RunSummary { ran: 0, failed: 0, skipped: 0, .. } => {
            format!("nothing to do: {} up to date", ui::count(summary.cached, "stage"))
        }
        _ => parts.join(", "),
    };
    let mut words = format!("{what} ({})\n", ui::duration(summary.seconds));
    if summary.interrupted {
        words.push_str("stopped; run the same command again to go on\n");
    }
    if !files.is_empty() {
        let names: Vec<String> =
            files.iter().filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned())).collect();
        words.push_str(&format!("results in {}/: {}\n", folder.display(), names.join(" ")));
    }
    words
}
