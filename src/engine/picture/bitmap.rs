//! An RGB picture in memory and its PNG.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::{MAX_PIXELS, PictureError};

/// An RGB picture, row by row, three bytes a pixel.
pub(super) struct Bitmap {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

impl Bitmap {
    /// A white picture.
    pub(super) fn white(width: u64, height: u64) -> Result<Self, PictureError> {
        let too_large = || PictureError::TooLarge { width, height };
        let pixels = width.checked_mul(height).filter(|&pixels| pixels <= MAX_PIXELS).ok_or_else(too_large)?;
        let side = |side: u64| u32::try_from(side).map_err(|_| too_large());
        Ok(Bitmap { width: side(width)?, height: side(height)?, rgb: vec![255; pixels as usize * 3] })
    }

    /// Lays `color` over a pixel with opacity `alpha`, 0 to 1; outside of the picture nothing happens.
    pub(super) fn blend(&mut self, x: i64, y: i64, color: [u8; 3], alpha: f32) {
        if x < 0 || y < 0 || x >= i64::from(self.width) || y >= i64::from(self.height) {
            return;
        }
        let at = (y as usize * self.width as usize + x as usize) * 3;
        for (below, above) in self.rgb[at..at + 3].iter_mut().zip(color) {
            let mixed = f32::from(*below) + (f32::from(above) - f32::from(*below)) * alpha.clamp(0.0, 1.0);
            *below = mixed.round() as u8;
        }
    }

    /// The picture with each square of `factor` × `factor` pixels averaged into one.
    pub(super) fn averaged(&self, factor: u32) -> Self {
        let (width, height, side) = (self.width / factor, self.height / factor, factor as usize);
        let stride = self.width as usize * 3;
        let mean = |x: usize, y: usize, channel: usize| {
            let row = |dy: usize| &self.rgb[(y * side + dy) * stride + x * side * 3..][..side * 3];
            let sum: u32 = (0..side).flat_map(|dy| row(dy)[channel..].iter().step_by(3)).map(|&v| u32::from(v)).sum();
            ((sum + factor * factor / 2) / (factor * factor)) as u8
        };
        let pixels = (0..height as usize).flat_map(|y| (0..width as usize).map(move |x| (x, y)));
        let rgb = pixels.flat_map(|(x, y)| [0, 1, 2].map(|channel| mean(x, y, channel))).collect();
        Bitmap { width, height, rgb }
    }

    /// The picture as a PNG file.
    pub(super) fn png(&self) -> Result<Vec<u8>, PictureError> {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive).write_image(
            &self.rgb,
            self.width,
            self.height,
            ExtendedColorType::Rgb8,
        )?;
        Ok(bytes)
    }
}
