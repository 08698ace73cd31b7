//! Files of a cache in an action cache (AC) and a content-addressed storage (CAS) of Bazel's protocols.
//!
//! Each file of the cache has an entry in the AC: an `ActionResult` with the file under its path. The entry of a
//! manifest has the stage's key as its own key, and also lists the blobs that the manifest names, so that the server
//! keeps them together. Any other file has the digest of its path. The CAS holds bytes by their SHA-256. Speaks through
//! a [`Protocol`]; knows no network.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::action_result::{ActionResult, CasDigest, OutputFile, Sums};
use super::error::RemoteError;
use crate::address::Address;
use crate::cache::{Blob, Manifest};
use crate::digest::{Digest, ReadError};
use crate::fetch::{self, Expected, FetchError, Progress};
use crate::fsio;

/// Maximum length of a file whose bytes are also in its entry, in bytes: a manifest then takes one request.
const INLINE: usize = 256 << 10;

/// Maximum length of an entry beyond the file in it, in bytes. A file in the list has some 200.
const ENTRY: u64 = 1 << 20;

/// Requests of a protocol of Bazel's.
pub(super) trait Protocol: Debug + Send + Sync {
    /// Returns an entry of the AC; `None` if it does not exist. `inline` is the path whose bytes should come with it.
    fn action(&self, key: &str, inline: &str, at_most: u64) -> Result<Option<ActionResult>, RemoteError>;
    /// Writes an entry of the AC, replacing any earlier one.
    fn put_action(&self, key: &str, result: ActionResult) -> Result<(), RemoteError>;
    /// Whether the CAS has some bytes.
    fn has(&self, digest: &CasDigest) -> Result<bool, RemoteError>;
    /// Returns a few bytes of the CAS; `None` if it lacks them. The caller has checked their length, and checks them.
    fn read(&self, digest: &CasDigest, size: u64) -> Result<Option<Vec<u8>>, RemoteError>;
    /// Fetches bytes of the CAS to a file, checked; `false` if it lacks them.
    fn fetch(
        &self,
        digest: &CasDigest,
        expected: &Expected,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError>;
    /// Writes a few bytes to the CAS.
    fn put(&self, digest: &CasDigest, bytes: Vec<u8>) -> Result<(), RemoteError>;
    /// Writes a file to the CAS.
    fn send(&self, digest: &CasDigest, from: &Path) -> Result<(), RemoteError>;
}

/// A cache's files on a server that speaks a protocol of Bazel's.
#[derive(Debug)]
pub(super) struct ActionCache {
    protocol: Box<dyn Protocol>,
    /// Name as the user gave it, for errors.
    name: Address,
    /// Digests of blobs in the CAS, from entries that were read or written.
    known: Mutex<HashMap<Digest, CasDigest>>,
}

impl ActionCache {
    /// Returns the cache behind a protocol.
    pub(super) fn new(protocol: Box<dyn Protocol>, name: Address) -> Self {
        ActionCache { protocol, name, known: Mutex::default() }
    }

