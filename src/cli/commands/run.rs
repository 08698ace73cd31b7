//! `atflow run`.

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use atflow::cache::{Access, CacheError};
use atflow::depth::Depth;
use atflow::event::{RunEvent, RunSummary};
use atflow::export::export;
use atflow::kinds::Kind;
use atflow::results::TableDocument;
use atflow::scheduler::{self, Ended, Options};
use atflow::spec::{Problem, Problems};

use super::{Loaded, interrupt, jobs, keeper_program, kept, plan, worker_program};
use crate::args::RunArgs;
use crate::progress::{Progress, run_finished};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

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
        run_finished(&ended.unwrap_or_else(|| so_far.summary()), error.as_deref());
    }
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Runs; leaves in `ended` how far the run came.
fn go(args: &RunArgs, progress: &mut Progress, ended: &mut Option<RunSummary>) -> Result<Exit, CliError> {
    let access = if args.dry_run { Access::Look } else { Access::Write };
    let loaded = match (&args.plan, &args.pipeline) {
        (Some(plan), _) => kept::open(plan, &args.changes, access)?,
        (None, Some(file)) => {
            Loaded::open(file, &args.targets, &args.changes, access)?.from(args.from.map(Depth::from))?
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
    loaded.cache.clear_abandoned();
    let so_far = progress.so_far();
    let last_words = move || {
        if let Some(so_far) = &so_far {
            run_finished(&so_far.summary(), None);
        }
    };
    let interrupt = interrupt(last_words)?;
    let options = Options {
        wanted: loaded.wanted.clone(),
        forced: loaded.forced.clone(),
        depth: loaded.depth,
        needed: loaded.needed.clone(),
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
    let Ended { summary, broken } =
        scheduler::run(&loaded.graph, &loaded.cache, &loaded.sources, &options, &interrupt, observer);
    progress.finish();
    let folder = args.out.clone().unwrap_or_else(|| Path::new("results").join(loaded.name()));
    let summary = &*ended.insert(summary);
    if let Some(error) = broken {
        return Err(error.into());
    }
    let files = lay_out(&loaded, summary, &folder, !args.json && !args.quiet)?;
    if !args.json && !args.quiet {
        eprint(&closing_words(summary, &folder, &files));
    }
    Ok(match summary {
        _ if summary.interrupted => Exit::Interrupted,
        RunSummary { failed: 1.., .. } => Exit::StageFailed,
        _ => Exit::Done,
    })
}

/// Lays results in their folder, and prints the tables among them.
fn lay_out(loaded: &Loaded, summary: &RunSummary, folder: &Path, print: bool) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for id in loaded.graph.ids().filter(|id| loaded.wanted[id.0]) {
        let instance = loaded.graph.instance(id);
        if instance.outputs.iter().all(|output| output.result.is_none()) {
            continue;
        }
        let Some(manifest) = summary.keys.get(&instance.name).and_then(|key| loaded.cache.lookup(*key)) else {
            continue;
        };
        files.extend(export(&loaded.cache, instance, &manifest, folder).map_err(cannot_lay_out)?);
        if print && instance.kind == Kind::Table {
            let bytes = loaded.cache.read(loaded.cache.output(&manifest, "json")?.digest);
            let bytes = bytes.map_err(|error| CliError::environment(error.to_string()))?;
            let table = TableDocument::from_json(&bytes).map_err(|error| CliError::environment(error.to_string()))?;
            ui::print(&format!("{}\n", atflow::results::markdown(&table)))?;
        }
    }
    Ok(files)
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
