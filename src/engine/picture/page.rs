//! What contact sheets and pictures of samples share: their size on paper, the sizes of text and gaps, text in lines,
//! and rows of tiles.

use super::PictureError;
use super::drawing::{Align, Drawing, PIXEL, Raster};
use super::frame::{POINT, PRINT_MARGIN, PRINT_TEXT};
use super::style::INK;
use super::text::Face;
use super::tile::Tile;
use crate::stage_kinds::PictureSize;

const TITLE_SIZE: f32 = 17.0;
/// Size of all text but the title, in pixels per em.
pub(super) const TEXT_SIZE: f32 = 13.0;
const MARGIN: f32 = 12.0;
/// Between headings and what they head.
const SPACE: f32 = 8.0;
/// Row headings wrap at this width.
const ROW_HEADING: f32 = 200.0;
/// A picture is at least so wide, for its title.
const LEAST_WIDTH: f32 = 240.0;
/// Tiles that are wider together are printed smaller than they are drawn: text, gaps and margins grow with them.
const ORDINARY_WIDTH: f32 = 1000.0;
/// A unit of a page is a pixel.
const PIXELS: Raster = Raster { pixels: 1, oversampling: 1 };

/// Images are at least so wide in print, in points, however small a picture is to be: 5 millimetres.
const LEAST_IMAGE: f32 = 14.0;
/// So many times a range of units is halved: no printer tells what is left of it.
const HALVINGS: usize = 30;

/// A picture that is laid out in units, each a pixel of its PNG.
pub(super) trait Page: Sized {
    /// Its width and height.
    fn extent(&self) -> (f32, f32);

    /// The width of its widest column of images.
    fn widest(&self) -> f32;

    /// The white page that it is drawn on.
    fn blank(&self) -> Drawing {
        let (width, height) = self.extent();
        Drawing::new((width.ceil(), height.max(1.0).ceil()), PIXEL, PIXELS)
    }

    /// Lays it out for a size in print, with its white page. `of` lays it out with text of so many units an em, or as
    /// for a screen.
    ///
    /// Pixels of images stay whole units, so that none is smoothed. The unit is as long as the size allows, and text
    /// has the more units the shorter it is. A page is larger than asked for where its text has no room.
    fn in_print(
        size: Option<PictureSize>,
        of: impl Fn(Option<f32>) -> Result<Self, PictureError>,
    ) -> Result<(Self, Drawing), PictureError> {
        let Some(size) = size else {
            let page = of(None)?;
            let blank = page.blank();
            return Ok((page, blank));
        };
        let least = LEAST_IMAGE / of(None)?.widest();
        let text = Print::of(size).text;
        let print = Print::of(size).with_room_for(of(Some(text / least))?.blank().size, least);
        let (mut low, mut high) = (least, print.width);
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            let fits = print.holds(of(Some(text / middle))?.blank().size, middle);
            (low, high) = if fits { (middle, high) } else { (low, middle) };
        }
        let page = of(Some(text / low))?;
        let mut blank = page.blank();
        blank.unit = low;
        // Sizes in units are whole; the page is as wide as was asked for.
        let rest = print.width / low - blank.size.0;
        blank.size.0 += if (0.0..2.0).contains(&rest) { rest } else { 0.0 };
        Ok((page, blank))
    }
}

/// A size in print, in points.
struct Print {
    width: f32,
    height: f32,
    text: f32,
}

impl Print {
    fn of(size: PictureSize) -> Self {
        let points = |millimetres: f64| millimetres as f32 / POINT;
        Print {
            width: points(size.width.get()),
            height: size.height.map_or(f32::INFINITY, |height| points(height.get())),
            text: size.text.map_or(PRINT_TEXT, |text| text.get() as f32),
        }
    }

    /// The same, so large that so many units of this length have room.
    fn with_room_for(self, (width, height): (f32, f32), unit: f32) -> Self {
        Print { width: self.width.max(width * unit), height: self.height.max(height * unit), ..self }
    }

    /// Whether so many units of this length have room.
    fn holds(&self, (width, height): (f32, f32), unit: f32) -> bool {
        width * unit <= self.width && height * unit <= self.height
    }
}

/// The text and gaps of one picture, in pixels.
pub(super) struct Style {
    title_face: Face,
    /// The font of all text but the title.
    pub(super) face: Face,
    /// Distance between the base lines of two lines of that text.
    pub(super) line: f32,
    /// Around the picture.
    pub(super) margin: f32,
    /// Between headings and what they head.
    pub(super) space: f32,
    /// How many times their ordinary size text and gaps have.
    unit: f32,
    /// A picture is at least so wide.
    least_width: f32,
}

impl Style {
    /// Creates the style of a picture whose columns of tiles have these widths, in pixels; in print, `text` is the size
    /// of text in pixels per em.
    pub(super) fn new(columns: &[f32], text: Option<f32>) -> Result<Self, PictureError> {
        let unit = text.map_or_else(|| unit(columns.iter().sum()), |text| text / TEXT_SIZE);
        let (margin, least_width) = if text.is_some() { (PRINT_MARGIN, 0.0) } else { (MARGIN, LEAST_WIDTH) };
        let face = Face::new(TEXT_SIZE * unit)?;
        Ok(Style {
            title_face: Face::new(TITLE_SIZE * unit)?,
            face,
            line: face.line_height(),
            margin: (margin * unit).round(),
            space: (SPACE * unit).round(),
            unit,
            least_width,
        })
    }

