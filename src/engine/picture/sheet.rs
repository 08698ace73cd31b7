//! Contact sheets: images side by side under row and column headings.

use super::PictureError;
use super::bitmap::Bitmap;
use super::text::Face;

/// One image of a sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixels row by row, three bytes each: red, green, blue.
    pub rgb: Vec<u8>,
}

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

const TITLE_SIZE: f32 = 17.0;
const HEADING_SIZE: f32 = 13.0;
const MARGIN: f32 = 12.0;
/// Between two tiles.
const GAP: f32 = 4.0;
/// Between two groups of rows.
const GROUP_GAP: f32 = 16.0;
/// Between headings and what they head.
const SPACE: f32 = 8.0;
/// A column is widened up to this for a word of its heading; longer words are broken.
const WORD: f32 = 110.0;
/// Row headings wrap at this width.
const ROW_HEADING: f32 = 200.0;
/// A sheet is at least so wide, for its title.
const LEAST_WIDTH: f32 = 240.0;
/// Tiles that are wider together are printed smaller than they are drawn: text, gaps and margins grow with them.
const ORDINARY_WIDTH: f32 = 1000.0;
const INK: [u8; 3] = [26, 26, 26];

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
    check(sheet)?;
    let together = together.max(1);
    let scale = sheet.scale.max(1);
    let shown = |pixels: u32| pixels as f32 * scale as f32;
    let tile_widths: Vec<f32> = (0..sheet.columns.len())
        .map(|column| sheet.tiles.iter().map(|row| shown(row[column].width)).fold(1.0, f32::max))
        .collect();
    let unit = unit(tile_widths.iter().sum());
    let [margin, gap, group_gap, space] = [MARGIN, GAP, GROUP_GAP, SPACE].map(|size| (size * unit).round());
    let (title_face, face) = (Face::new(TITLE_SIZE * unit)?, Face::new(HEADING_SIZE * unit)?);
    let line = face.line_height();

    let column_widths: Vec<f32> = sheet
        .columns
        .iter()
        .zip(&tile_widths)
        .map(|(heading, tile)| tile.max(face.widest_piece(heading).min(WORD * unit)).ceil())
        .collect();
    let column_headings: Vec<Vec<String>> =
        sheet.columns.iter().zip(&column_widths).map(|(heading, &width)| face.wrap(heading, width)).collect();
    let row_headings: Vec<Vec<String>> =
        sheet.rows.iter().map(|heading| face.wrap(heading, ROW_HEADING * unit)).collect();
    let row_heights: Vec<f32> = sheet
        .tiles
        .iter()
        .zip(&row_headings)
        .map(|(row, heading)| {
            row.iter().map(|tile| shown(tile.height)).fold(1.0, f32::max).max(heading.len() as f32 * line)
        })
        .collect();

    let has_headings = |headings: &[String]| headings.iter().any(|heading| !heading.trim().is_empty());
    let stub = row_headings.iter().flatten().map(|text| face.width(text)).fold(0.0, f32::max).ceil();
    let stub = if has_headings(&sheet.rows) { stub + space } else { 0.0 };
    let head_lines = column_headings.iter().map(Vec::len).max().unwrap_or(0) as f32;
    let head = if has_headings(&sheet.columns) { head_lines * line + space } else { 0.0 };
    let spread = |sizes: &[f32]| sizes.iter().sum::<f32>() + gap * sizes.len().saturating_sub(1) as f32;
    let width = (2.0 * margin + stub + spread(&column_widths)).max(LEAST_WIDTH);
    let title = sheet.title.as_deref().map(|title| title_face.wrap(title, width - 2.0 * margin)).unwrap_or_default();
    let title_height = if title.is_empty() { 0.0 } else { title.len() as f32 * title_face.line_height() + space };
    let between_groups = (group_gap - gap) * (sheet.rows.len().saturating_sub(1) / together) as f32;
    let height = 2.0 * margin + title_height + head + spread(&row_heights) + between_groups;

    let mut picture = Bitmap::white(width.ceil() as u64, height.ceil() as u64)?;
    for (index, text) in title.iter().enumerate() {
        let y = margin + index as f32 * title_face.line_height() + title_face.ascent();
        draw_text(&mut picture, title_face, text, margin, y);
    }
    let mut x = margin + stub;
    for (heading, &column) in column_headings.iter().zip(&column_widths) {
        // Headings stand on the tiles: the last line of each is at the same height.
        let top = margin + title_height + (head_lines - heading.len() as f32) * line;
        for (index, text) in heading.iter().enumerate() {
            let centred = x + (column - face.width(text)) / 2.0;
            draw_text(&mut picture, face, text, centred, top + index as f32 * line + face.ascent());
        }
        x += column + gap;
    }
    let mut y = margin + title_height + head;
    for (index, ((row, heading), &row_height)) in sheet.tiles.iter().zip(&row_headings).zip(&row_heights).enumerate() {
        let top = y + (row_height - heading.len() as f32 * line) / 2.0;
        for (index, text) in heading.iter().enumerate() {
            let right = margin + stub - space - face.width(text);
            draw_text(&mut picture, face, text, right, top + index as f32 * line + face.ascent());
        }
        let mut x = margin + stub;
        for (tile, &column) in row.iter().zip(&column_widths) {
            let left = x + ((column - shown(tile.width)) / 2.0).floor();
            draw_tile(
                &mut picture,
                tile,
                left as u32,
                (y + ((row_height - shown(tile.height)) / 2.0).floor()) as u32,
                scale,
            );
            x += column + gap;
        }
        y += row_height + if (index + 1).is_multiple_of(together) { group_gap } else { gap };
    }
    picture.png()
}

/// How many times their ordinary size text, gaps and margins have beside tiles that are so many pixels wide together, 1
/// or more. Text is then at least about 1/100 of the picture's width high: readable on a page that the picture fills.
/// It goes by tiles alone: were it to go by the whole width, text would widen the picture and so grow without end.
pub(super) fn unit(tiles: f32) -> f32 {
    (tiles / ORDINARY_WIDTH).max(1.0)
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
            let Tile { width, height, .. } = *tile;
            if u64::from(width) * u64::from(height) * 3 != tile.rgb.len() as u64 {
                return Err(PictureError::Tile { row, column, width, height, bytes: tile.rgb.len() });
            }
        }
    }
    Ok(())
}

pub(super) fn draw_text(picture: &mut Bitmap, face: Face, text: &str, x: f32, y: f32) {
    // Whole pixels for the start and the base line keep stems sharp.
    face.draw(text, x.round(), y.round(), |x, y, coverage| picture.blend(x, y, INK, coverage));
}

/// Nearest-neighbour enlargement, row by row.
pub(super) fn draw_tile(picture: &mut Bitmap, tile: &Tile, left: u32, top: u32, scale: u32) {
    let stride = picture.width as usize * 3;
    for y in 0..(tile.height * scale) as usize {
        let source = &tile.rgb[y / scale as usize * tile.width as usize * 3..][..tile.width as usize * 3];
        let start = (top as usize + y) * stride + left as usize * 3;
        let target = &mut picture.rgb[start..start + source.len() * scale as usize];
        for (pixel, copies) in source.chunks_exact(3).zip(target.chunks_exact_mut(3 * scale as usize)) {
            copies.chunks_exact_mut(3).for_each(|copy| copy.copy_from_slice(pixel));
        }
    }
}

#[cfg(test)]
mod tests {
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
        let size = HEADING_SIZE * unit(12.0 * 224.0);
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
