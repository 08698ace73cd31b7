//! Which images each evaluation classified correctly, as bits: with them a page recomputes any accuracy and compares
//! any two models.

use super::RunResults;
use crate::cache::Cache;
use crate::digest::Digest;
use crate::formats::Predictions;
use crate::stage_kinds::StageKind;

/// What an evaluation got right.
#[derive(Debug)]
pub struct EvaluationOutcomes {
    /// Index of the result.
    pub stage: usize,
    /// Number of images.
    pub n: usize,
    /// Number of those that are classified correctly.
    pub hits: usize,
    /// Names the images, as far as their number and their labels tell: evaluations with the same name can be paired.
    pub images: String,
    /// One bit an image, the first in the lowest bit of the first byte: set if it is classified correctly.
    pub bits: Vec<u8>,
}

/// Reads the predictions of all evaluations of a run; leaves out those whose file is gone.
pub fn outcomes(cache: &Cache, results: &RunResults) -> Vec<EvaluationOutcomes> {
    let evaluations = results.stages.iter().enumerate();
    let is_evaluation = |kind: StageKind| matches!(kind, StageKind::Evaluate | StageKind::WorstCase);
    let evaluations = evaluations.filter(|(_, stage)| is_evaluation(stage.manifest.record.kind));
    evaluations
        .filter_map(|(index, stage)| {
            let blob = stage.manifest.outputs.get("predictions")?;
            let predictions = Predictions::from_bytes(&cache.read(blob.digest).ok()?).ok()?;
            Some(of(index, &predictions))
        })
        .collect()
}

fn of(stage: usize, predictions: &Predictions) -> EvaluationOutcomes {
    let n = predictions.len();
    let mut bits = vec![0_u8; n.div_ceil(8)];
    let mut hits = 0;
    for image in (0..n).filter(|image| predictions.correct(*image)) {
        bits[image / 8] |= 1 << (image % 8);
        hits += 1;
    }
    let labels: Vec<u8> = predictions.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let images = Digest::of(&labels).to_string()[..12].to_owned();
    EvaluationOutcomes { stage, n, hits, images, bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_image_is_the_lowest_bit() {
        let labels = vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let predicted = vec![0, 0, 2, 0, 0, 0, 0, 0, 8, 0];
        let found = of(3, &Predictions { labels, predicted, ..Predictions::default() });
        assert_eq!((found.n, found.hits, found.bits), (10, 3, vec![0b0000_0101, 0b0000_0001]));
    }
}
