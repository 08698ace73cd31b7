//! The table `metrics`: a row for each number of an evaluation.

use std::rc::Rc;

use super::cell::{Cell, Column, ColumnType};
use crate::cache::Manifest;
use crate::formats::Predictions;
use crate::results::{Number, measure};
use crate::stage_kinds::Metric;

/// Predictions of the untransformed images by the same model.
pub(super) struct Reference {
    pub(super) predictions: Rc<Predictions>,
    /// Whether they are the very ones that are measured.
    pub(super) is_itself: bool,
}

/// Its own columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Integer, Real, Seed, Text};
    [
        ("seed", Seed),
        ("metric", Text),
        ("value", Real),
        ("low", Real),
        ("high", Real),
        ("hits", Integer),
        ("n", Integer),
        ("unit", Text),
        ("checkpoint", Text),
        ("images", Text),
        ("key", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// Its rows of one evaluation.
pub(super) fn rows(
    manifest: &Manifest,
    predictions: &Predictions,
    reference: Option<&Reference>,
) -> impl Iterator<Item = Vec<Cell>> {
    let record = &manifest.record;
    let digest = |input: &str| Cell::from(record.inputs.get(input).map(String::as_str));
    let (checkpoint, images, key) = (digest("model"), digest("set"), Cell::from(record.key().to_string()));
    let seed = record.seed.map(Cell::Seed).unwrap_or_default();
    let of_predictions = Metric::ALL.into_iter().filter(|metric| !metric.is_of_maps());
    of_predictions.filter_map(move |metric| {
        let Number { value, low, high, hits, n, .. } = number(metric, predictions, reference)?;
        let numbers = [value.into(), low.into(), high.into(), hits.into(), n.into(), metric.unit().into()];
        let before = [seed.clone(), metric.name().into()];
        Some([&before[..], &numbers, &[checkpoint.clone(), images.clone(), key.clone()]].concat())
    })
}

/// Returns a number as tables have it; nothing if these predictions have no such number.
fn number(metric: Metric, predictions: &Predictions, reference: Option<&Reference>) -> Option<Number> {
    let has_texture = predictions.texture.is_some();
    let has_ranks = predictions.label_rank.is_some();
    if (metric.needs_texture() && !has_texture)
        || (metric.needs_ranks() && !has_ranks)
        || (metric.needs_reference() && reference.is_none())
    {
        return None;
    }
    // Other images than the reference's make the table fail that sets them side by side, and the run says why.
    let number = measure(metric, None, predictions, reference.map(|reference| &*reference.predictions)).ok()?;
    let is_fixed = metric.needs_reference() && reference.is_some_and(|reference| reference.is_itself);
    Some(if is_fixed { number.by_definition() } else { number })
}
