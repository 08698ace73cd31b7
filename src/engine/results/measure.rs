//! Numbers from predictions: for each metric which images count and what is averaged over them.

use serde::{Deserialize, Serialize};

use super::Counts;
use super::counts::Z;
use crate::formats::Predictions;
use crate::stage_kinds::Metric;

/// A number with its uncertainty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// The number, 0 to 1 for a share; `null` where nothing was counted.
    pub value: Option<f64>,
    /// Lower end of its 95 % interval; `null` where it has none.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Images that count as a success, where the number is a ratio of counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// Images counted.
    pub n: u64,
    /// Whether the number is what it is by definition, whatever the model does: it then has no interval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

impl Number {
    /// The same number where a definition gives it and no measurement: nothing is uncertain about it.
    #[must_use]
    pub fn by_definition(self) -> Self {
        Number { low: None, high: None, fixed: self.value.is_some(), ..self }
    }
}

impl From<Counts> for Number {
    fn from(counts: Counts) -> Self {
        let (hits, n) = (Some(counts.hits()), counts.n());
        let Some(share) = counts.share() else { return Number { hits, n, ..Number::default() } };
        let (low, high) = counts.interval();
        Number { value: Some(share), low: Some(low), high: Some(high), hits, n, fixed: false }
    }
}

/// Returns the mean of a measure over images with the interval of the normal distribution, cut at what the measure can
/// be.
pub fn of_summary(metric: Metric, mean: f64, sd: Option<f64>, n: u64) -> Number {
    let (least, most) = metric.bounds();
    let reach = sd.filter(|sd| *sd > 0.0).map(|sd| Z * sd / (n as f64).sqrt());
    let (low, high) = (reach.map(|reach| (mean - reach).max(least)), reach.map(|reach| (mean + reach).min(most)));
    Number { value: Some(mean), low, high, n, ..Number::default() }
}

/// Why a number cannot be computed from predictions.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetricError {
    /// The metric compares with a reference, and there is none.
    #[error("accuracy on correctly classified images needs the model's predictions on the untransformed set")]
    NoReference,
    /// The metric is of cue-conflict sets, and this is none.
    #[error("a shape bias needs predictions of a cue-conflict set, which say whose texture each image wears")]
    NoTexture,
    /// The metric is of ranks, and the evaluation did not keep them.
    #[error("a reciprocal rank needs predictions with ranks: write `ranks: true` at the evaluation")]
    NoRanks,
    /// The metric is of several radii, and the attack was run at one.
    #[error("a median of the smallest eps needs an evaluation with a list `eps`")]
    NoRadii,
    /// The metric is of saliency maps, and these are predictions.
    #[error("a measure of saliency maps needs a saliency stage under `measures`")]
    NoMaps,
    /// The two predictions are of sets of different size.
    #[error("the predictions are of {value} images, those {of} of {reference}")]
    Lengths {
        /// Images of the set.
        value: usize,
        /// What it is compared with.
        of: &'static str,
        /// Images of that.
        reference: usize,
    },
    /// The two predictions are of sets with other labels, or in another order.
    #[error(
        "image {index} has label {value} here and {reference} {of}: these are not the same images in the same order"
    )]
    Labels {
        /// The first image that differs, from 0.
        index: usize,
        /// Its label in the set.
        value: i32,
        /// What it is compared with.
        of: &'static str,
        /// Its label there.
        reference: i32,
    },
}

const UNTRANSFORMED: &str = "in the untransformed set";

/// Computes what `metric` asks for; what each is, [`Metric`] says.
///
/// `reference` is looked at for [`Metric::AccuracyOnCorrect`] only. With a `batch_mean` that metric is the unweighted
/// mean of the ratios of batches of so many images in the order of the set, a short last batch like any other: the
/// authors' code (`batch_mean` 32). Like theirs it has no value where a batch has no image that counts. It has no
/// interval.
///
/// # Errors
/// Any [`MetricError`] that the metric can have.
pub fn measure(
    metric: Metric,
    batch_mean: Option<u32>,
    value: &Predictions,
    reference: Option<&Predictions>,
) -> Result<Number, MetricError> {
    let mean = |values: &[f32], most: f64| mean(values.iter().map(|&value| f64::from(value)), most);
    match (metric, batch_mean) {
        (Metric::ProbabilityOfTrueClass, _) => Ok(mean(&value.probability, 1.0)),
        (Metric::MedianEps, _) => median_eps(value),
        _ if metric.is_of_maps() => Err(MetricError::NoMaps),
        (Metric::Loss, _) => Ok(mean(&value.loss, f64::INFINITY)),
        (Metric::ShapeReciprocalRank | Metric::TextureReciprocalRank, _) => {
            let reciprocals = reciprocal_ranks(metric, value)?;
            Ok(self::mean(reciprocals.into_iter(), 1.0))
        }
        (Metric::AccuracyOnCorrect, Some(batch)) => Ok(mean_of_batches(&outcomes(metric, value, reference)?, batch)),
        _ => Ok(Number::from(counted(&outcomes(metric, value, reference)?))),
    }
}

