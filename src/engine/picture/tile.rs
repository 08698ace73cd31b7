//! The images that pictures show.

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

impl Tile {
    /// Whether its bytes fit its size.
    pub(super) fn is_whole(&self) -> bool {
        u64::from(self.width) * u64::from(self.height) * 3 == self.rgb.len() as u64
    }

    /// One byte a pixel, where all of them are grey.
    pub(super) fn grey(&self) -> Option<Vec<u8>> {
        let is_grey = self.rgb.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        is_grey.then(|| self.rgb.iter().step_by(3).copied().collect())
    }
}
