//! `atflow plan`.

use atflow::plan::{PlannedStage, PlannedState, plan};

use super::Loaded;
use crate::args::PlanArgs;
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &PlanArgs) -> Result<Exit, CliError> {
    let loaded = Loaded::new(&args.pipeline)?;
    show(&loaded, args.json, args.all)
}

/// Prints the plan of a pipeline; `all` shows fresh stages too.
pub(crate) fn show(loaded: &Loaded, json: bool, all: bool) -> Result<Exit, CliError> {
    let stages = plan(&loaded.graph, &loaded.survey(), &loaded.history());
    let text = if json { format!("{}\n", serde_json::json!({ "stages": stages })) } else { words(&stages, all) };
    ui::print(&text)?;
    Ok(Exit::Done)
}

fn words(stages: &[PlannedStage], all: bool) -> String {
    let shown: Vec<&PlannedStage> = stages.iter().filter(|stage| all || stage.state != PlannedState::Fresh).collect();
    let width = shown.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for stage in &shown {
        let state = match stage.state {
            PlannedState::Fresh => "fresh  ",
            PlannedState::Stale => "stale  ",
            PlannedState::Pending => "pending",
        };
        let last = stage.seconds.map(|seconds| format!("  [last time {}]", ui::duration(seconds))).unwrap_or_default();
        text.push_str(&format!("{state}  {:width$}  {}{last}\n", stage.name, stage.reason));
    }
    let count = |state| stages.iter().filter(|stage| stage.state == state).count();
    let (fresh, stale, pending) =
        (count(PlannedState::Fresh), count(PlannedState::Stale), count(PlannedState::Pending));
    if stale + pending == 0 {
        text.push_str(&format!("nothing to do: {} up to date\n", ui::count(fresh, "stage")));
        return text;
    }
    text.push_str(&format!("{stale} to run, {pending} pending (may turn out fresh), {fresh} fresh\n"));
    // What has never run has no price: it is said how many those are, not guessed.
    let priced: f64 = shown.iter().filter_map(|stage| stage.seconds).sum();
    let unknown = shown.iter().filter(|stage| stage.state != PlannedState::Fresh && stage.seconds.is_none()).count();
    if priced > 0.0 {
        let rest = if unknown > 0 { format!(", and {unknown} that never ran") } else { String::new() };
        let work: f64 = shown.iter().filter(|stage| stage.state != PlannedState::Fresh).filter_map(|s| s.seconds).sum();
        text.push_str(&format!("at most {} of work by the last durations{rest}\n", ui::duration(work)));
    }
    text
}
