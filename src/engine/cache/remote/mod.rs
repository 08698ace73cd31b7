//! Remote caches: a static web server, a folder, a bucket, or a cache server of Bazel's that holds a copy of a cache.
//!
//! The copy has the layout of `docs/cache-format.md`. It is read through the local cache
//! ([`crate::cache::Cache::find`], [`crate::cache::Cache::obtain`]); all but web servers are also writable. Knows files
//! and their digests, no stages.

mod action_cache;
mod action_result;
mod bazel_http;
mod bucket;
mod error;
mod http;
mod lease;
mod notes;
mod progress;
#[cfg(feature = "reapi")]
mod reapi;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::action::ActionKey;
use crate::address::Address;
use crate::cache::{Blob, CACHE_FORMAT};
use crate::digest::{Digest, ReadError, read_verified, verify};
use crate::fetch::{self, Expected, FetchError, Patience, Progress, download, is_absence};
use crate::fsio::{self, Context, FileError};
use crate::signing;
use action_cache::ActionCache;
use bazel_http::BazelHttp;
use bucket::Bucket;
pub use error::RemoteError;
pub(crate) use lease::{LEASE_PATIENCE, RemoteAttempt, RemoteLease, RemoteLeases};
pub(crate) use notes::RemoteNotes;

/// A remote cache.
#[derive(Debug)]
pub struct Remote {
    place: Place,
    /// Name as the user gave it.
    name: Address,
    patience: Patience,
    /// Keys that the remote lacks; a run asks for each only once.
    absent: Mutex<HashSet<ActionKey>>,
    /// Blobs that the remote has; a run asks for each only once.
    present: Mutex<HashSet<(Digest, u64)>>,
}

#[derive(Debug)]
enum Place {
    /// Folder of a web server.
    Web(Address),
    Folder(PathBuf),
    Bucket(Arc<Bucket>),
    /// Server of a protocol of Bazel's.
    Actions(ActionCache),
}

/// Maximum length of `VERSION`. It is a number; error messages show the beginning of any page in its place.
const VERSION_BYTES: u64 = 64 << 10;

/// Maximum length of a signature. A minisign signature has four lines; its comments may be some hundred bytes long.
const SIGNATURE_BYTES: u64 = 16 << 10;

