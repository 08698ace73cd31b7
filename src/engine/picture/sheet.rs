//! Contact sheets: images side by side under row and column headings.

use super::PictureError;
use super::drawing::{Align, Drawing};
use super::page::{Column, Page, Style, Title, check_tile, draw_tiles, height_of_row, widths_of_tiles};
use super::tile::Tile;
use crate::stage_kinds::PictureSize;

/// Images in rows and columns with headings. Tiles may be of different sizes; each is centred in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// A heading over all of it.
    pub title: Option<String>,
    /// Headings of the columns, left to right; a heading may be empty.
    pub columns: Vec<String>,
    /// Headings of the rows, top to bottom.
    pub rows: Vec<String>,
    /// The images: for each row, one for each column.
    pub tiles: Vec<Vec<Tile>>,
    /// How many pixels wide and high each pixel of a tile is drawn; 0 counts as 1.
    pub scale: u32,
}

/// Between two tiles.
const GAP: f32 = 4.0;
/// Between two groups of rows.
const GROUP_GAP: f32 = 16.0;
/// A column is widened up to this for a word of its heading; longer words are broken.
const WORD: f32 = 110.0;

/// Draws a sheet as a PNG on white. Text grows with wide sheets. Headings that are too long for their column or row are
/// wrapped; none is cut.
///
/// # Errors
/// [`PictureError::Layout`] if `tiles` has other rows or columns than the headings, [`PictureError::Tile`] if a tile's
/// bytes do not fit its size, [`PictureError::TooLarge`].
pub fn sheet_png(sheet: &Sheet) -> Result<Vec<u8>, PictureError> {
    grouped_sheet_png(sheet, usize::MAX)
}

/// The same with a wider gap after each `together` rows that belong together.
///
/// # Errors
/// As [`sheet_png`].
pub fn grouped_sheet_png(sheet: &Sheet, together: usize) -> Result<Vec<u8>, PictureError> {
    sheet_drawing(sheet, together, None)?.png()
}

/// The same, not drawn yet, and of a size in print.
///
/// # Errors
/// [`PictureError::Layout`], [`PictureError::Tile`].
pub fn sheet_drawing(sheet: &Sheet, together: usize, size: Option<PictureSize>) -> Result<Drawing, PictureError> {
    check(sheet)?;
    let (layout, mut picture) = Layout::in_print(size, |text| Layout::of(sheet, together.max(1), text))?;
    layout.title.draw(&mut picture, &layout.style);
    layout.draw_column_headings(&mut picture);
    layout.draw_rows(&mut picture);
    Ok(picture)
}

/// Where everything stands on a sheet, in pixels.
struct Layout<'a> {
    sheet: &'a Sheet,
    /// Rows in a group.
    together: usize,
    scale: u32,
    style: Style,
    gap: f32,
    group_gap: f32,
    title: Title,
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// Lines of the tallest column heading.
    head_lines: f32,
    /// Where column headings begin.
    head_top: f32,
    /// Where the first row begins.
    rows_top: f32,
    /// Where tiles begin.
    left: f32,
    width: f32,
    height: f32,
}

struct Row {
    /// The lines of its heading.
    heading: Vec<String>,
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
    fn of(sheet: &'a Sheet, together: usize, text: Option<f32>) -> Result<Self, PictureError> {
        let scale = sheet.scale.max(1);
        let tile_widths = widths_of_tiles(sheet.tiles.iter().map(Vec::as_slice), sheet.columns.len(), scale);
        let style = Style::new(&tile_widths, text)?;
        let [gap, group_gap] = [GAP, GROUP_GAP].map(|size| style.scaled(size).round());
        let rows = rows(sheet, &style, scale);
        let left = style.margin + stub(sheet, &rows, &style);
        let width_of = |(heading, tiles): (&String, &f32)| {
            tiles.max(style.face.widest_piece(heading).min(style.scaled(WORD))).ceil()
        };
        let widths: Vec<f32> = sheet.columns.iter().zip(&tile_widths).map(width_of).collect();
        let columns = Column::side_by_side(&sheet.columns, &widths, &style, left, gap);

        let spread = |sizes: &[f32]| sizes.iter().sum::<f32>() + gap * sizes.len().saturating_sub(1) as f32;
        let width = style.width_around(left - style.margin + spread(&widths));
        let title = Title::wrap(sheet.title.as_deref(), &style, width);
        let head_lines = columns.iter().map(|column| column.heading.len()).max().unwrap_or(0) as f32;
        let head = if has_headings(&sheet.columns) { head_lines * style.line + style.space } else { 0.0 };
        let head_top = style.margin + title.height(&style);
        let heights: Vec<f32> = rows.iter().map(|row| row.height).collect();
        let between_groups = (group_gap - gap) * (rows.len().saturating_sub(1) / together) as f32;
        let height = head_top + head + spread(&heights) + between_groups + style.margin;
        let rows_top = head_top + head;
        Ok(Layout {
            sheet,
            together,
            scale,
            style,
            gap,
            group_gap,
            title,
            columns,
            rows,
            head_lines,
            head_top,
            rows_top,
            left,
            width,
            height,
        })
    }

