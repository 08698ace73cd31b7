//! Lays out saliency maps as pictures. Knows where a map stands, not how it is computed.

use atflow::picture::{Sheet, Tile, map_tile};

/// Approximate side of an enlarged tile, in pixels; the scale is an integer.
const SIDE: usize = 112;

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
    let size = [height as u32, width as u32];
    let tiles = |row: &Row| {
        let rgb = colours(&row.planes, row.planes.len() / (height * width).max(1));
        let image = Tile { width: size[1], height: size[0], rgb };
        std::iter::once(image).chain(row.maps.iter().map(|map| map_tile(map, size))).collect()
    };
    Sheet {
        title,
        columns: std::iter::once("image".to_owned()).chain(names.iter().cloned()).collect(),
        rows: rows.iter().map(|row| row.heading.clone()).collect(),
        tiles: rows.iter().map(tiles).collect(),
        scale: (SIDE / height.max(width).max(1)).max(1) as u32,
    }
}

/// Converts planes to RGB pixels. Images without exactly three channels are drawn in grey from the first.
fn colours(planes: &[u8], channels: usize) -> Vec<u8> {
    let size = planes.len() / channels.max(1);
    let plane = |colour: usize| if channels == 3 { colour } else { 0 };
    (0..size).flat_map(|at| [0, 1, 2].map(|colour| planes[plane(colour) * size + at])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_colours() {
        assert_eq!(colours(&[1, 2, 3, 4, 5, 6], 3), [1, 3, 5, 2, 4, 6]);
        assert_eq!(colours(&[7, 8], 1), [7, 7, 7, 8, 8, 8]);
    }
}