impl Remote {
    /// Opens a remote cache by its URL or folder, and checks its format version.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn open(name: &str, patience: Patience) -> Result<Self, RemoteError> {
        let remote = Remote::named(name, patience)?;
        match remote.text("VERSION", VERSION_BYTES)? {
            Some(text) if text.trim() == CACHE_FORMAT.to_string() => Ok(remote),
            Some(text) => Err(RemoteError::Format { name: remote.name, found: text.trim().chars().take(20).collect() }),
            None => Err(RemoteError::NoCache { name: remote.name }),
        }
    }

    /// Opens a folder, a bucket or a cache server for writing, and makes it a cache if it is none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn create(name: &str, patience: Patience) -> Result<Self, RemoteError> {
        let remote = Remote::named(name, patience)?;
        let version = format!("{CACHE_FORMAT}\n");
        match &remote.place {
            Place::Web(_) => return Err(RemoteError::ReadOnly { name: remote.name }),
            Place::Folder(folder) if !folder.join("VERSION").exists() => {
                fsio::create_dir(folder)?;
                fsio::write_atomic(&folder.join("VERSION"), folder, version.as_bytes())?;
            }
            Place::Bucket(bucket) if bucket.size("VERSION")?.is_none() => {
                bucket.write("VERSION", version.into_bytes())?
            }
            Place::Actions(actions) if !actions.has_file("VERSION")? => {
                actions.write("VERSION", version.into_bytes())?;
            }
            Place::Folder(_) | Place::Bucket(_) | Place::Actions(_) => {}
        }
        Remote::open(name, remote.patience)
    }

    /// Opens a remote cache without a question to its server: whoever needs it finds out whether it is there.
    ///
    /// # Errors
    /// [`RemoteError`] if the name is that of no remote cache.
    pub(crate) fn named(name: &str, patience: Patience) -> Result<Self, RemoteError> {
        let place = match name.split_once("://") {
            Some(("http" | "https", _)) => Place::Web(name.into()),
            Some((scheme @ ("bazel-http" | "bazel-https"), rest)) => {
                let base = Address::new(format!("{}://{rest}", scheme.trim_start_matches("bazel-")));
                let server = BazelHttp::new(base, patience.clone());
                Place::Actions(ActionCache::new(Box::new(server), name.into()))
            }
            #[cfg(feature = "reapi")]
            Some((scheme @ ("reapi" | "reapis"), rest)) => {
                let base = Address::new(format!("{}://{rest}", if scheme == "reapis" { "https" } else { "http" }));
                let server = reapi::Reapi::new(&base, name.into(), &patience)?;
                Place::Actions(ActionCache::new(Box::new(server), name.into()))
            }
            #[cfg(not(feature = "reapi"))]
            Some(("reapi" | "reapis", _)) => return Err(RemoteError::NotBuilt { name: name.into() }),
            Some(_) => match Bucket::named(name, &patience) {
                Some(bucket) => Place::Bucket(Arc::new(bucket?)),
                None => return Err(RemoteError::Name { name: name.into() }),
            },
            None => Place::Folder(PathBuf::from(name)),
        };
        Ok(Remote::of(place, name.into(), patience))
    }

    fn of(place: Place, name: Address, patience: Patience) -> Self {
        Remote { place, name, patience, absent: Mutex::default(), present: Mutex::default() }
    }

    /// Returns an empty bucket in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Remote::of(Place::Bucket(Arc::new(Bucket::in_memory())), "memory://lab".into(), Patience::default())
    }

    /// Returns the name as the user gave it.
    pub fn name(&self) -> &Address {
        &self.name
    }

    /// Returns the manifest of a key as text; `None` if the remote has none, or one longer than `at_most` bytes.
    ///
    /// The caller checks that the manifest matches the key.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn manifest(&self, key: ActionKey, at_most: u64) -> Result<Option<String>, RemoteError> {
        if self.absent.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(None);
        }
        let text = match self.there(self.text(&manifest_path(key), at_most)) {
            Err(error) if error.is_wrong_bytes() => None,
            answer => answer?.flatten(),
        };
        if text.is_none() {
            self.absent.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        Ok(text)
    }

    /// Forgets that the remote lacked a key: another run may have made its result meanwhile.
    pub(crate) fn forget_absence(&self, key: ActionKey) {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Returns an empty set of leases in this remote cache; `None` if it holds none, because it has no conditional
    /// writes.
    pub(crate) fn leases(&self) -> Option<RemoteLeases> {
        match &self.place {
            Place::Bucket(bucket) => Some(RemoteLeases::new(bucket.clone())),
            Place::Web(_) | Place::Folder(_) | Place::Actions(_) => None,
        }
    }

    /// Returns the notes of runs in this remote cache; `None` if it holds none, because its files have no names.
    pub(crate) fn notes(&self) -> Option<RemoteNotes> {
        match &self.place {
            Place::Bucket(bucket) => Some(RemoteNotes::new(bucket.clone(), self.name.clone())),
            Place::Web(_) | Place::Folder(_) | Place::Actions(_) => None,
        }
    }

    /// Maps a denied access to `None`.
    ///
    /// A bucket that may be read but not listed denies missing files. A bucket that denies everything failed when it
    /// was opened.
    fn there<T>(&self, answer: Result<T, RemoteError>) -> Result<Option<T>, RemoteError> {
        match answer {
            Err(RemoteError::Denied { .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Whether the remote has a blob, as far as a check without a fetch shows. What it had once is not asked for again,
    /// unless a fetch of it fails.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn has_blob(&self, blob: Blob) -> Result<bool, RemoteError> {
        let present = || self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present().contains(&(blob.digest, blob.size)) {
            return Ok(true);
        }
        let path = object_path(blob.digest);
        let is_there = match &self.place {
            Place::Web(base) => fetch::exists(&base.join(&path), Some(blob.size), &self.patience)?,
            Place::Folder(folder) => length(&folder.join(path)) == Some(blob.size),
            Place::Bucket(bucket) => self.there(bucket.size(&path))?.flatten() == Some(blob.size),
            Place::Actions(actions) => actions.has_blob(blob)?,
        };
        if is_there {
            present().insert((blob.digest, blob.size));
        }
        Ok(is_there)
    }

    /// Fetches a blob to `to` and checks it; `false` if the remote does not have it.
    ///
    /// # Errors
    /// [`RemoteError`]; then there is no file at `to`.
    pub fn blob(&self, blob: Blob, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        let fetched = self.fetch_blob(blob, to, progress);
        if !matches!(fetched, Ok(true)) {
            self.present.lock().unwrap_or_else(PoisonError::into_inner).remove(&(blob.digest, blob.size));
        }
        fetched
    }

    fn fetch_blob(&self, blob: Blob, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        let path = object_path(blob.digest);
        let expected = Expected { blake3: Some(blob.digest), size: Some(blob.size), ..Expected::default() };
        match &self.place {
            Place::Bucket(bucket) => Ok(self.there(bucket.get(&path, &expected, to, progress))?.unwrap_or(false)),
            Place::Actions(actions) => actions.blob(blob, to, progress),
            Place::Web(base) => match download(&base.join(&path), &expected, to, &self.patience, progress) {
                Ok(_) => Ok(true),
                Err(FetchError::Status { status, .. }) if is_absence(status) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Place::Folder(folder) => {
                let from = folder.join(path);
                let file = match fsio::open_regular(&from) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    file => file.on("read", &from)?,
                };
                let total = file.metadata().on("read", &from)?.len();
                let name = Address::new(from.display().to_string());
                fetch::receive(&name, file, Some(total), &expected, to, progress)?;
                Ok(true)
            }
        }
    }

    /// Writes a blob and checks it on the way; `false` if the remote has one of the same length.
    ///
    /// # Errors
    /// [`RemoteError`]; [`RemoteError::is_loss`] if the file at `from` is not the blob.
    pub fn put_blob(&self, blob: Blob, from: &Path) -> Result<bool, RemoteError> {
        let path = object_path(blob.digest);
        match &self.place {
            Place::Bucket(bucket) if bucket.size(&path)? == Some(blob.size) => Ok(false),
            Place::Bucket(bucket) => bucket.send(&path, from, blob.digest).map(|()| true),
            Place::Folder(folder) if length(&folder.join(&path)) == Some(blob.size) => Ok(false),
            Place::Folder(folder) => copy_checked(from, blob.digest, &folder.join(path), &scratch_of(folder)?),
            Place::Actions(actions) => actions.put_blob(blob, from),
            Place::Web(_) => Err(self.read_only()),
        }
    }

    /// Writes a manifest, whose blobs are already there; `false` if the remote has one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_manifest(&self, key: ActionKey, text: &[u8]) -> Result<bool, RemoteError> {
        self.put(&manifest_path(key), text.to_vec())
    }

    /// Returns the signature of a manifest as text; `None` if there is none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn signature(&self, key: ActionKey) -> Result<Option<String>, RemoteError> {
        Ok(self.there(self.text(&signature_path(key), SIGNATURE_BYTES))?.flatten())
    }

    /// Writes the signature of a manifest, replacing any earlier one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_signature(&self, key: ActionKey, text: &str) -> Result<(), RemoteError> {
        self.write(&signature_path(key), text.as_bytes().to_vec())
    }

    /// Writes a small file; `false` if it exists already.
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let is_there = match &self.place {
            Place::Web(_) => false,
            Place::Folder(folder) => folder.join(path).exists(),
            Place::Bucket(bucket) => bucket.size(path)?.is_some(),
            Place::Actions(actions) => actions.has_file(path)?,
        };
        if !is_there {
            self.write(path, bytes)?;
        }
        Ok(!is_there)
    }

    fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        match &self.place {
            Place::Web(_) => return Err(self.read_only()),
            Place::Folder(folder) => fsio::write_atomic(&folder.join(path), &scratch_of(folder)?, &bytes)?,
            Place::Bucket(bucket) => bucket.write(path, bytes)?,
            Place::Actions(actions) => actions.write(path, bytes)?,
        }
        Ok(())
    }

    fn read_only(&self) -> RemoteError {
        RemoteError::ReadOnly { name: self.name.clone() }
    }

    /// Reads a small file as text; `None` if it does not exist.
    fn text(&self, path: &str, at_most: u64) -> Result<Option<String>, RemoteError> {
        let bytes = match &self.place {
            Place::Bucket(bucket) => bucket.read(path, at_most)?,
            Place::Actions(actions) => actions.read(path, at_most)?,
            Place::Web(base) => fetch::small(&base.join(path), at_most, &self.patience)?,
            Place::Folder(folder) => {
                let from = folder.join(path);
                match fsio::read_regular(&from, at_most) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                        let url = Address::new(from.display().to_string());
                        return Err(FetchError::TooLarge { url, at_most }.into());
                    }
                    bytes => Some(bytes.on("read", &from)?),
                }
            }
        };
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Returns the length of a regular file; `None` if there is none.
fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Returns the folder in which files are written before they get their names.
fn scratch_of(folder: &Path) -> Result<PathBuf, FileError> {
    let scratch = folder.join("tmp");
    fsio::create_dir(&scratch)?;
    Ok(scratch)
}

