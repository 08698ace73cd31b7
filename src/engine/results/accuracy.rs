//! Accuracies as counts with their 95 % intervals.

use crate::formats::Predictions;
use crate::kinds::Metric;

/// The 97.5 % quantile of the standard normal distribution (`scipy.stats.norm.ppf(0.975)`).
const Z: f64 = 1.959963984540054;

/// `hits` of `n` images; `hits` is never above `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    hits: u64,
    n: u64,
}

impl Counts {
    /// Wraps two counts; `None` if there are more hits than images.
    pub fn new(hits: u64, n: u64) -> Option<Self> {
        (hits <= n).then_some(Counts { hits, n })
    }

    /// Images that count as a success.
    pub const fn hits(self) -> u64 {
        self.hits
    }

    /// Images counted.
    pub const fn n(self) -> u64 {
        self.n
    }

    /// `hits / n`, 0 to 1; `None` if there was no image to count.
    pub fn share(self) -> Option<f64> {
        (self.n > 0).then(|| self.hits as f64 / self.n as f64)
    }

    /// The 95 % interval of the share after Wilson (1927), without continuity correction: with p = hits / n,
    ///
    /// (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    ///
    /// Equation 4 of Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, Statistical Science 16 (2001), who
    /// recommend it. Its ends lie in [0, 1] and it is not symmetric about p. Without any image it is [0, 1].
    pub fn interval(self) -> (f64, f64) {
        let Some(p) = self.share() else { return (0.0, 1.0) };
        let n = self.n as f64;
        let centre = p + Z * Z / (2.0 * n);
        let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        // Both ends are exact where rounding would leave 1e-18 or 0.9999999.
        let low = if self.hits == 0 { 0.0 } else { (centre - reach) / scale };
        let high = if self.hits == self.n { 1.0 } else { (centre + reach) / scale };
        (low, high)
    }
}

/// Why a number cannot be computed from predictions.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetricError {
    /// The metric compares with a reference, and there is none.
    #[error("accuracy on correctly classified images needs the model's predictions on the untransformed set")]
    NoReference,
    /// The two predictions are of sets of different size.
    #[error("the predictions are of {value} images, those on the untransformed set of {reference}")]
    Lengths {
        /// Images of the set.
        value: usize,
        /// Images of the reference.
        reference: usize,
    },
    /// The two predictions are of sets with other labels, or in another order.
    #[error(
        "image {index} has label {value} here and {reference} in the untransformed set: these are not the same images in the same order"
    )]
    Labels {
        /// The first image that differs, from 0.
        index: usize,
        /// Its label in the set.
        value: i32,
        /// Its label in the reference.
        reference: i32,
    },
}

/// Counts what `metric` asks for.
///
/// - [`Metric::Accuracy`]: images predicted correctly, of all images. `reference` is not looked at.
/// - [`Metric::AccuracyOnCorrect`]: images predicted correctly both in the set and in `reference`, of those predicted correctly in
///   `reference`. This is the pooled ratio of the paper's section 4.2; the authors' code averages the ratios of batches of 32.
///
/// # Errors
/// Any [`MetricError`], for [`Metric::AccuracyOnCorrect`] only.
pub fn measure(metric: Metric, value: &Predictions, reference: Option<&Predictions>) -> Result<Counts, MetricError> {
    let count = |is_counted: &dyn Fn(usize) -> bool| (0..value.len()).filter(|&index| is_counted(index)).count() as u64;
    match metric {
        Metric::Accuracy => Ok(Counts { hits: count(&|index| value.correct(index)), n: value.len() as u64 }),
        Metric::AccuracyOnCorrect => {
            let reference = reference.ok_or(MetricError::NoReference)?;
            same_images(value, reference)?;
            Ok(Counts {
                hits: count(&|index| reference.correct(index) && value.correct(index)),
                n: count(&|index| reference.correct(index)),
            })
        }
    }
}

