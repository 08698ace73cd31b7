//! Drawings as files: PNG, SVG and PDF.

use super::drawing::Drawing;
use super::{PictureError, pdf, png, svg};

impl Drawing {
    /// The picture as a PNG.
    ///
    /// # Errors
    /// [`PictureError::TooLarge`].
    pub fn png(&self) -> Result<Vec<u8>, PictureError> {
        png::draw(self)?.png()
    }

    /// The picture as a PNG of few bytes: slower to write.
    ///
    /// # Errors
    /// [`PictureError::TooLarge`].
    pub fn small_png(&self) -> Result<Vec<u8>, PictureError> {
        png::draw(self)?.small_png()
    }

    /// The picture as an SVG. Its text is text, in the viewer's sans-serif font; its images are not smoothed.
    ///
    /// # Errors
    /// [`PictureError::Png`].
    pub fn svg(&self) -> Result<String, PictureError> {
        svg::draw(self)
    }

    /// The picture as a PDF of one page of its size. Its text is text, in the embedded font; its images are not
    /// smoothed. The same picture gives the same bytes.
    ///
    /// # Errors
    /// [`PictureError::Draw`] if the library refuses.
    pub fn pdf(&self) -> Result<Vec<u8>, PictureError> {
        pdf::draw(self)
    }
}
