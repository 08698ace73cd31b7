//! The `table` stage: numbers from predictions, as JSON, Markdown, CSV and for LaTeX.

use std::collections::BTreeMap;

use super::error::StageError;
use super::grid::{self, Against, Grid};
use super::published::published_table;
use super::{Reporter, params, write};
use crate::protocol::Job;
use crate::results::{State, TableDocument, Verdict, csv, markdown, tex};
use crate::stage_kinds::TableParams;

/// Slots `value` and `reference`, labelled `ROW/COLUMN` or `ROW/COLUMN/SEED`, `published`, `anomalies`; outputs `json`,
/// `markdown`, `csv`, `tex`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: TableParams = params(job)?;
    let table = assemble(job, &params, None, reporter)?;
    write(job, "json", table.to_json()?.as_bytes())?;
    write(job, "markdown", markdown(&table).as_bytes())?;
    write(job, "csv", csv(&table).as_bytes())?;
    write(job, "tex", tex(&table).as_bytes())?;
    let mut told = format!("{} in {} rows and {} columns", told(&table), params.rows.len(), params.columns.len());
    if let Some(judgement) = table.published.as_ref().filter(|_| !table.mockup) {
        let different = judgement.verdicts.get(&Verdict::Different).copied().unwrap_or(0);
        told += &format!(", {different} different from {}", judgement.table);
    }
    Ok(told)
}

/// The table of a job's inputs. Without `states` all are there and as they are now.
pub(super) fn assemble(
    job: &Job,
    params: &TableParams,
    states: Option<&BTreeMap<String, State>>,
    reporter: &dyn Reporter,
) -> Result<TableDocument, StageError> {
    let column = |column: &crate::stage_kinds::Column| grid::Column {
        label: column.label.clone(),
        metric: column.metric,
        batch_mean: column.batch_mean,
    };
    let columns: Vec<grid::Column> = params.columns.iter().map(column).collect();
    let against = match &params.compare {
        None => None,
        Some(compare) => match params.rows.iter().position(|row| *row == compare.to) {
            None => return Err(StageError::NoRow { row: compare.to.clone() }),
            Some(row) => Some(Against { row, family: compare.family }),
        },
    };
    let cells = Grid::new(job, &params.rows, &columns, &params.over, &params.maps)?.cells(against, states, reporter)?;
    let mut table = TableDocument::new(params, cells)?;
    judge(job, params, &mut table)?;
    Ok(table)
}

/// Puts the published numbers in a table, where the job has some.
fn judge(job: &Job, params: &TableParams, table: &mut TableDocument) -> Result<(), StageError> {
    let Some(published) = &params.published else { return Ok(()) };
    let numbers = published_table(job, published)?;
    let failed = |source| StageError::Published { file: "published".to_owned(), source };
    numbers.judge(published, table).map_err(failed)?;
    table.sum_up(&published.table, published.tolerance);
    Ok(())
}

fn told(table: &TableDocument) -> String {
    let all = table.cells.iter().flatten().count();
    let there = table.places().filter(|(.., cell)| cell.number != crate::results::Number::default()).count();
    if all == there { format!("{all} numbers") } else { format!("{there} of {all} numbers") }
}