    fn draw_column_headings(&self, picture: &mut Drawing) {
        for column in &self.columns {
            // Headings stand on the tiles: the last line of each is at the same height.
            let top = self.head_top + (self.head_lines - column.heading.len() as f32) * self.style.line;
            self.style.draw_lines(picture, &column.heading, top, Align::Centre, |width| column.centred(width));
        }
    }

    fn draw_rows(&self, picture: &mut Drawing) {
        let mut top = self.rows_top;
        for (index, (row, tiles)) in self.rows.iter().zip(&self.sheet.tiles).enumerate() {
            let heading_top = top + (row.height - row.heading.len() as f32 * self.style.line) / 2.0;
            let right = self.left - self.style.space;
            self.style.draw_lines(picture, &row.heading, heading_top, Align::Right, |width| right - width);
            draw_tiles(picture, tiles, &self.columns, [top, row.height], self.scale);
            let ends_group = (index + 1).is_multiple_of(self.together);
            top += row.height + if ends_group { self.group_gap } else { self.gap };
        }
    }
}

fn rows(sheet: &Sheet, style: &Style, scale: u32) -> Vec<Row> {
    let row = |(heading, tiles): (&String, &Vec<Tile>)| {
        let heading = style.wrap_row_heading(heading);
        Row { height: height_of_row(tiles, scale, &heading, style), heading }
    };
    sheet.rows.iter().zip(&sheet.tiles).map(row).collect()
}

/// Returns the width of the row headings with the gap after them; 0 without headings.
fn stub(sheet: &Sheet, rows: &[Row], style: &Style) -> f32 {
    if !has_headings(&sheet.rows) {
        return 0.0;
    }
    let widths = rows.iter().flat_map(|row| &row.heading).map(|text| style.face.width(text));
    widths.fold(0.0, f32::max).ceil() + style.space
}

fn has_headings(headings: &[String]) -> bool {
    headings.iter().any(|heading| !heading.trim().is_empty())
}

