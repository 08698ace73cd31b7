//! Saliency maps as grey tiles.

use super::tile::Tile;

/// The percentile of a map that is drawn white (authors' code).
const WHITE: f64 = 0.99;

/// A map of this height and width as a tile: times 255, truncated (authors' code).
pub fn map_tile(map: &[f32], [height, width]: [u32; 2]) -> Tile {
    let rgb = rendered(map).into_iter().flat_map(|value| [(value * 255.0) as u8; 3]).collect();
    Tile { width, height, rgb }
}

/// Scales a map for drawing: divides by its 99th percentile and clips at 1 (authors' code).
///
/// A map of zeros stays zero. If only the percentile is 0, any value above it becomes 1.
pub fn rendered(map: &[f32]) -> Vec<f32> {
    let white = percentile(map, WHITE);
    let shade = |value: f32| match white > 0.0 {
        true => (f64::from(value) / white).min(1.0) as f32,
        false => f32::from(value > 0.0),
    };
    map.iter().map(|&value| shade(value)).collect()
}

/// Returns a percentile by linear interpolation between neighbours, as in `numpy.percentile`; 0 if there are no values.
fn percentile(values: &[f32], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = share * sorted.len().saturating_sub(1) as f64;
    match (sorted.get(rank.floor() as usize), sorted.get(rank.ceil() as usize)) {
        (Some(&low), Some(&high)) => f64::from(low) + (f64::from(high) - f64::from(low)) * rank.fract(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_drawn_up_to_its_99th_percentile() {
        // numpy.percentile(range(201), 99) is 198.
        let map: Vec<f32> = (0..=200).map(|value| value as f32).collect();
        assert_eq!(percentile(&map, 0.99), 198.0);
        assert_eq!(percentile(&[1.0, 2.0], 0.99), 1.99);
        let drawn = map_tile(&map, [1, 201]).rgb;
        assert_eq!([drawn[0], drawn[3 * 99], drawn[3 * 198], drawn[3 * 200]], [0, 127, 255, 255]);
        assert_eq!(map_tile(&[0.0; 4], [2, 2]).rgb, [0; 12]);
        let mut spark = vec![0.0; 200];
        spark[7] = 1e-9;
        assert_eq!(rendered(&spark).iter().sum::<f32>(), 1.0, "a map that is 0 nearly everywhere is not black");
    }
}
