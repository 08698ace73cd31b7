//! Content addresses: the BLAKE3 digest of bytes, files and streams. Knows nothing of the cache that is named by them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::regular::{check_regular, open_regular};

/// Length from which a file is read with a memory map; a map of a shorter one takes longer than reading it.
const MAPPED: u64 = 16 << 10;

/// So much of a file is copied at once.
const PIECE: usize = 256 << 10;

/// The BLAKE3 digest of some bytes; shown and stored as 64 lower-case hexadecimal digits, as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's bytes, read with a memory map on all cores.
    ///
    /// # Errors
    /// Whatever opening or reading the file gives.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        check_regular(path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// The digest of an open file's bytes. `path` is its name: a long file is read with a memory map on all cores.
    ///
    /// # Errors
    /// Whatever reading the file gives.
    pub(crate) fn of_open(file: &File, path: &Path) -> io::Result<Self> {
        if file.metadata()?.len() < MAPPED {
            return Ok(Self::of_reader(file)?.0);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        Ok(Digest(*hasher.finalize().as_bytes()))
    }

    /// Copies all that `from` gives; returns its digest and how many bytes that was.
    ///
    /// # Errors
    /// Whatever reading or writing gives.
    pub(crate) fn of_copy(mut from: impl Read, mut to: impl Write) -> io::Result<(Self, u64)> {
        let (mut hasher, mut size, mut buffer) = (blake3::Hasher::new(), 0, vec![0; PIECE]);
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), size)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..count]);
            to.write_all(&buffer[..count])?;
            size += count as u64;
        }
    }

    /// The digest of all that `reader` gives, and how many bytes that was.
    ///
    /// # Errors
    /// Whatever the reader gives.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hasher = blake3::Hasher::new();
        let size = io::copy(&mut reader, &mut hasher)?;
        Ok((Digest(*hasher.finalize().as_bytes()), size))
    }

    /// The first twelve digits, for people; never used as a name.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// Why bytes that were asked for by their digest could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file's bytes are not those its name promises.
    #[error("{path} holds other bytes than its digest says (expected {expected}, found {found})")]
    Corrupt {
        /// The file.
        path: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what is there.
        found: Digest,
    },
}

impl ReadError {
    /// Whether the file is corrupt or gone, so that it takes making it anew to read it.
    pub fn is_lost(&self) -> bool {
        match self {
            ReadError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            ReadError::Corrupt { .. } => true,
        }
    }
}

/// Reads a whole file and checks that its bytes have the digest `expected`, so that nothing is computed from corrupt
/// input.
///
/// # Errors
/// [`ReadError::Io`] if it cannot be read, [`ReadError::Corrupt`] if the bytes differ.
pub fn read_verified(path: &Path, expected: Digest) -> Result<Vec<u8>, ReadError> {
    let shown = || path.display().to_string();
    let mut bytes = Vec::new();
    open_regular(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| ReadError::Io { path: shown(), source })?;
    let found = Digest::of(&bytes);
    if found == expected { Ok(bytes) } else { Err(ReadError::Corrupt { path: shown(), expected, found }) }
}

/// Checks that a file has the digest `expected`, without holding it in memory.
///
/// # Errors
/// As [`read_verified`].
pub fn verify(path: &Path, expected: Digest) -> Result<(), ReadError> {
    let shown = || path.display().to_string();
    let found = Digest::of_file(path).map_err(|source| ReadError::Io { path: shown(), source })?;
    if found == expected { Ok(()) } else { Err(ReadError::Corrupt { path: shown(), expected, found }) }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Digest(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a BLAKE3 digest: expected 64 lower-case hexadecimal digits")]
pub struct ParseDigestError;

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseDigestError),
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Digest(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf abc | b3sum`
    const ABC: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

    #[test]
    fn digests_are_those_of_b3sum_and_survive_a_round_trip() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(Digest::of(b"abc")));
        assert_eq!(Digest::of_reader(&b"abc"[..]).unwrap(), (Digest::of(b"abc"), 3));
        let mut copy = Vec::new();
        assert_eq!(Digest::of_copy(&b"abc"[..], &mut copy).unwrap(), (Digest::of(b"abc"), 3));
        assert_eq!(copy, b"abc");
    }

    #[test]
    fn an_open_file_has_the_digest_of_its_bytes_however_long_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for length in [0, 1, MAPPED - 1, MAPPED, 3 * MAPPED] {
            let bytes = vec![7; length as usize];
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Digest::of_open(&File::open(&path).unwrap(), &path).unwrap(), Digest::of(&bytes), "{length}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["", "abc", &ABC.to_uppercase(), &format!("{ABC}0"), &ABC.replace('6', "g")] {
            assert_eq!(text.parse::<Digest>(), Err(ParseDigestError), "{text}");
        }
    }

    #[test]
    fn reading_by_digest_refuses_other_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_verified(&path, Digest::of(b"abc")).unwrap(), b"abc");
        std::fs::write(&path, b"abd").unwrap();
        let corrupt = read_verified(&path, Digest::of(b"abc")).unwrap_err();
        assert!(matches!(corrupt, ReadError::Corrupt { .. }) && corrupt.is_lost());
        let gone = read_verified(&dir.path().join("none"), Digest::of(b"")).unwrap_err();
        assert!(matches!(gone, ReadError::Io { .. }) && gone.is_lost());
        assert!(!read_verified(dir.path(), Digest::of(b"")).unwrap_err().is_lost());
    }
}
