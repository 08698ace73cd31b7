//! `atflow verify`.

use std::path::Path;

use atflow::cache::{Access, Cache, Checked, Flaw, FlawKind};
use atflow::event::{RunEvent, RunSummary, Status};
use atflow::plan::{CacheStatus, CacheStatuses, Goals, PlanContext, RerunRequest};
use atflow::results::{Cell, TableDocument};
use atflow::scheduler::{self, Options};
use atflow::spec::{InstanceId, PerInstance, Problems};
use atflow::stage_kinds::StageKind;
use atflow::verify::reproduce::Unjudged;
use atflow::verify::{self, Compared, Difference, Verdict, VerifyError};

use super::{Loaded, interrupt, jobs, keeper_program, spot_check, table, worker_program};
use crate::again;
use crate::args::{ChangeArgs, VerifyArgs};
use crate::progress::{Progress, bar_of_bytes};
use crate::report::{CliError, Exit};
use crate::ui;

/// Beyond so many cells of one table nobody reads on; `--json` has them all.
const SHOWN: usize = 12;

pub(crate) fn run(args: &VerifyArgs) -> Result<Exit, CliError> {
    match &args.pipeline {
        Some(file) if args.remote.is_some() || args.share.is_some() || args.sample.is_some() => {
            spot_check::run(file, args)
        }
        Some(file) => rerun(file, args),
        None => check(args),
    }
}

/// Reads the whole cache.
fn check(args: &VerifyArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.cache.cache)?;
    let bar = bar_of_bytes(0);
    let checked = cache.check(&|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let checked = checked?;
    let mut moved = Vec::new();
    for flaw in checked.flaws.iter().filter(|_| args.repair) {
        moved.push(cache.put_aside(flaw)?);
    }
    let text = if args.json {
        format!("{}\n", serde_json::json!({ "checked": checked, "moved": moved }))
    } else {
        check_words(&checked, moved.len(), cache.root())
    };
    ui::print_either(args.json, &text)?;
    Ok(if checked.flaws.is_empty() { Exit::Done } else { Exit::Differs })
}

fn check_words(checked: &Checked, moved: usize, cache: &Path) -> String {
    let count = |number: u64, noun| ui::count(number as usize, noun);
    let mut text: String = checked.flaws.iter().map(flaw_words).collect();
    let read = format!(
        "{} ({}) and {}",
        count(checked.blobs, "blob"),
        ui::bytes(checked.bytes),
        count(checked.manifests, "manifest")
    );
    match checked.flaws.len() {
        0 => text.push_str(&format!("{read}: all as they should be\n")),
        flaws => text.push_str(&format!("{read}: {}\n", ui::count(flaws, "flaw"))),
    }
    match (checked.flaws.is_empty(), moved) {
        (true, _) => {}
        (false, 0) => {
            let command = again::with_cache(&["verify", "--repair"], cache);
            text += &format!("`{command}` puts these files aside; the next run makes again what it needs of them\n");
        }
        (false, _) => {
            text.push_str("moved to the cache's quarantine/; the next run makes again what it needs of them\n")
        }
    }
    if checked.absent > 0 {
        text.push_str(&format!("{} not there; made again when needed\n", count(checked.absent, "recorded output")));
    }
    text
}

fn flaw_words(flaw: &Flaw) -> String {
    let what = match flaw.what {
        FlawKind::Corrupt => "corrupt",
        FlawKind::BrokenManifest => "no manifest",
        FlawKind::OtherKey => "another key",
        FlawKind::Stray => "does not belong here",
        FlawKind::Unreadable => "cannot be read",
    };
    let detail = if flaw.detail.is_empty() { String::new() } else { format!(" ({})", flaw.detail) };
    format!("{what}: {}{detail}\n", flaw.path.display())
}

