//! The `table` stage: numbers from predictions, as JSON, Markdown and CSV.

use super::error::StageError;
use super::{Reporter, grid, params, write};
use crate::kinds::TableParams;
use crate::protocol::Job;
use crate::results::{TableDocument, csv, markdown};

/// Slots `value` and `reference`, labelled `ROW/COLUMN`; outputs `json`, `markdown`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: TableParams = params(job)?;
    let columns: Vec<_> = params.columns.iter().map(|column| (column.label.clone(), column.metric)).collect();
    let counts = grid::counts(job, &params.rows, &columns, reporter)?;
    let told = grid::told(&counts);
    let table = TableDocument::new(&params, counts)?;
    write(job, "json", table.to_json()?.as_bytes())?;
    write(job, "markdown", markdown(&table).as_bytes())?;
    write(job, "csv", csv(&table).as_bytes())?;
    Ok(format!("{told} in {} rows and {} columns", params.rows.len(), params.columns.len()))
}
