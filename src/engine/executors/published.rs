//! The files of published numbers that a table or a figure stands beside.

use super::error::StageError;
use super::read;
use crate::protocol::{Input, Job};
use crate::results::PublishedTable;
use crate::stage_kinds::PublishedParams;

/// The published numbers in the slot `published`, marked by those in the slot `anomalies` where there are some.
pub(super) fn published_table(job: &Job, published: &PublishedParams) -> Result<PublishedTable, StageError> {
    let input = |slot: &'static str| job.inputs_of(slot).next();
    let file = input("published").ok_or_else(|| StageError::NoInput { slot: "published".to_owned() })?;
    let failed = |input: &Input| {
        let file = input.slot.clone();
        move |source| StageError::Published { file, source }
    };
    let mut numbers = PublishedTable::parse(&read(file)?).map_err(failed(file))?;
    if let Some(anomalies) = input("anomalies") {
        numbers.mark(&published.table, &read(anomalies)?).map_err(failed(anomalies))?;
    }
    Ok(numbers)
}
