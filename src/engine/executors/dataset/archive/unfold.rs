//! What form an archive has, by its first bytes, and how a compressed tar archive is unfolded. Memory is bounded
//! whatever the file says of itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use super::{ArchiveError, MAX_RATIO, MUCH, Shared};

/// The memory that unfolding xz may take, in KiB: `xz -9` needs 65 MiB, its largest dictionaries 1.5 GiB.
const XZ_MEMORY: u32 = 1 << 20;
const BUFFER: usize = 1 << 18;

/// A way to compress a tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Bzip2,
    Zstd,
    Lzip,
}

/// What a file is by its first bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    Zip,
    Packed(Packing),
    /// Something that is known by name and not read.
    Foreign(&'static str),
    /// A tar archive, perhaps; its first bytes say nothing.
    Other,
}

/// How the forms that are known by name begin.
const FOREIGN: [(&[u8], &str); 14] = [
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"MSCF", "a cab archive"),
    (b"!<arch>", "an ar archive (such as a .deb package)"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"\x1f\x9d", "compressed by `compress` (.Z)"),
    (b"\x5d\x00\x00", "compressed as .lzma"),
    (b"\x04\x22\x4d\x18", "compressed by `lz4`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"hsqs", "a squashfs image"),
    (b"PAR1", "a Parquet file"),
];

/// The form of a file that begins with these bytes.
pub(super) fn form(start: &[u8]) -> Form {
    match start {
        [b'P', b'K', 3 | 5 | 7, ..] => Form::Zip,
        [0x1f, 0x8b, ..] => Form::Packed(Packing::Gzip),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Form::Packed(Packing::Xz),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Form::Packed(Packing::Bzip2),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Form::Packed(Packing::Zstd),
        [b'L', b'Z', b'I', b'P', ..] => Form::Packed(Packing::Lzip),
        _ => match FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, name)) => Form::Foreign(name),
            None => Form::Other,
        },
    }
}

/// The bytes of a compressed file, in a nameless file that is gone once it is closed.
pub(super) fn unfold(
    file: Shared,
    packing: Packing,
    scratch: &Path,
    go_on: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<File, ArchiveError> {
    let packed = file.length;
    let most = MUCH.max(packed.saturating_mul(MAX_RATIO));
    let mut to = tempfile::tempfile_in(scratch)?;
    let from = BufReader::with_capacity(BUFFER, file);
    let mut from: Box<dyn Read> = match packing {
        Packing::Gzip => Box::new(Members { member: Some(flate2::bufread::GzDecoder::new(from)) }),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(from, true, XZ_MEMORY)),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
        // The library refuses windows above 128 MiB, the default of the program as well.
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(from)?),
        Packing::Lzip => Box::new(lzma_rust2::LzipReader::new(from)),
    };
    let mut buffer = vec![0; 1 << 20];
    let mut whole: u64 = 0;
    loop {
        if go_on(whole).is_break() {
            return Err(ArchiveError::Stopped);
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(to),
            Ok(count) => count,
            Err(error) => return Err(ArchiveError::Damaged { reason: format!("after {whole} good bytes: {error}") }),
        };
        whole += count as u64;
        if whole > most {
            return Err(ArchiveError::Bomb { packed });
        }
        io::Write::write_all(&mut to, &buffer[..count])?;
    }
}

/// The members of a gzip file one behind the other. Zeros behind them fill up a tape and end it, as they do for `gzip`.
struct Members<R> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(flate2::bufread::GzDecoder::into_inner) else { break };
            if rest.fill_buf()?.first().is_some_and(|&byte| byte != 0) {
                self.member = Some(flate2::bufread::GzDecoder::new(rest));
            } else {
                loop {
                    let piece = rest.fill_buf()?;
                    let length = piece.len();
                    if length == 0 {
                        break;
                    }
                    if piece.iter().any(|&byte| byte != 0) {
                        return Err(io::Error::other("there are other bytes behind its end"));
                    }
                    rest.consume(length);
                }
            }
        }
        Ok(0)
    }
}
