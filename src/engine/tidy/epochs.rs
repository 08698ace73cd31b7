//! The table `epochs`: a row for each epoch of each training.

use super::cell::{Cell, Column, ColumnType};
use crate::cache::Manifest;
use crate::formats::TrainingMetrics;

/// Its own columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Flag, Integer, Real, Seed, Text};
    [
        ("seed", Seed),
        ("epoch", Integer),
        ("lr", Real),
        ("train_loss", Real),
        ("train_accuracy", Real),
        ("adversarial_loss", Real),
        ("adversarial_accuracy", Real),
        ("validation_accuracy", Real),
        ("checked_accuracy", Real),
        ("holdout_accuracy", Real),
        ("kept", Flag),
        ("key", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// Its rows of one training. Without `holdout` the last epoch is the one that is kept.
pub(super) fn rows(manifest: &Manifest, numbers: &TrainingMetrics) -> impl Iterator<Item = [Cell; 12]> {
    let key = Cell::from(manifest.record.key().to_string());
    let kept = numbers.kept_epoch.or(numbers.epochs.last().map(|epoch| epoch.epoch));
    numbers.epochs.iter().map(move |epoch| {
        let adversarial = epoch.adversarial.as_ref();
        [
            manifest.record.seed.map(Cell::Seed).unwrap_or_default(),
            epoch.epoch.into(),
            epoch.lr.into(),
            epoch.train_loss.into(),
            epoch.train_accuracy.into(),
            adversarial.map(|numbers| numbers.loss).into(),
            adversarial.map(|numbers| numbers.accuracy).into(),
            epoch.validation_accuracy.into(),
            epoch.checked_accuracy.into(),
            epoch.holdout_accuracy.into(),
            (kept == Some(epoch.epoch)).into(),
            key.clone(),
        ]
    })
}
