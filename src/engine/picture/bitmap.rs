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
        let (width, height) = (self.width / factor, self.height / factor);
        let (side, area) = (factor as usize, factor * factor);
        let stride = self.width as usize * 3;
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        let mut sums = vec![0_u32; width as usize * 3];
        for rows in self.rgb.chunks_exact(stride * side) {
            sums.fill(0);
            for row in rows.chunks_exact(stride) {
                for (sum, square) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * side)) {
                    for (index, &value) in square.iter().enumerate() {
                        sum[index % 3] += u32::from(value);
                    }
                }
            }
            rgb.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
        }
        Bitmap { width, height, rgb }
    }

    /// The picture as a PNG file of few bytes: of one byte a pixel where all is grey, and well compressed.
    pub(super) fn small_png(&self) -> Result<Vec<u8>, PictureError> {
        let is_grey = self.rgb.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        let grey: Vec<u8> = if is_grey { self.rgb.iter().step_by(3).copied().collect() } else { Vec::new() };
        let (pixels, color) = match is_grey {
            true => (&grey, ExtendedColorType::L8),
            false => (&self.rgb, ExtendedColorType::Rgb8),
        };
        // Which of the two is smaller depends on how much of the picture is flat.
        let mut best: Option<Vec<u8>> = None;
        for filter in [FilterType::NoFilter, FilterType::Adaptive] {
            let mut bytes = Vec::new();
            let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, filter);
            encoder.write_image(pixels, self.width, self.height, color)?;
            if best.as_ref().is_none_or(|best| bytes.len() < best.len()) {
                best = Some(bytes);
            }
        }
        Ok(best.unwrap_or_default())
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

/// An encoder for images of a few thousand pixels, where no filter helps.
pub(super) fn small_encoder(bytes: &mut Vec<u8>) -> PngEncoder<&mut Vec<u8>> {
    PngEncoder::new_with_quality(bytes, CompressionType::Best, FilterType::NoFilter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_whole_squares() {
        let mut picture = Bitmap::white(5, 4).unwrap();
        picture.blend(0, 0, [0, 255, 100], 1.0);
        picture.blend(3, 3, [0, 0, 0], 0.5);
        picture.blend(4, 0, [0, 0, 0], 1.0);
        picture.blend(5, 0, [0, 0, 0], 1.0);
        let small = picture.averaged(2);
        assert_eq!((small.width, small.height), (2, 2));
        assert_eq!(small.rgb, [[191, 255, 216], [255; 3], [255; 3], [223; 3]].concat());
    }
}
