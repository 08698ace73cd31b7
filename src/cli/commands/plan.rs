//! `atflow plan`.

use atflow::cache::Access;
use atflow::plan::estimate::{CostEstimate, CostInputs, price};
use atflow::plan::rerun_from::RerunFrom;
use atflow::plan::{PlannedStage, PlannedState, plan};

use super::{Loaded, elsewhere, jobs, saved_plan};
use crate::args::PlanArgs;
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &PlanArgs) -> Result<Exit, CliError> {
    if let Some(file) = &args.save {
        saved_plan::check_place(file)?;
    }
    let loaded = Loaded::new(&args.pipeline, Access::Look)?.from(args.from.map(RerunFrom::from))?;
    if let Some(file) = &args.save {
        saved_plan::save(file, &loaded, &args.pipeline)?;
    }
    show(&loaded, &Shown { json: args.json, all: args.all, jobs: jobs(args.jobs), sizes: args.sizes })
}

/// How a plan is shown.
pub(crate) struct Shown {
    /// As JSON.
    pub json: bool,
    /// With fresh stages.
    pub all: bool,
    /// CPU threads that the time is reckoned with.
    pub jobs: usize,
    /// Whether servers are asked for the sizes of files.
    pub sizes: bool,
}

/// Prints the plan of a pipeline.
pub(crate) fn show(loaded: &Loaded, how: &Shown) -> Result<Exit, CliError> {
    let standings = loaded.survey()?;
    let stages = plan(&loaded.graph, &standings, &loaded.goals, &loaded.history());
    let of = CostInputs { context: loaded.context(), goals: &loaded.goals, standings: &standings };
    let price = price(&of, &stages, how.jobs, how.sizes);
    let text = if how.json {
        let mut json = serde_json::json!({ "stages": stages, "price": price });
        if let Some(passed_over) = elsewhere::passed_over_json(&loaded.cache) {
            json["passed_over"] = passed_over;
        }
        format!("{json}\n")
    } else {
        words(&stages, how.all, &price) + &elsewhere::passed_over_words(&loaded.cache)
    };
    ui::print_either(how.json, &text)?;
    Ok(Exit::Done)
}

fn words(stages: &[PlannedStage], all: bool, price: &CostEstimate) -> String {
    let shown: Vec<&PlannedStage> = stages.iter().filter(|stage| all || stage.state != PlannedState::Fresh).collect();
    let width = shown.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for stage in &shown {
        let state = match stage.state {
            PlannedState::Fresh => "fresh  ",
            PlannedState::Stale => "stale  ",
            PlannedState::Pending => "pending",
        };
        let by = if stage.estimated { "about" } else { "last time" };
        let last = stage.seconds.map(|seconds| format!("  [{by} {}]", ui::duration(seconds))).unwrap_or_default();
        text.push_str(&format!("{state}  {:width$}  {}{last}\n", stage.name, stage.reason));
    }
    let count = |state| stages.iter().filter(|stage| stage.state == state).count();
    let (fresh, stale, pending) =
        (count(PlannedState::Fresh), count(PlannedState::Stale), count(PlannedState::Pending));
    if stale + pending == 0 {
        let what = if price.fetch_files > 0 { "nothing to run" } else { "nothing to do" };
        text.push_str(&format!("{what}: {} up to date\n", ui::count(fresh, "stage")));
    } else {
        text.push_str(&format!("{stale} to run, {pending} pending (may turn out fresh), {fresh} fresh\n"));
    }
    text.push_str(&price_words(price));
    text
}

fn price_words(price: &CostEstimate) -> String {
    let mut text = String::new();
    // What has never run has no price: it is said how many those are, not guessed.
    let unknown = match price.never_ran {
        0 => None,
        1 => Some("1 stage is unknown: it never ran like this".to_owned()),
        count => Some(format!("{count} stages is unknown: they never ran like this")),
    };
    if price.work > 0.0 {
        let wall = match price.jobs {
            1 => String::new(),
            jobs => format!(", about {} with {jobs} threads", ui::duration(price.wall)),
        };
        // Pending stages may turn out fresh; those without a price cost more than is told.
        let most = if unknown.is_none() { "at most " } else { "" };
        let rest = unknown.map_or(String::new(), |of| format!("; the cost of {of}"));
        text.push_str(&format!(
            "{most}about {} of work by the durations of earlier runs{wall}{rest}\n",
            ui::duration(price.work)
        ));
    } else if let Some(of) = unknown {
        text.push_str(&format!("the cost of {of}\n"));
    }
    if price.fetch_files > 0 {
        let known = match (price.fetch_bytes, price.fetch_unknown) {
            (0, 1..) => "size not known; --sizes asks for it".to_owned(),
            (bytes, 0) => ui::bytes(bytes),
            (bytes, unknown) => format!("{}, and {unknown} of unknown size", ui::bytes(bytes)),
        };
        text.push_str(&format!("{} to fetch ({known})\n", ui::count(price.fetch_files, "file")));
    }
    for file in &price.by_hand {
        text.push_str(&format!("to be brought by hand: {}\n", file.display()));
    }
    text
}