    /// Reads a small file; `None` if it does not exist.
    pub(super) fn read(&self, path: &str, at_most: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let Some((file, digest, size)) = self.entry(path, at_most)? else { return Ok(None) };
        let url = || self.name.join(path);
        if size > at_most {
            return Err(FetchError::TooLarge { url: url(), at_most }.into());
        }
        let bytes = match size {
            size if file.contents.len() as u64 == size => file.contents,
            size => match self.protocol.read(&digest, size)? {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        let found = CasDigest::of(&bytes);
        if found != digest {
            let (expected, found, size) = (digest.hash, found.hash, bytes.len() as u64);
            return Err(FetchError::Mismatch { url: url(), algorithm: "sha256", expected, found, size }.into());
        }
        Ok(Some(bytes))
    }

    /// Whether a small file exists.
    pub(super) fn has_file(&self, path: &str) -> Result<bool, RemoteError> {
        Ok(self.entry(path, INLINE as u64)?.is_some())
    }

    /// Writes a small file. The blobs that it names, if it is a manifest, are kept with it.
    pub(super) fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let digest = CasDigest::of(&bytes);
        let mut files = self.blobs_of(path, &bytes);
        let contents = if bytes.len() <= INLINE { bytes.clone() } else { Vec::new() };
        files.push(OutputFile { path: path.to_owned(), digest: Some(digest.clone()), contents });
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files.dedup_by(|one, other| one.path == other.path);
        self.protocol.put(&digest, bytes)?;
        self.protocol.put_action(&key_of(path), ActionResult::with(files))
    }

    /// Whether the server has a blob.
    pub(super) fn has_blob(&self, blob: Blob) -> Result<bool, RemoteError> {
        if blob.size == 0 {
            return Ok(true);
        }
        self.digest_of(blob)?.map_or(Ok(false), |digest| self.protocol.has(&digest))
    }

    /// Fetches a blob to `to`, and checks both of its digests; `false` if the server does not have it.
    pub(super) fn blob(&self, blob: Blob, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        let expected = Expected { blake3: Some(blob.digest), size: Some(blob.size), ..Expected::default() };
        if blob.size == 0 {
            // Servers need not store nothing.
            let url = self.name.join(&super::object_path(blob.digest));
            fetch::receive(&url, io::empty(), Some(0), &expected, to, progress)?;
            return Ok(true);
        }
        let Some(digest) = self.digest_of(blob)? else { return Ok(false) };
        let expected = Expected { sha256: Some(digest.hash.clone()), ..expected };
        self.protocol.fetch(&digest, &expected, to, progress)
    }

    /// Writes a blob and checks it before; `false` if the server has it.
    pub(super) fn put_blob(&self, blob: Blob, from: &Path) -> Result<bool, RemoteError> {
        if blob.size > 0
            && let Some(digest) = self.digest_of(blob)?
            && self.protocol.has(&digest)?
        {
            return Ok(false);
        }
        let unreadable = |source| ReadError::Io { path: from.display().to_string(), source };
        let (found, digest) = fsio::open_regular(from).and_then(Sums::of_file).map_err(unreadable)?;
        if found != blob.digest {
            return Err(ReadError::Corrupt { path: from.display().to_string(), expected: blob.digest, found }.into());
        }
        if blob.size == 0 {
            // Nobody has to keep nothing.
            return Ok(false);
        }
        self.protocol.send(&digest, from)?;
        let path = super::object_path(blob.digest);
        let file = OutputFile { path: path.clone(), digest: Some(digest.clone()), contents: Vec::new() };
        self.protocol.put_action(&key_of(&path), ActionResult::with(vec![file]))?;
        self.known().insert(blob.digest, digest);
        Ok(true)
    }

    /// Returns the digest that a blob has in the CAS; `None` if the server does not know it.
    fn digest_of(&self, blob: Blob) -> Result<Option<CasDigest>, RemoteError> {
        let is_it = |digest: &CasDigest| digest.size() == Some(blob.size);
        if let Some(digest) = self.known().get(&blob.digest).filter(|digest| is_it(digest)) {
            return Ok(Some(digest.clone()));
        }
        match self.entry(&super::object_path(blob.digest), 0) {
            Ok(found) => Ok(found.map(|(_, digest, _)| digest).filter(is_it)),
            // A file with other bytes there is as none.
            Err(error) if error.is_wrong_bytes() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a file as its entry lists it, with its digest and its length.
    fn entry(&self, path: &str, at_most: u64) -> Result<Option<(OutputFile, CasDigest, u64)>, RemoteError> {
        let Some(result) = self.protocol.action(&key_of(path), path, at_most + ENTRY)? else { return Ok(None) };
        let mut wanted = None;
        for file in result.output_files {
            let Some((digest, size)) = file.digest.clone().and_then(|digest| digest.size().map(|size| (digest, size)))
            else {
                return Err(RemoteError::NoActionResult { url: self.name.join(path) });
            };
            if let Some(blob) = blob_of(&file.path) {
                self.known().entry(blob).or_insert_with(|| digest.clone());
            }
            if file.path == path {
                wanted = Some((file, digest, size));
            }
        }
        Ok(wanted)
    }

    /// Returns the blobs that a manifest names, as files of its entry; none of another file. A blob that was lost
    /// before it was sent is left out.
    fn blobs_of(&self, path: &str, bytes: &[u8]) -> Vec<OutputFile> {
        if !is_manifest(path) {
            return Vec::new();
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return Vec::new() };
        let known = self.known();
        let file = |blob: &Blob| {
            let digest = known.get(&blob.digest).filter(|_| blob.size > 0)?.clone();
            Some(OutputFile { path: super::object_path(blob.digest), digest: Some(digest), contents: Vec::new() })
        };
        manifest.outputs.values().chain(manifest.made.log.stored()).filter_map(file).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, CasDigest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key of a file in the AC. A manifest has its stage's key.
fn key_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.strip_suffix(".json") {
        Some(key) if is_manifest(path) => key.to_owned(),
        _ => Digest::of(format!("atflow {path}").as_bytes()).to_string(),
    }
}

fn is_manifest(path: &str) -> bool {
    path.starts_with("actions/") && path.ends_with(".json")
}

/// Returns the blob whose path this is.
fn blob_of(path: &str) -> Option<Digest> {
    path.strip_prefix("objects/")?.split_once('/')?.1.parse().ok()
}