/// For each image whether it is a success; `None` for those that do not count. For metrics that are ratios of counts;
/// of others nothing counts.
///
/// # Errors
/// Any [`MetricError`].
pub(super) fn outcomes(
    metric: Metric,
    value: &Predictions,
    reference: Option<&Predictions>,
) -> Result<Vec<Option<bool>>, MetricError> {
    let each = |outcome: &dyn Fn(usize) -> Option<bool>| (0..value.len()).map(outcome).collect();
    if metric == Metric::Accuracy {
        return Ok(each(&|image| Some(value.correct(image))));
    }
    if metric == Metric::AccuracyOnCorrect {
        let reference = reference.ok_or(MetricError::NoReference)?;
        same_images(value, reference, UNTRANSFORMED)?;
        return Ok(each(&|image| reference.correct(image).then(|| value.correct(image))));
    }
    if matches!(metric, Metric::ProbabilityOfTrueClass | Metric::Loss | Metric::MedianEps)
        || metric.needs_ranks()
        || metric.is_of_maps()
    {
        return Ok(each(&|_| None));
    }
    let texture = value.texture.as_ref().ok_or(MetricError::NoTexture)?;
    let conflict = |image: usize| texture[image] != value.labels[image];
    let (shape, wears) = (|image: usize| value.correct(image), |image: usize| value.predicted[image] == texture[image]);
    Ok(match metric {
        Metric::ShapeBias => each(&|image| (conflict(image) && (shape(image) || wears(image))).then(|| shape(image))),
        Metric::ShapeBiasCoverage => each(&|image| conflict(image).then(|| shape(image) || wears(image))),
        Metric::ShapeShare => each(&|image| conflict(image).then(|| shape(image))),
        _ => each(&|image| conflict(image).then(|| wears(image))),
    })
}

/// 1 / rank of the shape's or the texture's class, of the images whose two classes differ.
fn reciprocal_ranks(metric: Metric, value: &Predictions) -> Result<Vec<f64>, MetricError> {
    let texture = value.texture.as_ref().ok_or(MetricError::NoTexture)?;
    let ranks = if metric == Metric::ShapeReciprocalRank { &value.label_rank } else { &value.texture_rank };
    let ranks = ranks.as_ref().ok_or(MetricError::NoRanks)?;
    let conflicts = (0..value.len()).filter(|&image| texture[image] != value.labels[image]);
    Ok(conflicts.map(|image| 1.0 / f64::from(ranks[image].max(1))).collect())
}

/// The median of the smallest radii that break an image, with the interval of its order statistics: ranks n/2 ±
/// 1.96 √n/2, rounded outwards (Conover 1999, section 3.2). Images that withstand all radii rank last. A median that
/// falls among them has no value, and an interval whose end does is left out.
fn median_eps(value: &Predictions) -> Result<Number, MetricError> {
    let radii = value.attack.as_ref().and_then(|attack| attack.radii.as_ref()).ok_or(MetricError::NoRadii)?;
    let n = value.len();
    let mut smallest: Vec<f64> = (0..n).map(|image| radii.smallest(image).unwrap_or(f64::INFINITY)).collect();
    smallest.sort_by(f64::total_cmp);
    let at = |rank: f64| -> Option<f64> {
        let place = (rank.max(1.0) as usize).checked_sub(1)?;
        smallest.get(place).copied().filter(|eps| eps.is_finite())
    };
    let (middle, reach) = (n as f64 / 2.0, Z * (n as f64).sqrt() / 2.0);
    // Of an even number of images it is the lower of the two in the middle, which is one of the radii.
    let found = at(middle.ceil());
    let interval = at((middle - reach).floor()).zip(at((middle + reach).ceil() + 1.0)).filter(|_| found.is_some());
    let (low, high) = interval.unzip();
    Ok(Number { value: found, low, high, n: n as u64, ..Number::default() })
}

