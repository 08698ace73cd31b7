//! `atflow plan`.

use atflow::cache::Access;
use atflow::plan::estimate::{CostEstimate, CostInputs, price};
use atflow::plan::rerun_from::RerunFrom;
use atflow::plan::{PlannedStage, PlannedState, plan, price_by_passes};
use atflow::stage_kinds::StageKind;

use super::{Loaded, jobs, remote_results, saved_plan};
use crate::args::PlanArgs;
use crate::report::{CliError, Exit, warn, warnings_json};
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
    let status_of = loaded.survey()?;
    let mut stages = plan(&loaded.graph, &status_of, &loaded.goals, &loaded.history());
    let rates = loaded.cache.rates();
    if let Some(rates) = &rates {
        price_by_passes(loaded.context(), &status_of, rates, &mut stages);
    }
    let of = CostInputs { context: loaded.context(), goals: &loaded.goals, status_of: &status_of };
    let price = price(&of, &stages, how.jobs, how.sizes);
    let text = if how.json {
        let mut json =
            serde_json::json!({ "stages": stages, "price": price, "warnings": warnings_json(&loaded.warnings) });
        if let Some(passed_over) = remote_results::passed_over_json(&loaded.cache) {
            json["passed_over"] = passed_over;
        }
        format!("{json}\n")
    } else {
        warn(&loaded.warnings);
        words(&stages, how.all, &price)
            + rates_hint(&stages, rates.is_some())
            + &remote_results::passed_over_words(&loaded.cache)
    };
    ui::print_either(how.json, &text)?;
    Ok(Exit::Done)
}

/// More lines than this are folded by stage, unless all are asked for.
const FOLDED_ABOVE: usize = 40;

fn words(stages: &[PlannedStage], all: bool, price: &CostEstimate) -> String {
    let shown: Vec<&PlannedStage> = stages.iter().filter(|stage| all || stage.state != PlannedState::Fresh).collect();
    let mut text = if all || shown.len() <= FOLDED_ABOVE { listed(&shown) } else { folded(stages) };
    let count = |state| stages.iter().filter(|stage| stage.state == state).count();
    let (fresh, stale, pending) =
        (count(PlannedState::Fresh), count(PlannedState::Stale), count(PlannedState::Pending));
    if stale + pending == 0 {
        let what = if price.fetch_files > 0 { "nothing to run" } else { "nothing to do" };
        text.push_str(&format!("{what}: {} up to date\n", ui::count(fresh, "stage")));
    } else {
        text.push_str(&format!("{stale} to run, {pending} pending (may turn out fresh), {fresh} fresh\n"));
    }
    let may_run = stages.iter().filter(|stage| stage.state != PlannedState::Fresh);
    let from_runs = may_run.filter(|stage| stage.seconds.is_some() && !stage.counted).count();
    text.push_str(&price_words(price, from_runs));
    text
}

fn state_word(state: PlannedState) -> &'static str {
    match state {
        PlannedState::Fresh => "fresh",
        PlannedState::Stale => "stale",
        PlannedState::Pending => "pending",
    }
}

/// A line for each instance.
fn listed(shown: &[&PlannedStage]) -> String {
    let width = shown.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for stage in shown {
        let (before, after) = match (stage.counted, stage.estimated) {
            (true, _) => ("about", " by counted passes"),
            (false, true) => ("about", ""),
            (false, false) => ("last time", ""),
        };
        let last = stage.seconds.map(|seconds| format!("  [{before} {}{after}]", ui::duration(seconds)));
        let last = last.unwrap_or_default();
        let goes_on = stage.goes_on.map(|goes_on| format!("; {}", goes_on.words())).unwrap_or_default();
        let (state, name, reason) = (state_word(stage.state), &stage.name, &stage.reason);
        text.push_str(&format!("{state:7}  {name:width$}  {reason}{goes_on}{last}\n"));
    }
    text
}