/// Runs instances again in a cache beside theirs; gives that cache and how far the run came.
pub(super) fn run_beside(
    loaded: &Loaded,
    wanted: PerInstance<bool>,
    status_of: &CacheStatuses,
    ids: &[InstanceId],
    args: &VerifyArgs,
) -> Result<(verify::ScratchCache, RunSummary), CliError> {
    let targets = loaded.graph.marking(ids.iter().copied());
    loaded.cache.clear_abandoned();
    let beside = verify::beside(loaded.context(), status_of, &targets).map_err(|error| explain(error, loaded))?;
    let goals = Goals {
        wanted,
        // By name and not by a missing result: a stage that is no target may have the same key.
        forced: targets.values().map(|is_target| is_target.then_some(RerunRequest::Force)).collect(),
        ..Goals::all_known(&loaded.graph)
    };
    let options = Options {
        goals,
        jobs: jobs(args.machine.jobs),
        device: args.machine.device.clone(),
        keep_going: true,
        worker: worker_program(),
        keeper: keeper_program(),
        about: loaded.about(),
        part: None,
    };
    let mut progress = if args.json {
        Progress::quiet(loaded.cache.root())
    } else {
        Progress::for_people(args.verbose, loaded.cache.root())
    };
    let interrupt = interrupt(progress.last_words())?;
    let observer = &mut |event: RunEvent| match event {
        RunEvent::StageStarted { stage, kind, .. } => {
            let reason = "again, to compare".to_owned();
            progress.event(RunEvent::StageStarted { stage, kind, reason });
        }
        RunEvent::StageFinished { status: Status::Cached, .. } => {}
        event => progress.event(event),
    };
    let context = PlanContext { cache: &beside.cache, ..loaded.context() };
    let ended = scheduler::run(context, &options, &interrupt, observer);
    progress.finish();
    match ended.broken {
        Some(error) => Err(error.into()),
        None => Ok((beside, ended.summary)),
    }
}

/// Runs targets again and compares.
fn rerun(file: &Path, args: &VerifyArgs) -> Result<Exit, CliError> {
    let changes = ChangeArgs::plain(args.parameters.overrides(), args.cache.clone());
    let loaded = Loaded::open(file, &args.targets, &changes, Access::Read)?;
    let ids = loaded.graph.targets(&args.targets).map_err(Problems)?;
    if args.tolerance.is_some() && !ids.iter().any(|id| verify::has_numbers(loaded.graph.instance(*id).kind)) {
        let message = "--tolerance compares numbers, and none of the targets is a `table` or an `evaluate` stage";
        return Err(CliError::environment(message).help("leave it out to compare bytes"));
    }
    let status_of = loaded.survey()?;
    let (beside, summary) = run_beside(&loaded, loaded.goals.wanted.clone(), &status_of, &ids, args)?;
    let mut compared: Vec<Compared> = Vec::new();
    let mut unlike: Vec<DifferingCell> = Vec::new();
    for id in ids {
        let name = &loaded.graph.instance(id).name;
        let rerun = summary.keys.get(name).and_then(|key| beside.cache.lookup(*key));
        if let (Some(CacheStatus::Fresh(_, recorded)), Some(rerun)) = (&status_of[id], rerun) {
            let outputs = verify::compare(&loaded.cache, recorded, &beside.cache, &rerun, args.tolerance);
            compared.extend(outputs.into_iter().map(|output| Compared { stage: name.clone(), ..output }));
            if rerun.record.kind == StageKind::Table {
                unlike.extend(DifferingCell::of(name, &table::recorded(&beside.cache, &rerun, name)?));
            }
        }
    }
    let text = if args.json {
        format!(
            "{}\n",
            serde_json::json!({
                "outputs": compared, "unlike_published": unlike, "failed": summary.failed, "skipped": summary.skipped,
            })
        )
    } else {
        compared_words(&compared, &summary) + &unlike_words(&unlike)
    };
    ui::print_either(args.json, &text)?;
    let differs = |output: &Compared| matches!(output.verdict, Verdict::Bytes | Verdict::Numbers { .. });
    Ok(match summary {
        _ if summary.interrupted => Exit::Interrupted,
        _ if compared.iter().any(differs) || !unlike.is_empty() => Exit::Differs,
        RunSummary { failed: 1.., .. } => Exit::StageFailed,
        _ => Exit::Done,
    })
}

/// A cell of a table that differs from what was published.
#[derive(serde::Serialize)]
struct DifferingCell {
    stage: String,
    row: String,
    column: String,
    value: Option<f64>,
    published: Option<f64>,
    difference: Option<f64>,
}

impl DifferingCell {
    fn of(stage: &str, table: &TableDocument) -> Vec<Self> {
        let unlike = |(row, column, cell): (&str, &str, &Cell)| {
            let beside = cell.published.as_ref();
            DifferingCell {
                stage: stage.to_owned(),
                row: row.to_owned(),
                column: column.to_owned(),
                value: cell.number.value,
                published: beside.and_then(|beside| beside.value),
                difference: beside.and_then(|beside| beside.difference),
            }
        };
        table.failures().map(unlike).collect()
    }
}

