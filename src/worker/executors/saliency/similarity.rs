//! Measures how alike two maps look: SSIM (Wang et al. 2004, "Image quality assessment"). Knows neither networks nor
//! pictures.

/// Pixels on each side of a window's middle: 11 × 11 in all (Wang et al. 2004, section III.B).
const RADIUS: usize = 5;
/// Standard deviation of the window's weights, in pixels.
const SIGMA: f64 = 1.5;
/// (0.01 · 1)² and (0.03 · 1)², for values from 0 to 1: they keep denominators from 0.
const STABILISERS: [f64; 2] = [1e-4, 9e-4];

/// Returns the mean SSIM of two maps of values from 0 to 1, H × W, row by row: −1 to 1, and 1 for equal maps.
///
/// Only windows that lie within the maps count. `None` if a side is below 11.
pub fn ssim(a: &[f32], b: &[f32], [height, width]: [usize; 2]) -> Option<f64> {
    let side = 2 * RADIUS + 1;
    if height < side || width < side {
        return None;
    }
    let mean = |value: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| value(f64::from(a), f64::from(b))).collect();
        weighted_means(&values, [height, width])
    };
    let (of_a, of_b) = (mean(&|a, _| a), mean(&|_, b| b));
    let (squares_a, squares_b, products) = (mean(&|a, _| a * a), mean(&|_, b| b * b), mean(&|a, b| a * b));
    let [c1, c2] = STABILISERS;
    let at = |at: usize| {
        let (a, b) = (of_a[at], of_b[at]);
        let (variances, covariance) = (squares_a[at] - a * a + squares_b[at] - b * b, products[at] - a * b);
        (2.0 * a * b + c1) * (2.0 * covariance + c2) / ((a * a + b * b + c1) * (variances + c2))
    };
    Some((0..of_a.len()).map(at).sum::<f64>() / of_a.len() as f64)
}

/// Returns the weighted mean of each window that lies within H × W values.
fn weighted_means(values: &[f64], [height, width]: [usize; 2]) -> Vec<f64> {
    let side = 2 * RADIUS + 1;
    let weight = |at: usize| (-0.5 * ((at as f64 - RADIUS as f64) / SIGMA).powi(2)).exp();
    let sum: f64 = (0..side).map(weight).sum();
    let weights: Vec<f64> = (0..side).map(|at| weight(at) / sum).collect();
    let kept = width + 1 - side;
    let along_rows: Vec<f64> = values
        .chunks(width)
        .flat_map(|row| row.windows(side).map(|window| window.iter().zip(&weights).map(|(v, w)| v * w).sum::<f64>()))
        .collect();
    (0..(height + 1 - side) * kept)
        .map(|at| weights.iter().enumerate().map(|(down, weight)| weight * along_rows[at + down * kept]).sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_maps_are_alike_and_small_ones_have_no_window() {
        let map: Vec<f32> = (0..12 * 13).map(|at| (at % 7) as f32 / 7.0).collect();
        assert!((ssim(&map, &map, [12, 13]).unwrap() - 1.0).abs() < 1e-12);
        let against: Vec<f32> = map.iter().map(|value| 1.0 - value).collect();
        assert!(ssim(&map, &against, [12, 13]).unwrap() < 0.0);
        assert_eq!(ssim(&map, &map, [10, 13]), None);
    }
}