/// Copies a file with a known digest piece by piece. A file with other bytes does not get the name.
fn copy_checked(from: &Path, digest: Digest, to: &Path, scratch: &Path) -> Result<bool, RemoteError> {
    let unreadable = |source| ReadError::Io { path: from.display().to_string(), source };
    let mut source = fsio::open_regular(from).map_err(unreadable)?;
    let mut file = fsio::scratch_file(scratch)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        let count = source.read(&mut buffer).map_err(unreadable)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).on("write", file.path())?;
    }
    let found = Digest::from(hasher.finalize());
    if found != digest {
        return Err(ReadError::Corrupt { path: from.display().to_string(), expected: digest, found }.into());
    }
    file.as_file().sync_all().on("write", file.path())?;
    fsio::publish(file.into_temp_path(), to)?;
    Ok(true)
}

/// Number of bytes to copy at a time.
const PIECE: usize = 1 << 20;

/// Reads a file and checks its digest.
fn read_checked(path: &Path, digest: Digest) -> Result<Vec<u8>, RemoteError> {
    Ok(read_verified(path, digest)?)
}

/// Checks the digest of a file that is too large to read at once.
fn check(path: &Path, digest: Digest) -> Result<(), RemoteError> {
    Ok(verify(path, digest)?)
}

/// Maximum number of concurrent requests to a server. Small files of a far server take a round trip each, whatever
/// the bandwidth.
const AT_ONCE: usize = 32;

/// Asks many questions concurrently, perhaps over a network; returns the answers in order.
pub fn at_once<Q: Sync, A: Send>(questions: &[Q], ask: impl Fn(&Q) -> A + Sync) -> Vec<A> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        while let Some((at, question)) = questions.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            answers.push((at, ask(question)));
        }
        answers
    };
    let mut answers: Vec<(usize, A)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE.min(questions.len())).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(answers) => answers,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect()
    });
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn object_path(digest: Digest) -> String {
    let name = digest.to_string();
    format!("objects/{}/{name}", &name[..2])
}

fn signature_path(key: ActionKey) -> String {
    manifest_path(key) + signing::ENDING
}

fn manifest_path(key: ActionKey) -> String {
    let name = key.to_string();
    format!("actions/{}/{name}.json", &name[..2])
}
