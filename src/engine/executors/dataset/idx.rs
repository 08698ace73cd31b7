//! IDX, the files of MNIST and its relatives: two zero bytes, a byte for the type of the elements, a byte for the
//! number of dimensions, the dimensions as big-endian 32-bit numbers, then the elements
//! (<https://yann.lecun.org/exdb/mnist/>). Plain or gzip-compressed, told apart by their first bytes. Knows no labels
//! or images, only arrays of bytes.

use std::io::{self, BufRead, Read};

use flate2::read::MultiGzDecoder;

/// Elements are unsigned bytes; no other type is read.
const UNSIGNED_BYTE: u8 = 0x08;
/// The largest array that is read. The largest file of the family, EMNIST by class, has 0.5 GB.
const MAX_BYTES: u64 = 8 << 30;

/// An array of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::executors) struct Idx<const D: usize> {
    /// Length along each dimension; none is 0.
    pub(in crate::executors) shape: [usize; D],
    /// The elements, the last dimension running fastest.
    pub(in crate::executors) bytes: Vec<u8>,
}

/// Why some bytes are not the IDX file they should be.
#[derive(Debug, thiserror::Error)]
pub(in crate::executors) enum IdxError {
    #[error("the file is {found} bytes long, too short for an IDX header of {expected} bytes")]
    Header { found: usize, expected: usize },
    #[error("not an IDX file: it begins with the bytes {}, expected 00 00 08 {expected_dimensions:02x}", hex(found))]
    Magic { found: [u8; 4], expected_dimensions: u8 },
    #[error("its elements have type code 0x{found:02x} ({}), expected 0x08 (unsigned bytes)", type_name(*found))]
    ElementType { found: u8 },
    #[error("it has {found} dimensions ({}), expected {expected} ({})", content(*found), content(*expected))]
    Dimensions { found: u8, expected: u8 },
    #[error("it has no elements: its header declares the shape {shape:?}")]
    Empty { shape: Vec<u32> },
    #[error("its header declares the shape {shape:?}, more than the {MAX_BYTES} bytes that are read")]
    TooLarge { shape: Vec<u32> },
    #[error("it is truncated: its header declares {expected} bytes of elements, {found} are there")]
    Truncated { found: u64, expected: u64 },
    #[error("it goes on after the {expected} bytes of elements that its header declares")]
    Trailing { expected: u64 },
    #[error("its gzip compression is corrupt after {good} good bytes")]
    Gzip { good: u64, source: io::Error },
}

/// Reads an array of `D` dimensions from a whole file.
pub(in crate::executors) fn decode<const D: usize>(file: &[u8]) -> Result<Idx<D>, IdxError> {
    let gzip = file.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let corrupt = |good: usize, source| IdxError::Gzip { good: good as u64, source };

    let mut header = vec![];
    let expected = 4 + 4 * D;
    let read = reader.by_ref().take(expected as u64).read_to_end(&mut header);
    // The first four bytes tell more than a length when this is another file altogether.
    if let Some(&magic) = header.first_chunk::<4>() {
        check_magic(magic, D as u8)?;
    }
    read.map_err(|source| corrupt(header.len(), source))?;
    if header.len() < expected {
        return Err(IdxError::Header { found: header.len(), expected });
    }

    let dimension = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let declared: [u32; D] = std::array::from_fn(|index| dimension(4 + 4 * index));
    let shape = declared.to_vec();
    let product = declared.iter().try_fold(1_u64, |product, &length| product.checked_mul(u64::from(length)));
    let expected = match product {
        Some(0) => return Err(IdxError::Empty { shape }),
        Some(bytes) if bytes <= MAX_BYTES => bytes,
        _ => return Err(IdxError::TooLarge { shape }),
    };
    // The header is untrusted, so no memory is reserved for it: the vector grows as bytes arrive. Reading one byte more
    // than declared detects trailing data and makes the gzip reader verify its checksum.
    let mut bytes = vec![];
    let read = reader.take(expected + 1).read_to_end(&mut bytes);
    read.map_err(|source| corrupt(header.len() + bytes.len(), source))?;
    let found = bytes.len() as u64;
    if found < expected {
        return Err(IdxError::Truncated { found, expected });
    }
    if found > expected {
        return Err(IdxError::Trailing { expected });
    }
    Ok(Idx { shape: declared.map(|length| length as usize), bytes })
}

/// Reads the shape of images, count × height × width, from the beginning of a file; `None` if it is no such file.
pub(in crate::executors) fn shape_of_images(file: impl Read) -> Option<[u32; 3]> {
    const LENGTH: usize = 4 + 4 * 3;
    let mut file = io::BufReader::new(file);
    let gzip = file.fill_buf().ok()?.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut header = [0; LENGTH];
    reader.read_exact(&mut header).ok()?;
    let (magic, shape) = header.split_first_chunk::<4>()?;
    check_magic(*magic, 3).ok()?;
    let length = |at: usize| u32::from_be_bytes([shape[at], shape[at + 1], shape[at + 2], shape[at + 3]]);
    Some([length(0), length(4), length(8)])
}

