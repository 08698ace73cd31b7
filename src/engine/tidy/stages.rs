//! The table `stages`: a row for each instance, whether or not it has a result.

use super::cell::{Cell, Column, ColumnType};
use crate::address::masked;
use crate::cache::Manifest;
use crate::plan::{CacheStatus, PlannedState};
use crate::spec::Instance;

/// Its own columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Integer, Moment, Real, Seed, Text};
    [
        ("seed", Seed),
        ("state", Text),
        ("seconds", Real),
        ("made", Moment),
        ("host", Text),
        ("device", Text),
        ("device_name", Text),
        ("threads", Integer),
        ("peak_memory", Integer),
        ("atflow", Text),
        ("libtorch", Text),
        ("commit", Text),
        ("summary", Text),
        ("params", Text),
        ("key", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// Its cells of one instance; what a result tells is missing where there is none.
pub(super) fn cells(instance: &Instance, status: &CacheStatus) -> Vec<Cell> {
    let manifest = match status {
        CacheStatus::Fresh(_, manifest) => Some(&**manifest),
        _ => None,
    };
    let state = match status.state() {
        PlannedState::Fresh => "fresh",
        PlannedState::Stale => "stale",
        PlannedState::Pending => "pending",
    };
    // An address in a command may hold a password.
    let params = masked(&instance.params.to_string());
    let seed = instance.recorded_seed().map(Cell::Seed).unwrap_or_default();
    let key = manifest.map(|manifest| manifest.record.key().to_string());
    [vec![seed, state.into()], made(manifest), vec![params.into(), key.into()]].concat()
}

fn made(manifest: Option<&Manifest>) -> Vec<Cell> {
    let Some(Manifest { made, .. }) = manifest else { return vec![Cell::Missing; 11] };
    let text = |text: &str| Cell::from(Some(text).filter(|text| !text.is_empty()));
    vec![
        made.seconds.into(),
        Cell::moment(&made.at),
        text(&made.host),
        text(&made.device),
        text(&made.device_name),
        made.threads.into(),
        made.peak_memory.into(),
        text(&made.atflow),
        made.libtorch.as_deref().into(),
        made.commit.as_deref().into(),
        text(&made.summary),
    ]
}
