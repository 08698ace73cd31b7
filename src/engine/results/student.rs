//! Student's t distribution with whole degrees of freedom.

use super::counts::Z;

/// The 97.5 % quantile of Student's t distribution with so many degrees of freedom, 1 or more.
pub(super) fn quantile(freedom: usize) -> f64 {
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

/// The probability that |t| is larger than this, with so many degrees of freedom, 1 or more: Abramowitz and Stegun
/// 26.7.3 and 26.7.4.
pub(super) fn two_sided(t: f64, freedom: usize) -> f64 {
    let (t, f) = (t.abs(), freedom as f64);
    let length = (f + t * t).sqrt();
    let (sine, cosine) = (t / length, f.sqrt() / length);
    // The sum of 1 + 1/2 cos² + (1·3)/(2·4) cos⁴ + …, or of cos + 2/3 cos³ + (2·4)/(3·5) cos⁵ + …
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = if is_odd { (cosine, cosine) } else { (1.0, 1.0) };
    let first = if is_odd { 2 } else { 1 };
    for k in (first..freedom.saturating_sub(2)).step_by(2) {
        term *= cosine * cosine * k as f64 / (k + 1) as f64;
        sum += term;
    }
    let within = match (is_odd, freedom) {
        (true, 1) => (t / f.sqrt()).atan() / std::f64::consts::FRAC_PI_2,
        (true, _) => ((t / f.sqrt()).atan() + sine * sum) / std::f64::consts::FRAC_PI_2,
        (false, _) => sine * sum,
    };
    (1.0 - within).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy 1.17.1: t.ppf(0.975, freedom)
        let expected =
            [(20, 2.085963447265864), (40, 2.021075390306273), (120, 1.9799304050824402), (1000, 1.9623390808264083)];
        for (freedom, value) in expected {
            assert!((quantile(freedom) - value).abs() < 3e-6, "{freedom}");
        }
        assert!(quantile(12) > quantile(13) && quantile(12) - quantile(13) < 0.02);
    }

    // scipy 1.17.1: 2 * t.sf(value, freedom)
    const TAILS: &[(f64, usize, f64)] = &[
        (0.0, 1, 1.0),
        (1.0, 1, 0.5000000000000001),
        (12.706204736174694, 1, 0.050000000000000044),
        (0.5, 2, 0.6666666666666667),
        (4.302652729749462, 2, 0.05000000000000004),
        (30.0, 2, 0.001109262681959659),
        (2.2, 3, 0.11517195197647068),
        (3.1824463052837078, 3, 0.050000000000000044),
        (1.0, 4, 0.37390096630005887),
        (8.61, 4, 0.001000134123827867),
        (2.0, 5, 0.10193947882985835),
        (1.5, 9, 0.16785065605707505),
        (2.5, 10, 0.03144684423660882),
        (1.98, 119, 0.050011371786247316),
    ];

    #[test]
    fn tails_are_those_of_scipy() {
        for &(t, freedom, p) in TAILS {
            for t in [t, -t] {
                let found = two_sided(t, freedom);
                assert!((found - p).abs() < 1e-12, "{t} {freedom}: {found}, expected {p}");
            }
        }
    }
}
