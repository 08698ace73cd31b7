//! Two models on the same images: the difference of their accuracies, and whether it is more than chance.

use serde::{Deserialize, Serialize};

use super::counts::Z;
use super::measure::{MetricError, mean_and_deviation, outcomes, same_images};
use super::student::{quantile, two_sided};
use crate::formats::Predictions;
use crate::stage_kinds::Metric;

/// A model compared with another on the images that count for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// This accuracy less the other, −1 to 1; `null` where no image counts for both.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval, of this comparison alone; `null` where there was nothing to test.
    pub low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub high: Option<f64>,
    /// Two-sided p of the exact McNemar test, 0 to 1: how often chance alone would split the images on which the two
    /// differ as unevenly. `null` where there was nothing to test.
    pub p: Option<f64>,
    /// The same p after Holm's correction for all comparisons of its family.
    #[serde(default)]
    pub p_holm: Option<f64>,
    /// How many comparisons its family has; 0 where there was nothing to test.
    #[serde(default)]
    pub family: usize,
    /// Images that only this model gets right.
    pub only_this: u64,
    /// Images that only the other gets right.
    pub only_other: u64,
    /// Images that count for both.
    pub n: u64,
    /// Over how many seeds the difference is averaged; then interval and p are those of Student's t. 0 where nothing is
    /// averaged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seeds: usize,
    /// Whether the two are equal by definition, whatever the models do: then nothing is tested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

/// Compares `this` with `other`, each with its reference where the metric needs one. For accuracy on correct the images
/// that count are those that both models classify correctly untransformed, so the difference is not in general that of
/// the two pooled ratios.
///
/// # Errors
/// Any [`MetricError`].
pub fn compare(
    metric: Metric,
    this: (&Predictions, Option<&Predictions>),
    other: (&Predictions, Option<&Predictions>),
) -> Result<Comparison, MetricError> {
    same_images(this.0, other.0, "of the row it is compared with")?;
    let (here, there) = (outcomes(metric, this.0, this.1)?, outcomes(metric, other.0, other.1)?);
    let both: Vec<(bool, bool)> =
        here.iter().zip(&there).filter_map(|(here, there)| Some(((*here)?, (*there)?))).collect();
    let count = |wanted| both.iter().filter(|pair| **pair == wanted).count() as u64;
    Ok(Comparison::new(count((true, false)), count((false, true)), both.len() as u64))
}

impl Comparison {
    /// From the images that only the one and only the other gets right, of `n`.
    fn new(only_this: u64, only_other: u64, n: u64) -> Self {
        let (b, c) = (only_this as f64, only_other as f64);
        let untested = Comparison { only_this, only_other, n, ..Comparison::default() };
        if n == 0 {
            return untested;
        }
        let (low, high) = agresti_min(b, c, n as f64);
        let (low, high, p) = (Some(low), Some(high), Some(mcnemar(only_this, only_other)));
        Comparison { difference: Some((b - c) / n as f64), low, high, p, ..untested }
    }

    /// The mean of the differences of several seeds, with the interval and the two-sided p of the paired t-test. Both
    /// leave out how the images were drawn. Fewer than two differences, and equal ones, are not tested. Counts of
    /// images are sums over the seeds; `n` is that of the seed with the fewest.
    pub(crate) fn over_seeds(of: &[Comparison]) -> Self {
        let sum = |count: fn(&Comparison) -> u64| of.iter().map(count).sum();
        let values: Vec<f64> = of.iter().filter_map(|one| one.difference).collect();
        let untested = Comparison {
            only_this: sum(|one| one.only_this),
            only_other: sum(|one| one.only_other),
            n: of.iter().map(|one| one.n).min().unwrap_or(0),
            seeds: values.len(),
            fixed: !of.is_empty() && of.iter().all(|one| one.fixed),
            ..Comparison::default()
        };
        let Some((mean, deviation)) = mean_and_deviation(values.iter().copied()) else { return untested };
        let untested = Comparison { difference: Some(mean), ..untested };
        match deviation.filter(|deviation| *deviation > 0.0 && !untested.fixed) {
            None => untested,
            Some(deviation) => {
                let (error, freedom) = (deviation / (values.len() as f64).sqrt(), values.len() - 1);
                let reach = quantile(freedom) * error;
                let (low, high) = (Some((mean - reach).max(-1.0)), Some((mean + reach).min(1.0)));
                Comparison { low, high, p: Some(two_sided(mean / error, freedom)), ..untested }
            }
        }
    }

