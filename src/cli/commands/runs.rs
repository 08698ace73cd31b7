//! `atflow runs`: the runs that the cache knows, what changed from one to the next, and how each ended.

use std::collections::BTreeMap;

use atflow::action::ActionKey;
use atflow::cache::{Access, Cache, RunOutcome, RunRecord};
use atflow::parameters::{ParameterChange, ParameterChanges, changes, shown};
use atflow::results::markdown;
use atflow::run_diff::{StageDiff, stage_diffs};
use atflow::stage_kinds::StageKind;
use serde_json::json;

use super::table::recorded;
use crate::args::{FindArgs, RunsArgs};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &RunsArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    match &args.run {
        Some(name) => one(&cache, &find_run(&cache, name, &args.found)?, args.json)?,
        None => list(&cache, args)?,
    }
    Ok(Exit::Done)
}

/// Finds a run by the name that `atflow runs` shows, or by `last`, `last-1`, `last-2`, …
pub(super) fn find_run(cache: &Cache, name: &str, found: &FindArgs) -> Result<RunRecord, CliError> {
    let pipeline = found.pipeline.as_deref();
    if let Some(back) = steps_back(name) {
        let none = || CliError::environment(format!("there is no run `{name}`{}", of_pipeline(pipeline)));
        let newest = || cache.runs(pipeline).next();
        // `last-1` is the run before the last one of the same pipeline.
        let of = pipeline.map(str::to_owned).or_else(|| newest().map(|run| run.pipeline));
        let run = of.and_then(|pipeline| cache.runs(Some(&pipeline)).nth(back));
        return run.ok_or_else(|| none().help("`atflow runs` lists them"));
    }
    let mut fitting = cache.runs(pipeline).filter(|run| run.id.short().starts_with(name) || run.id.0 == name);
    match (name.len() >= SHORTEST, fitting.next(), fitting.next()) {
        (true, Some(run), None) => Ok(run),
        (true, Some(_), Some(_)) => {
            Err(CliError::environment(format!("several runs begin with `{name}`")).help("give more of its digits"))
        }
        _ => {
            let message = format!("no run is called `{name}`{}", of_pipeline(pipeline));
            Err(CliError::environment(message).help("`atflow runs` lists them; `last` and `last-1` are the newest two"))
        }
    }
}

/// Returns the newest earlier run of the pipeline with the same profile and other results than `keys`.
pub(super) fn run_before(cache: &Cache, run: &RunRecord, keys: &BTreeMap<String, ActionKey>) -> Option<RunRecord> {
    let differs =
        |other: &RunRecord| keys.iter().any(|(name, key)| other.keys.get(name).is_some_and(|earlier| earlier != key));
    let mut earlier = cache.runs(Some(&run.pipeline)).filter(|other| other.id < run.id && other.profile == run.profile);
    earlier.find(differs)
}

/// Fewest digits that name a run.
const SHORTEST: usize = 4;

fn steps_back(name: &str) -> Option<usize> {
    match name.strip_prefix("last")? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse().ok(),
    }
}

fn of_pipeline(pipeline: Option<&str>) -> String {
    pipeline.map(|name| format!(" of pipeline {name}")).unwrap_or_default()
}

/// Returns the parameters that changed from one run to the next. Records of older versions know no parameters but those
/// from the command line.
pub(super) fn parameters_between(before: &RunRecord, after: &RunRecord) -> ParameterChanges {
    if let (Some(earlier), Some(later)) = (&before.parameters, &after.parameters) {
        return changes(earlier, later);
    }
    let set = |run: &RunRecord| -> BTreeMap<String, serde_json::Value> {
        run.set.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
    };
    changes(&set(before), &set(after))
}

/// Returns a change in a few words: `eps 8/255 → 4/255`.
pub(super) fn change_words(name: &str, change: &ParameterChange) -> String {
    format!("{name} {} → {}", shown(change.from.as_ref()), shown(change.to.as_ref()))
}