fn check(sheet: &Sheet) -> Result<(), PictureError> {
    let (rows, columns) = (sheet.rows.len(), sheet.columns.len());
    if sheet.tiles.len() != rows {
        return Err(PictureError::Layout { rows, columns, found: sheet.tiles.len(), what: "rows of tiles" });
    }
    for (row, tiles) in sheet.tiles.iter().enumerate() {
        if tiles.len() != columns {
            return Err(PictureError::Layout { rows, columns, found: tiles.len(), what: "tiles in a row" });
        }
        for (column, tile) in tiles.iter().enumerate() {
            check_tile(tile, row, column)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::page::{TEXT_SIZE, unit};
    use super::*;

    fn tile(width: u32, height: u32, color: [u8; 3]) -> Tile {
        Tile { width, height, rgb: color.repeat((width * height) as usize) }
    }

    fn sheet(title: Option<&str>, columns: &[&str], rows: &[&str], scale: u32) -> Sheet {
        let tiles = (0..rows.len() as u32)
            .map(|row| {
                (0..columns.len() as u32)
                    .map(|column| Tile {
                        width: 28,
                        height: 28,
                        rgb: (0..28 * 28_u32)
                            .flat_map(|i| [(i % 28 * 9) as u8, (row * 60) as u8, (column * 30 + i / 28 * 4) as u8])
                            .collect(),
                    })
                    .collect()
            })
            .collect();
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Sheet { title: title.map(str::to_owned), columns: owned(columns), rows: owned(rows), tiles, scale }
    }

    #[test]
    fn every_pixel_of_a_tile_is_drawn_scale_times_and_the_rest_is_white() {
        let mut plain = sheet(None, &["", ""], &[""], 3);
        plain.tiles = vec![vec![tile(40, 10, [10, 20, 30]), tile(40, 10, [200, 0, 0])]];
        let picture = image::load_from_memory(&sheet_png(&plain).unwrap()).unwrap().to_rgb8();
        let count = |color: [u8; 3]| picture.pixels().filter(|pixel| pixel.0 == color).count();
        assert_eq!((count([10, 20, 30]), count([200, 0, 0])), (3600, 3600));
        assert_eq!(count([255, 255, 255]), picture.pixels().len() - 7200);
    }

    #[test]
    fn headings_never_touch_the_border_or_a_tile() {
        let long =
            ["Standard", "pgd-inf-8", "adversarially trained with ℓ2 PGD, ε = 12", "Bundesverfassungsgericht", "x"];
        let mut blank = sheet(
            Some("Saliency maps of five models on the same two images of a set with a long name"),
            &long,
            &long[1..4],
            1,
        );
        let tiles: Vec<Vec<Tile>> =
            blank.tiles.iter().map(|row| row.iter().map(|_| tile(28, 28, [0, 255, 0])).collect()).collect();
        blank.tiles = tiles;
        let picture = image::load_from_memory(&sheet_png(&blank).unwrap()).unwrap().to_rgb8();
        let (width, height) = picture.dimensions();
        let count = picture.pixels().filter(|pixel| pixel.0 == [0, 255, 0]).count();
        assert_eq!(count, 15 * 28 * 28, "text was drawn over a tile");
        for (x, y, pixel) in picture.enumerate_pixels() {
            let border = x < 10 || y < 10 || x >= width - 10 || y >= height - 10;
            assert!(!border || pixel.0 == [255; 3], "ink at ({x}, {y})");
        }
    }

    /// Twelve columns of 224 pixels are printed on one page: text of 13 pixels would be 2 points there.
    #[test]
    fn text_grows_with_a_wide_sheet_and_touches_nothing() {
        let columns = ["image", "standard", "underfit", "pgd-inf-8", "pgd-inf-4", "pgd-inf-2"].repeat(2);
        let mut wide = sheet(Some("SmoothGrad of all networks on Caltech-256"), &columns, &["ankle boot"; 2], 1);
        let of_rows = |row: &mut Vec<Tile>| row.iter_mut().for_each(|place| *place = tile(224, 224, [0, 255, 0]));
        wide.tiles.iter_mut().for_each(of_rows);
        let picture = image::load_from_memory(&sheet_png(&wide).unwrap()).unwrap().to_rgb8();
        let (width, height) = picture.dimensions();
        let size = TEXT_SIZE * unit(12.0 * 224.0);
        assert!(size / width as f32 > 0.0095, "text of {size} in {width} pixels");
        let green = picture.pixels().filter(|pixel| pixel.0 == [0, 255, 0]).count();
        assert_eq!(green, 24 * 224 * 224, "text was drawn over a tile");
        for (x, y, pixel) in picture.enumerate_pixels() {
            let border = x < 24 || y < 24 || x >= width - 24 || y >= height - 24;
            assert!(!border || pixel.0 == [255; 3], "ink at ({x}, {y})");
        }
        assert_eq!([0.0, 999.0, 1000.0].map(unit), [1.0; 3], "small sheets are what they were");
    }

    #[test]
    fn groups_of_rows_stand_apart() {
        let size = |together| {
            let picture = grouped_sheet_png(&sheet(None, &["a"], &["1", "2", "3", "4"], 1), together).unwrap();
            image::load_from_memory(&picture).unwrap().height()
        };
        let gap = (GROUP_GAP - GAP) as u32;
        assert_eq!([size(2), size(1), size(4), size(0)].map(|found| found - size(9)), [gap, 3 * gap, 0, 3 * gap]);
    }

    #[test]
    fn the_same_sheet_is_the_same_bytes() {
        let one = sheet(Some("title"), &["a", "b"], &["c"], 2);
        assert_eq!(sheet_png(&one).unwrap(), sheet_png(&one.clone()).unwrap());
    }

    #[test]
    fn wrong_layouts_and_sizes_are_refused() {
        let mut missing = sheet(None, &["a", "b"], &["c"], 1);
        missing.tiles[0].pop();
        assert!(matches!(sheet_png(&missing), Err(PictureError::Layout { found: 1, what: "tiles in a row", .. })));
        missing.tiles.clear();
        assert!(matches!(sheet_png(&missing), Err(PictureError::Layout { found: 0, what: "rows of tiles", .. })));
        let mut short = sheet(None, &["a"], &["c"], 1);
        short.tiles[0][0].rgb.pop();
        assert!(matches!(sheet_png(&short), Err(PictureError::Tile { row: 0, column: 0, bytes: 2351, .. })));
        assert!(matches!(sheet_png(&sheet(None, &["a"], &["c"], u32::MAX)), Err(PictureError::TooLarge { .. })));
    }

    #[test]
    #[ignore = "writes pictures to look at into $ATFLOW_PICTURES"]
    fn pictures_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var_os("ATFLOW_PICTURES").unwrap());
        let models = [
            "standard",
            "underfit",
            "pgd-inf-8",
            "pgd-inf-4",
            "pgd-inf-2",
            "pgd-inf-1",
            "pgd-l2-12",
            "pgd-l2-8",
            "pgd-l2-4",
            "fgsm-8",
            "fgsm-4",
        ];
        let columns: Vec<&str> = std::iter::once("image").chain(models).collect();
        let rows =
            ["ak47\noriginal", "ak47\nsaturation 1024", "baseball-bat\noriginal", "baseball-bat\nsaturation 1024"];
        let wide = sheet(Some("SmoothGrad of all 11 networks on Caltech-256 (n = 100, σ = 0.1)"), &columns, &rows, 8);
        std::fs::write(folder.join("wide-sheet.png"), grouped_sheet_png(&wide, 2).unwrap()).unwrap();
        let columns = [
            "image",
            "Standard",
            "Underfit",
            "pgd-inf-8",
            "pgd-inf-4",
            "pgd-l2-12 (a longer heading)",
            "Bundesverfassungsgericht",
        ];
        let rows = ["Ankle boot", "T-shirt/top", "a class with a very long name, which wraps", "Bag"];
        let big = sheet(Some("Saliency maps (SmoothGrad, n = 100, σ = 0.1)"), &columns, &rows, 3);
        std::fs::write(folder.join("sheet.png"), sheet_png(&big).unwrap()).unwrap();
    }
}
