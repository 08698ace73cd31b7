//! `atflow table`.

use std::path::{Path, PathBuf};

use atflow::cache::{Access, Cache, Manifest};
use atflow::plan::preview::Preview;
use atflow::plan::{CacheStatus, History};
use atflow::results::TableDocument;
use atflow::spec::{Overrides, PipelineSpec, Problems, expand};
use atflow::stage_kinds::StageKind;

use super::{Loaded, find};
use crate::args::{ChangeArgs, TableArgs, TableFormat};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &TableArgs) -> Result<Exit, CliError> {
    let table = match &args.file {
        Some(file) => {
            let overrides = Overrides { profile: args.profile.clone(), set: args.set.clone() };
            as_it_is_now(file, overrides, args)?
        }
        None => {
            let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
            match find(&cache, &args.name, &args.found) {
                Ok(manifest) => recorded(&cache, &manifest, &args.name)?,
                // The last run did not get so far: what it did make is shown.
                Err(error) => match run_that_has(&cache, args) {
                    Some((file, overrides)) => as_it_is_now(&file, overrides, args)?,
                    None => return Err(error),
                },
            }
        }
    };
    let text = match args.format {
        TableFormat::Md => atflow::results::markdown(&table),
        TableFormat::Csv => atflow::results::csv(&table),
        TableFormat::Json => table.to_json().map_err(|error| CliError::environment(error.to_string()))?,
        TableFormat::Tex => atflow::results::tex(&table),
    };
    ui::print_data(&text)?;
    Ok(Exit::Done)
}

/// The table that a stage made.
pub(crate) fn recorded(cache: &Cache, manifest: &Manifest, name: &str) -> Result<TableDocument, CliError> {
    no_table(manifest.record.kind, name)?;
    let again =
        |error: String| CliError::environment(error).help("run the pipeline again: the table is assembled anew");
    let bytes = cache.read(cache.output(manifest, "json")?.digest).map_err(|error| again(error.to_string()))?;
    TableDocument::from_json(&bytes).map_err(|error| again(error.to_string()))
}

fn no_table(kind: StageKind, name: &str) -> Result<(), CliError> {
    if kind == StageKind::Table {
        return Ok(());
    }
    let message = format!("`{name}` is a `{kind}` stage, not a table");
    Err(CliError::environment(message).help(format!("`atflow show {name}` tells what it made")))
}

/// The table as the pipeline has it now: the recorded one if it is fresh, else one of what is there.
fn as_it_is_now(file: &Path, overrides: Overrides, args: &TableArgs) -> Result<TableDocument, CliError> {
    let changes = ChangeArgs::plain(overrides, args.found.cache.clone());
    let loaded = Loaded::open(file, std::slice::from_ref(&args.name), &changes, Access::Look)?;
    let ids = loaded.graph.targets(std::slice::from_ref(&args.name)).map_err(Problems)?;
    let [id] = ids.as_slice() else {
        let names: Vec<&str> = ids.iter().map(|id| loaded.graph.instance(*id).name.as_str()).collect();
        let message = format!("`{}` is several instances", args.name);
        return Err(CliError::environment(message).help(format!("name one of them: {}", names.join(", "))));
    };
    no_table(loaded.graph.instance(*id).kind, &args.name)?;
    let status_of = loaded.survey()?;
    if let Some(CacheStatus::Fresh(_, manifest)) = &status_of[*id] {
        return recorded(&loaded.cache, manifest, &args.name);
    }
    let preview = Preview { context: loaded.context(), status_of: &status_of };
    let history = History::of_profile(&loaded.cache, loaded.name(), loaded.overrides.profile.as_deref());
    preview.table(*id, &history).map_err(|failure| {
        let causes = failure.causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
        CliError::environment(format!("the table cannot be made of what is there: {}{causes}", failure.message))
            .help("`atflow verify` checks the cache; `atflow run` makes the table anew")
    })
}

/// The newest run's pipeline file, if it has the table, and what the command line changed in it then.
fn run_that_has(cache: &Cache, args: &TableArgs) -> Option<(PathBuf, Overrides)> {
    let run = cache.runs(args.found.pipeline.as_deref()).next()?;
    let overrides = Overrides { profile: run.profile, set: run.set };
    let spec = PipelineSpec::read(&run.file, &overrides).ok()?;
    let instances = expand(&spec).unwrap_or_default();
    let has = instances.iter().any(|instance| instance.name == args.name && instance.kind == StageKind::Table);
    has.then_some((run.file, overrides))
}
