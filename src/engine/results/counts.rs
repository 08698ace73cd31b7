//! Shares as counts with their 95 % intervals.

/// The 97.5 % quantile of the standard normal distribution (`scipy.stats.norm.ppf(0.975)`).
pub(super) const Z: f64 = 1.959963984540054;

/// `hits` of `n` images; `hits` is never above `n`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    /// Equation 4 of Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, Statistical Science 16
    /// (2001), who recommend it. Its ends lie in [0, 1] and it is not symmetric about p. Without any image it is [0,
    /// 1].
    pub fn interval(self) -> (f64, f64) {
        self.share().map_or((0.0, 1.0), |share| wilson(share, self.n))
    }
}

/// The 95 % interval of [`Counts::interval`] of a share `p`, 0 to 1, of `n` images, at least 1; `p` may be rounded, so
/// that it is no ratio of counts.
pub(super) fn wilson(p: f64, n: u64) -> (f64, f64) {
    let n = n as f64;
    let centre = p + Z * Z / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // Both ends are exact where rounding would leave 1e-18 or 0.9999999.
    let low = if p <= 0.0 { 0.0 } else { (centre - reach) / scale };
    let high = if p >= 1.0 { 1.0 } else { (centre + reach) / scale };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Made with statsmodels 0.15.0 and scipy 1.17.1:
    //
    // from statsmodels.stats.proportion import proportion_confint for k, n in [(0, 10), (10, 10), (1, 10), (873, 1000),
    // (1, 2), (9321, 10000), (3, 2000)]:
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
}
