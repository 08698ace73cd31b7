//! The table `images`: a row for each image of each evaluation.

use super::cell::{Cell, Column, ColumnType};
use crate::formats::Predictions;

/// Its own columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Flag, Integer, Real, Single, Text};
    [
        ("index", Integer),
        ("label", Integer),
        ("predicted", Integer),
        ("correct", Flag),
        ("probability", Single),
        ("loss", Single),
        ("texture", Integer),
        ("broken_by", Text),
        ("smallest_eps", Real),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// Its rows of one evaluation, in the order of the set.
pub(super) fn rows(predictions: &Predictions) -> impl Iterator<Item = [Cell; 9]> {
    let ensemble = predictions.attack.as_ref().and_then(|attack| attack.ensemble.as_ref());
    let radii = predictions.attack.as_ref().and_then(|attack| attack.radii.as_ref());
    let attacks: Vec<Cell> =
        ensemble.iter().flat_map(|ensemble| &ensemble.attacks).map(|name| name[..].into()).collect();
    (0..predictions.len()).map(move |index| {
        let broken_by = ensemble.and_then(|ensemble| attacks.get(usize::try_from(ensemble.broken_by[index]).ok()?));
        [
            index.into(),
            predictions.labels[index].into(),
            predictions.predicted[index].into(),
            predictions.correct(index).into(),
            predictions.probability[index].into(),
            predictions.loss[index].into(),
            predictions.texture.as_ref().map(|texture| texture[index]).into(),
            broken_by.cloned().unwrap_or_default(),
            radii.and_then(|radii| radii.smallest(index)).into(),
        ]
    })
}
