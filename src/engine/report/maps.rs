//! Saliency maps as sheets of tiles, for a page that sets them side by side.

use std::io::Cursor;

use image::{GrayImage, ImageFormat, Luma, RgbImage};

use super::RunResults;
use crate::cache::Cache;
use crate::digest::Digest;
use crate::formats::{ImageReader, SaliencyMaps};
use crate::picture::rendered;
use crate::stage_kinds::StageKind;

/// The maps of a saliency stage as one picture. Column `k` has image `k`; row `m × sets + s` has model `m` on set `s`.
#[derive(Debug)]
pub struct MapSheet {
    /// Index of the result.
    pub stage: usize,
    /// Labels of the models.
    pub models: Vec<String>,
    /// Labels of the sets.
    pub sets: Vec<String>,
    /// Index of each image in its set.
    pub images: Vec<usize>,
    /// Height and width of a tile in pixels.
    pub tile: [usize; 2],
    /// The maps, grey, as PNG.
    pub maps: Vec<u8>,
    /// The images themselves, as PNG: row `s` has set `s`. Nothing if the sets are gone from the cache or the network
    /// sees them otherwise than they are stored.
    pub originals: Option<Vec<u8>>,
}

/// Most pixels of a sheet. A stage with more has its picture only.
const MOST_PIXELS: usize = 4_000_000;

/// Most sheets of a report.
const MOST_SHEETS: usize = 40;

/// Reads the maps of all saliency stages of a run; leaves out what is gone or too large.
pub fn map_sheets(cache: &Cache, results: &RunResults) -> Vec<MapSheet> {
    let stages = results.stages.iter().enumerate();
    let stages = stages.filter(|(_, stage)| stage.manifest.record.kind == StageKind::Saliency);
    stages.filter_map(|(index, _)| sheet(cache, results, index)).take(MOST_SHEETS).collect()
}

fn sheet(cache: &Cache, results: &RunResults, index: usize) -> Option<MapSheet> {
    let manifest = &results.stages[index].manifest;
    let bytes = cache.read(manifest.outputs.get("maps")?.digest).ok()?;
    let maps = SaliencyMaps::from_bytes(&bytes).ok()?;
    let [height, width] = maps.size;
    let (m, s, k) = (maps.models.len(), maps.sets.len(), maps.images.len());
    if k == 0 || m * s * k * height * width > MOST_PIXELS {
        return None;
    }
    let mut picture = GrayImage::new(u32::try_from(k * width).ok()?, u32::try_from(m * s * height).ok()?);
    for tile in 0..m * s * k {
        let (row, column) = (tile / k, tile % k);
        let map = maps.map(row / s, row % s, column);
        for (at, level) in shown(map).into_iter().enumerate() {
            let (x, y) = (column * width + at % width, row * height + at / width);
            picture.put_pixel(u32::try_from(x).ok()?, u32::try_from(y).ok()?, Luma([level]));
        }
    }
    let mut png = Vec::new();
    picture.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).ok()?;
    let SaliencyMaps { models, sets, images, size, .. } = maps;
    let originals = originals(cache, results, index, &sets, &images, size);
    Some(MapSheet { stage: index, models, sets, images, tile: size, maps: png, originals })
}

/// Returns a map as pictures show it: divided by its 99th percentile, cut at 1, in 256 levels.
fn shown(map: &[f32]) -> Vec<u8> {
    rendered(map).into_iter().map(|value| (value * 255.0).round() as u8).collect()
}

fn originals(
    cache: &Cache,
    results: &RunResults,
    index: usize,
    sets: &[String],
    images: &[usize],
    [height, width]: [usize; 2],
) -> Option<Vec<u8>> {
    // The inputs of a slot are in its order: `set/0/LABEL`, `set/1/LABEL`; a slot with one input has no position.
    let inputs = &results.stages[index].manifest.record.inputs;
    let mut of_sets: Vec<(usize, &String)> = inputs
        .iter()
        .filter_map(|(name, digest)| {
            let rest = name.strip_prefix("set")?;
            let position = rest.strip_prefix('/').map_or(Some(0), |rest| rest.split('/').next()?.parse().ok())?;
            Some((position, digest))
        })
        .collect();
    of_sets.sort_unstable();
    if of_sets.len() != sets.len() {
        return None;
    }
    let (columns, rows) = (u32::try_from(images.len() * width).ok()?, u32::try_from(sets.len() * height).ok()?);
    let mut picture = RgbImage::new(columns, rows);
    for (row, (_, digest)) in of_sets.into_iter().enumerate() {
        let digest: Digest = digest.strip_prefix("blake3:")?.parse().ok()?;
        let mut reader = ImageReader::open(&cache.object_path(digest)).ok()?;
        for (column, seen) in reader.seen(images).ok()?.into_iter().enumerate() {
            let [seen_height, seen_width] = seen.size;
            if [seen_height, seen_width] != [height, width] {
                return None;
            }
            for at in 0..height * width {
                let level = |channel: usize| {
                    let channels = seen.pixels.len() / (height * width);
                    seen.pixels[channel.min(channels - 1) * height * width + at]
                };
                let (x, y) = (column * width + at % width, row * height + at / width);
                let pixel = image::Rgb([level(0), level(1), level(2)]);
                picture.put_pixel(u32::try_from(x).ok()?, u32::try_from(y).ok()?, pixel);
            }
        }
    }
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_shown_against_its_99th_percentile() {
        let map: Vec<f32> = (0..=100).map(|value| value as f32).collect();
        let levels = shown(&map);
        assert_eq!((levels[0], levels[99], levels[100]), (0, 255, 255));
        assert_eq!(levels[50], (50.0_f32 / 99.0 * 255.0).round() as u8);
        assert_eq!(shown(&[0.0; 4]), [0; 4], "a map of zeros is black");
    }
}
