//! A cache somewhere else: a static web server, a folder or a bucket of an object store that holds a copy of one, file
//! by file as `docs/cache-format.md` has it. It is read through the local cache ([`crate::cache::Cache::find`],
//! [`crate::cache::Cache::obtain`]); folders and buckets can be written too. Knows files and their digests, no stages.

mod bucket;
mod http;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::action::ActionKey;
use crate::address::Address;
use crate::cache::{Blob, CACHE_FORMAT};
use crate::digest::{Digest, ReadError, read_verified, verify};
use crate::fetch::{self, Expected, FetchError, Patience, Progress, download, is_absence};
use crate::fsio::{self, Context, FileError};
use crate::signing;
use bucket::Bucket;

/// A cache somewhere else.
#[derive(Debug)]
pub struct Remote {
    place: Place,
    /// As the user named it.
    name: Address,
    patience: Patience,
    /// Keys that it was asked for and has not; nobody is asked twice in one run.
    absent: Mutex<HashSet<ActionKey>>,
}

#[derive(Debug)]
enum Place {
    /// A folder of a web server.
    Web(Address),
    Folder(PathBuf),
    Bucket(Bucket),
}

/// Why a remote cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It is of a sort that cannot be used.
    #[error("`{name}` is no remote cache: expected https://…, http://…, s3://…, gs://…, az://… or a folder")]
    Name {
        /// What was given.
        name: Address,
    },
    /// There is no cache there.
    #[error("there is no cache at {name}: it has no VERSION file")]
    NoCache {
        /// The remote.
        name: Address,
    },
    /// The cache is of another version.
    #[error("the cache at {name} has format {found}; this version of atflow reads format {CACHE_FORMAT}")]
    Format {
        /// The remote.
        name: Address,
        /// What its VERSION file says.
        found: String,
    },
    /// It cannot be written.
    #[error("{name} can only be read: a web server takes no files")]
    ReadOnly {
        /// The remote.
        name: Address,
    },
    /// The object store does not let us in.
    #[error("{name}: the object store refuses access ({code})")]
    Denied {
        /// The remote.
        name: Address,
        /// The store's word for it.
        code: String,
    },
    /// The object store failed.
    #[error("{name}: {message}")]
    Store {
        /// The remote.
        name: Address,
        /// What it said.
        message: String,
    },
    /// A blob to be sent has other bytes than its digest says.
    #[error(transparent)]
    Corrupt(#[from] ReadError),
    /// A file of it could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file of it, or of the local cache, could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RemoteError {
    /// Whether the remote has other bytes than it should, which is no reason to give the rest of it up.
    pub fn is_wrong_bytes(&self) -> bool {
        matches!(self, RemoteError::Fetch(error) if error.is_other_file())
    }

    /// Whether a file of this machine that was to be sent is gone, or has other bytes than its digest says.
    pub fn is_loss(&self) -> bool {
        matches!(self, RemoteError::Corrupt(error) if error.is_lost())
    }
}

/// A `VERSION` is a number. Pages that stand in its place are shown by their beginning.
const VERSION_BYTES: u64 = 64 << 10;

/// A signature of minisign has four lines; its comments may be some hundred bytes long.
const SIGNATURE_BYTES: u64 = 16 << 10;

impl Remote {
    /// Opens a remote cache by its URL or folder, and checks that there is one of this version.
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