fn same_images(value: &Predictions, reference: &Predictions) -> Result<(), MetricError> {
    if value.len() != reference.len() {
        return Err(MetricError::Lengths { value: value.len(), reference: reference.len() });
    }
    match value.labels.iter().zip(&reference.labels).position(|(value, reference)| value != reference) {
        Some(index) => {
            Err(MetricError::Labels { index, value: value.labels[index], reference: reference.labels[index] })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made with statsmodels 0.15.0 and scipy 1.17.1:
    //
    // from statsmodels.stats.proportion import proportion_confint
    // for k, n in [(0, 10), (10, 10), (1, 10), (873, 1000), (1, 2), (9321, 10000), (3, 2000)]:
    //     print((k, n, *proportion_confint(k, n, alpha=0.05, method="wilson")))
    // scipy.stats.binomtest(k, n).proportion_ci(method="wilson") agrees to 1e-15.
    const WILSON: &[(u64, u64, f64, f64)] = &[
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371106, 1.0),
        (1, 10, 0.017876213095072924, 0.40415002679523854),
        (873, 1000, 0.8509252474282143, 0.8922199907415616),
        (1, 2, 0.09453120573423068, 0.9054687942657693),
        (9321, 10000, 0.9270014653820328, 0.9368666832260285),
        (3, 2000, 0.0005102635836384819, 0.004401032555770695),
    ];

    #[test]
    fn intervals_are_those_of_statsmodels() {
        for &(k, n, low, high) in WILSON {
            let found = Counts::new(k, n).unwrap().interval();
            assert!((found.0 - low).abs() < 1e-12 && (found.1 - high).abs() < 1e-12, "{k} of {n}: {found:?}");
        }
    }

    #[test]
    fn nothing_counted_says_nothing() {
        let none = Counts::new(0, 0).unwrap();
        assert_eq!((none.share(), none.interval()), (None, (0.0, 1.0)));
        assert_eq!(Counts::new(2, 1), None);
    }

    proptest! {
        #[test]
        fn an_interval_holds_the_share_and_stays_in_the_unit_interval(hits in 0_u64..50_000, misses in 0_u64..50_000) {
            prop_assume!(hits + misses > 0);
            let counts = Counts::new(hits, hits + misses).unwrap();
            let ((low, high), share) = (counts.interval(), counts.share().unwrap());
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0, "{low} {share} {high}");
            prop_assert!(low < high);
            // The same images counted the other way round.
            let (other_low, other_high) = Counts::new(misses, hits + misses).unwrap().interval();
            prop_assert!((low - (1.0 - other_high)).abs() < 1e-12 && (high - (1.0 - other_low)).abs() < 1e-12);
        }
    }

    fn predictions(labels: &[i32], predicted: &[i32]) -> Predictions {
        let (labels, predicted) = (labels.to_vec(), predicted.to_vec());
        Predictions {
            probability: vec![0.5; labels.len()],
            loss: vec![0.7; labels.len()],
            labels,
            predicted,
            ..Predictions::default()
        }
    }

    #[test]
    fn accuracy_on_correct_leaves_out_what_the_model_gets_wrong_untransformed() {
        let labels = [0, 1, 2, 3, 4];
        let reference = predictions(&labels, &[0, 1, 2, 3, 0]);
        let value = predictions(&labels, &[0, 0, 2, 0, 4]);
        assert_eq!(measure(Metric::Accuracy, &value, None), Ok(Counts { hits: 3, n: 5 }));
        assert_eq!(measure(Metric::AccuracyOnCorrect, &value, Some(&reference)), Ok(Counts { hits: 2, n: 4 }));
        let hopeless = predictions(&labels, &[9; 5]);
        assert_eq!(measure(Metric::AccuracyOnCorrect, &value, Some(&hopeless)), Ok(Counts { hits: 0, n: 0 }));
    }

    #[test]
    fn predictions_of_other_images_are_refused() {
        let value = predictions(&[0, 1, 2], &[0, 1, 2]);
        let measure = |reference| measure(Metric::AccuracyOnCorrect, &value, reference);
        assert_eq!(measure(None), Err(MetricError::NoReference));
        let shorter = predictions(&[0, 1], &[0, 1]);
        assert_eq!(measure(Some(&shorter)), Err(MetricError::Lengths { value: 3, reference: 2 }));
        let shuffled = predictions(&[0, 2, 1], &[0, 2, 1]);
        assert_eq!(measure(Some(&shuffled)), Err(MetricError::Labels { index: 1, value: 1, reference: 2 }));
    }
}
