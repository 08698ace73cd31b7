//! Arrays of NumPy in their file format
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>), read image by image.
//! Object arrays are pickles and are refused. Knows nothing of archives.

use std::io::{self, Read};

use npyz::{Deserialize, NpyFile, NpyHeader, NpyReader, Order};

/// The longest text of a header, in bytes. That of an array of images has about 100.
const MAX_HEADER: usize = 1000;
/// Most digits of all numbers of a header, so that no product of them is too large to count.
const MAX_DIGITS: usize = 18;
/// Most labels of an array.
const MAX_LABELS: u64 = 4_000_000;
/// The largest image, in bytes.
const MAX_IMAGE: u64 = 1 << 30;

/// Why an array cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::executors) enum NpyError {
    #[error("it is no array of NumPy: it does not begin with `\\x93NUMPY`")]
    Unknown,
    #[error("its header makes no sense: {0}")]
    Header(String),
    #[error("it is an array of Python objects, which are pickles and are not read: save numbers")]
    Pickle,
    #[error("it is in Fortran order: save `numpy.ascontiguousarray(images)`")]
    Order,
    #[error("its elements are of the type {found}; images are unsigned bytes (`uint8`), or floats from 0 to 1")]
    ImageType { found: String },
    #[error("its elements are of the type {found}; labels are whole numbers")]
    LabelType { found: String },
    #[error("it has the shape {found:?}; images have N × height × width, or N × height × width × 1 or 3")]
    ImageShape { found: Vec<u64> },
    #[error("it has the shape {found:?}; labels have N or N × 1: one class for each image")]
    LabelShape { found: Vec<u64> },
    #[error("it has {count} labels, more than the {MAX_LABELS} that are read")]
    Labels { count: u64 },
    #[error("image {index} has a pixel of {value}; floats go from 0 to 1: divide them by 255, or save `uint8`")]
    Range { index: u64, value: f64 },
    #[error("it is cut off, or cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a header, if it is one that an array of images or labels may have.
fn open<R: Read>(mut reader: R) -> Result<NpyFile<R>, NpyError> {
    let mut head = vec![0; 10];
    reader.read_exact(&mut head).map_err(|_| NpyError::Unknown)?;
    if !head.starts_with(b"\x93NUMPY") {
        return Err(NpyError::Unknown);
    }
    let mut length = usize::from(u16::from_le_bytes([head[8], head[9]]));
    if head[6] > 1 {
        // Later versions have four bytes there.
        head.extend([0; 2]);
        reader.read_exact(&mut head[10..])?;
        length |= usize::from(u16::from_le_bytes([head[10], head[11]])) << 16;
    }
    if length > MAX_HEADER {
        return Err(NpyError::Header(format!("it has {length} bytes")));
    }
    let start = head.len();
    head.resize(start + length, 0);
    reader.read_exact(&mut head[start..])?;
    if head[start..].iter().filter(|byte| byte.is_ascii_digit()).count() > MAX_DIGITS {
        return Err(NpyError::Header("its shape is too large".to_owned()));
    }
    let header = NpyHeader::from_reader(&head[..]).map_err(|error| NpyError::Header(error.to_string()))?;
    if header.uses_pickled_array() {
        return Err(NpyError::Pickle);
    }
    Ok(NpyFile::with_header(header, reader))
}

/// The labels of an array of whole numbers, of the shape N or N × 1.
pub(super) fn labels(reader: impl Read) -> Result<Vec<i64>, NpyError> {
    let file = open(reader)?;
    match *file.shape() {
        [count] | [count, 1] if count <= MAX_LABELS => {}
        [count] | [count, 1] => return Err(NpyError::Labels { count }),
        _ => return Err(NpyError::LabelShape { found: file.shape().to_vec() }),
    }
    let file = match integers::<u8, _>(file) {
        Ok(labels) => return labels,
        Err(file) => file,
    };
    let file = match integers::<i64, _>(file) {
        Ok(labels) => return labels,
        Err(file) => file,
    };
    let file = match integers::<i32, _>(file) {
        Ok(labels) => return labels,
        Err(file) => file,
    };
    let file = match integers::<i16, _>(file).or_else(integers::<i8, _>).or_else(integers::<u16, _>) {
        Ok(labels) => return labels,
        Err(file) => file,
    };
    match integers::<u32, _>(file).or_else(integers::<u64, _>) {
        Ok(labels) => labels,
        Err(file) => Err(NpyError::LabelType { found: file.dtype().descr() }),
    }
}

/// The elements, if they are of this type; the file otherwise.
fn integers<T: Deserialize + TryInto<i64>, R: Read>(
    file: NpyFile<R>,
) -> Result<Result<Vec<i64>, NpyError>, NpyFile<R>> {
    let too_large = || NpyError::Header("a label is too large".to_owned());
    let elements = file.try_data::<T>()?;
    Ok(elements.map(|label| label?.try_into().map_err(|_| too_large())).collect())
}

/// Images of one size, one after the other.
pub(super) struct Images<R: Read> {
    pixels: Pixels<R>,
    next: u64,
    /// How many there are.
    pub(super) count: u64,
    /// 1 or 3.
    pub(super) channels: usize,
    /// Height and width, in pixels.
    pub(super) size: [usize; 2],
}

enum Pixels<R: Read> {
    Bytes(NpyReader<u8, R>),
    Single(NpyReader<f32, R>),
    Double(NpyReader<f64, R>),
}