/// Returns what changed from the run before, in a line.
pub(super) fn changed_words(before: Option<&RunRecord>, run: &RunRecord) -> String {
    let Some(before) = before else { return "first run that is known".to_owned() };
    let mut parts = Vec::new();
    if before.profile != run.profile {
        let name = |run: &RunRecord| run.profile.clone().unwrap_or_else(|| "none".to_owned());
        parts.push(format!("profile {} → {}", name(before), name(run)));
    }
    let changed = parameters_between(before, run);
    // A profile is a change of many parameters, and tells them all.
    if before.profile == run.profile {
        parts.extend(changed.iter().map(|(name, change)| change_words(name, change)));
    }
    if parts.is_empty() {
        let stages = stages_between(before, run);
        parts.extend(named("stages", &stages, |diff| diff.changed));
        parts.extend(named("new", &stages, |diff| diff.added));
        parts.extend(named("gone", &stages, |diff| diff.removed));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// Returns the stages that changed between two runs. Runs of other targets, and runs that did not end well, are
/// compared as far as both got: what only one of them reached is neither new nor gone.
fn stages_between(before: &RunRecord, run: &RunRecord) -> BTreeMap<String, StageDiff> {
    let is_whole = |run: &RunRecord| run.outcome == Some(RunOutcome::Done);
    let are_alike = before.targets == run.targets && is_whole(before) && is_whole(run);
    let seen = |diff: StageDiff| {
        if are_alike { diff } else { StageDiff { changed: diff.changed, ..StageDiff::default() } }
    };
    let all = stage_diffs(&before.keys, &run.keys).into_iter().map(|(name, diff)| (name, seen(diff)));
    all.filter(|(_, diff)| *diff != StageDiff::default()).collect()
}

/// Returns the stages of which `count` counts any, as in `new saturated ×8`.
fn named(word: &str, stages: &BTreeMap<String, StageDiff>, count: impl Fn(&StageDiff) -> usize) -> Option<String> {
    let times = |count: usize| if count > 1 { format!(" ×{count}") } else { String::new() };
    let counted = stages.iter().map(|(name, diff)| (name, count(diff))).filter(|(_, count)| *count > 0);
    let names: Vec<String> = counted.map(|(name, count)| format!("{name}{}", times(count))).collect();
    (!names.is_empty()).then(|| format!("{word} {}", ui::some(&names)))
}

/// Returns a stage with the number of its instances that changed: `tested ×48`.
pub(super) fn stage_words(name: &str, diff: &StageDiff) -> String {
    let times = |number: usize, word: &str| match number {
        0 => None,
        1 => Some(word.to_owned()),
        more => Some(format!("{more} {word}")),
    };
    let StageDiff { changed, added, removed } = diff;
    let parts: Vec<String> =
        [times(*changed, "changed"), times(*added, "new"), times(*removed, "gone")].into_iter().flatten().collect();
    format!("{name} ({})", parts.join(", "))
}

fn ended(run: &RunRecord) -> &'static str {
    match run.outcome {
        Some(RunOutcome::Done) => "done",
        Some(RunOutcome::Failed) => "FAILED",
        Some(RunOutcome::Interrupted) => "stopped",
        Some(RunOutcome::Broken) => "BROKEN",
        None if run.failed.is_empty() => "ended",
        None => "FAILED",
    }
}

fn seconds(run: &RunRecord) -> Option<f64> {
    let moment = |at: &str| at.parse::<jiff::Timestamp>().ok();
    let started = moment(run.started.as_deref()?)?;
    Some(moment(&run.at)?.duration_since(started).as_secs_f64())
}

fn list(cache: &Cache, args: &RunsArgs) -> Result<(), CliError> {
    let all: Vec<RunRecord> = cache.runs(args.found.pipeline.as_deref()).collect();
    let before = |index: usize| all[index + 1..].iter().find(|run| run.pipeline == all[index].pipeline);
    let shown = all.iter().enumerate().take(args.number);
    if args.json {
        let runs: Vec<_> = shown.map(|(index, run)| run_json(before(index), run)).collect();
        return ui::print_data(&format!("{}\n", json!({ "runs": runs })));
    }
    if all.is_empty() {
        let message = format!("no run{} in {}", of_pipeline(args.found.pipeline.as_deref()), cache.root().display());
        return Err(CliError::environment(message).help("`atflow run PIPELINE` makes one"));
    }
    let mut rows = vec![["run", "ended", "pipeline", "how", "ran", "cached", "time", "changed"].map(str::to_owned)];
    for (index, run) in shown {
        rows.push([
            run.id.short(),
            ui::moment(&run.at).replace(" UTC", "Z"),
            run.pipeline.clone(),
            ended(run).to_owned(),
            run.outcome.map_or_else(String::new, |_| run.ran.len().to_string()),
            run.cached.map_or_else(String::new, |cached| cached.to_string()),
            seconds(run).map(ui::duration).unwrap_or_default(),
            changed_words(before(index), run),
        ]);
    }
    ui::print(&columns(&rows))?;
    if all.len() > args.number {
        crate::report::eprint(&format!("{} older; -n {} shows all\n", all.len() - args.number, all.len()));
    }
    Ok(())
}

/// Sets rows in columns, two blanks apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn run_json(before: Option<&RunRecord>, run: &RunRecord) -> serde_json::Value {
    json!({
        "run": run.id.short(), "record": run.id.0, "pipeline": run.pipeline, "file": run.file,
        "started": run.started, "ended": run.at, "seconds": seconds(run), "host": run.host, "user": run.user,
        "profile": run.profile, "set": run.set.iter().cloned().collect::<BTreeMap<_, _>>(), "targets": run.targets,
        "parameters": run.parameters, "overridden": run.overridden, "commit": run.commit,
        "outcome": run.outcome, "ran": run.ran, "cached": run.cached, "skipped": run.skipped,
        "failed": run.failed.keys().collect::<Vec<_>>(),
        "before": before.map(|before| before.id.short()),
        "changed": before.map(|before| parameters_between(before, run)),
        "stages": before.map(|before| stages_between(before, run)),
    })
}