fn unlike_words(unlike: &[DifferingCell]) -> String {
    if unlike.is_empty() {
        return String::new();
    }
    let words = |cell: &DifferingCell| {
        let number = |value: Option<f64>| value.map_or("nothing".to_owned(), |value| format!("{value:.2}"));
        // Published and ours in the unit of the published: its difference tells ours.
        let ours = cell.published.zip(cell.difference).map(|(published, difference)| published + difference);
        format!(
            "    {}: {}, {}: {}, published {}\n",
            cell.stage,
            cell.row,
            cell.column,
            number(ours),
            number(cell.published)
        )
    };
    let mut text: String = unlike.iter().take(SHOWN).map(words).collect();
    if unlike.len() > SHOWN {
        text.push_str(&format!("    and {} more\n", unlike.len() - SHOWN));
    }
    let differ = if unlike.len() == 1 { "differs" } else { "differ" };
    format!("{} {differ} from what was published:\n{text}", ui::count(unlike.len(), "cell"))
}

pub(crate) fn explain(error: VerifyError, loaded: &Loaded) -> CliError {
    let run = |stage: &String| loaded.run_command(std::slice::from_ref(stage));
    let help = match &error {
        VerifyError::NotFresh { stage } => {
            format!("`{}` makes it; verify then compares with that", run(stage))
        }
        VerifyError::Gone { stage, .. } => format!("`{}` makes it again", run(stage)),
        VerifyError::Cache(_) => match error {
            VerifyError::Cache(error) => return error.into(),
            VerifyError::NotFresh { .. } | VerifyError::Gone { .. } => String::new(),
        },
    };
    CliError::environment(error.to_string()).help(help)
}

fn compared_words(compared: &[Compared], summary: &RunSummary) -> String {
    let mut text = compared_lines(compared);
    let is_different = |output: &&Compared| matches!(output.verdict, Verdict::Bytes | Verdict::Numbers { .. });
    let differ = compared.iter().filter(is_different).count();
    let unfinished = match summary.failed + summary.skipped {
        0 => String::new(),
        count => format!(", {} not compared", ui::count(count, "stage")),
    };
    let outputs = ui::count(compared.len(), "output");
    let end = match differ {
        0 => "none differs".to_owned(),
        1 => "1 differs".to_owned(),
        _ => format!("{differ} differ"),
    };
    text.push_str(&format!("{outputs} of {} compared: {end}{unfinished}\n", ui::count(summary.ran, "rerun")));
    text
}

/// Of outputs of which it cannot be told whether they should be the same.
pub(crate) fn unjudged_words(unjudged: &[Unjudged]) -> String {
    let line = |output: &Unjudged| {
        let why = match &output.made_on {
            Some(machine) => format!("made on another machine: {machine}"),
            None => "it had other inputs".to_owned(),
        };
        format!("    {}.{}: other bytes, {why}\n", output.stage, output.output)
    };
    let mut text: String = unjudged.iter().take(SHOWN).map(line).collect();
    if unjudged.len() > SHOWN {
        text.push_str(&format!("    and {} more\n", unjudged.len() - SHOWN));
    }
    text
}

/// A line for each output, with the numbers that differ.
pub(crate) fn compared_lines(compared: &[Compared]) -> String {
    let mut text = String::new();
    let width = compared.iter().map(|output| output.stage.len() + output.output.len() + 1).max().unwrap_or(0);
    let mut told: Option<&[Difference]> = None;
    for output in compared {
        let verdict = match &output.verdict {
            Verdict::Same => "same".to_owned(),
            Verdict::Within { points } => format!("within tolerance ({points:.2} points)"),
            Verdict::Numbers { .. } => "DIFFERS".to_owned(),
            Verdict::Bytes => "DIFFERS in its bytes".to_owned(),
            Verdict::NotCompared => "other bytes, and no numbers to compare".to_owned(),
        };
        let because = match &output.verdict {
            Verdict::Same => "",
            _ if output.same_inputs => "",
            _ => "  (it had other inputs: what it needs differs)",
        };
        let name = format!("{}.{}", output.stage, output.output);
        text.push_str(&format!("{name:width$}  {verdict}{because}\n"));
        // The files of one table hold the same numbers.
        if let Verdict::Numbers { cells } = &output.verdict
            && told.replace(cells) != Some(cells)
        {
            cells.iter().take(SHOWN).for_each(|cell| text.push_str(&cell_words(cell)));
            if cells.len() > SHOWN {
                text.push_str(&format!("    and {} more\n", cells.len() - SHOWN));
            }
        }
    }
    text
}

fn cell_words(cell: &Difference) -> String {
    let percent = |share: Option<f64>| share.map_or("nothing".to_owned(), |share| format!("{:.2} %", 100.0 * share));
    let column = if cell.column.is_empty() { String::new() } else { format!(", {}", cell.column) };
    format!("    {}{column}: {} → {}\n", cell.row, percent(cell.recorded), percent(cell.rerun))
}
