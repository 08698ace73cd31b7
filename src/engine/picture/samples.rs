//! Images of several sets side by side, under the headings of the sets, with lines of numbers above each image.

use super::PictureError;
use super::bitmap::Bitmap;
use super::sheet::{Tile, draw_text, draw_tile, unit};
use super::text::Face;

/// Images in rows and columns with numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// A heading over all of it.
    pub title: Option<String>,
    /// Headings of the columns, left to right.
    pub columns: Vec<String>,
    /// The rows, top to bottom.
    pub rows: Vec<SampleRow>,
    /// How many pixels wide and high each pixel of a tile is drawn; 0 counts as 1.
    pub scale: u32,
}

/// One image in all sets.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRow {
    /// Its heading.
    pub heading: String,
    /// Lines above the images: whose they are, and a share, 0 to 1, for each column; `None` where there is none.
    pub numbers: Vec<(String, Vec<Option<f64>>)>,
    /// The image in each column.
    pub tiles: Vec<Tile>,
}

const TITLE_SIZE: f32 = 17.0;
const TEXT_SIZE: f32 = 13.0;
const MARGIN: f32 = 12.0;
/// Between two columns.
const GAP: f32 = 6.0;
/// Between headings and what they head, and between two images with numbers.
const SPACE: f32 = 8.0;
/// A column is at least so wide, for its numbers.
const LEAST_COLUMN: f32 = 52.0;
/// Headings wrap at this width where their column is narrower, and headings of rows always.
const HEADING: f32 = 80.0;
const ROW_HEADING: f32 = 200.0;
/// The picture is at least so wide, for its title.
const LEAST_WIDTH: f32 = 240.0;

/// Draws images as a PNG on white. Text grows with wide pictures. Headings that are too long are wrapped; none is cut.
///
/// # Errors
/// [`PictureError::Layout`] if a row has more or fewer tiles or numbers than there are columns, [`PictureError::Tile`]
/// if a tile's bytes do not fit its size, [`PictureError::TooLarge`].
pub fn samples_png(samples: &Samples) -> Result<Vec<u8>, PictureError> {
    check(samples)?;
    let scale = samples.scale.max(1);
    let shown = |pixels: u32| pixels as f32 * scale as f32;
    let tile_widths: Vec<f32> = (0..samples.columns.len())
        .map(|column| samples.rows.iter().map(|row| shown(row.tiles[column].width)).fold(1.0, f32::max))
        .collect();
    let unit = unit(tile_widths.iter().sum());
    let [margin, gap, space] = [MARGIN, GAP, SPACE].map(|size| (size * unit).round());
    let (title_face, face) = (Face::new(TITLE_SIZE * unit)?, Face::new(TEXT_SIZE * unit)?);
    let line = face.line_height();

    let widths: Vec<f32> = samples
        .columns
        .iter()
        .zip(&tile_widths)
        .map(|(heading, tile)| tile.max(LEAST_COLUMN * unit).max(face.widest_piece(heading).min(HEADING * unit)).ceil())
        .collect();
    let headings: Vec<Vec<String>> =
        samples.columns.iter().zip(&widths).map(|(heading, &width)| face.wrap(heading, width)).collect();
    let row_headings: Vec<Vec<String>> =
        samples.rows.iter().map(|row| face.wrap(&row.heading, ROW_HEADING * unit)).collect();
    let names = samples.rows.iter().flat_map(|row| row.numbers.iter().map(|(name, _)| name.as_str()));
    let stub =
        names.chain(row_headings.iter().flatten().map(String::as_str)).map(|text| face.width(text)).fold(0.0, f32::max);
    let left = margin + if stub > 0.0 { stub.ceil() + space } else { 0.0 };
    let head = headings.iter().map(Vec::len).max().unwrap_or(0) as f32 * line + space;
    let image_height = |row: &SampleRow, heading: &[String]| {
        row.tiles.iter().map(|tile| shown(tile.height)).fold(1.0, f32::max).max(heading.len() as f32 * line)
    };
    let height_of = |(row, heading): (&SampleRow, &Vec<String>)| {
        let numbers = if row.numbers.is_empty() { 0.0 } else { row.numbers.len() as f32 * line + space };
        image_height(row, heading) + numbers + gap
    };

    let inner = widths.iter().sum::<f32>() + gap * widths.len().saturating_sub(1) as f32;
    let width = (left + inner + margin).max(LEAST_WIDTH);
    let title = samples.title.as_deref().map(|title| title_face.wrap(title, width - 2.0 * margin)).unwrap_or_default();
    let title_height = if title.is_empty() { 0.0 } else { title.len() as f32 * title_face.line_height() + space };
    let rows_height: f32 = samples.rows.iter().zip(&row_headings).map(height_of).sum();
    let height = 2.0 * margin + title_height + head + rows_height - gap;
    let mut picture = Bitmap::white(width.ceil() as u64, height.max(1.0).ceil() as u64)?;

    for (index, text) in title.iter().enumerate() {
        let y = margin + index as f32 * title_face.line_height() + title_face.ascent();
        draw_text(&mut picture, title_face, text, margin, y);
    }
    let lefts: Vec<f32> = widths
        .iter()
        .scan(left, |x, width| {
            let here = *x;
            *x += width + gap;
            Some(here)
        })
        .collect();
    let bottom = margin + title_height + head - space;
    for ((heading, &width), &x) in headings.iter().zip(&widths).zip(&lefts) {
        // Headings stand on what they head: the last line of each is at the same height.
        let top = bottom - heading.len() as f32 * line;
        for (index, text) in heading.iter().enumerate() {
            let centred = x + (width - face.width(text)) / 2.0;
            draw_text(&mut picture, face, text, centred, top + index as f32 * line + face.ascent());
        }
    }
    let mut y = bottom + space;
    for (row, heading) in samples.rows.iter().zip(&row_headings) {
        let end = y + height_of((row, heading));
        for (name, numbers) in &row.numbers {
            let base = y + face.ascent();
            draw_text(&mut picture, face, name, left - space - face.width(name), base);
            for ((number, &width), &x) in numbers.iter().zip(&widths).zip(&lefts) {
                let text = number.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
                draw_text(&mut picture, face, &text, x + (width - face.width(&text)) / 2.0, base);
            }
            y += line;
        }
        y += if row.numbers.is_empty() { 0.0 } else { space / 2.0 };
        let tall = image_height(row, heading);
        let top = y + (tall - heading.len() as f32 * line) / 2.0;
        for (index, text) in heading.iter().enumerate() {
            draw_text(
                &mut picture,
                face,
                text,
                left - space - face.width(text),
                top + index as f32 * line + face.ascent(),
            );
        }
        for ((tile, &width), &x) in row.tiles.iter().zip(&widths).zip(&lefts) {
            let at = (x + ((width - shown(tile.width)) / 2.0).floor(), y + ((tall - shown(tile.height)) / 2.0).floor());
            draw_tile(&mut picture, tile, at.0 as u32, at.1 as u32, scale);
        }
        y = end;
    }
    picture.png()
}