fn counted(outcomes: &[Option<bool>]) -> Counts {
    let count =
        |wanted: &dyn Fn(&bool) -> bool| outcomes.iter().flatten().filter(|outcome| wanted(outcome)).count() as u64;
    Counts::new(count(&|hit| *hit), count(&|_| true)).unwrap_or_default()
}

fn mean_of_batches(outcomes: &[Option<bool>], batch: u32) -> Number {
    let n = counted(outcomes).n();
    let ratios: Option<Vec<f64>> = outcomes.chunks(batch.max(1) as usize).map(|batch| counted(batch).share()).collect();
    let value =
        ratios.filter(|ratios| !ratios.is_empty()).map(|ratios| ratios.iter().sum::<f64>() / ratios.len() as f64);
    Number { value, n, ..Number::default() }
}

/// The mean with the interval of the normal distribution, ± 1.96 standard errors, cut at 0 and `most`. Equal values
/// have no interval: their standard error would be 0, as though nothing were uncertain.
fn mean(values: impl ExactSizeIterator<Item = f64> + Clone, most: f64) -> Number {
    let count = values.len();
    let Some((mean, deviation)) = mean_and_deviation(values) else { return Number::default() };
    let reach = deviation.filter(|deviation| *deviation > 0.0).map(|deviation| Z * deviation / (count as f64).sqrt());
    Number {
        value: Some(mean),
        low: reach.map(|reach| (mean - reach).max(0.0)),
        high: reach.map(|reach| (mean + reach).min(most)),
        n: count as u64,
        ..Number::default()
    }
}

/// Mean and standard deviation (of a sample, so of two values at least).
pub(super) fn mean_and_deviation(values: impl ExactSizeIterator<Item = f64> + Clone) -> Option<(f64, Option<f64>)> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    // Rounding would leave a trace of a deviation where there is none.
    let first = values.clone().next()?;
    if values.clone().all(|value| value == first) {
        return Some((first, (count > 1).then_some(0.0)));
    }
    let mean = values.clone().sum::<f64>() / count as f64;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    Some((mean, (count > 1).then(|| (squares / (count - 1) as f64).sqrt())))
}

