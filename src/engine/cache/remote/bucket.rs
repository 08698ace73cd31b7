//! Bucket of an object store: S3 and compatible stores, Google Cloud Storage, Azure.
//!
//! Reads and writes files by path; takes credentials and endpoints from the environment. Knows no cache.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig, UpdateVersion,
};
use tokio::runtime::{Builder, Runtime};

use super::error::RemoteError;
use super::http::Connector;
use crate::address::{Address, masked};
use crate::digest::Digest;
use crate::fetch::{self, Expected, FetchError, Patience, Progress};
use crate::fsio::{self, Context};

/// Size of upload parts for larger files. S3 accepts no part above 5 GB, and none below 5 MiB except the last.
const PART: u64 = 32 << 20;

/// Place in a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Path prefix without a trailing slash; empty for the whole bucket.
    prefix: String,
    /// Name as the user gave it, for errors.
    name: Address,
}

impl Bucket {
    /// Opens the bucket of a URL; `None` if it is no URL of an object store. Sends no request yet.
    pub(super) fn named(name: &str, patience: &Patience) -> Option<Result<Self, RemoteError>> {
        let (scheme, rest) = name.split_once("://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let url = format!("{scheme}://{bucket}");
        let http = || Connector(patience.clone());
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: patience.pause, ..BackoffConfig::default() },
            max_retries: patience.tries.saturating_sub(1) as usize,
            retry_timeout: patience.stall * (patience.tries + 1) + Duration::from_secs(60),
        };
        let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
            "s3" | "s3a" => AmazonS3Builder::from_env()
                .with_url(url)
                .with_http_connector(http())
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            "gs" => GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_http_connector(http())
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            "az" | "abfs" | "abfss" => MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_http_connector(http())
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => return None,
        };
        let (prefix, name) = (prefix.trim_matches('/').to_owned(), Address::new(name));
        Some(match store {
            Ok(store) => Ok(Bucket { store, prefix, name }),
            Err(error) => Err(failed(&name, error)),
        })
    }

    /// Returns an empty bucket in memory.
    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        Bucket { store, prefix: "lab".to_owned(), name: Address::new("memory://lab") }
    }

    /// Reads a small file; `None` if it does not exist.
    pub(super) fn read(&self, path: &str, at_most: u64) -> Result<Option<Vec<u8>>, RemoteError> {
        let (place, runtime) = (self.place(path), runtime()?);
        let Some(found) = self.found(runtime.block_on(self.store.get(&place)))? else { return Ok(None) };
        let url = || self.name.join(path);
        let too_large = || FetchError::TooLarge { url: url(), at_most };
        if found.meta.size > at_most {
            return Err(too_large().into());
        }
        match fsio::read_at_most(Reader::new(runtime, found), at_most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(too_large().into()),
            Err(source) => Err(FetchError::Broken { url: url(), source }.into()),
        }
    }

    /// Fetches a file to `to` and checks it; `false` if it does not exist.
    pub(super) fn get(
        &self,
        path: &str,
        expected: &Expected,
        to: &FilePath,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        self.get_up_to(u64::MAX, path, expected, to, progress)
    }

    /// The same for a file of at most so many bytes.
    pub(super) fn get_up_to(
        &self,
        at_most: u64,
        path: &str,
        expected: &Expected,
        to: &FilePath,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        let (place, runtime) = (self.place(path), runtime()?);
        let Some(found) = self.found(runtime.block_on(self.store.get(&place)))? else { return Ok(false) };
        if found.meta.size > at_most {
            return Err(FetchError::TooLarge { url: self.name.join(path), at_most }.into());
        }
        let total = Some(found.meta.size);
        let reader = Reader::new(runtime, found);
        fetch::receive(&self.name.join(path), reader, total, expected, to, progress)?;
        Ok(true)
    }

    /// Returns the length of a file; `None` if it does not exist.
    pub(super) fn size(&self, path: &str) -> Result<Option<u64>, RemoteError> {
        let place = self.place(path);
        Ok(self.found(runtime()?.block_on(self.store.head(&place)))?.map(|found| found.size))
    }

    /// Writes a small file.
    pub(super) fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        let place = self.place(path);
        self.done(runtime()?.block_on(self.store.put(&place, bytes.into())).map(drop))
    }

    /// Writes a small file if there is none; returns its version, or `None` if there is one.
    pub(super) fn create(&self, path: &str, bytes: Vec<u8>) -> Result<Option<UpdateVersion>, RemoteError> {
        self.put_if(path, bytes, PutMode::Create)
    }

    /// Replaces a small file of a version; returns its new version, or `None` if it has another one by now.
    pub(super) fn replace(
        &self,
        path: &str,
        bytes: Vec<u8>,
        version: UpdateVersion,
    ) -> Result<Option<UpdateVersion>, RemoteError> {
        self.put_if(path, bytes, PutMode::Update(version))
    }

    fn put_if(&self, path: &str, bytes: Vec<u8>, mode: PutMode) -> Result<Option<UpdateVersion>, RemoteError> {
        let place = self.place(path);
        match runtime()?.block_on(self.store.put_opts(&place, bytes.into(), mode.into())) {
            Ok(put) => Ok(Some(put.into())),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotFound { .. },
            ) => Ok(None),
            Err(error) => Err(failed(&self.name, error)),
        }
    }

    /// Reads a small file with its version; `None` if it does not exist.
    pub(super) fn read_version(
        &self,
        path: &str,
        at_most: u64,
    ) -> Result<Option<(Vec<u8>, UpdateVersion)>, RemoteError> {
        let (place, runtime) = (self.place(path), runtime()?);
        let Some(found) = self.found(runtime.block_on(self.store.get(&place)))? else { return Ok(None) };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let mut bytes = Vec::new();
        // What is longer is cut, and then it is none.
        let read = Reader::new(runtime, found).take(at_most).read_to_end(&mut bytes);
        match read {
            Ok(_) => Ok(Some((bytes, version))),
            Err(source) => Err(FetchError::Broken { url: self.name.join(path), source }.into()),
        }
    }

    /// Returns the paths of the files in a folder and in those in it that come after `after`, in their order. Paths
    /// are relative to the folder.
    pub(super) fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<String>, RemoteError> {
        let place = self.place(folder);
        let listed = match after {
            Some(after) => self.store.list_with_offset(Some(&place), &self.place(&format!("{folder}/{after}"))),
            None => self.store.list(Some(&place)),
        };
        let found: object_store::Result<Vec<Path>> =
            runtime()?.block_on(listed.map_ok(|found| found.location).try_collect());
        let relative = |path: &Path| path.as_ref().strip_prefix(place.as_ref())?.strip_prefix('/').map(str::to_owned);
        let mut names: Vec<String> = self.done(found)?.iter().filter_map(relative).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the names of the folders in a folder, in their order.
    pub(super) fn folders(&self, folder: &str) -> Result<Vec<String>, RemoteError> {
        let place = self.place(folder);
        let found = self.done(runtime()?.block_on(self.store.list_with_delimiter(Some(&place))))?;
        let mut names: Vec<String> =
            found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file, whether or not it exists.
    pub(super) fn remove(&self, path: &str) -> Result<(), RemoteError> {
        let place = self.place(path);
        self.found(runtime()?.block_on(self.store.delete(&place))).map(drop)
    }

    /// Uploads a local file with a known digest. It appears as a whole or not at all.
    pub(super) fn send(&self, path: &str, from: &FilePath, digest: Digest) -> Result<(), RemoteError> {
        let size = std::fs::metadata(from).on("read", from)?.len();
        if size <= PART {
            return self.write(path, super::read_checked(from, digest)?);
        }
        super::check(from, digest)?;
        let place = self.place(path);
        let mut file = File::open(from).on("read", from)?;
        let mut part = || -> Result<Vec<u8>, RemoteError> {
            let mut bytes = Vec::new();
            file.by_ref().take(PART).read_to_end(&mut bytes).on("read", from)?;
            Ok(bytes)
        };
        let runtime = runtime()?;
        runtime.block_on(async {
            let mut upload = self.done(self.store.put_multipart(&place).await)?;
            let sent = async {
                loop {
                    let bytes = part()?;
                    if bytes.is_empty() {
                        return self.done(upload.complete().await.map(drop));
                    }
                    self.done(upload.put_part(PutPayload::from(bytes)).await)?;
                }
            }
            .await;
            if sent.is_err() {
                // Parts of an unfinished upload cost money in some stores. The first error matters more than a failure
                // to remove them.
                _ = upload.abort().await;
            }
            sent
        })
    }

    fn place(&self, path: &str) -> Path {
        if self.prefix.is_empty() { Path::from(path) } else { Path::from(format!("{}/{path}", self.prefix)) }
    }

    fn found<T>(&self, answer: object_store::Result<T>) -> Result<Option<T>, RemoteError> {
        match answer {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            answer => self.done(answer).map(Some),
        }
    }

    fn done<T>(&self, answer: object_store::Result<T>) -> Result<T, RemoteError> {
        answer.map_err(|error| failed(&self.name, error))
    }
}

/// Maximum number of characters of a store's message to show.
const SHOWN: usize = 1000;

/// Classifies a failure of the store by its remedy.
fn failed(name: &Address, error: object_store::Error) -> RemoteError {
    let name = name.clone();
    // The message may contain request addresses with keys and signatures.
    let text: String = masked(&error.to_string()).chars().take(SHOWN).collect();
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            let code = between(&text, "<Code>", "</Code>").unwrap_or("access denied").to_owned();
            RemoteError::Denied { name, code }
        }
        object_store::Error::NotFound { .. } => {
            let code = between(&text, "<Code>", "</Code>").unwrap_or("not found").to_owned();
            RemoteError::Store { name, message: code }
        }
        _ => RemoteError::Store { name, message: text },
    }
}

fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(inside, _)| inside)
}

/// Creates a runtime for the store's futures, in the waiting thread.
///
/// It has timers for pauses between attempts; network calls block.
fn runtime() -> Result<Runtime, RemoteError> {
    let made = Builder::new_current_thread().enable_time().build();
    Ok(made.on("start a runtime in", FilePath::new("this process"))?)
}

/// Response of a store, as a reader.
struct Reader {
    runtime: Runtime,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Reader {
    fn new(runtime: Runtime, found: GetResult) -> Self {
        Reader { runtime, stream: found.into_stream(), chunk: Bytes::new() }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(|error| io::Error::other(masked(&error.to_string())))?,
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