    /// Returns the size in this picture of something that ordinarily has this size.
    pub(super) fn scaled(&self, size: f32) -> f32 {
        size * self.unit
    }

    /// Breaks the heading of a row into lines.
    pub(super) fn wrap_row_heading(&self, heading: &str) -> Vec<String> {
        self.face.wrap(heading, self.scaled(ROW_HEADING))
    }

    /// Returns the width of a picture with this content between its margins.
    pub(super) fn width_around(&self, content: f32) -> f32 {
        (self.margin + content + self.margin).max(self.least_width)
    }

    /// Draws lines of text from `top` down; `left` gives the start of a line from its width, and where the font is
    /// another, the line keeps to `align`.
    pub(super) fn draw_lines(
        &self,
        picture: &mut Drawing,
        lines: &[String],
        top: f32,
        align: Align,
        left: impl Fn(f32) -> f32,
    ) {
        for (index, text) in lines.iter().enumerate() {
            let base = top + index as f32 * self.line + self.face.ascent();
            picture.text_from(self.face, text, (left(self.face.width(text)), base), align, INK);
        }
    }
}

/// A picture's title in lines.
pub(super) struct Title(Vec<String>);

impl Title {
    /// Breaks a title into lines for a picture of this width.
    pub(super) fn wrap(title: Option<&str>, style: &Style, width: f32) -> Self {
        Title(title.map(|title| style.title_face.wrap(title, width - 2.0 * style.margin)).unwrap_or_default())
    }

    /// Returns its height with the gap below it; 0 without a title.
    pub(super) fn height(&self, style: &Style) -> f32 {
        if self.0.is_empty() { 0.0 } else { self.0.len() as f32 * style.title_face.line_height() + style.space }
    }

    /// Draws it into the upper left corner.
    pub(super) fn draw(&self, picture: &mut Drawing, style: &Style) {
        for (index, text) in self.0.iter().enumerate() {
            let base = style.margin + index as f32 * style.title_face.line_height() + style.title_face.ascent();
            picture.text_from(style.title_face, text, (style.margin, base), Align::Left, INK);
        }
    }
}

/// A column of a picture.
pub(super) struct Column {
    /// The lines of its heading.
    pub(super) heading: Vec<String>,
    pub(super) left: f32,
    pub(super) width: f32,
}

impl Column {
    /// Places columns side by side from `left`, with headings and widths in pixels, and a gap between two of them.
    pub(super) fn side_by_side(headings: &[String], widths: &[f32], style: &Style, left: f32, gap: f32) -> Vec<Self> {
        let mut next = left;
        let mut column = |(heading, &width): (&String, &f32)| {
            let left = next;
            next += width + gap;
            Column { heading: style.face.wrap(heading, width), left, width }
        };
        headings.iter().zip(widths).map(&mut column).collect()
    }

    /// Returns where something of this width starts in the middle of the column.
    pub(super) fn centred(&self, width: f32) -> f32 {
        self.left + (self.width - width) / 2.0
    }
}

/// Returns how wide each column is for its tiles, drawn at a scale: in pixels, at least 1.
pub(super) fn widths_of_tiles<'a>(
    rows: impl Iterator<Item = &'a [Tile]> + Clone,
    columns: usize,
    scale: u32,
) -> Vec<f32> {
    let width = |column: usize| rows.clone().map(|row| shown(row[column].width, scale)).fold(1.0, f32::max);
    (0..columns).map(width).collect()
}

/// Returns how high a row is for its tiles, drawn at a scale, and its heading: in pixels, at least 1.
pub(super) fn height_of_row(tiles: &[Tile], scale: u32, heading: &[String], style: &Style) -> f32 {
    let tallest = tiles.iter().map(|tile| shown(tile.height, scale)).fold(1.0, f32::max);
    tallest.max(heading.len() as f32 * style.line)
}

/// Returns how many pixels some pixels of a tile take.
fn shown(pixels: u32, scale: u32) -> f32 {
    pixels as f32 * scale as f32
}

/// Checks that a tile's bytes fit its size; `row` and `column` say which it is.
pub(super) fn check_tile(tile: &Tile, row: usize, column: usize) -> Result<(), PictureError> {
    let Tile { width, height, .. } = *tile;
    match tile.is_whole() {
        true => Ok(()),
        false => Err(PictureError::Tile { row, column, width, height, bytes: tile.rgb.len() }),
    }
}

/// Draws a row of tiles, each in the middle of its column and of the height from `top`.
pub(super) fn draw_tiles(
    picture: &mut Drawing,
    tiles: &[Tile],
    columns: &[Column],
    [top, height]: [f32; 2],
    scale: u32,
) {
    for (tile, column) in tiles.iter().zip(columns) {
        let left = column.left + ((column.width - shown(tile.width, scale)) / 2.0).floor();
        let top = top + ((height - shown(tile.height, scale)) / 2.0).floor();
        picture.image(tile, (left.floor(), top.floor()), scale);
    }
}

/// How many times their ordinary size text, gaps and margins have beside tiles that are so many pixels wide together, 1
/// or more. Text is then at least about 1/100 of the picture's width high: readable on a page that the picture fills.
/// It goes by tiles alone: were it to go by the whole width, text would widen the picture and so grow without end.
pub(super) fn unit(tiles: f32) -> f32 {
    (tiles / ORDINARY_WIDTH).max(1.0)
}
