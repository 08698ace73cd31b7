//! One image: from a JPEG or PNG file to the bytes that a set stores. Knows neither archives nor classes.

use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};

use crate::formats::centre;
use crate::resample::{Filter, Interleaved, short_side};

/// Three colours, as every image is stored: grey ones have the same three times, four inks become three colours.
pub(super) type Rgb = Interleaved<3>;

/// The longest side of an image that is decoded; the memory of decoding is limited to 1 GB besides.
const MAX_SIDE: u32 = 50_000;

/// What is done with an image after it is decoded, in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recipe {
    /// Cut the largest square out of the middle, its corner rounded down.
    pub(super) square: bool,
    /// Resize it so that its shorter side is so long.
    pub(super) resize: Option<usize>,
    pub(super) filter: Filter,
    /// Cut a square of this side out of the middle.
    pub(super) crop: Option<usize>,
}

impl Recipe {
    pub(super) fn apply(&self, mut image: Rgb) -> Result<Rgb, String> {
        if self.square {
            let side = image.height.min(image.width);
            image = image.window([(image.height - side) / 2, (image.width - side) / 2], [side, side]);
        }
        if let Some(side) = self.resize {
            let size = short_side([image.height, image.width], side);
            image = image.resized(size, self.filter);
        }
        if let Some(side) = self.crop {
            if side > image.height.min(image.width) {
                let (height, width) = (image.height, image.width);
                return Err(format!("it has {height} × {width} pixels, too few to cut out {side} × {side}"));
            }
            image = image.window([centre(image.height, side), centre(image.width, side)], [side, side]);
        }
        Ok(image)
    }
}

/// Decodes a file, or says what is wrong with it.
pub(super) fn decode(file: &[u8]) -> Result<Rgb, String> {
    let image = reader(file)?.decode().map_err(|error| error.to_string())?.into_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Interleaved { pixels: image.into_raw(), height, width })
}

/// Height and width of a file's image, from its head alone.
pub(super) fn size(file: &[u8]) -> Result<[usize; 2], String> {
    let (width, height) = reader(file)?.into_dimensions().map_err(|error| error.to_string())?;
    Ok([height as usize, width as usize])
}

fn reader(file: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|error| error.to_string())?;
    match reader.format() {
        // Decoders fill up what is missing of a JPEG file with grey and say nothing.
        Some(ImageFormat::Jpeg) if !is_whole_jpeg(file) => {
            return Err("it is cut off: a JPEG file without an end".to_owned());
        }
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        _ => return Err("it is neither a JPEG nor a PNG file".to_owned()),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    Ok(reader)
}

/// Whether the mark of the end stands behind the last mark of a scan's start. In coded pixels neither can stand; in a thumbnail both do, before those.
fn is_whole_jpeg(file: &[u8]) -> bool {
    let last = |mark: u8| file.windows(2).rposition(|pair| pair == [0xff, mark]);
    last(0xd9).is_some_and(|end| last(0xda).is_none_or(|scan| scan < end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/datasets/fixtures");
        std::fs::read(folder.join(name)).unwrap()
    }

    /// The largest and the mean difference from what Pillow 13 decodes (`tests/engine/datasets/make_fixtures.py`).
    fn difference(name: &str) -> (u8, f64) {
        let (ours, pillow) = (decode(&fixture(name)).unwrap(), decode(&fixture(&format!("{name}.png"))).unwrap());
        assert_eq!([ours.height, ours.width], [pillow.height, pillow.width]);
        let differences = ours.pixels.iter().zip(&pillow.pixels).map(|(a, b)| a.abs_diff(*b));
        let mean = differences.clone().map(f64::from).sum::<f64>() / ours.pixels.len() as f64;
        (differences.max().unwrap(), mean)
    }

    #[test]
    fn files_are_decoded_almost_as_pillow_does_it() {
        assert_eq!(difference("palette.png"), (0, 0.0));
        assert_eq!(difference("alpha.png"), (0, 0.0));
        // The two JPEG decoders round colours otherwise, and more so where colours are stored in half the size.
        for (name, largest, mean) in [
            ("grey.jpg", 1, 0.1),
            ("full.jpg", 2, 0.5),
            ("plain.jpg", 4, 0.6),
            ("progressive.jpg", 4, 0.6),
            ("cmyk.jpg", 3, 0.8),
        ] {
            let found = difference(name);
            assert!(found.0 <= largest && found.1 <= mean, "{name}: {found:?}");
        }
    }

    #[test]
    fn a_jpeg_file_that_ends_too_early_is_told_wherever_it_ends() {
        let file = fixture("progressive.jpg");
        assert_eq!(size(&file).unwrap(), [48, 61]);
        for end in (2..file.len()).step_by(37) {
            assert!(decode(&file[..end]).is_err(), "{end} of {}", file.len());
        }
    }

    #[test]
    fn squares_and_windows_are_cut_where_they_should_be() {
        let image = Rgb { pixels: (0..3 * 35).collect(), height: 5, width: 7 };
        let square = Recipe { square: true, ..Recipe::default() }.apply(image.clone()).unwrap();
        assert_eq!((square.height, square.width, square.pixels[0]), (5, 5, 3));
        let window = Recipe { crop: Some(2), ..Recipe::default() }.apply(image.clone()).unwrap();
        // Rows 2 and 3 (1.5 rounded to the even number), columns 2 and 3 (2.5 likewise).
        assert_eq!(window.pixels[..3], [(2 * 7 + 2) * 3, (2 * 7 + 2) * 3 + 1, (2 * 7 + 2) * 3 + 2]);
        assert_eq!(window.planes()[..4], [48, 51, 69, 72]);
        assert!(Recipe { crop: Some(6), ..Recipe::default() }.apply(image).is_err());
    }
}
