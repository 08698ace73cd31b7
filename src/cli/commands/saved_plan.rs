//! Plans saved in files: `atflow plan --save` and `atflow run --plan`.

use std::path::Path;

use atflow::address::masked;
use atflow::cache::Access;
use atflow::external_inputs::causes;
use atflow::fsio;
use atflow::plan::saved_plan::{self, PLAN_FORMAT, PlanDrift, SavedPlan};

use super::Loaded;
use crate::args::{ChangeArgs, PipelineArgs};
use crate::report::CliError;
use crate::ui;

/// A plan of 100,000 stages has some 100 MB.
const MAX_BYTES: u64 = 1 << 30;

/// So many differences are told; the rest are counted.
const SHOWN: usize = 10;

/// Refuses to overwrite anything but a plan.
pub(crate) fn check_place(file: &Path) -> Result<(), CliError> {
    let shown = file.display();
    let is_plan = match fsio::read_regular(file, MAX_BYTES) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // What cannot be read may be anything.
        Err(_) => false,
        Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|json| is_kept_plan(&json)),
    };
    if is_plan {
        return Ok(());
    }
    let error = CliError::environment(format!("{shown} is there already and is no saved plan: it is not overwritten"));
    Err(error.help("name another file with --save, or remove that one first"))
}

/// Whether this is a plan, of whatever version.
fn is_kept_plan(json: &serde_json::Value) -> bool {
    json["format"].is_u64() && json["pipeline"].is_string() && json["stages"].is_object()
}

/// Keeps what a plan shows.
pub(crate) fn save(file: &Path, loaded: &Loaded, args: &PipelineArgs) -> Result<(), CliError> {
    let plan = SavedPlan {
        format: PLAN_FORMAT,
        at: jiff::Timestamp::now().to_string(),
        pipeline: args.pipeline.clone(),
        profile: args.changes.profile.clone(),
        set: args.changes.set.clone(),
        targets: args.targets.clone(),
        force: args.changes.force.clone(),
        from: loaded.goals.rerun_from,
        stages: saved_plan::stages(&loaded.graph, &loaded.sources, &loaded.survey()?),
    };
    let text = serde_json::to_string_pretty(&plan)
        .map_err(|error| CliError::environment(format!("the plan cannot be written: {error}")))?;
    fsio::write_atomic(file, fsio::folder_of(file), format!("{text}\n").as_bytes())
        .map_err(|error| CliError::environment(causes(&error).join(": ")))
}

/// Loads the pipeline of a saved plan, with the caches that are given now; refuses if it would do anything else than
/// was shown.
pub(crate) fn open(file: &Path, given: &ChangeArgs, access: Access) -> Result<Loaded, CliError> {
    let shown = file.display();
    let bytes = fsio::read_regular(file, MAX_BYTES)
        .map_err(|error| CliError::environment(format!("cannot read {shown}: {error}")))?;
    let how = "`atflow plan PIPELINE.yaml --save FILE` makes one";
    let json: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| CliError::environment(format!("{shown} is no plan: {error}")).help(how))?;
    // The version first: a newer plan may have other fields.
    if let Some(format) = json["format"].as_u64().filter(|format| *format != u64::from(PLAN_FORMAT)) {
        let message = format!("{shown} has format {format}; this version of atflow reads format {PLAN_FORMAT}");
        return Err(CliError::environment(message).help(how));
    }
    // What is some other file's is not shown.
    if !is_kept_plan(&json) {
        return Err(CliError::environment(format!("{shown} is no plan")).help(how));
    }
    let plan: SavedPlan = serde_json::from_value(json)
        .map_err(|error| CliError::environment(format!("{shown} is no plan: {error}")).help(how))?;
    if !plan.pipeline.exists() {
        let message = format!("{shown} is of the pipeline {}, which is not there", plan.pipeline.display());
        let help = "a saved plan names its pipeline from the folder where it was made: run it there";
        return Err(CliError::environment(message).help(help));
    }
    let changes =
        ChangeArgs { set: plan.set.clone(), profile: plan.profile.clone(), force: plan.force, ..given.clone() };
    let loaded = Loaded::open(&plan.pipeline, &plan.targets, &changes, access)?.from(plan.from)?;
    let moved = saved_plan::drift(&plan.stages, &saved_plan::stages(&loaded.graph, &loaded.sources, &loaded.survey()?));
    if moved.is_empty() {
        return Ok(loaded);
    }
    let mut lines: Vec<String> = moved.iter().take(SHOWN).map(sentence).collect();
    if moved.len() > SHOWN {
        lines.push(format!("and {} more", moved.len() - SHOWN));
    }
    let count = ui::count(moved.len(), "thing");
    let message = format!("{count} moved since {shown} was kept, so nothing was run:\n{}", lines.join("\n"));
    Err(CliError::environment(message).help("look at a new plan, and keep that"))
}

fn sentence(moved: &PlanDrift) -> String {
    match moved {
        PlanDrift::Added(stage) => format!("  {stage} is new"),
        PlanDrift::Removed(stage) => format!("  {stage} is gone"),
        PlanDrift::Changed { stage, change } => format!("  {stage}: {}", masked(&change.to_string())),
        PlanDrift::Inputs(stage) => format!("  {stage}: its inputs were made anew and hold other bytes"),
        PlanDrift::Lost(stage) => format!("  {stage}: its result is gone from the cache"),
    }
}
