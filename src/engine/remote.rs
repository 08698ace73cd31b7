//! A cache somewhere else: a static web server, a folder or a bucket of an object store that holds a copy of one, file by file as `docs/cache-format.md`
//! has it. It is read through the local cache ([`crate::cache::Cache::find`], [`crate::cache::Cache::obtain`]); folders and buckets can be written too.
//! Knows files and their digests, no stages.

mod bucket;
mod http;

use std::collections::HashSet;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cache::{CACHE_FORMAT, OutputBlob};
use crate::digest::{Digest, ReadError, read_verified};
use crate::fetch::{self, Expected, FetchError, Patience, Progress, download};
use crate::fsio::{self, Context, FileError};
use crate::host;
use crate::record::Key;
use crate::signing;
use bucket::Bucket;

/// A cache somewhere else.
#[derive(Debug)]
pub struct Remote {
    place: Place,
    /// As the user named it.
    name: String,
    patience: Patience,
    /// Keys that it was asked for and has not; nobody is asked twice in one run.
    absent: Mutex<HashSet<Key>>,
}

#[derive(Debug)]
enum Place {
    /// The URL of the folder, without its last slash.
    Web(String),
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
        name: String,
    },
    /// There is no cache there.
    #[error("there is no cache at {name}: it has no VERSION file")]
    NoCache {
        /// The remote.
        name: String,
    },
    /// The cache is of another version.
    #[error("the cache at {name} has format {found}; this version of atflow reads format {CACHE_FORMAT}")]
    Format {
        /// The remote.
        name: String,
        /// What its VERSION file says.
        found: String,
    },
    /// It cannot be written.
    #[error("{name} can only be read: a web server takes no files")]
    ReadOnly {
        /// The remote.
        name: String,
    },
    /// The object store does not let us in.
    #[error("{name}: the object store refuses access ({code})")]
    Denied {
        /// The remote.
        name: String,
        /// The store's word for it.
        code: String,
    },
    /// The object store failed.
    #[error("{name}: {message}")]
    Store {
        /// The remote.
        name: String,
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
        matches!(self, RemoteError::Fetch(FetchError::Mismatch { .. }))
    }
}

