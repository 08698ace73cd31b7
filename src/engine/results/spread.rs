//! One number from several seeds: its mean, how far the seeds lie apart, and the interval of the mean.

use serde::{Deserialize, Serialize};

use super::Number;
use super::measure::mean_and_deviation;
use super::student::quantile;

/// What the seeds gave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeedStatistics {
    /// The number of each seed that counts and has one, in their order.
    pub values: Vec<f64>,
    /// Their standard deviation, of a sample; `null` for one alone, and where the number is fixed by definition.
    pub deviation: Option<f64>,
    /// Seeds that gave the same predictions to the byte, each such group in their order. A group counts once, as its
    /// first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same: Vec<Vec<String>>,
}

/// What one seed gave.
#[derive(Debug, Clone, Copy)]
pub struct OfSeed<'a, I> {
    /// The seed's label.
    pub seed: &'a str,
    /// The number of its result.
    pub number: Number,
    /// What the number was computed from: seeds of which this is equal gave one result, and no two.
    pub identity: I,
}

/// The mean of several seeds' numbers, with the interval of Student's t: mean ± t(0.975, seeds − 1) · deviation /
/// √seeds, cut at the ends of what the number can be. `n` is the images of one seed, the least of them.
///
/// Seeds with the same predictions count once: two networks never agree to the byte, so the seed did not reach them.
/// Fewer than two that count say nothing of other seeds, and equal numbers would give an interval of no width: neither
/// has one.
pub fn over_seeds<I: PartialEq>(seeds: &[OfSeed<'_, I>], (least, most): (f64, f64)) -> (Number, SeedStatistics) {
    let mut groups: Vec<Vec<&OfSeed<'_, I>>> = Vec::new();
    for seed in seeds {
        match groups.iter_mut().find(|group| group[0].identity == seed.identity) {
            Some(group) => group.push(seed),
            None => groups.push(vec![seed]),
        }
    }
    let numbers: Vec<Number> = groups.iter().map(|group| group[0].number).collect();
    let several = groups.iter().filter(|group| group.len() > 1);
    let same = several.map(|group| group.iter().map(|seed| seed.seed.to_owned()).collect()).collect();
    let values: Vec<f64> = numbers.iter().filter_map(|number| number.value).collect();
    let n = numbers.iter().map(|number| number.n).min().unwrap_or(0);
    let Some((mean, deviation)) = mean_and_deviation(values.iter().copied()) else {
        return (Number { n, ..Number::default() }, SeedStatistics { values, deviation: None, same });
    };
    let number = Number { value: Some(mean), n, ..Number::default() };
    if numbers.iter().all(|number| number.fixed) {
        return (number.by_definition(), SeedStatistics { values, deviation: None, same });
    }
    let number = match deviation {
        Some(deviation) if deviation > 0.0 => {
            let reach = quantile(values.len() - 1) * deviation / (values.len() as f64).sqrt();
            Number { low: Some((mean - reach).max(least)), high: Some((mean + reach).min(most)), ..number }
        }
        _ => number,
    };
    (number, SeedStatistics { values, deviation, same })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;

    fn seeds(hits: &[u64]) -> Vec<OfSeed<'static, usize>> {
        let of = |(identity, &hits): (usize, &u64)| OfSeed {
            seed: ["0", "1", "2"][identity],
            number: Number::from(Counts::new(hits, 1000).unwrap()),
            identity,
        };
        hits.iter().enumerate().map(of).collect()
    }

    #[test]
    fn the_mean_has_the_interval_over_seeds() {
        let (number, spread) = over_seeds(&seeds(&[871, 869, 880]), (0.0, 1.0));
        // scipy 1.17.1: t.interval(0.95, 2, mean, sem), numpy 2.4.6: std(ddof=1)
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(near(number.value, 0.8733333333333334) && near(spread.deviation, 0.00585946527708232));
        assert!(near(number.low, 0.8587776146678416) && near(number.high, 0.8878890519988252), "{number:?}");
        assert_eq!((number.hits, number.n, spread.values), (None, 1000, vec![0.871, 0.869, 0.88]));
    }

    #[test]
    fn two_seeds_far_apart_say_nothing() {
        let (number, _) = over_seeds(&seeds(&[100, 900]), (0.0, 1.0));
        assert_eq!((number.low, number.high), (Some(0.0), Some(1.0)));
        let (nothing, spread) = over_seeds(&seeds(&[]), (0.0, 1.0));
        assert_eq!((nothing.value, spread.values.len()), (None, 0));
    }

    #[test]
    fn one_seed_alone_and_equal_numbers_have_no_interval() {
        let (one, spread) = over_seeds(&seeds(&[871]), (0.0, 1.0));
        assert_eq!((one.value, one.low, one.high, one.n), (Some(0.871), None, None, 1000));
        assert_eq!((spread.values, spread.deviation), (vec![0.871], None));
        // Different networks that happen to get as many images right.
        let (equal, spread) = over_seeds(&seeds(&[871, 871, 871]), (0.0, 1.0));
        assert_eq!((equal.value, equal.low, equal.high), (Some(0.871), None, None));
        assert_eq!((spread.deviation, spread.same.len()), (Some(0.0), 0));
    }

    #[test]
    fn seeds_with_the_same_predictions_count_once() {
        let mut agreeing = seeds(&[871, 871, 880]);
        agreeing[1].identity = agreeing[0].identity;
        let (number, spread) = over_seeds(&agreeing, (0.0, 1.0));
        assert_eq!((spread.values, spread.same), (vec![0.871, 0.88], vec![vec!["0".to_owned(), "1".to_owned()]]));
        assert_eq!(number, over_seeds(&seeds(&[871, 880]), (0.0, 1.0)).0);
        agreeing[2].identity = agreeing[0].identity;
        let (number, spread) = over_seeds(&agreeing, (0.0, 1.0));
        assert_eq!((number.low, number.high, spread.deviation), (None, None, None), "three results that are one");
        assert_eq!(spread.same, vec![vec!["0".to_owned(), "1".to_owned(), "2".to_owned()]]);
    }

    #[test]
    fn the_mean_of_what_a_definition_gives_is_given_by_it() {
        let mut fixed = seeds(&[1000, 1000]);
        fixed.iter_mut().for_each(|seed| seed.number = seed.number.by_definition());
        let (number, spread) = over_seeds(&fixed, (0.0, 1.0));
        assert_eq!((number.value, number.fixed, number.low, spread.deviation), (Some(1.0), true, None, None));
    }
}