/// Whether two predictions are of the same images in the same order, as far as their labels tell; `of` says in an error
/// what the second is.
///
/// # Errors
/// [`MetricError::Lengths`] or [`MetricError::Labels`].
pub fn same_images(value: &Predictions, reference: &Predictions, of: &'static str) -> Result<(), MetricError> {
    if value.len() != reference.len() {
        return Err(MetricError::Lengths { value: value.len(), of, reference: reference.len() });
    }
    match value.labels.iter().zip(&reference.labels).position(|(value, reference)| value != reference) {
        Some(index) => {
            let (value, reference) = (value.labels[index], reference.labels[index]);
            Err(MetricError::Labels { index, value, of, reference })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::formats::{Radii, UnderAttack};

    pub(in crate::results) fn predictions(labels: &[i32], predicted: &[i32]) -> Predictions {
        let (labels, predicted) = (labels.to_vec(), predicted.to_vec());
        Predictions {
            probability: vec![0.5; labels.len()],
            loss: vec![0.7; labels.len()],
            labels,
            predicted,
            ..Predictions::default()
        }
    }

    fn number(hits: u64, n: u64) -> Number {
        Number::from(Counts::new(hits, n).unwrap())
    }

    #[test]
    fn accuracy_on_correct_leaves_out_what_the_model_gets_wrong_untransformed() {
        let labels = [0, 1, 2, 3, 4];
        let reference = predictions(&labels, &[0, 1, 2, 3, 0]);
        let value = predictions(&labels, &[0, 0, 2, 0, 4]);
        assert_eq!(measure(Metric::Accuracy, None, &value, None), Ok(number(3, 5)));
        assert_eq!(measure(Metric::AccuracyOnCorrect, None, &value, Some(&reference)), Ok(number(2, 4)));
        let hopeless = predictions(&labels, &[9; 5]);
        let nothing = measure(Metric::AccuracyOnCorrect, None, &value, Some(&hopeless)).unwrap();
        assert_eq!((nothing.value, nothing.low, nothing.n), (None, None, 0));
    }

    #[test]
    fn batches_are_averaged_as_the_authors_do() {
        // Batches of two: 1 of 2, 1 of 1, and a last one of one image alone, 0 of 1. Pooled it is 2 of 4.
        let labels = [0, 1, 2, 3, 4];
        let reference = predictions(&labels, &[0, 1, 2, 9, 4]);
        let value = predictions(&labels, &[0, 9, 2, 3, 9]);
        let of = |batch, reference| measure(Metric::AccuracyOnCorrect, batch, &value, Some(reference)).unwrap();
        assert_eq!(of(None, &reference).value, Some(0.5));
        let batches = of(Some(2), &reference);
        assert_eq!((batches.value, batches.low, batches.hits, batches.n), (Some(0.5), None, None, 4));
        let batches = of(Some(3), &reference);
        assert_eq!(batches.value, Some((2.0 / 3.0 + 0.0) / 2.0));
        let missing = predictions(&labels, &[0, 1, 9, 9, 4]);
        assert_eq!(of(Some(2), &missing).value, None, "0 of 0 in a batch is NaN in the authors' mean");
        assert_eq!(of(Some(2), &missing).n, 3);
        assert_eq!(measure(Metric::Accuracy, Some(2), &value, None), Ok(number(3, 5)), "of that metric alone");
    }

    #[test]
    fn means_have_the_interval_of_their_standard_error() {
        let mut some = predictions(&[0; 4], &[0; 4]);
        some.probability = vec![0.25, 0.5, 0.75, 1.0];
        some.loss = vec![0.0, 0.0, 0.0, 4.0];
        let found = measure(Metric::ProbabilityOfTrueClass, None, &some, None).unwrap();
        // numpy 2.4.6, scipy 1.17.1: x.mean(), x.mean() ± norm.ppf(0.975) * x.std(ddof=1) / 2.
        assert_eq!((found.value, found.n), (Some(0.625), 4));
        assert!(
            (found.low.unwrap() - 0.308712172).abs() < 1e-8 && (found.high.unwrap() - 0.941287828).abs() < 1e-8,
            "{found:?}"
        );
        let loss = measure(Metric::Loss, None, &some, None).unwrap();
        assert_eq!((loss.value, loss.low), (Some(1.0), Some(0.0)), "cut at 0");
        assert!(loss.high.unwrap() > 2.9);
        let none = predictions(&[], &[]);
        assert_eq!(measure(Metric::Loss, None, &none, None), Ok(Number::default()));
        let equal = measure(Metric::Loss, None, &predictions(&[0; 4], &[0; 4]), None).unwrap();
        assert_eq!((equal.low, equal.high, equal.n), (None, None, 4), "four equal values do not make it certain");
    }

    #[test]
    fn shape_bias_counts_what_was_decided_by_shape_or_texture() {
        // Shape, texture, neither, and an image whose two classes are the same.
        let mut some = predictions(&[0, 0, 0, 0, 1], &[0, 0, 2, 3, 1]);
        assert_eq!(measure(Metric::ShapeBias, None, &some, None), Err(MetricError::NoTexture));
        some.texture = Some(vec![1, 1, 2, 1, 1]);
        let of = |metric| measure(metric, None, &some, None).unwrap();
        assert_eq!(of(Metric::ShapeBias), number(2, 3));
        assert_eq!(of(Metric::ShapeBiasCoverage), number(3, 4));
        assert_eq!(of(Metric::ShapeShare), number(2, 4));
        assert_eq!(of(Metric::TextureShare), number(1, 4));
    }

    #[test]
    fn reciprocal_ranks_are_those_of_images_whose_two_classes_differ() {
        let mut some = predictions(&[0, 0, 0, 1], &[0, 0, 2, 1]);
        some.texture = Some(vec![1, 1, 2, 1]);
        let of = |some: &Predictions, metric| measure(metric, None, some, None);
        assert_eq!(of(&some, Metric::ShapeReciprocalRank), Err(MetricError::NoRanks));
        some.label_rank = Some(vec![1, 1, 4, 1]);
        some.texture_rank = Some(vec![2, 10, 1, 1]);
        let shape = of(&some, Metric::ShapeReciprocalRank).unwrap();
        assert_eq!((shape.value, shape.n, shape.hits), (Some((1.0 + 1.0 + 0.25) / 3.0), 3, None));
        assert!(shape.high == Some(1.0) && shape.low.unwrap() < 0.75, "{shape:?}");
        let texture = of(&some, Metric::TextureReciprocalRank).unwrap();
        assert!((texture.value.unwrap() - (0.5 + 0.1 + 1.0) / 3.0).abs() < 1e-12);
        some.texture = None;
        assert_eq!(of(&some, Metric::ShapeReciprocalRank), Err(MetricError::NoTexture));
    }

    #[test]
    fn a_measure_of_maps_has_the_interval_of_its_mean_within_its_bounds() {
        // By hand: 0.5 ± 1.959964 · 0.2 / √25.
        let gini = of_summary(Metric::Gini, 0.5, Some(0.2), 25);
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-6;
        assert!(near(gini.low, 0.421601) && near(gini.high, 0.578399) && gini.n == 25, "{gini:?}");
        let wide = of_summary(Metric::Ssim, -0.9, Some(1.0), 4);
        assert_eq!((wide.low, wide.high.map(f64::signum)), (Some(-1.0), Some(1.0)), "a correlation may be negative");
        assert_eq!(of_summary(Metric::RelativeInputStability, 0.1, Some(5.0), 4).low, Some(0.0));
        let one = of_summary(Metric::Gini, 0.5, None, 1);
        assert_eq!((one.value, one.low, one.high), (Some(0.5), None, None));
        let predictions = predictions(&[0], &[0]);
        assert_eq!(measure(Metric::Gini, None, &predictions, None), Err(MetricError::NoMaps));
    }

    #[test]
    fn half_of_the_images_break_within_the_median() {
        let of = |broken_at: &[i32]| {
            let labels = vec![0; broken_at.len()];
            let radii = Some(Radii { eps: vec![0.0, 0.25, 0.5], broken_at: broken_at.to_vec() });
            let attack = Some(UnderAttack { radii, ..UnderAttack::default() });
            measure(Metric::MedianEps, None, &Predictions { attack, ..predictions(&labels, &labels) }, None).unwrap()
        };
        assert_eq!((of(&[0, 1, 1, 2, -1]).value, of(&[0, 1, 1, 2, -1]).n), (Some(0.25), 5));
        assert_eq!(of(&[0, 1, 2, -1]).value, Some(0.25), "the lower one of the two in the middle");
        assert_eq!(of(&[0, -1, -1]).value, None, "most withstand all");
        assert_eq!(of(&[]).value, None);
        // scipy 1.17.1, stats.binom(100, 0.5): ranks 40 and 61 of 100 hold the median in 96.5 % of samples.
        let broken: Vec<i32> = (0..100)
            .map(|image| {
                if image < 39 {
                    0
                } else if image < 60 {
                    1
                } else {
                    2
                }
            })
            .collect();
        let wide = of(&broken);
        assert_eq!((wide.value, wide.low, wide.high), (Some(0.25), Some(0.25), Some(0.5)));
        let open: Vec<i32> = broken.iter().map(|&at| if at == 2 { -1 } else { at }).collect();
        assert_eq!((of(&open).value, of(&open).low, of(&open).high), (Some(0.25), None, None), "its end is open");
        let plain = predictions(&[0], &[0]);
        assert_eq!(measure(Metric::MedianEps, None, &plain, None), Err(MetricError::NoRadii));
    }

    #[test]
    fn predictions_of_other_images_are_refused() {
        let value = predictions(&[0, 1, 2], &[0, 1, 2]);
        let measure = |reference| measure(Metric::AccuracyOnCorrect, None, &value, reference);
        assert_eq!(measure(None), Err(MetricError::NoReference));
        let (shorter, shuffled) = (predictions(&[0, 1], &[0, 1]), predictions(&[0, 2, 1], &[0, 2, 1]));
        let of = UNTRANSFORMED;
        assert_eq!(measure(Some(&shorter)), Err(MetricError::Lengths { value: 3, of, reference: 2 }));
        assert_eq!(measure(Some(&shuffled)), Err(MetricError::Labels { index: 1, value: 1, of, reference: 2 }));
    }
}