fn check(samples: &Samples) -> Result<(), PictureError> {
    let (rows, columns) = (samples.rows.len(), samples.columns.len());
    for (row, of_row) in samples.rows.iter().enumerate() {
        if of_row.tiles.len() != columns {
            return Err(PictureError::Layout { rows, columns, found: of_row.tiles.len(), what: "tiles in a row" });
        }
        if let Some((_, numbers)) = of_row.numbers.iter().find(|(_, numbers)| numbers.len() != columns) {
            return Err(PictureError::Layout { rows, columns, found: numbers.len(), what: "numbers in a row" });
        }
        for (column, tile) in of_row.tiles.iter().enumerate() {
            let Tile { width, height, .. } = *tile;
            if u64::from(width) * u64::from(height) * 3 != tile.rgb.len() as u64 {
                return Err(PictureError::Tile { row, column, width, height, bytes: tile.rgb.len() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let tile = Tile { width: 28, height: 28, rgb: [0, 255, 0].repeat(28 * 28) };
        let row = |heading: &str| SampleRow {
            heading: heading.to_owned(),
            numbers: vec![
                ("standard".to_owned(), vec![Some(0.998), Some(0.51), None]),
                ("pgd-inf-8".to_owned(), vec![Some(1.0), Some(0.0), Some(0.07)]),
            ],
            tiles: vec![tile.clone(); 3],
        };
        Samples {
            title: Some("Patch-shuffled images and the probability of their true class".to_owned()),
            columns: ["fashion.test", "shuffled into 2 × 2 pieces", "8"].map(str::to_owned).to_vec(),
            rows: vec![row("ankle boot"), row("T-shirt")],
            scale: 3,
        }
    }

    #[test]
    fn every_image_is_drawn_whole_and_no_text_over_it() {
        // As they are, and large: text is then larger, too.
        for (scale, margin) in [(3, 10), (30, 27)] {
            let mut some = Samples { scale, ..samples() };
            for with_numbers in [true, false] {
                let picture = image::load_from_memory(&samples_png(&some).unwrap()).unwrap().to_rgb8();
                let (width, height) = picture.dimensions();
                let green = picture.pixels().filter(|pixel| pixel.0 == [0, 255, 0]).count();
                assert_eq!(green, 6 * (28 * scale * 28 * scale) as usize, "{with_numbers}");
                for (x, y, pixel) in picture.enumerate_pixels() {
                    let border = x < margin || y < margin || x >= width - margin || y >= height - margin;
                    assert!(!border || pixel.0 == [255; 3], "ink at ({x}, {y})");
                }
                some.rows.iter_mut().for_each(|row| row.numbers.clear());
            }
        }
    }

    #[test]
    fn text_grows_with_wide_pictures() {
        let inked = |scale: u32| {
            let picture = samples_png(&Samples { scale, ..samples() }).unwrap();
            let picture = image::load_from_memory(&picture).unwrap().to_rgb8();
            let ink = picture.pixels().filter(|pixel| pixel.0[0] < 128 && pixel.0[1] < 128).count();
            ink as f32 / picture.width() as f32 / picture.width() as f32
        };
        // Of pictures of three and of six thousand pixels text covers about the same share.
        assert!((inked(30) / inked(60) - 1.0).abs() < 0.15, "{} {}", inked(30), inked(60));
    }

    #[test]
    fn wrong_layouts_are_refused() {
        let mut some = samples();
        some.rows[1].numbers[0].1.pop();
        assert!(matches!(samples_png(&some), Err(PictureError::Layout { found: 2, what: "numbers in a row", .. })));
        some.rows[0].tiles.pop();
        assert!(matches!(samples_png(&some), Err(PictureError::Layout { found: 2, what: "tiles in a row", .. })));
    }

    #[test]
    #[ignore = "writes pictures to look at into $ATFLOW_PICTURES"]
    fn pictures_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var_os("ATFLOW_PICTURES").unwrap());
        for (name, scale) in [("samples.png", 3), ("wide-samples.png", 30)] {
            let picture = samples_png(&Samples { scale, ..samples() }).unwrap();
            std::fs::write(folder.join(name), picture).unwrap();
        }
    }
}
