//! `atflow diff`: what differs between two runs, parameters first, then numbers, then pictures.

pub(super) mod page;
pub(super) mod words;

use std::fmt::Write as _;
use std::path::Path;

use atflow::cache::{Access, Cache, RunRecord};
use atflow::fsio;
use atflow::results_folder::{FolderManifest, MANIFEST_FILE};
use atflow::run_diff::diff;
use serde_json::json;

use super::runs::{find_run, parameters_between, run_before, stage_words};
use crate::args::{DiffArgs, DiffFormat, FindArgs};
use crate::report::{CliError, Exit};
use crate::ui;
use words::{Difference, Side, difference_words, notes, number_words, p_words};

pub(crate) fn run(args: &DiffArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    let (before, after) = sides(&cache, args)?;
    let parameters = parameters_between(&before.run, &after.run);
    let results = diff(&cache, &before.keys, &after.keys);
    let found = Difference { before, after, parameters, results };
    let text = match args.format {
        DiffFormat::Md => markdown(&found),
        DiffFormat::Json => format!("{}\n", to_json(&found)),
        DiffFormat::Html => page::html(&cache, &found)?,
    };
    match &args.out {
        Some(file) => fsio::write_atomic(file, fsio::folder_of(file), text.as_bytes())
            .map_err(|error| CliError::environment(format!("cannot write {}: {error}", file.display())))?,
        None => ui::print_data(&text)?,
    }
    Ok(Exit::Done)
}

/// Returns the two runs: those that were named, the last one where one is missing, and before it the newest run of the
/// pipeline with the same profile and other results.
fn sides(cache: &Cache, args: &DiffArgs) -> Result<(Side, Side), CliError> {
    let after = match &args.after {
        Some(name) => side(cache, name, &args.found)?,
        None => side(cache, "last", &args.found)?,
    };
    if let Some(name) = &args.before {
        return Ok((side(cache, name, &args.found)?, after));
    }
    match run_before(cache, &after.run, &after.keys) {
        Some(run) => Ok((of_run("the run before", run), after)),
        None => {
            let message = format!("no earlier run of pipeline {} has other results", after.run.pipeline);
            Err(CliError::environment(message).help("name two runs: `atflow runs` lists them"))
        }
    }
}

fn of_run(name: &str, run: RunRecord) -> Side {
    let short = run.id.short();
    let name = if name.starts_with(&short[..4]) { short } else { format!("{short} ({name})") };
    Side { name, keys: run.keys.clone(), run }
}

/// Returns the run of a name, or the results of a folder that a run laid out.
fn side(cache: &Cache, name: &str, found: &FindArgs) -> Result<Side, CliError> {
    if !Path::new(name).is_dir() {
        return Ok(of_run(name, find_run(cache, name, found)?));
    }
    let Some(manifest) = FolderManifest::read(Path::new(name)) else {
        let message = format!("{name} is no results folder: it has no {}", MANIFEST_FILE);
        return Err(CliError::environment(message).help("name a folder that `atflow run` wrote, or a run"));
    };
    let newest = manifest.files.values().filter_map(|file| file.run.clone()).max();
    let run = newest.and_then(|id| cache.runs(Some(&manifest.pipeline)).find(|run| run.id == id));
    let keys = manifest.files.values().map(|file| (file.stage.clone(), file.key)).collect();
    let run = run.unwrap_or_else(|| RunRecord { pipeline: manifest.pipeline.clone(), ..RunRecord::default() });
    Ok(Side { name: name.to_owned(), run, keys })
}

fn to_json(found: &Difference) -> serde_json::Value {
    let side = |side: &Side| {
        json!({
            "run": side.run.id.short(), "ended": side.run.at, "pipeline": side.run.pipeline, "profile": side.run.profile,
            "commit": side.run.commit,
        })
    };
    json!({
        "before": side(&found.before), "after": side(&found.after), "parameters": found.parameters,
        "stages": found.results.stages, "tables": found.results.tables, "pictures": found.results.pictures,
        "same": found.results.same, "lost": found.results.lost,
    })
}

fn markdown(found: &Difference) -> String {
    let Difference { before, after, parameters, results } = found;
    let mut text = format!("# {}: {} against {}\n\n", after.run.pipeline, after.name, before.name);
    if parameters.is_empty() {
        text.push_str("Parameters: no difference.\n");
    } else {
        text.push_str("| parameter | before | after |\n|---|---|---|\n");
        for (name, change) in parameters {
            let shown = |value| atflow::parameters::shown(value).replace('|', "\\|");
            let (from, to) = (shown(change.from.as_ref()), shown(change.to.as_ref()));
            _ = writeln!(text, "| {name} | {from} | {to} |");
        }
    }
    if !results.stages.is_empty() {
        let stages: Vec<String> = results.stages.iter().map(|(name, diff)| stage_words(name, diff)).collect();
        _ = write!(text, "\nStages: {}.\n", stages.join(", "));
    }
    for table in &results.tables {
        _ = write!(text, "\n## {}\n\n", table.title.as_ref().unwrap_or(&table.stage));
        text.push_str("| row | column | before | after | difference | p |\n|---|---|--:|--:|--:|--:|\n");
        for cell in &table.cells {
            let escaped = |text: &str| text.replace('|', "\\|");
            _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                escaped(&cell.row),
                escaped(&cell.column),
                number_words(cell.metric, cell.before.as_ref()),
                number_words(cell.metric, cell.after.as_ref()),
                difference_words(cell),
                p_words(cell),
            );
        }
        _ = write!(text, "\n{}\n", notes(table).join("\n"));
    }
    if !results.pictures.is_empty() {
        let names: Vec<&str> = results.pictures.iter().map(|picture| picture.stage.as_str()).collect();
        _ = write!(text, "\nOther pictures: {} (`--format html` shows them side by side).\n", names.join(", "));
    }
    for (what, names) in [("Equal", &results.same), ("Gone from the cache", &results.lost)] {
        if !names.is_empty() {
            _ = write!(text, "\n{what}: {}.\n", names.join(", "));
        }
    }
    text
}
