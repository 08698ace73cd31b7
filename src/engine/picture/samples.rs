//! Images of several sets side by side, under the headings of the sets, with lines of numbers and words above each
//! image.

use super::PictureError;
use super::drawing::{Align, Drawing};
use super::page::{Column, Page, Style, Title, check_tile, draw_tiles, height_of_row, widths_of_tiles};
use super::style::INK;
use super::tile::Tile;
use crate::stage_kinds::PictureSize;

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
    /// Lines above the images: whose they are, and a text for each column; `None` where there is none.
    pub numbers: Vec<(String, Vec<Option<String>>)>,
    /// The image in each column.
    pub tiles: Vec<Tile>,
}

/// Between two columns, and between two rows.
const GAP: f32 = 6.0;
/// A column is at least so wide, for its numbers.
const LEAST_COLUMN: f32 = 52.0;
/// What stands above an image of which nothing is known.
const ABSENT: &str = "–";
/// Headings of columns wrap at this width where their column is narrower.
const HEADING: f32 = 80.0;

/// Draws images on white. Text grows with wide pictures, unless they are of some size in print. Headings that are too
/// long are wrapped; none is cut.
///
/// # Errors
/// [`PictureError::Layout`] if a row has more or fewer tiles or numbers than there are columns, [`PictureError::Tile`]
/// if a tile's bytes do not fit its size.
pub fn samples_drawing(samples: &Samples, size: Option<PictureSize>) -> Result<Drawing, PictureError> {
    check(samples)?;
    let (layout, mut picture) = Layout::in_print(size, |text| Layout::of(samples, text))?;
    layout.title.draw(&mut picture, &layout.style);
    layout.draw_column_headings(&mut picture);
    let mut top = layout.headings_bottom + layout.style.space;
    for row in &layout.rows {
        let images_top = layout.draw_numbers(&mut picture, row, top);
        layout.draw_images(&mut picture, row, images_top);
        top += row.height;
    }
    Ok(picture)
}

/// Where everything stands on a picture, in pixels.
struct Layout<'a> {
    scale: u32,
    style: Style,
    title: Title,
    columns: Vec<Column>,
    rows: Vec<Row<'a>>,
    /// Where the headings of columns end.
    headings_bottom: f32,
    /// Where the headings of rows and the names of numbers end.
    stub_right: f32,
    width: f32,
    height: f32,
}

struct Row<'a> {
    content: &'a SampleRow,
    /// The lines of its heading.
    heading: Vec<String>,
    /// The height of its images, without their numbers.
    image_height: f32,
    /// Down to the next row.
    height: f32,
}

impl Page for Layout<'_> {
    fn extent(&self) -> (f32, f32) {
        (self.width, self.height)
    }

    fn widest(&self) -> f32 {
        self.columns.iter().map(|column| column.width).fold(1.0, f32::max)
    }
}

impl<'a> Layout<'a> {
    fn of(samples: &'a Samples, text: Option<f32>) -> Result<Self, PictureError> {
        let scale = samples.scale.max(1);
        let tiles = samples.rows.iter().map(|row| row.tiles.as_slice());
        let tile_widths = widths_of_tiles(tiles, samples.columns.len(), scale);
        let style = Style::new(&tile_widths, text)?;
        let gap = style.scaled(GAP).round();
        let rows: Vec<Row> = samples.rows.iter().map(|row| Row::of(row, &style, scale, gap)).collect();
        let stub = stub(&rows, &style);
        let left = style.margin + if stub > 0.0 { stub.ceil() + style.space } else { 0.0 };
        let width_of = |(column, (heading, tiles)): (usize, (&String, &f32))| {
            let word = style.face.widest_piece(heading).min(style.scaled(HEADING));
            // In print a column without numbers needs no room for them.
            let least = if text.is_some() { 0.0 } else { style.scaled(LEAST_COLUMN) };
            tiles.max(width_of_numbers(&samples.rows, column, &style)).max(word).max(least).ceil()
        };
        let widths: Vec<f32> = samples.columns.iter().zip(&tile_widths).enumerate().map(width_of).collect();
        let columns = Column::side_by_side(&samples.columns, &widths, &style, left, gap);

        let inner = widths.iter().sum::<f32>() + gap * widths.len().saturating_sub(1) as f32;
        let width = style.width_around(left - style.margin + inner);
        let title = Title::wrap(samples.title.as_deref(), &style, width);
        let lines = columns.iter().map(|column| column.heading.len()).max().unwrap_or(0) as f32;
        let headings_bottom = style.margin + title.height(&style) + lines * style.line;
        let rows_height: f32 = rows.iter().map(|row| row.height).sum();
        let height = headings_bottom + style.space + rows_height - gap + style.margin;
        let stub_right = left - style.space;
        Ok(Layout { scale, style, title, columns, rows, headings_bottom, stub_right, width, height })
    }

    fn draw_column_headings(&self, picture: &mut Drawing) {
        for column in &self.columns {
            // Headings stand on what they head: the last line of each is at the same height.
            let top = self.headings_bottom - column.heading.len() as f32 * self.style.line;
            self.style.draw_lines(picture, &column.heading, top, Align::Centre, |width| column.centred(width));
        }
    }

    /// Draws a row's lines of numbers from `top` down; returns where its images begin.
    fn draw_numbers(&self, picture: &mut Drawing, row: &Row<'_>, mut top: f32) -> f32 {
        let face = self.style.face;
        for (name, numbers) in &row.content.numbers {
            let base = top + face.ascent();
            picture.text(face, name, (self.stub_right, base), Align::Right, INK);
            for (number, column) in numbers.iter().zip(&self.columns) {
                let text = number.as_deref().unwrap_or(ABSENT);
                picture.text_from(face, text, (column.centred(face.width(text)), base), Align::Centre, INK);
            }
            top += self.style.line;
        }
        top + if row.content.numbers.is_empty() { 0.0 } else { self.style.space / 2.0 }
    }

