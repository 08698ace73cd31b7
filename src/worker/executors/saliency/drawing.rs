//! Draws saliency maps as pictures. Knows how to draw a map, not how to compute it.

use atflow::picture::{Sheet, Tile};

/// Approximate side of an enlarged tile, in pixels; the scale is an integer.
const SIDE: usize = 112;
/// The percentile of a map that is drawn white (authors' code).
const WHITE: f64 = 0.99;

/// One row of a sheet: an image and its maps.
pub(super) struct Row {
    /// The true class, and the set if there are several.
    pub(super) heading: String,
    /// The image's bytes, C × H × W.
    pub(super) planes: Vec<u8>,
    /// The map of each model.
    pub(super) maps: Vec<Vec<f32>>,
}

/// Lays out the maps under their models' names; the images have this height and width.
pub(super) fn sheet(title: Option<String>, names: &[String], rows: &[Row], [height, width]: [usize; 2]) -> Sheet {
    let tile = |rgb: Vec<u8>| Tile { width: width as u32, height: height as u32, rgb };
    let tiles = |row: &Row| {
        let image = colours(&row.planes, row.planes.len() / (height * width).max(1));
        std::iter::once(tile(image)).chain(row.maps.iter().map(|map| tile(grey(&rendered(map))))).collect()
    };
    Sheet {
        title,
        columns: std::iter::once("image".to_owned()).chain(names.iter().cloned()).collect(),
        rows: rows.iter().map(|row| row.heading.clone()).collect(),
        tiles: rows.iter().map(tiles).collect(),
        scale: (SIDE / height.max(width).max(1)).max(1) as u32,
    }
}

/// Scales a map for drawing: divides by its 99th percentile and clips at 1 (authors' code).
///
/// A map of zeros stays zero. If only the percentile is 0, any value above it becomes 1.
pub(super) fn rendered(map: &[f32]) -> Vec<f32> {
    let white = percentile(map, WHITE);
    let shade = |value: f32| match white > 0.0 {
        true => (f64::from(value) / white).min(1.0) as f32,
        false => f32::from(value > 0.0),
    };
    map.iter().map(|&value| shade(value)).collect()
}

/// Converts planes to RGB pixels. Images without exactly three channels are drawn in grey from the first.
fn colours(planes: &[u8], channels: usize) -> Vec<u8> {
    let size = planes.len() / channels.max(1);
    let plane = |colour: usize| if channels == 3 { colour } else { 0 };
    (0..size).flat_map(|at| [0, 1, 2].map(|colour| planes[plane(colour) * size + at])).collect()
}

/// Converts a drawn map to grey pixels: times 255, truncated (authors' code).
fn grey(drawn: &[f32]) -> Vec<u8> {
    drawn.iter().flat_map(|&value| [(value * 255.0) as u8; 3]).collect()
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
        let drawn = grey(&rendered(&map));
        assert_eq!([drawn[0], drawn[3 * 99], drawn[3 * 198], drawn[3 * 200]], [0, 127, 255, 255]);
        assert_eq!(grey(&rendered(&[0.0; 4])), [0; 12]);
        let mut spark = vec![0.0; 200];
        spark[7] = 1e-9;
        assert_eq!(rendered(&spark).iter().sum::<f32>(), 1.0, "a map that is 0 nearly everywhere is not black");
    }

    #[test]
    fn planes_become_colours() {
        assert_eq!(colours(&[1, 2, 3, 4, 5, 6], 3), [1, 3, 5, 2, 4, 6]);
        assert_eq!(colours(&[7, 8], 1), [7, 7, 7, 8, 8, 8]);
    }
}