    /// Opens a folder or a bucket to write to, making it a cache if it is none.
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
            Place::Folder(_) | Place::Bucket(_) => {}
        }
        Remote::open(name, remote.patience)
    }

    fn named(name: &str, patience: Patience) -> Result<Self, RemoteError> {
        let place = match name.split_once("://") {
            Some(("http" | "https", _)) => Place::Web(name.into()),
            Some(_) => match Bucket::named(name, &patience) {
                Some(bucket) => Place::Bucket(bucket?),
                None => return Err(RemoteError::Name { name: name.into() }),
            },
            None => Place::Folder(PathBuf::from(name)),
        };
        Ok(Remote { place, name: name.into(), patience, absent: Mutex::default() })
    }

    /// The remote as the user named it.
    pub fn name(&self) -> &Address {
        &self.name
    }

    /// The manifest of a key as text; nothing if the remote has none, or one longer than `at_most` bytes. The caller
    /// checks that it gives its key.
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

    /// A bucket that may be read and not listed denies what is not there. One that denies everything did so when it was
    /// opened.
    fn there<T>(&self, answer: Result<T, RemoteError>) -> Result<Option<T>, RemoteError> {
        match answer {
            Err(RemoteError::Denied { .. }) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Whether the remote has a blob, as far as can be told without fetching it.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn has_blob(&self, blob: Blob) -> Result<bool, RemoteError> {
        let path = object_path(blob.digest);
        match &self.place {
            Place::Web(base) => Ok(fetch::exists(&base.join(&path), Some(blob.size), &self.patience)?),
            Place::Folder(folder) => Ok(length(&folder.join(path)) == Some(blob.size)),
            Place::Bucket(bucket) => Ok(self.there(bucket.size(&path))?.flatten() == Some(blob.size)),
        }
    }

    /// Brings a blob to `to`, checked; `false` if the remote does not have it.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing stands at `to` then.
    pub fn blob(&self, blob: Blob, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        let path = object_path(blob.digest);
        let expected = Expected { blake3: Some(blob.digest), size: Some(blob.size), ..Expected::default() };
        match &self.place {
            Place::Bucket(bucket) => Ok(self.there(bucket.get(&path, &expected, to, progress))?.unwrap_or(false)),
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

    /// Writes a blob, checked on the way; `false` if it is there already, as far as its length tells.
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
            Place::Web(_) => Err(self.read_only()),
        }
    }

    /// Writes a manifest; its blobs are there already. `false` if it is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_manifest(&self, key: ActionKey, text: &[u8]) -> Result<bool, RemoteError> {
        self.put(&manifest_path(key), text.to_vec())
    }

    /// The signature of a manifest as text; nothing if it has none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn signature(&self, key: ActionKey) -> Result<Option<String>, RemoteError> {
        Ok(self.there(self.text(&signature_path(key), SIGNATURE_BYTES))?.flatten())
    }

    /// Writes the signature of a manifest in place of any that is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_signature(&self, key: ActionKey, text: &str) -> Result<(), RemoteError> {
        self.write(&signature_path(key), text.as_bytes().to_vec())
    }

    /// Writes a small file; `false` if it is there already.
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let is_there = match &self.place {
            Place::Web(_) => false,
            Place::Folder(folder) => folder.join(path).exists(),
            Place::Bucket(bucket) => bucket.size(path)?.is_some(),
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
        }
        Ok(())
    }

    fn read_only(&self) -> RemoteError {
        RemoteError::ReadOnly { name: self.name.clone() }
    }

    /// A small file as text; nothing if there is none.
    fn text(&self, path: &str, at_most: u64) -> Result<Option<String>, RemoteError> {
        let bytes = match &self.place {
            Place::Bucket(bucket) => bucket.read(path, at_most)?,
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

/// The length of a regular file; nothing if there is none.
fn length(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Where files of a folder are written before they get their names.
fn scratch_of(folder: &Path) -> Result<PathBuf, FileError> {
    let scratch = folder.join("tmp");
    fsio::create_dir(&scratch)?;
    Ok(scratch)
}

/// Copies a file whose digest is known, a piece at a time; other bytes do not get its name.
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

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// The bytes of a file, if they have the digest.
fn read_checked(path: &Path, digest: Digest) -> Result<Vec<u8>, RemoteError> {
    Ok(read_verified(path, digest)?)
}

/// Checks the digest of a file that is too large to be read at once.
fn check(path: &Path, digest: Digest) -> Result<(), RemoteError> {
    Ok(verify(path, digest)?)
}

/// So many questions are on their way to a server at once.
const AT_ONCE: usize = 16;

/// Asks for many things at once, over a network perhaps; answers in the order of the questions.
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
