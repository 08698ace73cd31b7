//! Messages of Bazel's remote execution API (REAPI v2) that hold a cache's files: results of actions, their files, and
//! digests by SHA-256.
//!
//! Field numbers are those of `build/bazel/remote/execution/v2/remote_execution.proto`. Fields that atflow neither
//! writes nor reads are left out; a reader skips unknown ones. Knows no server.

use std::fs::File;
use std::io::{self, Read};

use prost::Message;
use sha2::{Digest as _, Sha256};

/// Content address in a content-addressed storage (CAS).
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(super) struct CasDigest {
    /// SHA-256 as 64 lower-case hexadecimal digits.
    #[prost(string, tag = "1")]
    pub(super) hash: String,
    /// Length in bytes.
    #[prost(int64, tag = "2")]
    pub(super) size_bytes: i64,
}

impl CasDigest {
    /// Returns the digest of some bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Sums::default().and(bytes).finish().1
    }

    /// Returns the length in bytes; `None` if this is no digest: a server may send anything.
    pub(super) fn size(&self) -> Option<u64> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_hash = self.hash.len() == 64 && self.hash.bytes().all(is_digit);
        is_hash.then_some(self.size_bytes)?.try_into().ok()
    }
}

/// File that an action made.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OutputFile {
    /// Path with forward slashes.
    #[prost(string, tag = "1")]
    pub(super) path: String,
    /// Content.
    #[prost(message, optional, tag = "2")]
    pub(super) digest: Option<CasDigest>,
    /// All bytes of a short file; empty if they are in the CAS alone.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) contents: Vec<u8>,
}

/// Where an action ran.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecutedActionMetadata {
    /// Name of the worker. bazel-remote enters the client's address if there is none.
    #[prost(string, tag = "1")]
    pub(super) worker: String,
}

/// Result of an action: the value of an action cache (AC).
#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionResult {
    /// Files, by path.
    #[prost(message, repeated, tag = "2")]
    pub(super) output_files: Vec<OutputFile>,
    /// Where it ran.
    #[prost(message, optional, tag = "9")]
    pub(super) execution_metadata: Option<ExecutedActionMetadata>,
}

impl ActionResult {
    /// Returns a result with these files.
    pub(super) fn with(output_files: Vec<OutputFile>) -> Self {
        let worker = concat!("atflow/", env!("CARGO_PKG_VERSION")).to_owned();
        ActionResult { output_files, execution_metadata: Some(ExecutedActionMetadata { worker }) }
    }
}

/// Both digests of bytes that come one after the other.
#[derive(Default)]
pub(super) struct Sums {
    blake3: blake3::Hasher,
    sha256: Sha256,
    size: u64,
}

impl Sums {
    /// Reads a file to its end.
    pub(super) fn of_file(mut file: File) -> io::Result<(crate::digest::Digest, CasDigest)> {
        let (mut sums, mut buffer) = (Sums::default(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(sums.finish()),
                Ok(count) => sums = sums.and(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn and(mut self, bytes: &[u8]) -> Self {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        self
    }

    fn finish(self) -> (crate::digest::Digest, CasDigest) {
        let hash = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let size_bytes = i64::try_from(self.size).unwrap_or(i64::MAX);
        (self.blake3.finalize().into(), CasDigest { hash, size_bytes })
    }
}

/// Number of bytes to read at a time.
const BUFFER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_protocol() {
        let digest = CasDigest::of(b"abc");
        // `printf abc | sha256sum`
        assert_eq!(digest.hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let file = OutputFile { path: "a".to_owned(), digest: Some(digest), contents: b"abc".to_vec() };
        let bytes = ActionResult::with(vec![file]).encode_to_vec();
        // Tag and length of the file; of its path; of its digest, with the hash and the size; of its contents.
        let mut expected = vec![0x12, 78, 0x0a, 1, b'a', 0x12, 68, 0x0a, 64];
        expected.extend(b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        expected.extend([0x10, 3, 0x2a, 3, b'a', b'b', b'c']);
        let worker = concat!("atflow/", env!("CARGO_PKG_VERSION"));
        expected.extend([0x4a, worker.len() as u8 + 2, 0x0a, worker.len() as u8]);
        expected.extend(worker.as_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn only_digests_have_a_size() {
        let digest = |hash: &str, size_bytes| CasDigest { hash: hash.to_owned(), size_bytes }.size();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(hash, 7), Some(7));
        for (hash, size) in [(hash, -1), (&hash[1..], 7), (&hash.to_uppercase(), 7), ("../../etc/passwd", 7), ("", 0)] {
            assert_eq!(digest(hash, size), None, "{hash}");
        }
    }
}