fn check_magic(found: [u8; 4], expected_dimensions: u8) -> Result<(), IdxError> {
    match found {
        [0, 0, element, _] if type_name(element) == "unknown" => Err(IdxError::Magic { found, expected_dimensions }),
        [0, 0, UNSIGNED_BYTE, dimensions] if dimensions == expected_dimensions => Ok(()),
        [0, 0, UNSIGNED_BYTE, found] => Err(IdxError::Dimensions { found, expected: expected_dimensions }),
        [0, 0, found, _] => Err(IdxError::ElementType { found }),
        _ => Err(IdxError::Magic { found, expected_dimensions }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn type_name(code: u8) -> &'static str {
    match code {
        UNSIGNED_BYTE => "unsigned bytes",
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        0x0e => "64-bit floats",
        _ => "unknown",
    }
}

fn content(dimensions: u8) -> &'static str {
    match dimensions {
        1 => "as labels have",
        3 => "as images have",
        _ => "as neither images nor labels have",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(magic: [u8; 4], shape: &[u32], bytes: &[u8]) -> Vec<u8> {
        let shape = shape.iter().flat_map(|length| length.to_be_bytes());
        magic.into_iter().chain(shape).chain(bytes.iter().copied()).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const IMAGES: [u8; 4] = [0, 0, 8, 3];

    #[test]
    fn arrays_are_read_plain_and_compressed() {
        let pixels: Vec<u8> = (0..24).collect();
        let plain = file(IMAGES, &[2, 3, 4], &pixels);
        let expected = Idx { shape: [2, 3, 4], bytes: pixels };
        assert_eq!(decode::<3>(&plain).unwrap(), expected);
        assert_eq!(decode::<3>(&gzip(&plain)).unwrap(), expected);
        // Compressed in two parts, as `cat a.gz b.gz` makes it.
        assert_eq!(decode::<3>(&[gzip(&plain[..10]), gzip(&plain[10..])].concat()).unwrap(), expected);
        assert_eq!(decode::<1>(&file([0, 0, 8, 1], &[3], b"abc")).unwrap().bytes, b"abc");
    }

    #[test]
    fn every_broken_file_is_told_from_the_others() {
        let good = file(IMAGES, &[2, 3, 4], &[7; 24]);
        let packed = gzip(&good);
        let mut bad_sum = packed.clone();
        let at = bad_sum.len() - 6;
        bad_sum[at] ^= 1;
        let message = |bytes: &[u8]| decode::<3>(bytes).unwrap_err().to_string();
        let messages = [
            message(b""),
            message(&good[..9]),
            message(b"<!DOCTYPE html><p>404"),
            message(b"\x00\x00\x00\x00\x00\x00\x00\x00"),
            message(&file([0, 0, 0x0d, 3], &[2, 3, 4], &[7; 96])),
            message(&file([0, 0, 8, 1], &[24], &[7; 24])),
            message(&file(IMAGES, &[0, 28, 28], &[])),
            message(&good[..30]),
            message(&[&good[..], b"x"].concat()),
            message(&gzip(&good[..30])),
            message(&gzip(&[&good[..], b"x"].concat())),
            message(&packed[..packed.len() - 9]),
            message(&bad_sum),
            message(&file(IMAGES, &[u32::MAX; 3], &[])),
            // Within the limit and still a lie: nothing like 4 GB is reserved for it.
            message(&file(IMAGES, &[1 << 20, 64, 64], &[1, 2, 3])),
        ];
        insta::assert_snapshot!(messages.join("\n"), @r#"
        the file is 0 bytes long, too short for an IDX header of 16 bytes
        the file is 9 bytes long, too short for an IDX header of 16 bytes
        not an IDX file: it begins with the bytes 3c 21 44 4f, expected 00 00 08 03
        not an IDX file: it begins with the bytes 00 00 00 00, expected 00 00 08 03
        its elements have type code 0x0d (32-bit floats), expected 0x08 (unsigned bytes)
        it has 1 dimensions (as labels have), expected 3 (as images have)
        it has no elements: its header declares the shape [0, 28, 28]
        it is truncated: its header declares 24 bytes of elements, 14 are there
        it goes on after the 24 bytes of elements that its header declares
        it is truncated: its header declares 24 bytes of elements, 14 are there
        it goes on after the 24 bytes of elements that its header declares
        its gzip compression is corrupt after 40 good bytes
        its gzip compression is corrupt after 40 good bytes
        its header declares the shape [4294967295, 4294967295, 4294967295], more than the 8589934592 bytes that are read
        it is truncated: its header declares 4294967296 bytes of elements, 3 are there
        "#);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), compressed: bool) {
            let starts = [[0, 0, 8, 1], [0, 0, 8, 3], [0x1f, 0x8b, 8, 0]];
            for start in starts {
                let file = [&start[..], &bytes].concat();
                let file = if compressed { gzip(&file) } else { file };
                let _ = decode::<1>(&file);
                let _ = decode::<3>(&file);
            }
        }
    }
}
