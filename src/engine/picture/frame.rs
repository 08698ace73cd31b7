//! What diagrams have around their plots: the size on paper, and a title.

use super::PictureError;
use super::drawing::{Align, Drawing, PIXEL, Raster};
use super::style::{INK, TEXT};
use super::text::Face;
use crate::stage_kinds::PictureSize;

/// A point of print in millimetres.
pub(super) const POINT: f32 = 25.4 / 72.0;
/// Text of a picture of a given size, in points, where nobody asks for another: a little smaller than that around it.
pub(super) const PRINT_TEXT: f32 = 8.0;
const MARGIN: f32 = 16.0;
/// On a page there is white around a picture already.
pub(super) const PRINT_MARGIN: f32 = 2.0;
/// Units per em of a title, from one of its lines to the next, and below the last.
const TITLE: (f32, f32, f32) = (17.0, 23.0, 6.0);

/// A PNG has two pixels a unit, for screens of high density and for print.
pub(super) const RASTER: Raster = Raster { pixels: 2, oversampling: 3 };

/// The size of a diagram on paper, in units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Points of print a unit.
    pub(super) unit: f32,
    pub(super) margin: f32,
    /// As wide and high as asked for; as its parts ask for where nobody asks.
    pub(super) width: Option<f32>,
    pub(super) height: Option<f32>,
}

impl Frame {
    pub(super) fn new(size: Option<PictureSize>) -> Self {
        let unit = size.map_or(PIXEL, |size| size.text.map_or(PRINT_TEXT, |text| text.get() as f32) / TEXT);
        let units = |millimetres: f64| millimetres as f32 / POINT / unit;
        Frame {
            unit,
            margin: if size.is_some() { PRINT_MARGIN } else { MARGIN },
            width: size.map(|size| units(size.width.get())),
            height: size.and_then(|size| size.height).map(|height| units(height.get())),
        }
    }
}

/// A title that is broken into lines.
#[derive(Debug)]
pub(super) struct Title(Vec<String>);

impl Title {
    /// The title in lines of this width.
    pub(super) fn new(text: Option<&str>, width: f32) -> Result<Self, PictureError> {
        let face = Face::new(TITLE.0)?;
        Ok(Title(text.map_or(vec![], |text| face.wrap(text, width))))
    }

    /// How much it takes.
    pub(super) fn height(&self) -> f32 {
        self.0.len() as f32 * TITLE.1 + if self.0.is_empty() { 0.0 } else { TITLE.2 }
    }

    /// Draws it at the top left corner, inside of a margin.
    pub(super) fn draw(&self, canvas: &mut Drawing, margin: f32) -> Result<(), PictureError> {
        let face = Face::new(TITLE.0)?;
        for (index, line) in self.0.iter().enumerate() {
            let at = (margin, margin + 16.0 + index as f32 * TITLE.1);
            canvas.text(face, line, at, Align::Left, INK);
        }
        Ok(())
    }
}