    /// Draws a row's images from `top` down, and its heading beside them.
    fn draw_images(&self, picture: &mut Drawing, row: &Row<'_>, top: f32) {
        let heading_top = top + (row.image_height - row.heading.len() as f32 * self.style.line) / 2.0;
        self.style.draw_lines(picture, &row.heading, heading_top, Align::Right, |width| self.stub_right - width);
        draw_tiles(picture, &row.content.tiles, &self.columns, [top, row.image_height], self.scale);
    }
}

impl<'a> Row<'a> {
    fn of(content: &'a SampleRow, style: &Style, scale: u32, gap: f32) -> Self {
        let heading = style.wrap_row_heading(&content.heading);
        let image_height = height_of_row(&content.tiles, scale, &heading, style);
        let lines = content.numbers.len() as f32;
        let numbers = if content.numbers.is_empty() { 0.0 } else { lines * style.line + style.space };
        Row { content, heading, image_height, height: image_height + numbers + gap }
    }
}

/// Returns how wide a column is for the texts above its images.
fn width_of_numbers(rows: &[SampleRow], column: usize, style: &Style) -> f32 {
    let texts = rows.iter().flat_map(|row| &row.numbers).filter_map(|(_, texts)| texts[column].as_ref());
    texts.map(|text| style.face.width(text)).fold(0.0, f32::max)
}

/// Returns the width of the widest heading of a row or name of numbers.
fn stub(rows: &[Row<'_>], style: &Style) -> f32 {
    let names = rows.iter().flat_map(|row| row.content.numbers.iter().map(|(name, _)| name));
    let texts = names.chain(rows.iter().flat_map(|row| &row.heading));
    texts.map(|text| style.face.width(text)).fold(0.0, f32::max)
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
            check_tile(tile, row, column)?;
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
                (
                    "standard".to_owned(),
                    ["99.8 %", "51.0 %"].map(|text| Some(text.to_owned())).into_iter().chain([None]).collect(),
                ),
                (
                    "pgd-inf-8".to_owned(),
                    ["bag", "T-shirt/top", "a class of a very long name"].map(|text| Some(text.to_owned())).to_vec(),
                ),
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
                let picture =
                    image::load_from_memory(&samples_drawing(&some, None).unwrap().png().unwrap()).unwrap().to_rgb8();
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
            let picture = samples_drawing(&Samples { scale, ..samples() }, None).unwrap().png().unwrap();
            let picture = image::load_from_memory(&picture).unwrap().to_rgb8();
            let ink = picture.pixels().filter(|pixel| pixel.0[0] < 128 && pixel.0[1] < 128).count();
            ink as f32 / picture.width() as f32 / picture.width() as f32
        };
        // Of pictures of three and of six thousand pixels text covers about the same share.
        assert!((inked(30) / inked(60) - 1.0).abs() < 0.15, "{} {}", inked(30), inked(60));
    }

    #[test]
    fn a_picture_is_as_large_in_print_as_asked_for_and_its_text_of_the_same_size() {
        use crate::number::Real;
        let millimetres = |width: f64, height: Option<f64>, text: f64| {
            let height = height.map(Real::new);
            let size = PictureSize { width: Real::new(width), height, text: Some(Real::new(text)) };
            let drawing = samples_drawing(&samples(), Some(size)).unwrap();
            let printed = drawing.shapes.iter().filter_map(|shape| match shape {
                crate::picture::drawing::Shape::Text(of) => Some(of.size * drawing.unit),
                _ => None,
            });
            let least = printed.fold(f32::INFINITY, f32::min);
            ([drawing.size.0, drawing.size.1].map(|side| side * drawing.unit * 25.4 / 72.0), least)
        };
        for width in [84.0, 120.0, 174.0, 400.0] {
            let ([found, _], text) = millimetres(width, None, 7.0);
            assert!((f64::from(found) - width).abs() < 0.01, "{found} mm are not {width}");
            assert!((text - 7.0).abs() < 0.01, "{text} points");
        }
        let ([_, high], _) = millimetres(174.0, None, 8.0);
        let ([narrow, low], _) = millimetres(174.0, Some(f64::from(high) / 2.0), 8.0);
        assert!(low <= high / 2.0 && low > high / 2.0 - 1.0 && narrow < 160.0, "{low} of {high} mm, {narrow} wide");
        let ([wide, _], _) = millimetres(30.0, None, 30.0);
        assert!(wide > 30.0, "its text has no room");
    }

    #[test]
    fn wrong_layouts_are_refused() {
        let mut some = samples();
        some.rows[1].numbers[0].1.pop();
        assert!(matches!(
            samples_drawing(&some, None),
            Err(PictureError::Layout { found: 2, what: "numbers in a row", .. })
        ));
        some.rows[0].tiles.pop();
        assert!(matches!(
            samples_drawing(&some, None),
            Err(PictureError::Layout { found: 2, what: "tiles in a row", .. })
        ));
    }

    #[test]
    #[ignore = "writes pictures to look at into $ATFLOW_PICTURES"]
    fn pictures_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var_os("ATFLOW_PICTURES").unwrap());
        for (name, scale) in [("samples.png", 3), ("wide-samples.png", 30)] {
            let picture = samples_drawing(&Samples { scale, ..samples() }, None).unwrap().png().unwrap();
            std::fs::write(folder.join(name), picture).unwrap();
        }
    }
}