    /// The same where a definition makes the two equal: of one set of predictions compared with itself.
    #[must_use]
    pub fn by_definition(self) -> Self {
        Comparison { low: None, high: None, p: None, fixed: true, ..self }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The 95 % interval of a difference of paired shares after Agresti and Min, Simple improved confidence intervals for
/// comparing matched proportions, Statistics in Medicine 24 (2005): Wald's, after half an image is added to each of the
/// four cells.
fn agresti_min(b: f64, c: f64, n: f64) -> (f64, f64) {
    let (b, c, n) = (b + 0.5, c + 0.5, n + 2.0);
    let middle = (b - c) / n;
    let reach = Z * ((b + c) - (b - c) * (b - c) / n).max(0.0).sqrt() / n;
    ((middle - reach).max(-1.0), (middle + reach).min(1.0))
}

/// Twice the smaller tail of the binomial distribution of b among b + c with share 1/2, at most 1.
fn mcnemar(b: u64, c: u64) -> f64 {
    let (few, all) = (b.min(c), b + c);
    if b == c {
        return 1.0;
    }
    // From the largest term down: each is the one before times k / (all − k + 1). Logarithms, because 2⁻ᵃˡˡ underflows.
    let ln = |value: u64| (value as f64).ln();
    let largest: f64 = (0..few).map(|k| ln(all - k) - ln(k + 1)).sum::<f64>() - all as f64 * std::f64::consts::LN_2;
    let (mut term, mut sum) = (1.0, 0.0);
    for k in (0..=few).rev() {
        sum += term;
        term *= k as f64 / (all - k + 1) as f64;
        if term < sum * 1e-18 {
            break;
        }
    }
    (2.0 * sum * largest.exp()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::measure::tests::predictions;

    // Made with scipy 1.17.1: for b, c in …: print(scipy.stats.binomtest(min(b, c), b + c, 0.5).pvalue)
    const MCNEMAR: &[(u64, u64, f64)] = &[
        (0, 1, 1.0),
        (1, 9, 0.021484375),
        (10, 25, 0.016673847800120715),
        (40, 60, 0.05688793364098089),
        (3, 200, 2.1693555718929497e-55),
        (480, 520, 0.2174482932041415),
        (900, 1400, 1.5282546629842897e-25),
    ];

    #[test]
    fn p_is_that_of_the_exact_binomial_test() {
        for &(b, c, p) in MCNEMAR {
            for found in [mcnemar(b, c), mcnemar(c, b)] {
                assert!((found - p).abs() <= 1e-9 * p, "{b} {c}: {found} {p}");
            }
        }
        assert_eq!((mcnemar(0, 0), mcnemar(7, 7)), (1.0, 1.0));
    }

    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        // Every outcome of 30 images, each with its probability, where 20 % are right for this model alone and 10 % for
        // the other alone.
        let (n, b_share, c_share) = (30_u64, 0.2_f64, 0.1_f64);
        let ln_factorial = |n: u64| (1..=n).map(|k| (k as f64).ln()).sum::<f64>();
        let mut covered = 0.0;
        for b in 0..=n {
            for c in 0..=n - b {
                let (low, high) = agresti_min(b as f64, c as f64, n as f64);
                if low <= b_share - c_share && b_share - c_share <= high {
                    let rest = n - b - c;
                    let ways = ln_factorial(n) - ln_factorial(b) - ln_factorial(c) - ln_factorial(rest);
                    let chance = b as f64 * b_share.ln()
                        + c as f64 * c_share.ln()
                        + rest as f64 * (1.0 - b_share - c_share).ln();
                    covered += (ways + chance).exp();
                }
            }
        }
        assert!((0.945..0.97).contains(&covered), "{covered}");
    }

    #[test]
    fn only_images_that_count_for_both_are_compared() {
        let labels = [0, 1, 2, 3, 4, 5];
        let (this, other) = (predictions(&labels, &[0, 1, 2, 9, 9, 5]), predictions(&labels, &[0, 9, 9, 3, 9, 5]));
        let found = compare(Metric::Accuracy, (&this, None), (&other, None)).unwrap();
        assert_eq!((found.difference, found.only_this, found.only_other, found.n), (Some(1.0 / 6.0), 2, 1, 6));
        assert_eq!(found.p, Some(1.0));
        let (clean, clean_other) =
            (predictions(&labels, &[0, 1, 2, 3, 4, 9]), predictions(&labels, &[0, 1, 9, 3, 4, 5]));
        let found = compare(Metric::AccuracyOnCorrect, (&this, Some(&clean)), (&other, Some(&clean_other))).unwrap();
        assert_eq!((found.only_this, found.only_other, found.n), (1, 1, 4), "images 0, 1, 3 and 4");
        let shorter = predictions(&labels[..5], &labels[..5]);
        assert!(matches!(
            compare(Metric::Accuracy, (&this, None), (&shorter, None)),
            Err(MetricError::Lengths { value: 6, reference: 5, .. })
        ));
        let nothing =
            compare(Metric::AccuracyOnCorrect, (&this, Some(&predictions(&labels, &[9; 6]))), (&other, Some(&other)))
                .unwrap();
        assert_eq!((nothing.difference, nothing.n, nothing.p, nothing.low), (None, 0, None, None));
    }
}
