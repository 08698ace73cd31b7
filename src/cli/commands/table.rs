//! `atflow table`.

use atflow::cache::Cache;
use atflow::kinds::Kind;
use atflow::results::TableDocument;

use super::find;
use crate::args::{TableArgs, TableFormat};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &TableArgs) -> Result<Exit, CliError> {
    let cache = Cache::open(&args.found.cache.cache)?;
    let manifest = find(&cache, &args.name, &args.found)?;
    if manifest.record.kind != Kind::Table {
        let message = format!("`{}` is a `{}` stage, not a table", args.name, manifest.record.kind);
        return Err(CliError::environment(message).help(format!("`atflow show {}` tells what it made", args.name)));
    }
    let bytes = cache.read(cache.output(&manifest, "json")?.digest).map_err(|error| {
        CliError::environment(error.to_string()).help("run the pipeline again: the table is assembled anew")
    })?;
    let table = TableDocument::from_json(&bytes).map_err(|error| CliError::environment(error.to_string()))?;
    let text = match args.format {
        TableFormat::Md => atflow::results::markdown(&table),
        TableFormat::Csv => atflow::results::csv(&table),
        TableFormat::Json => String::from_utf8_lossy(&bytes).into_owned(),
    };
    ui::print(&text)?;
    Ok(Exit::Done)
}