impl<R: Read> Images<R> {
    /// Reads the header of an array of images.
    pub(super) fn open(reader: R) -> Result<Self, NpyError> {
        let file = open(reader)?;
        let shape = || NpyError::ImageShape { found: file.shape().to_vec() };
        let [count, height, width, channels] = match *file.shape() {
            [count, height, width] => [count, height, width, 1],
            [count, height, width, channels @ (1 | 3)] => [count, height, width, channels],
            _ => return Err(shape()),
        };
        if height * width == 0 || height * width > MAX_IMAGE / channels {
            return Err(shape());
        }
        if file.order() == Order::Fortran && count * height * width > 1 {
            return Err(NpyError::Order);
        }
        let (size, channels) = ([height as usize, width as usize], channels as usize);
        let pixels = match file.try_data::<u8>().map(Pixels::Bytes) {
            Ok(pixels) => pixels,
            Err(file) => match file.try_data::<f32>().map(Pixels::Single) {
                Ok(pixels) => pixels,
                Err(file) => match file.try_data::<f64>() {
                    Ok(pixels) => Pixels::Double(pixels),
                    Err(file) => return Err(NpyError::ImageType { found: file.dtype().descr() }),
                },
            },
        };
        Ok(Images { pixels, next: 0, count, channels, size })
    }

    /// Bytes of all pixels as a set stores them.
    pub(super) fn bytes(&self) -> u64 {
        self.count.saturating_mul((self.channels * self.size[0] * self.size[1]) as u64)
    }

    /// The next image, each channel by itself, 0 black to 255 white.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, NpyError> {
        let places = self.size[0] * self.size[1];
        let mut planes = vec![0; self.channels * places];
        for place in 0..places {
            for channel in 0..self.channels {
                planes[channel * places + place] = self.pixel()?;
            }
        }
        self.next += 1;
        Ok(planes)
    }

    fn pixel(&mut self) -> Result<u8, NpyError> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let value = match &mut self.pixels {
            Pixels::Bytes(bytes) => return Ok(bytes.next().ok_or_else(end)??),
            Pixels::Single(values) => f64::from(values.next().ok_or_else(end)??),
            Pixels::Double(values) => values.next().ok_or_else(end)??,
        };
        if !(0.0..=1.0).contains(&value) {
            return Err(NpyError::Range { index: self.next, value });
        }
        Ok((value * 255.0).round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array as NumPy writes it, version 1.0.
    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        text += &" ".repeat(63 - (10 + text.len()) % 64);
        text.push('\n');
        [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
    }

    fn image_error(descr: &str, shape: &str, data: &[u8]) -> String {
        let file = array(descr, shape, data);
        Images::open(&file[..]).and_then(|mut images| images.read()).unwrap_err().to_string()
    }

    #[test]
    fn images_are_read_channel_by_channel() {
        let file = array("|u1", "(2, 1, 2, 3)", &(0..12).collect::<Vec<u8>>());
        let mut images = Images::open(&file[..]).unwrap();
        assert_eq!((images.count, images.channels, images.size), (2, 3, [1, 2]));
        assert_eq!(images.read().unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(images.read().unwrap(), [6, 9, 7, 10, 8, 11]);
        let halves = [0.0_f32, 0.5, 1.0, 0.1].map(f32::to_be_bytes).concat();
        let file = array(">f4", "(1, 2, 2)", &halves);
        assert_eq!(Images::open(&file[..]).unwrap().read().unwrap(), [0, 128, 255, 26]);
    }

    #[test]
    fn what_is_no_array_of_images_says_why() {
        assert!(image_error("|O", "(1, 2, 2)", &[]).contains("pickles"));
        assert!(image_error("<i8", "(1, 2, 2)", &[]).contains("type '<i8'"));
        assert!(image_error("|u1", "(1, 3, 2, 2)", &[]).contains("shape [1, 3, 2, 2]"));
        assert!(image_error("|u1", "(1, 2, 2)", &[1, 2, 3]).contains("cut off"));
        assert!(image_error("|u1", "(9999999999, 9999999999, 2)", &[]).contains("too large"));
        assert!(
            image_error("<f4", "(1, 1, 1)", &2.0_f32.to_le_bytes()).contains("a pixel of 2; floats go from 0 to 1")
        );
        assert!(image_error("<f4", "(1, 1, 1)", &f32::NAN.to_le_bytes()).contains("NaN"));
        assert!(Images::open(&b"PK\x03\x04 and more"[..]).is_err());
        let nested = array("|u1", &"(".repeat(2000), &[]);
        assert!(Images::open(&nested[..]).is_err());
    }

    #[test]
    fn labels_are_whole_numbers_of_any_size() {
        assert_eq!(labels(&array("|u1", "(2, 1)", &[3, 0])[..]).unwrap(), [3, 0]);
        assert_eq!(labels(&array("<i4", "(2,)", &[1_i32, -1].map(i32::to_le_bytes).concat())[..]).unwrap(), [1, -1]);
        assert_eq!(labels(&array(">i8", "(1,)", &7_i64.to_be_bytes())[..]).unwrap(), [7]);
        let error = |descr: &str, shape: &str| labels(&array(descr, shape, &[0; 64])[..]).unwrap_err().to_string();
        assert!(error("<f4", "(2,)").contains("labels are whole numbers"));
        assert!(error("|u1", "(2, 14)").contains("one class for each image"));
        assert!(error("|u1", "(2, 14)").contains("[2, 14]"));
    }
}
