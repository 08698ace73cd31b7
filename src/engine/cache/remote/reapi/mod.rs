//! Bazel's remote execution API (REAPI v2) over gRPC, of which a cache needs four services: capabilities, action cache,
//! content-addressed storage, and byte streams.
//!
//! Blobs that fit go in batches, and what several threads ask at once goes in one request. Larger ones go as streams.
//! Knows no files of a cache.

mod connection;
mod gather;
mod messages;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tonic::Code;
use url::Url;

use super::action_cache::Protocol;
use super::action_result::{ActionResult, CasDigest};
use super::error::RemoteError;
use crate::address::Address;
use crate::fetch::{self, Expected, FetchError, Patience, Progress};
use crate::fsio;
use connection::{ANSWER, CallError, Connection, StreamReader, upload_id};
use gather::Gather;
use messages::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse, BlobData,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetActionResultRequest, GetCapabilitiesRequest, ReadRequest,
    ReadResponse, SHA256, ServerCapabilities, UpdateActionResultRequest, WriteRequest, WriteResponse,
};

/// Bytes of a blob in one message of a stream. gRPC's usual limit of a message is 4 MiB.
const PIECE: usize = 1 << 20;

/// Bytes of blobs in one batch, at most: they and their digests fit in gRPC's usual limit of a message.
const BATCH: u64 = 3 << 20;

/// Bytes that a digest takes in a batch beside its blob.
const PER_BLOB: u64 = 128;

/// Digests to ask for at once.
const QUESTIONS: u64 = 1000;

/// Size of every key of the AC in its digest: servers keep entries by both, and a key comes without its record.
const ACTION_BYTES: i64 = 64;

/// A server of the remote execution API, as a cache.
#[derive(Debug)]
pub(super) struct Reapi {
    connection: Connection,
    instance: String,
    name: Address,
    limits: OnceLock<Limits>,
    asking: Mutex<()>,
    missing: Gather<CasDigest, Result<bool, CallError>>,
    updates: Gather<(CasDigest, Bytes), Result<(), CallError>>,
    reads: Gather<CasDigest, Result<Option<Bytes>, CallError>>,
}

/// What the server says of itself.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of one batch.
    batch: u64,
    /// Whether entries of the AC may be written.
    is_writable: bool,
}

impl Reapi {
    /// Prepares the server at `http://HOST[/INSTANCE]` or `https://…`. Sends no request yet.
    pub(super) fn new(base: &Address, name: Address, patience: &Patience) -> Result<Self, RemoteError> {
        let url = Url::parse(base.secret()).ok().filter(Url::has_host);
        let url = url.ok_or_else(|| RemoteError::Name { name: name.clone() })?;
        let connection = Connection::new(&url, patience).map_err(|error| error.of(&name))?;
        Ok(Reapi {
            connection,
            instance: url.path().trim_matches('/').to_owned(),
            name,
            limits: OnceLock::new(),
            asking: Mutex::default(),
            missing: Gather::default(),
            updates: Gather::default(),
            reads: Gather::default(),
        })
    }

