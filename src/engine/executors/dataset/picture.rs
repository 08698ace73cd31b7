//! One image: from a JPEG, PNG, BMP or WebP file to the bytes that a set stores. Knows neither archives nor classes.

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
    let mut file = file;
    let format = image::guess_format(file).ok();
    match format {
        // Decoders fill up what is missing of a JPEG file with grey and say nothing. What follows its end (another
        // picture, a film) is not its own.
        Some(ImageFormat::Jpeg) => match end_of_jpeg(file) {
            Some(end) => file = &file[..end],
            None => return Err("it is cut off: a JPEG file without an end".to_owned()),
        },
        Some(ImageFormat::Png | ImageFormat::Bmp | ImageFormat::WebP) => {}
        Some(other) => {
            return Err(format!("it is a {other:?} file, which is not read; convert it to PNG").replace("Tiff", "TIFF"));
        }
        None => return Err("it is neither a JPEG nor a PNG, BMP or WebP file".to_owned()),
    }
    let mut reader = ImageReader::new(Cursor::new(file));
    if let Some(format) = format {
        reader.set_format(format);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    Ok(reader)
}

/// Where the JPEG picture that a file begins with ends; nothing where its end is missing. Segments are passed by their
/// lengths, so that marks within them, such as those of a thumbnail, count for nothing.
fn end_of_jpeg(file: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        // Coded pixels, and what decoders skip between segments, end at a mark: 0xff and a byte that neither fills up
        // nor belongs to the pixels.
        at += file.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        while *file.get(at)? == 0xff {
            at += 1;
        }
        match *file.get(at)? {
            0xd9 => return Some(at + 1),
            // A coded byte 0xff, a mark of restart, the start of a picture, TEM: nothing belongs to them.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
            _ => {
                let length = usize::from(u16::from_be_bytes([*file.get(at + 1)?, *file.get(at + 2)?]));
                at += 1 + length.max(2);
            }
        }
    }
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

    /// A segment with a length.
    fn segment(mark: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, mark], &((content.len() + 2) as u16).to_be_bytes()[..], content].concat()
    }

    #[test]
    fn what_follows_the_end_of_a_picture_is_not_its_own() {
        let scan_mark = [0xff, 0xda, 1, 2];
        for name in ["plain.jpg", "progressive.jpg", "cmyk.jpg", "grey.jpg", "palette.png"] {
            let file = fixture(name);
            let whole = decode(&file).unwrap();
            for more in [&scan_mark[..], &[0xff, 0xd8, 0xff, 0xda], &[0; 700], &file, b"\x00\x00\x00\x18ftypmp42"] {
                let longer = [&file[..], more].concat();
                assert_eq!(decode(&longer).map(|image| image.pixels), Ok(whole.pixels.clone()), "{name}");
            }
        }
    }

    #[test]
    fn marks_within_segments_and_filling_bytes_do_not_end_a_picture() {
        let file = fixture("plain.jpg");
        let whole = decode(&file).unwrap();
        let thumbnail = segment(0xe1, &fixture("grey.jpg"));
        let with = [&file[..2], &thumbnail, &[0xff; 5], &segment(0xfe, b"\xff\xd9"), &file[2..]].concat();
        assert_eq!(decode(&with).unwrap().pixels, whole.pixels);
        // Its thumbnail is whole, the picture is not.
        for end in [with.len() - 2, with.len() - 1, with.len() - 300, 2 + thumbnail.len()] {
            assert!(decode(&with[..end]).unwrap_err().contains("cut off"), "{end} of {}", with.len());
        }
        assert_eq!(end_of_jpeg(b"\xff\xd8\xff\xda\x00\x02\x12\xff\x00\xff\xd3\xff\xff\xd9rest"), Some(14));
    }

    #[test]
    fn pictures_of_windows_and_of_the_web_are_read() {
        let image = image::RgbImage::from_fn(9, 5, |x, y| image::Rgb([x as u8 * 20, y as u8 * 40, 77]));
        for format in [ImageFormat::Bmp, ImageFormat::WebP] {
            let mut out = Cursor::new(Vec::new());
            image.write_to(&mut out, format).unwrap();
            assert_eq!(decode(out.get_ref()).unwrap().pixels, *image.as_raw(), "{format:?}");
        }
        assert!(decode(b"GIF89a\x01\x00").unwrap_err().contains("convert it to PNG"));
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
