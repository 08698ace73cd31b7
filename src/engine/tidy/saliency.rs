//! The table `saliency`: a row for each measure of the saliency maps of each model, and of each two models.

use super::cell::{Cell, Column, ColumnType};
use crate::cache::Manifest;
use crate::formats::SaliencyNumbers;

/// The output that holds the measures.
pub(super) const OUTPUT: &str = "numbers";

/// Its own columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Integer, Real, Seed, Text};
    [
        ("seed", Seed),
        ("method", Text),
        ("set", Text),
        ("model", Text),
        ("other", Text),
        ("measure", Text),
        ("mean", Real),
        ("sd", Real),
        ("n", Integer),
        ("key", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// Its rows of one stage.
pub(super) fn rows(manifest: &Manifest, numbers: &SaliencyNumbers) -> impl Iterator<Item = [Cell; 10]> {
    let record = &manifest.record;
    let (seed, key) = (record.seed.map(Cell::Seed).unwrap_or_default(), Cell::from(record.key().to_string()));
    let method = Cell::from(record.params.pointer("/method/name").and_then(serde_json::Value::as_str));
    numbers.numbers.iter().map(move |number| {
        [
            seed.clone(),
            method.clone(),
            number.set.as_str().into(),
            number.model.as_str().into(),
            number.other.as_deref().into(),
            number.measure.as_str().into(),
            number.mean.into(),
            number.sd.into(),
            number.n.into(),
            key.clone(),
        ]
    })
}