    /// Returns what the server can do; asks once.
    fn limits(&self) -> Result<Limits, RemoteError> {
        let _alone = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limits) = self.limits.get() {
            return Ok(*limits);
        }
        let question = GetCapabilitiesRequest { instance_name: self.instance.clone() };
        let path = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";
        let answer: Result<ServerCapabilities, CallError> = self.connection.unary(path, &question, ANSWER);
        let limits = match answer {
            Ok(answer) => {
                let cache = answer.cache_capabilities.unwrap_or_default();
                if !cache.digest_functions.contains(&SHA256) {
                    return Err(RemoteError::Store {
                        name: self.name.clone(),
                        message: "the server knows no SHA-256, which atflow needs".to_owned(),
                    });
                }
                let batch = u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
                let batch = if batch == 0 { BATCH } else { batch.min(BATCH) };
                let update = cache.action_cache_update_capabilities;
                Limits { batch, is_writable: update.is_none_or(|update| update.update_enabled) }
            }
            // A server that tells nothing has the usual limits.
            Err(error) if error.code == Code::Unimplemented => Limits { batch: BATCH, is_writable: true },
            Err(error) => return Err(error.of(&self.name)),
        };
        Ok(*self.limits.get_or_init(|| limits))
    }

    fn told<T>(&self, answer: Result<T, CallError>) -> Result<T, RemoteError> {
        answer.map_err(|error| error.of(&self.name))
    }

    fn action_digest(key: &str) -> Option<CasDigest> {
        Some(CasDigest { hash: key.to_owned(), size_bytes: ACTION_BYTES })
    }

    fn find_missing(&self, digests: Vec<CasDigest>) -> Vec<Result<bool, CallError>> {
        let question = FindMissingBlobsRequest { instance_name: self.instance.clone(), blob_digests: digests.clone() };
        let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
        match self.connection.unary::<_, FindMissingBlobsResponse>(path, &question, ANSWER) {
            Ok(answer) => {
                let missing: HashSet<String> =
                    answer.missing_blob_digests.into_iter().map(|digest| digest.hash).collect();
                digests.iter().map(|digest| Ok(missing.contains(&digest.hash))).collect()
            }
            Err(error) => digests.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn batch_update(&self, blobs: Vec<(CasDigest, Bytes)>) -> Vec<Result<(), CallError>> {
        let data = |(digest, data): &(CasDigest, Bytes)| BlobData {
            digest: Some(digest.clone()),
            data: data.clone(),
            status: None,
        };
        let question = BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests: blobs.iter().map(data).collect(),
        };
        let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
        let answer = match self.connection.unary::<_, BatchUpdateBlobsResponse>(path, &question, ANSWER) {
            Ok(answer) => answer,
            Err(error) => return blobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let outcome = |(digest, _): &(CasDigest, Bytes)| {
            let found = answer.responses.iter().find(|response| response.digest.as_ref() == Some(digest));
            match found.map(|response| response.status.clone().unwrap_or_default()) {
                Some(status) if status.code == 0 => Ok(()),
                Some(status) => Err(CallError::new(Code::from_i32(status.code), status.message)),
                None => Err(CallError::new(Code::DataLoss, "the server does not say what became of a blob")),
            }
        };
        blobs.iter().map(outcome).collect()
    }

    fn batch_read(&self, digests: Vec<CasDigest>) -> Vec<Result<Option<Bytes>, CallError>> {
        let question = BatchReadBlobsRequest { instance_name: self.instance.clone(), digests: digests.clone() };
        let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
        let sum: u64 = digests.iter().filter_map(CasDigest::size).map(|size| size + 2 * PER_BLOB).sum();
        // Errors have words, too.
        let answer = match self.connection.unary::<_, BatchReadBlobsResponse>(path, &question, sum + (1 << 20)) {
            Ok(answer) => answer,
            Err(error) => return digests.iter().map(|_| Err(error.clone())).collect(),
        };
        let outcome = |digest: &CasDigest| {
            let found = answer.responses.iter().find(|response| response.digest.as_ref() == Some(digest));
            let Some(found) = found else { return Ok(None) };
            let status = found.status.clone().unwrap_or_default();
            match Code::from_i32(status.code) {
                Code::Ok => Ok(Some(found.data.clone())),
                Code::NotFound => Ok(None),
                code => Err(CallError::new(code, status.message)),
            }
        };
        digests.iter().map(outcome).collect()
    }

    /// Returns bytes that fit in a batch.
    fn read_small(&self, digest: &CasDigest, size: u64, batch: u64) -> Result<Option<Bytes>, RemoteError> {
        let read = |digests| self.batch_read(digests);
        self.told(self.reads.ask(digest.clone(), size + PER_BLOB, batch, read))
    }

    /// Returns the address by which errors name bytes.
    fn url_of(&self, digest: &CasDigest) -> Address {
        self.name.join(&format!("cas/{}", digest.hash))
    }

    /// Returns the error of a temporary file.
    fn unwritable(&self, error: &io::Error) -> RemoteError {
        RemoteError::Store { name: self.name.clone(), message: error.to_string() }
    }

    /// Returns a name of bytes for streams.
    fn resource(&self, prefix: &str, digest: &CasDigest) -> String {
        let instance = if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) };
        format!("{instance}{prefix}blobs/{}/{}", digest.hash, digest.size_bytes)
    }

    /// Fetches bytes as a stream to a file; `false` if the server lacks them.
    fn stream_to(
        &self,
        digest: &CasDigest,
        expected: &Expected,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        let question = ReadRequest { resource_name: self.resource("", digest) };
        let path = "/google.bytestream.ByteStream/Read";
        let url = self.url_of(digest);
        let mut tries = 0;
        loop {
            tries += 1;
            let opened = self.connection.again(|| {
                let mut stream = self.connection.download::<_, ReadResponse>(path, &question, ANSWER)?;
                // That it lacks them, a server says in place of the first message.
                let first = self.connection.next(&mut stream)?;
                Ok((stream, first))
            });
            let (mut stream, mut first) = match opened {
                Err(error) if error.code == Code::NotFound => return Ok(false),
                opened => self.told(opened)?,
            };
            let next = || match first.take() {
                Some(message) => Ok(Some(message.data)),
                None => match self.connection.next(&mut stream) {
                    Ok(message) => Ok(message.map(|message| message.data)),
                    Err(error) => Err(io::Error::other(error.to_string())),
                },
            };
            let reader = self.connection.paced(StreamReader::new(next));
            match fetch::receive(&url, reader, digest.size(), expected, to, progress) {
                Ok(_) => return Ok(true),
                Err(FetchError::Broken { .. }) if tries < self.connection.tries() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a file as a stream.
    fn stream_from(&self, digest: &CasDigest, from: &Path) -> Result<(), RemoteError> {
        let path = "/google.bytestream.ByteStream/Write";
        let outcome = self.connection.again(|| {
            let file = fsio::open_regular(from).map_err(|error| CallError::new(Code::NotFound, error.to_string()))?;
            let name = self.resource(&format!("uploads/{}/", upload_id()), digest);
            let moved = Arc::new(AtomicU64::new(0));
            let pieces = Pieces { file, name, size: digest.size_bytes, offset: 0, moved: moved.clone(), ended: false };
            self.connection.upload::<_, WriteResponse>(path, futures_util::stream::iter(pieces), &moved)
        });
        let committed = self.told(outcome)?.committed_size;
        if committed == digest.size_bytes {
            return Ok(());
        }
        let message = format!("the server took {committed} of {} bytes", digest.size_bytes);
        Err(RemoteError::Store { name: self.name.clone(), message })
    }
}

/// Messages of an upload.
struct Pieces {
    file: File,
    name: String,
    size: i64,
    offset: i64,
    moved: Arc<AtomicU64>,
    ended: bool,
}

impl Iterator for Pieces {
    type Item = WriteRequest;

    fn next(&mut self) -> Option<WriteRequest> {
        if self.ended {
            return None;
        }
        let mut data = Vec::with_capacity(PIECE);
        // A file that ends early leaves the write unfinished, and the server refuses it.
        let is_read = self.file.by_ref().take(PIECE as u64).read_to_end(&mut data).is_ok();
        let after = self.offset + i64::try_from(data.len()).unwrap_or(0);
        self.ended = !is_read || data.is_empty() || after >= self.size;
        let request = WriteRequest {
            resource_name: std::mem::take(&mut self.name),
            write_offset: self.offset,
            finish_write: after == self.size,
            data: data.into(),
        };
        self.offset = after;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Some(request)
    }
}

impl Protocol for Reapi {
    fn action(&self, key: &str, inline: &str, at_most: u64) -> Result<Option<ActionResult>, RemoteError> {
        self.limits()?;
        let question = GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Self::action_digest(key),
            inline_output_files: vec![inline.to_owned()],
        };
        let path = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";
        match self.connection.unary(path, &question, at_most) {
            Err(error) if error.code == Code::NotFound => Ok(None),
            // What is longer than it may be counts as no entry, as over HTTP.
            Err(error) if error.code == Code::OutOfRange => {
                let url = self.name.join(&format!("ac/{key}"));
                Err(FetchError::TooLarge { url, at_most }.into())
            }
            answer => self.told(answer).map(Some),
        }
    }

    fn put_action(&self, key: &str, mut result: ActionResult) -> Result<(), RemoteError> {
        if !self.limits()?.is_writable {
            let message = "the server lets nobody write its action cache here".to_owned();
            return Err(RemoteError::Store { name: self.name.clone(), message });
        }
        // Servers inline on request, what is in the CAS.
        result.output_files.iter_mut().for_each(|file| file.contents.clear());
        let question = UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Self::action_digest(key),
            action_result: Some(result),
        };
        let path = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
        self.told(self.connection.unary::<_, ActionResult>(path, &question, ANSWER)).map(drop)
    }

    fn has(&self, digest: &CasDigest) -> Result<bool, RemoteError> {
        let missing = self.missing.ask(digest.clone(), 1, QUESTIONS, |digests| self.find_missing(digests));
        self.told(missing).map(|is_missing| !is_missing)
    }

    fn read(&self, digest: &CasDigest, size: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let batch = self.limits()?.batch;
        if size + PER_BLOB <= batch {
            return Ok(self.read_small(digest, size, batch)?.map(Into::into));
        }
        let folder = tempfile::tempdir();
        let unwritable = |error| self.unwritable(&error);
        let to = folder.map_err(unwritable)?;
        let file = to.path().join("bytes");
        let expected = Expected { sha256: Some(digest.hash.clone()), size: Some(size), ..Expected::default() };
        let mut go_on = |_, _| std::ops::ControlFlow::Continue(());
        if !self.stream_to(digest, &expected, &file, &mut go_on)? {
            return Ok(None);
        }
        fsio::read_regular(&file, size).map(Some).map_err(unwritable)
    }

    fn fetch(
        &self,
        digest: &CasDigest,
        expected: &Expected,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        let (batch, size) = (self.limits()?.batch, digest.size().unwrap_or(u64::MAX));
        if size.saturating_add(PER_BLOB) > batch {
            return self.stream_to(digest, expected, to, progress);
        }
        let Some(bytes) = self.read_small(digest, size, batch)? else { return Ok(false) };
        let url = self.url_of(digest);
        let total = Some(bytes.len() as u64);
        fetch::receive(&url, Cursor::new(bytes), total, expected, to, progress)?;
        Ok(true)
    }

    fn put(&self, digest: &CasDigest, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let (batch, size) = (self.limits()?.batch, bytes.len() as u64);
        if size + PER_BLOB <= batch {
            let update = |blobs| self.batch_update(blobs);
            let blob = (digest.clone(), Bytes::from(bytes));
            return self.told(self.updates.ask(blob, size + PER_BLOB, batch, update));
        }
        let file = tempfile::NamedTempFile::new().and_then(|mut file| {
            io::Write::write_all(&mut file, &bytes)?;
            Ok(file)
        });
        let unwritable = |error| self.unwritable(&error);
        self.stream_from(digest, file.map_err(unwritable)?.path())
    }

    fn send(&self, digest: &CasDigest, from: &Path) -> Result<(), RemoteError> {
        if self.has(digest)? {
            return Ok(());
        }
        let (batch, size) = (self.limits()?.batch, digest.size().unwrap_or(u64::MAX));
        if size.saturating_add(PER_BLOB) > batch {
            return self.stream_from(digest, from);
        }
        let unreadable = |source| crate::digest::ReadError::Io { path: from.display().to_string(), source };
        self.put(digest, fsio::read_regular(from, size).map_err(unreadable)?)
    }
}
