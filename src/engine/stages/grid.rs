//! Inputs labelled `ROW/COLUMN` as a grid of counts, for tables and figures.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::error::StageError;
use super::{Reporter, go_on, name, read};
use crate::digest::Digest;
use crate::formats::Predictions;
use crate::kinds::Metric;
use crate::protocol::{Input, Job};
use crate::results::{Counts, measure};

/// The numbers of a grid: for each row one for each column, `None` where the stage was given no `value`.
///
/// A label may hold a `/` itself, so labels are built from the grid and compared, never taken apart.
pub(super) fn counts(
    job: &Job,
    rows: &[String],
    columns: &[(String, Metric)],
    reporter: &dyn Reporter,
) -> Result<Vec<Vec<Option<Counts>>>, StageError> {
    let mut cells = BTreeMap::new();
    for (row, row_label) in rows.iter().enumerate() {
        for (column, (column_label, _)) in columns.iter().enumerate() {
            let label = format!("{row_label}/{column_label}");
            if cells.insert(label.clone(), (row, column)).is_some() {
                return Err(StageError::AmbiguousLabel { label });
            }
        }
    }
    let values = by_label(job, "value", &cells)?;
    let references = by_label(job, "reference", &cells)?;

    // One reference serves a whole row.
    let mut known: BTreeMap<Digest, Predictions> = BTreeMap::new();
    let mut grid = vec![vec![None; columns.len()]; rows.len()];
    for (done, (label, value_input)) in values.iter().enumerate() {
        go_on(reporter)?;
        reporter.progress(done as u64, values.len() as u64, label);
        let (row, column) = cells[*label];
        let value = predictions(value_input)?;
        let reference = match references.get(label) {
            Some(input) => Some(match known.entry(input.digest) {
                Entry::Occupied(known) => &*known.into_mut(),
                Entry::Vacant(new) => &*new.insert(predictions(input)?),
            }),
            None => None,
        };
        let counts = measure(columns[column].1, &value, reference);
        grid[row][column] = Some(counts.map_err(|source| StageError::Metric { cell: label.to_string(), source })?);
    }
    Ok(grid)
}

fn by_label<'a>(
    job: &'a Job,
    slot: &'a str,
    cells: &BTreeMap<String, (usize, usize)>,
) -> Result<BTreeMap<&'a str, &'a Input>, StageError> {
    let mut inputs = BTreeMap::new();
    for input in job.inputs_of(slot) {
        if !cells.contains_key(&input.label) {
            return Err(StageError::NoCell { input: name(input) });
        }
        if inputs.insert(input.label.as_str(), input).is_some() {
            return Err(StageError::Twice { input: name(input) });
        }
    }
    Ok(inputs)
}

fn predictions(input: &Input) -> Result<Predictions, StageError> {
    Predictions::from_bytes(&read(input)?).map_err(|source| StageError::Format { input: name(input), source })
}

/// `12 of 15 numbers`, or `15 numbers` where none is missing.
pub(super) fn told(grid: &[Vec<Option<Counts>>]) -> String {
    let (all, there) = (grid.iter().flatten().count(), grid.iter().flatten().flatten().count());
    if all == there { format!("{all} numbers") } else { format!("{there} of {all} numbers") }
}
