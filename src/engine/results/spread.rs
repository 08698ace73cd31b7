//! One number from several seeds: its mean, how far the seeds lie apart, and the interval of the mean.

use serde::{Deserialize, Serialize};

use super::Number;
use super::counts::Z;
use super::measure::mean_and_deviation;

/// What the seeds gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The number of each seed that has one, in their order.
    pub values: Vec<f64>,
    /// Their standard deviation, of a sample; `null` for one seed alone.
    pub deviation: Option<f64>,
}

/// The mean of several seeds' numbers, with the interval of Student's t: mean ± t(0.975, seeds − 1) · deviation / √seeds, cut at the ends of what the
/// number can be (`most`; 0). One seed alone keeps its own interval. `n` is the images of one seed, the least of them.
pub fn over_seeds(numbers: &[Number], most: f64) -> (Number, Spread) {
    let values: Vec<f64> = numbers.iter().filter_map(|number| number.value).collect();
    let n = numbers.iter().map(|number| number.n).min().unwrap_or(0);
    let Some((mean, deviation)) = mean_and_deviation(values.iter().copied()) else {
        return (Number { n, ..Number::default() }, Spread { values, deviation: None });
    };
    let number = match (deviation, numbers) {
        (Some(deviation), _) => {
            let reach = t(values.len() - 1) * deviation / (values.len() as f64).sqrt();
            Number {
                value: Some(mean),
                low: Some((mean - reach).max(0.0)),
                high: Some((mean + reach).min(most)),
                hits: None,
                n,
            }
        }
        (None, [one]) => *one,
        (None, _) => Number { value: Some(mean), n, ..Number::default() },
    };
    (number, Spread { values, deviation })
}

/// The 97.5 % quantile of Student's t distribution with so many degrees of freedom, 1 or more.
fn t(freedom: usize) -> f64 {
    // `scipy.stats.t.ppf(0.975, range(1, 13))`, scipy 1.17.1.
    const FEW: [f64; 12] = [
        12.706204736174694,
        4.302652729749462,
        3.1824463052837078,
        2.7764451051977934,
        2.5705818356363146,
        2.4469118511449786,
        2.364624251592784,
        2.306004135204166,
        2.262157162798205,
        2.228138851986274,
        2.200985160091639,
        2.1788128296672284,
    ];
    if let Some(quantile) = freedom.checked_sub(1).and_then(|index| FEW.get(index)) {
        return *quantile;
    }
    // Abramowitz and Stegun 26.7.5, four terms: off by less than 3e-6 from 13 on.
    let (z, f) = (Z, freedom as f64);
    let power = |exponent: i32| z.powi(exponent);
    z + (power(3) + z) / (4.0 * f)
        + (5.0 * power(5) + 16.0 * power(3) + 3.0 * z) / (96.0 * f.powi(2))
        + (3.0 * power(7) + 19.0 * power(5) + 17.0 * power(3) - 15.0 * z) / (384.0 * f.powi(3))
        + (79.0 * power(9) + 776.0 * power(7) + 1482.0 * power(5) - 1920.0 * power(3) - 945.0 * z)
            / (92160.0 * f.powi(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;

    fn seeds(hits: &[u64]) -> Vec<Number> {
        hits.iter().map(|&hits| Number::from(Counts::new(hits, 1000).unwrap())).collect()
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy 1.17.1: t.ppf(0.975, freedom)
        let expected =
            [(20, 2.085963447265864), (40, 2.021075390306273), (120, 1.9799304050824402), (1000, 1.9623390808264083)];
        for (freedom, quantile) in expected {
            assert!((t(freedom) - quantile).abs() < 3e-6, "{freedom}");
        }
        assert!(t(12) > t(13) && t(12) - t(13) < 0.02);
    }

    #[test]
    fn the_mean_has_the_interval_over_seeds() {
        let (number, spread) = over_seeds(&seeds(&[871, 869, 880]), 1.0);
        // scipy 1.17.1: t.interval(0.95, 2, mean, sem), numpy 2.4.6: std(ddof=1)
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(near(number.value, 0.8733333333333334) && near(spread.deviation, 0.00585946527708232));
        assert!(near(number.low, 0.8587776146678416) && near(number.high, 0.8878890519988252), "{number:?}");
        assert_eq!((number.hits, number.n, spread.values), (None, 1000, vec![0.871, 0.869, 0.88]));
    }

    #[test]
    fn one_seed_keeps_its_own_interval_and_two_far_apart_say_nothing() {
        let one = seeds(&[871]);
        assert_eq!(over_seeds(&one, 1.0).0, one[0]);
        let (number, _) = over_seeds(&seeds(&[100, 900]), 1.0);
        assert_eq!((number.low, number.high), (Some(0.0), Some(1.0)));
        let (nothing, spread) = over_seeds(&seeds(&[]), 1.0);
        assert_eq!((nothing.value, spread.values.len()), (None, 0));
    }
}
