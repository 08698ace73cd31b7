//! The comparison of two runs as one self-contained page.

use askama::Template;
use atflow::cache::{Blob, Cache};
use atflow::parameters::shown;
use atflow::run_diff::{CellDiff, TableDiff};
use base64::Engine as _;

use super::words::{Difference, difference_words, notes, number_words, p_words};
use crate::commands::runs::stage_words;
use crate::report::CliError;

/// Style of all pages.
pub(in crate::commands) const STYLE: &str = include_str!("../../page/style.css");

#[derive(Template)]
#[template(path = "diff.html")]
struct Page<'a> {
    style: &'static str,
    pipeline: &'a str,
    before: &'a str,
    after: &'a str,
    parameters: Vec<(String, String, String)>,
    stages: String,
    tables: Vec<TableDiffView>,
    pictures: Vec<(String, Option<String>, Option<String>)>,
    same: String,
    lost: String,
}

/// A table of differences as a page shows it.
pub(in crate::commands) struct TableDiffView {
    pub title: String,
    pub cells: Vec<CellDiffView>,
    pub notes: String,
}

/// A cell of it.
pub(in crate::commands) struct CellDiffView {
    pub row: String,
    pub column: String,
    pub before: String,
    pub after: String,
    pub difference: String,
    pub p: String,
}

/// Returns the page.
pub(in crate::commands) fn html(cache: &Cache, found: &Difference) -> Result<String, CliError> {
    let Difference { before, after, parameters, results } = found;
    let stages: Vec<String> = results.stages.iter().map(|(name, diff)| stage_words(name, diff)).collect();
    let parameters = parameters
        .iter()
        .map(|(name, change)| (name.clone(), shown(change.from.as_ref()), shown(change.to.as_ref())))
        .collect();
    let pictures = results
        .pictures
        .iter()
        .map(|picture| (picture.stage.clone(), data_uri(cache, picture.before), data_uri(cache, picture.after)));
    let page = Page {
        style: STYLE,
        pipeline: &after.run.pipeline,
        before: &before.name,
        after: &after.name,
        parameters,
        stages: stages.join(", "),
        tables: results.tables.iter().map(TableDiffView::of).collect(),
        pictures: pictures.collect(),
        same: results.same.join(", "),
        lost: results.lost.join(", "),
    };
    page.render().map_err(|error| CliError::environment(format!("the page cannot be made: {error}")))
}

impl TableDiffView {
    /// Returns what a page shows of a table's differences.
    pub(in crate::commands) fn of(table: &TableDiff) -> Self {
        let cell = |cell: &CellDiff| CellDiffView {
            row: cell.row.clone(),
            column: cell.column.clone(),
            before: number_words(cell.metric, cell.before.as_ref()),
            after: number_words(cell.metric, cell.after.as_ref()),
            difference: difference_words(cell),
            p: p_words(cell),
        };
        TableDiffView {
            title: table.title.clone().unwrap_or_else(|| table.stage.clone()),
            cells: table.cells.iter().map(cell).collect(),
            notes: notes(table).join(" "),
        }
    }
}

/// Returns a picture of the cache as an address that holds all of it; nothing if it is gone.
pub(in crate::commands) fn data_uri(cache: &Cache, blob: Blob) -> Option<String> {
    let bytes = cache.read(blob.digest).ok()?;
    let kind = if bytes.starts_with(b"\x89PNG") { "image/png" } else { "image/svg+xml" };
    Some(format!("data:{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
}