/// A line for each stage that has something to run, with the number of its instances by state.
fn folded(stages: &[PlannedStage]) -> String {
    let mut groups: Vec<(&str, Vec<&PlannedStage>)> = Vec::new();
    for stage in stages {
        let name = stage.name.split('/').next().unwrap_or_default();
        match groups.iter_mut().find(|group| group.0 == name) {
            Some(group) => group.1.push(stage),
            None => groups.push((name, vec![stage])),
        }
    }
    groups.retain(|(_, group)| group.iter().any(|stage| stage.state != PlannedState::Fresh));
    let head = |(name, group): &(&str, Vec<&PlannedStage>)| match group.as_slice() {
        [only] => only.name.clone(),
        several => format!("{name} ×{}", several.len()),
    };
    let heads: Vec<String> = groups.iter().map(head).collect();
    let width = heads.iter().map(|head| head.chars().count()).max().unwrap_or(0);
    let lines = heads.iter().zip(&groups).map(|(head, (_, group))| format!("{head:width$}  {}\n", group_words(group)));
    lines.chain(["--all lists every instance\n".to_owned()]).collect()
}

/// The instances of a stage by state, the reason if they share one, and their work.
fn group_words(group: &[&PlannedStage]) -> String {
    let of = |state| group.iter().filter(move |stage| stage.state == state);
    let states = [PlannedState::Stale, PlannedState::Pending, PlannedState::Fresh];
    let counts = states.map(|state| (of(state).count(), state_word(state)));
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    let mut text = counts.collect::<Vec<_>>().join(", ");
    let mut reasons = of(PlannedState::Stale).map(|stage| stage.reason.as_str());
    if let Some(first) = reasons.next() {
        let others = if reasons.all(|reason| reason == first) { "" } else { ", …" };
        text.push_str(&format!("  {first}{others}"));
    }
    let seconds: f64 = group.iter().filter(|stage| stage.state != PlannedState::Fresh).filter_map(|s| s.seconds).sum();
    if seconds > 0.0 {
        let counted = group.iter().filter(|stage| stage.counted).count();
        let priced = group.iter().filter(|stage| stage.state != PlannedState::Fresh && stage.seconds.is_some()).count();
        let by = match counted {
            0 => "",
            all if all == priced => " by counted passes",
            _ => ", partly by counted passes",
        };
        text.push_str(&format!("  [about {} of work{by}]", ui::duration(seconds)));
    }
    text
}

/// `from_runs` counts the stages that earlier runs price.
fn price_words(price: &CostEstimate, from_runs: usize) -> String {
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
        // Pending stages may turn out fresh; what has no price costs more than is told. A count may err both ways.
        let most = match (unknown.is_some() || price.fetch_files > 0, price.counted) {
            (true, _) => "at least ",
            (false, 0) => "at most ",
            (false, _) => "",
        };
        let by = match (price.counted, from_runs) {
            (0, _) => "the durations of earlier runs".to_owned(),
            (_, 0) => "counted passes and the rates of this machine".to_owned(),
            (counted, _) => {
                format!("the durations of earlier runs and, for {}, by counted passes", ui::count(counted, "stage"))
            }
        };
        let rest = unknown.map_or(String::new(), |of| format!("; the cost of {of}"));
        text.push_str(&format!("{most}about {} of work by {by}{wall}{rest}\n", ui::duration(price.work)));
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

/// Says what a price needs where there is none and passes could be counted.
fn rates_hint(stages: &[PlannedStage], has_rates: bool) -> &'static str {
    let passes_images = |kind| {
        use StageKind::{Evaluate, FourierMap, Masking, Saliency, Train};
        matches!(kind, Train | Evaluate | Masking | Saliency | FourierMap)
    };
    let lacks = |stage: &PlannedStage| {
        stage.state != PlannedState::Fresh && stage.seconds.is_none() && passes_images(stage.kind)
    };
    if has_rates || !stages.iter().any(lacks) {
        return "";
    }
    "`atflow doctor --bench` measures this machine, for prices before a first run\n"
}