/// Shows one run: its parameters, what ran, and its tables.
fn one(cache: &Cache, run: &RunRecord, is_json: bool) -> Result<(), CliError> {
    let before = cache.runs(Some(&run.pipeline)).find(|other| other.id < run.id);
    let tables = tables(cache, run);
    if is_json {
        let mut json = run_json(before.as_ref(), run);
        json["keys"] = json!(run.keys);
        json["tables"] = json!(tables.iter().map(|(name, table)| (name, json!(table))).collect::<BTreeMap<_, _>>());
        return ui::print_data(&format!("{json}\n"));
    }
    let mut lines = vec![
        ("run".to_owned(), run.id.short()),
        ("pipeline".to_owned(), format!("{} ({})", run.pipeline, run.file.display())),
        ("ended".to_owned(), format!("{}, {}", ui::moment(&run.at), ended(run))),
    ];
    let mut add = |name: &str, value: Option<String>| lines.extend(value.map(|value| (name.to_owned(), value)));
    add("time", seconds(run).map(ui::duration));
    add("by", run.user.clone().map(|user| format!("{user} on {}", run.host.clone().unwrap_or_default())));
    add("profile", run.profile.clone());
    add("targets", (!run.targets.is_empty()).then(|| run.targets.join(" ")));
    let changes: Vec<String> = run.overridden.iter().map(|(name, change)| change_words(name, change)).collect();
    add("parameters", (!changes.is_empty()).then(|| changes.join("\n")));
    add("commit", run.commit.clone());
    add("changed", Some(changed_words(before.as_ref(), run)));
    let mut slowest: Vec<(&String, &f64)> = run.ran.iter().collect();
    slowest.sort_by(|a, b| b.1.total_cmp(a.1));
    let ran: Vec<String> =
        slowest.iter().take(10).map(|(name, seconds)| format!("{name} ({})", ui::duration(**seconds))).collect();
    let more = slowest.len().saturating_sub(ran.len());
    let more = if more > 0 { format!("\nand {more} more, each shorter") } else { String::new() };
    add("ran", (!ran.is_empty()).then(|| ran.join("\n") + &more));
    add("cached", run.cached.map(|cached| cached.to_string()));
    let failed: Vec<String> =
        run.failed.iter().map(|(name, failed)| format!("{name}: {}", failed.failure.message)).collect();
    add("failed", (!failed.is_empty()).then(|| failed.join("\n")));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let indent = format!("\n{}", " ".repeat(width + 2));
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &indent))).collect();
    for (_, table) in &tables {
        text.push_str(&format!("\n{}", markdown(table)));
    }
    ui::print(&text)
}

fn tables(cache: &Cache, run: &RunRecord) -> Vec<(String, atflow::results::TableDocument)> {
    let made = run.keys.iter().filter_map(|(name, key)| Some((name, cache.lookup(*key)?)));
    made.filter(|(_, manifest)| manifest.record.kind == StageKind::Table)
        .filter_map(|(name, manifest)| Some((name.clone(), recorded(cache, &manifest, name).ok()?)))
        .collect()
}
