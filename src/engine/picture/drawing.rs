//! A picture as a list of shapes, which the renderers of PNG, SVG and PDF all draw.

use super::text::Face;
use super::tile::Tile;

/// A colour: red, green, blue.
pub(super) type Color = [u8; 3];

/// A point in units, from the top left corner.
pub(super) type Spot = (f32, f32);

/// A picture that is laid out and not drawn yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// Width and height in units.
    pub(super) size: (f32, f32),
    /// How long a unit is in print, in points (1/72 inch).
    pub(super) unit: f32,
    /// How a PNG shows a unit.
    pub(super) raster: Raster,
    /// The shapes, the lowest first.
    pub(super) shapes: Vec<Shape>,
}

/// How many pixels of a PNG a unit has on each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raster {
    /// Pixels a unit.
    pub(super) pixels: u32,
    /// A PNG is drawn this much larger and then averaged, because plotters' bitmaps are hardly antialiased.
    pub(super) oversampling: u32,
}

/// A unit in print where nobody asks for another: that of a pixel of CSS.
pub(super) const PIXEL: f32 = 0.75;

/// Something to draw.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A line through points.
    Line {
        points: Vec<Spot>,
        color: Color,
        width: f32,
        /// Whether it is dashed.
        dashed: bool,
    },
    /// A filled polygon of some opacity, 0 to 1.
    Fill { points: Vec<Spot>, color: Color, opacity: f32 },
    /// One line of text.
    Text(Text),
    /// An image whose pixels are squares of `scale` units.
    Image { tile: Tile, at: Spot, scale: u32 },
}

/// One line of text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    /// Where its base line begins, in the embedded font.
    pub(super) at: Spot,
    /// How wide it is in the embedded font.
    pub(super) width: f32,
    /// Units per em.
    pub(super) size: f32,
    /// What stays in its place where the font is another.
    pub(super) align: Align,
    pub(super) color: Color,
}

/// Where text stands from its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// A dash and the gap after it, in widths of the line.
pub(super) const DASH: (f32, f32) = (3.5, 2.5);

impl Drawing {
    pub(super) fn new(size: (f32, f32), unit: f32, raster: Raster) -> Self {
        Drawing { size, unit, raster, shapes: Vec::new() }
    }

    pub(super) fn line(&mut self, points: &[Spot], color: Color, width: f32) {
        self.shapes.push(Shape::Line { points: points.to_vec(), color, width, dashed: false });
    }

    pub(super) fn dashes(&mut self, points: &[Spot], color: Color, width: f32) {
        self.shapes.push(Shape::Line { points: points.to_vec(), color, width, dashed: true });
    }

    pub(super) fn fill(&mut self, points: Vec<Spot>, color: Color, opacity: f32) {
        self.shapes.push(Shape::Fill { points, color, opacity });
    }

    /// One line of text whose base line begins, has its middle, or ends at a point.
    pub(super) fn text(&mut self, face: Face, text: &str, (x, y): Spot, align: Align, color: Color) {
        let width = face.width(text);
        let left = match align {
            Align::Left => x,
            Align::Centre => x - width / 2.0,
            Align::Right => x - width,
        };
        self.text_from(face, text, (left, y), align, color);
    }

    /// One line of text whose base line begins at a point in the embedded font; where the font is another, it keeps to
    /// `align`.
    pub(super) fn text_from(&mut self, face: Face, text: &str, at: Spot, align: Align, color: Color) {
        let (width, size) = (face.width(text), face.size());
        self.shapes.push(Shape::Text(Text { text: text.to_owned(), at, width, size, align, color }));
    }

    pub(super) fn image(&mut self, tile: &Tile, at: Spot, scale: u32) {
        self.shapes.push(Shape::Image { tile: tile.clone(), at, scale });
    }
}
