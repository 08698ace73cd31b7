//! The `figure` stage with `draw: maps`: what a `saliency` stage drew, for print.

use super::error::StageError;
use super::figure::{write_csv, write_picture};
use super::samples::{Column, column, heading, open, scale};
use super::{Reporter, check_cancelled, name, params, read};
use crate::formats::SaliencyMaps;
use crate::picture::{Sheet, map_tile, sheet_drawing};
use crate::protocol::Job;
use crate::results::csv_line;
use crate::stage_kinds::MapsParams;

/// Slots `maps`, and `set`, labelled as the sets of the maps; outputs `svg`, `png`, `pdf`, and `csv`, the images.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: MapsParams = params(job)?;
    let input = job.inputs_of("maps").next().ok_or_else(|| StageError::NoInput { slot: "maps".to_owned() })?;
    let maps = SaliencyMaps::from_bytes(&read(input)?);
    let maps = maps.map_err(|source| StageError::Format { input: name(input), source })?;
    let mut columns = Vec::new();
    for label in &maps.sets {
        check_cancelled(reporter)?;
        let set = job.inputs_of("set").find(|input| input.label == *label);
        let set = set.ok_or_else(|| StageError::NoInput { slot: format!("set {label}") })?;
        columns.push(column(set, &mut open(set)?, &maps.images)?);
    }
    write_csv(job, params.mockup, csv(&maps, &columns))?;
    let shown = |label: &String| params.names.get(label).unwrap_or(label).clone();
    let sheet = Sheet {
        title: params.title.clone(),
        columns: std::iter::once("image".to_owned()).chain(maps.models.iter().map(shown)).collect(),
        rows: places(&maps)
            .map(|(image, set)| row_heading(&maps, &columns[set], image, &shown(&maps.sets[set])))
            .collect(),
        tiles: places(&maps).map(|(image, set)| tiles(&maps, &columns[set], image, set)).collect(),
        scale: params.scale.unwrap_or_else(|| scale(&columns)),
    };
    // The versions of an image form a group.
    let together = if maps.sets.len() > 1 { maps.sets.len() } else { usize::MAX };
    write_picture(job, &sheet_drawing(&sheet, together, params.size)?)?;
    Ok(format!("{} images of {} models", maps.images.len(), maps.models.len()))
}

/// The rows: each image in each set.
fn places(maps: &SaliencyMaps) -> impl Iterator<Item = (usize, usize)> {
    let sets = maps.sets.len();
    (0..maps.images.len()).flat_map(move |image| (0..sets).map(move |set| (image, set)))
}

fn row_heading(maps: &SaliencyMaps, column: &Column, image: usize, set: &str) -> String {
    let heading = heading(&column.classes[image], maps.images[image]);
    if maps.sets.len() > 1 { format!("{heading}\n{set}") } else { heading }
}

fn tiles(maps: &SaliencyMaps, column: &Column, image: usize, set: usize) -> Vec<crate::picture::Tile> {
    let [height, width] = maps.size;
    let map = |model| map_tile(maps.map(model, set, image), [height as u32, width as u32]);
    std::iter::once(column.tiles[image].clone()).chain((0..maps.models.len()).map(map)).collect()
}

fn csv(maps: &SaliencyMaps, columns: &[Column]) -> String {
    let mut text = csv_line(["image", "class", "set"]);
    for (image, set) in places(maps) {
        let index = maps.images[image].to_string();
        text += &csv_line([index.as_str(), &columns[set].classes[image], &maps.sets[set]]);
    }
    text
}
