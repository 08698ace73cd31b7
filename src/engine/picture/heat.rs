//! Saliency maps as grey tiles, and maps of shares in colours.

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

/// Colours from low to high, evenly spaced: nine of matplotlib's `viridis` (CC0), which is as even to the eye and
/// darkens evenly in print without colours.
const COLOURS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// The colour of a share of the scale, 0 to 1.
fn colour(share: f64) -> [u8; 3] {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let at = (place as usize).min(COLOURS.len() - 2);
    let (low, high, part) = (COLOURS[at], COLOURS[at + 1], place - at as f64);
    std::array::from_fn(|part_of| {
        let [low, high] = [low, high].map(|colour| f64::from(colour[part_of]));
        (low + (high - low) * part).round() as u8
    })
}

/// A map of values as a tile of this height and width, in colours from 0 to `most`, which is above 0.
pub fn heat_tile(map: &[f64], [height, width]: [u32; 2], most: f64) -> Tile {
    Tile { width, height, rgb: map.iter().flat_map(|value| colour(value / most)).collect() }
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

    #[test]
    fn shares_have_the_colours_of_their_scale() {
        let drawn = heat_tile(&[0.0, 0.3, 0.6, 0.9], [2, 2], 0.6);
        assert_eq!(drawn.rgb, [68, 1, 84, 33, 144, 141, 253, 231, 37, 253, 231, 37]);
        assert_eq!(heat_tile(&[0.05], [1, 1], 0.8).rgb, [70, 23, 103], "half way between two colours");
    }
}
