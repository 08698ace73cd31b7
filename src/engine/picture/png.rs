//! Drawings as bitmaps.

use plotters::prelude::{BitMapBackend, DrawingBackend, RGBColor, ShapeStyle};
use plotters::style::Color as _;

use super::PictureError;
use super::bitmap::Bitmap;
use super::drawing::{Color, DASH, Drawing, Shape, Spot, Text};
use super::text::Face;
use super::tile::Tile;

/// Draws a picture on white.
pub(super) fn draw(drawing: &Drawing) -> Result<Bitmap, PictureError> {
    let factor = drawing.raster.pixels * drawing.raster.oversampling;
    let pixels = |units: f32| units.max(1.0).ceil() as u64 * u64::from(factor);
    let mut canvas =
        Canvas { bitmap: Bitmap::white(pixels(drawing.size.0), pixels(drawing.size.1))?, factor, scale: factor as f32 };
    drawing.shapes.iter().try_for_each(|shape| canvas.shape(shape))?;
    Ok(match drawing.raster.oversampling {
        0 | 1 => canvas.bitmap,
        oversampling => canvas.bitmap.averaged(oversampling),
    })
}

struct Canvas {
    bitmap: Bitmap,
    factor: u32,
    scale: f32,
}

impl Canvas {
    fn shape(&mut self, shape: &Shape) -> Result<(), PictureError> {
        match shape {
            Shape::Line { points, color, width, dashed: false } => self.line(points, *color, *width),
            Shape::Line { points, color, width, dashed: true } => {
                dashes(points, *width).iter().try_for_each(|dash| self.line(dash, *color, *width))
            }
            Shape::Fill { points, color, opacity } => {
                let style = ShapeStyle { color: ink(*color).mix(f64::from(*opacity)), filled: true, stroke_width: 0 };
                let points = self.scaled(points);
                self.backend().fill_polygon(points, &style).map_err(draw_error)
            }
            Shape::Text(text) => self.text(text),
            Shape::Image { tile, at, scale } => {
                self.image(tile, *at, scale * self.factor);
                Ok(())
            }
        }
    }

    fn line(&mut self, points: &[Spot], color: Color, width: f32) -> Result<(), PictureError> {
        let stroke_width = (width * self.scale).round().max(1.0) as u32;
        let style = ShapeStyle { color: ink(color).mix(1.0), filled: false, stroke_width };
        let points = self.scaled(points);
        self.backend().draw_path(points, &style).map_err(draw_error)
    }

    fn text(&mut self, text: &Text) -> Result<(), PictureError> {
        let face = Face::new(text.size * self.scale)?;
        let (x, y) = (text.at.0 * self.scale, text.at.1 * self.scale);
        // Whole pixels for the start and the base line keep stems sharp.
        face.draw(&text.text, x.round(), y.round(), |x, y, coverage| self.bitmap.blend(x, y, text.color, coverage));
        Ok(())
    }

    /// Nearest-neighbour enlargement, row by row.
    fn image(&mut self, tile: &Tile, (left, top): Spot, scale: u32) {
        let (left, top) = ((left * self.scale) as usize, (top * self.scale) as usize);
        let stride = self.bitmap.width as usize * 3;
        for y in 0..(tile.height * scale) as usize {
            let source = &tile.rgb[y / scale as usize * tile.width as usize * 3..][..tile.width as usize * 3];
            let start = (top + y) * stride + left * 3;
            let target = &mut self.bitmap.rgb[start..start + source.len() * scale as usize];
            for (pixel, copies) in source.chunks_exact(3).zip(target.chunks_exact_mut(3 * scale as usize)) {
                copies.chunks_exact_mut(3).for_each(|copy| copy.copy_from_slice(pixel));
            }
        }
    }

    fn backend(&mut self) -> BitMapBackend<'_> {
        let size = (self.bitmap.width, self.bitmap.height);
        BitMapBackend::with_buffer(&mut self.bitmap.rgb, size)
    }

    fn scaled(&self, points: &[Spot]) -> Vec<(i32, i32)> {
        let pixel = |units: f32| (units * self.scale).round() as i32;
        points.iter().map(|&(x, y)| (pixel(x), pixel(y))).collect()
    }
}

/// The dashes of a line through points: plotters draws none on a bitmap.
fn dashes(points: &[Spot], width: f32) -> Vec<Vec<Spot>> {
    let lengths = [DASH.0 * width, DASH.1 * width];
    let (mut all, mut dash) = (Vec::new(), Vec::new());
    let (mut phase, mut left) = (0, lengths[0]);
    for pair in points.windows(2) {
        let ((x, y), (dx, dy)) = (pair[0], (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1));
        let length = dx.hypot(dy);
        let mut done = 0.0;
        if phase == 0 {
            dash.push(pair[0]);
        }
        while length - done > left {
            done += left;
            let at = (x + dx * done / length, y + dy * done / length);
            dash.push(at);
            if phase == 0 {
                all.push(std::mem::take(&mut dash));
            } else {
                dash = vec![at];
            }
            phase = 1 - phase;
            left = lengths[phase];
        }
        left -= length - done;
    }
    if let (0, Some(&last)) = (phase, points.last()) {
        dash.push(last);
        all.push(dash);
    }
    all
}

const fn ink([r, g, b]: Color) -> RGBColor {
    RGBColor(r, g, b)
}

fn draw_error(error: impl std::fmt::Display) -> PictureError {
    PictureError::Draw(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_their_share_of_a_line_and_turn_with_it() {
        let found = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 9.0)], 1.0);
        // A dash of 3.5 and a gap of 2.5: the second dash ends in the corner, the fourth is cut off.
        let expected = [
            vec![(0.0, 0.0), (3.5, 0.0)],
            vec![(6.0, 0.0), (9.5, 0.0)],
            vec![(10.0, 2.0), (10.0, 5.5)],
            vec![(10.0, 8.0), (10.0, 9.0)],
        ];
        assert_eq!(found, expected);
        assert_eq!(dashes(&[(0.0, 0.0), (2.0, 0.0), (2.0, 1.0)], 1.0), [[(0.0, 0.0), (2.0, 0.0), (2.0, 1.0)]]);
    }
}
