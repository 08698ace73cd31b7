//! One set of drawing operations over plotters' two backends, SVG and bitmap, in units that are the same on both.

use plotters::prelude::{BitMapBackend, DrawingBackend, RGBAColor, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, TextStyle};

use super::PictureError;
use super::text::Face;

/// Fonts that an SVG asks its viewer for. Verdana and DejaVu Sans have the same widths, so that a layout made for one
/// fits the other.
const FAMILIES: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// Where text stands from its point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// A drawing surface. A unit is a pixel of an ordinary screen, and `scale` pixels of the backend.
pub(super) struct Canvas<'a, B> {
    pub(super) backend: &'a mut B,
    pub(super) scale: f32,
}

/// A backend that can set text on a base line.
pub(super) trait Backend: DrawingBackend {
    /// Draws one line of text with its base line through (`x`, `y`), `size` pixels per em.
    fn text(
        &mut self,
        text: &str,
        x: f32,
        y: f32,
        size: f32,
        align: Align,
        color: RGBColor,
    ) -> Result<(), PictureError>;
}

impl<B: Backend> Canvas<'_, B> {
    /// A line through points.
    pub(super) fn line(&mut self, points: &[(f32, f32)], color: RGBAColor, width: f32) -> Result<(), PictureError> {
        let stroke_width = (width * self.scale).round().max(1.0) as u32;
        let style = ShapeStyle { color, filled: false, stroke_width };
        self.backend.draw_path(scaled(points, self.scale), &style).map_err(draw_error)
    }

    /// A filled polygon.
    pub(super) fn fill(&mut self, points: &[(f32, f32)], color: RGBAColor) -> Result<(), PictureError> {
        let style = ShapeStyle { color, filled: true, stroke_width: 0 };
        self.backend.fill_polygon(scaled(points, self.scale), &style).map_err(draw_error)
    }

    /// One line of text with its base line through a point.
    pub(super) fn text(
        &mut self,
        text: &str,
        (x, y): (f32, f32),
        size: f32,
        align: Align,
        color: RGBColor,
    ) -> Result<(), PictureError> {
        self.backend.text(text, x * self.scale, y * self.scale, size * self.scale, align, color)
    }
}

impl Backend for BitMapBackend<'_> {
    fn text(
        &mut self,
        text: &str,
        x: f32,
        y: f32,
        size: f32,
        align: Align,
        color: RGBColor,
    ) -> Result<(), PictureError> {
        let face = Face::new(size)?;
        let left = match align {
            Align::Left => x,
            Align::Centre => x - face.width(text) / 2.0,
            Align::Right => x - face.width(text),
        };
        let mut result = Ok(());
        face.draw(text, left, y, |x, y, coverage| {
            let ink = color.mix(f64::from(coverage.clamp(0.0, 1.0))).to_backend_color();
            if let (Ok(x), Ok(y), Ok(())) = (i32::try_from(x), i32::try_from(y), &result) {
                result = self.draw_pixel((x, y), ink).map_err(draw_error);
            }
        });
        result
    }
}

impl Backend for SVGBackend<'_> {
    fn text(
        &mut self,
        text: &str,
        x: f32,
        y: f32,
        size: f32,
        align: Align,
        color: RGBColor,
    ) -> Result<(), PictureError> {
        let horizontal = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        // The backend divides sizes by 1.24, and puts the base line 0.76 em below the point of text that hangs from its
        // top.
        let style =
            TextStyle::from((FAMILIES, f64::from(size) * 1.24)).color(&color).pos(Pos::new(horizontal, VPos::Top));
        let point = (x.round() as i32, (y - 0.76 * size).round() as i32);
        self.draw_text(text, &style, point).map_err(draw_error)
    }
}

fn scaled(points: &[(f32, f32)], scale: f32) -> impl Iterator<Item = (i32, i32)> {
    points.iter().map(move |&(x, y)| ((x * scale).round() as i32, (y * scale).round() as i32))
}

fn draw_error(error: impl std::fmt::Display) -> PictureError {
    PictureError::Draw(error.to_string())
}