impl Remote {
    /// Opens a remote cache by its URL or folder, and checks that there is one of this version. `scratch` is a folder for temporary files.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn open(name: &str, patience: Patience, scratch: &Path) -> Result<Self, RemoteError> {
        let remote = Remote::named(name, patience)?;
        match remote.text("VERSION", scratch)? {
            Some(text) if text.trim() == CACHE_FORMAT.to_string() => Ok(remote),
            Some(text) => Err(RemoteError::Format { name: remote.name, found: text.trim().chars().take(20).collect() }),
            None => Err(RemoteError::NoCache { name: remote.name }),
        }
    }

    /// Opens a folder or a bucket to write to, making it a cache if it is none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn create(name: &str, patience: Patience, scratch: &Path) -> Result<Self, RemoteError> {
        let remote = Remote::named(name, patience)?;
        let version = format!("{CACHE_FORMAT}\n");
        match &remote.place {
            Place::Web(_) => return Err(RemoteError::ReadOnly { name: remote.name }),
            Place::Folder(folder) if !folder.join("VERSION").exists() => {
                fsio::create_dir(folder)?;
                fsio::write_atomic(&folder.join("VERSION"), folder, version.as_bytes())?;
            }
            Place::Bucket(bucket) if !bucket.has("VERSION")? => bucket.write("VERSION", version.into_bytes())?,
            Place::Folder(_) | Place::Bucket(_) => {}
        }
        Remote::open(name, remote.patience, scratch)
    }

    fn named(name: &str, patience: Patience) -> Result<Self, RemoteError> {
        let place = match name.split_once("://") {
            Some(("http" | "https", _)) => Place::Web(name.trim_end_matches('/').to_owned()),
            Some(_) => match Bucket::named(name, &patience) {
                Some(bucket) => Place::Bucket(bucket?),
                None => return Err(RemoteError::Name { name: name.to_owned() }),
            },
            None => Place::Folder(PathBuf::from(name)),
        };
        Ok(Remote { place, name: name.to_owned(), patience, absent: Mutex::default() })
    }

    /// The remote as the user named it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest of a key as text; nothing if the remote has none. The caller checks that it gives its key.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn manifest(&self, key: Key, scratch: &Path) -> Result<Option<String>, RemoteError> {
        if self.absent.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(None);
        }
        let text = self.there(self.text(&manifest_path(key), scratch))?.flatten();
        if text.is_none() {
            self.absent.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        Ok(text)
    }

    /// A bucket that may be read and not listed denies what is not there. One that denies everything did so when it was opened.
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
    pub fn has_blob(&self, blob: OutputBlob) -> Result<bool, RemoteError> {
        let path = object_path(blob.digest);
        match &self.place {
            Place::Web(base) => Ok(fetch::exists(&format!("{base}/{path}"), &self.patience)?),
            Place::Folder(folder) => Ok(folder.join(path).exists()),
            Place::Bucket(bucket) => Ok(self.there(bucket.has(&path))?.unwrap_or(false)),
        }
    }

    /// Brings a blob to `to`, checked; `false` if the remote does not have it.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing stands at `to` then.
    pub fn blob(&self, blob: OutputBlob, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        Ok(self.there(self.get(&object_path(blob.digest), blob.digest, to, progress))?.unwrap_or(false))
    }

    /// Writes a blob; `false` if it is there already.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_blob(&self, digest: Digest, from: &Path) -> Result<bool, RemoteError> {
        let path = object_path(digest);
        match &self.place {
            Place::Bucket(bucket) if bucket.has(&path)? => Ok(false),
            Place::Bucket(bucket) => bucket.send(&path, from, digest).map(|()| true),
            Place::Folder(folder) if folder.join(&path).exists() => Ok(false),
            Place::Folder(_) | Place::Web(_) => self.put(&path, read_checked(from, digest)?),
        }
    }

    /// Writes a manifest; its blobs are there already. `false` if it is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_manifest(&self, key: Key, text: &[u8]) -> Result<bool, RemoteError> {
        self.put(&manifest_path(key), text.to_vec())
    }

    /// The signature of a manifest as text; nothing if it has none.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn signature(&self, key: Key, scratch: &Path) -> Result<Option<String>, RemoteError> {
        Ok(self.there(self.text(&signature_path(key), scratch))?.flatten())
    }

    /// Writes the signature of a manifest in place of any that is there.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn put_signature(&self, key: Key, text: &str) -> Result<(), RemoteError> {
        self.write(&signature_path(key), text.as_bytes().to_vec())
    }

    /// Writes a small file; `false` if it is there already.
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<bool, RemoteError> {
        let is_there = match &self.place {
            Place::Web(_) => false,
            Place::Folder(folder) => folder.join(path).exists(),
            Place::Bucket(bucket) => bucket.has(path)?,
        };
        if !is_there {
            self.write(path, bytes)?;
        }
        Ok(!is_there)
    }

    fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), RemoteError> {
        match &self.place {
            Place::Web(_) => return Err(RemoteError::ReadOnly { name: self.name.clone() }),
            Place::Folder(folder) => {
                let scratch = folder.join("tmp");
                fsio::create_dir(&scratch)?;
                fsio::write_atomic(&folder.join(path), &scratch, &bytes)?;
            }
            Place::Bucket(bucket) => bucket.write(path, bytes)?,
        }
        Ok(())
    }

    fn text(&self, path: &str, scratch: &Path) -> Result<Option<String>, RemoteError> {
        if let Place::Bucket(bucket) = &self.place {
            return Ok(bucket.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        }
        // Named as what belongs to this process, so that it goes if that is killed.
        let prefix = format!("stage-{}{}-", host::owner(), std::process::id());
        let file = tempfile::Builder::new().prefix(&prefix).tempdir_in(scratch).on("make a folder in", scratch)?;
        let to = file.path().join("file");
        let there = self.fetch(path, Expected::default(), &to, &mut |_, _| std::ops::ControlFlow::Continue(()))?;
        if !there {
            return Ok(None);
        }
        let bytes = std::fs::read(&to).on("read", &to)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn get(&self, path: &str, blake3: Digest, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        self.fetch(path, Expected { blake3: Some(blake3), ..Expected::default() }, to, progress)
    }

    fn fetch(
        &self,
        path: &str,
        expected: Expected,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<bool, RemoteError> {
        let url = match &self.place {
            Place::Bucket(bucket) => return bucket.get(path, &expected, to, progress),
            Place::Web(base) => format!("{base}/{path}"),
            Place::Folder(folder) => {
                let from = folder.join(path);
                if !from.exists() {
                    return Ok(false);
                }
                let absolute = std::path::absolute(&from).on("find", &from)?;
                let encoded = percent_encoding::utf8_percent_encode(&absolute.to_string_lossy(), UNSAFE).to_string();
                format!("file://{encoded}")
            }
        };
        match download(&url, &expected, to, &self.patience, progress) {
            Ok(_) => Ok(true),
            // A bucket that forbids listing answers 403 for what is not there.
            Err(FetchError::Status { status: 403 | 404 | 410, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes of a file, if they have the digest.
fn read_checked(path: &Path, digest: Digest) -> Result<Vec<u8>, RemoteError> {
    Ok(read_verified(path, digest)?)
}

/// Checks the digest of a file that is too large to be read at once.
fn check(path: &Path, digest: Digest) -> Result<(), RemoteError> {
    let found = Digest::of_file(path).on("read", path)?;
    let shown = || path.display().to_string();
    if found == digest { Ok(()) } else { Err(ReadError::Corrupt { path: shown(), expected: digest, found }.into()) }
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

/// What may not stand as it is in the path of a `file://` URL.
const UNSAFE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'%').add(b'#').add(b'?');

fn object_path(digest: Digest) -> String {
    let name = digest.to_string();
    format!("objects/{}/{name}", &name[..2])
}

fn signature_path(key: Key) -> String {
    manifest_path(key) + signing::ENDING
}

fn manifest_path(key: Key) -> String {
    let name = key.to_string();
    format!("actions/{}/{name}.json", &name[..2])
}
