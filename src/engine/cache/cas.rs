//! Content-addressed blobs: read-only files named by the digest of their bytes, written once.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::result_files::Unnamed;
use super::{Blob, Cache, CacheError};
use crate::digest::{self, Digest};
use crate::fsio::{self, Context, FileError};
use crate::outputs;

/// Reason why a file could not become a blob.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file cannot be read, copied or changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot store it.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<IngestError> for CacheError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::File(error) => error.into(),
            IngestError::Cache(error) => error,
        }
    }
}

/// What the cache has of a blob.
enum Kept {
    Nothing,
    /// Its bytes.
    Good,
    /// Other bytes, which were moved to this path.
    Rotten(PathBuf),
}

/// Interval between attempts to lock a fetch place that another fetch holds.
const LOOK: Duration = Duration::from_millis(50);

impl Cache {
    /// Returns the path of a blob, whether or not it exists.
    pub fn object_path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join("objects").join(&name[..2]).join(name)
    }

    /// Whether a blob exists in full length. Its bytes are checked where they are read.
    pub fn has(&self, blob: Blob) -> bool {
        fs::metadata(self.object_path(blob.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    /// Moves a finished file of the cache's file system into the cache as a blob.
    ///
    /// The cache must be the only owner of a blob: a file with a second hard link, or with another owner, is copied.
    ///
    /// # Errors
    /// [`IngestError`] says whether the file or the cache is at fault.
    pub fn ingest(&self, file: &Path) -> Result<Blob, IngestError> {
        self.take_in(file).map(|(blob, _)| blob)
    }

    /// Like [`Cache::ingest`]; also returns the quarantine path of a corrupt blob that had the same digest.
    ///
    /// # Errors
    /// As [`Cache::ingest`].
    pub fn take_in(&self, file: &Path) -> Result<(Blob, Option<PathBuf>), IngestError> {
        let found = fs::symlink_metadata(file).on("read", file)?;
        let is_elsewhere = fs::metadata(self.tmp()).is_ok_and(|tmp| tmp.dev() != found.dev());
        let (blob, unnamed, rotten) = self.prepare(file, &found, is_elsewhere)?;
        if let Some(unnamed) = unnamed {
            fsio::sync(&unnamed.from)?;
            // The bytes are on disk before they get their name: after a crash, a blob is complete or absent.
            unnamed.name().map_err(CacheError::from)?;
        }
        Ok((blob, rotten))
    }

    /// Makes a file a blob that only lacks its name; `None` if the cache has it. Also returns the quarantine path of a
    /// corrupt blob that had the same digest. `found` is what the file is, `is_elsewhere` whether it is on another file
    /// system than the cache.
    pub(super) fn prepare(
        &self,
        file: &Path,
        found: &Metadata,
        is_elsewhere: bool,
    ) -> Result<(Blob, Option<Unnamed>, Option<PathBuf>), IngestError> {
        let copies = is_elsewhere || !outputs::is_ours_alone(found);
        let (mut open, _) = fsio::open_own_file(file).on("read", file)?;
        let (digest, size, scratch) = if copies {
            let (copy, path) = fsio::read_only_scratch_file(&self.tmp()).map_err(CacheError::from)?.into_parts();
            let (digest, size) = if is_elsewhere {
                Digest::of_copy(&open, &copy).on("copy", file)?
            } else {
                // A file system that supports it shares the bytes of the two until one of them changes.
                let size = io::copy(&mut &open, &mut &copy).on("copy", file)?;
                (&copy).rewind().on("copy", file)?;
                (Digest::of_open(&copy, &path).on("read", &path)?, size)
            };
            open = copy;
            (digest, size, Some(path))
        } else {
            (Digest::of_open(&open, file).on("read", file)?, found.len(), None)
        };
        let blob = Blob { digest, size };
        // Equal length is not enough: the new bytes are good, the existing ones may be corrupt. Reading those costs
        // less than writing these.
        let kept = self.kept(digest)?;
        if copies {
            fs::remove_file(file).on("remove", file)?;
        }
        let rotten = match kept {
            Kept::Good => {
                self.touch(blob);
                if !copies {
                    fs::remove_file(file).on("remove", file)?;
                }
                return Ok((blob, None, None));
            }
            Kept::Rotten(path) => Some(path),
            Kept::Nothing => None,
        };
        let from = scratch.as_deref().unwrap_or(file).to_owned();
        fsio::make_read_only(&open, &from)?;
        let (to, of) = (self.object_path(digest), file.to_owned());
        Ok((blob, Some(Unnamed { from, to, of, open: Some(open), scratch }), rotten))
    }

    /// Stores bytes as a blob.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, CacheError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        if !self.is_here_and_good(blob)? {
            fsio::write_atomic(&self.object_path(blob.digest), &self.tmp(), bytes)?;
        }
        Ok(blob)
    }

    /// Whether a blob is here with the right bytes; renews its age then. Moves one with other bytes away: the caller
    /// has the right ones, and need not know.
    pub(super) fn is_here_and_good(&self, blob: Blob) -> Result<bool, CacheError> {
        let is_good = matches!(self.kept(blob.digest)?, Kept::Good);
        if is_good {
            self.touch(blob);
        }
        Ok(is_good)
    }

    /// Renews the age of a blob: a manifest will name it soon, and a concurrent collection must not remove it.
    fn touch(&self, blob: Blob) {
        let now = std::time::SystemTime::now();
        // It fails in another user's cache; then only the age of the blob protects it.
        _ = fs::File::open(self.object_path(blob.digest)).and_then(|file| file.set_modified(now));
    }

    /// Reads a blob and checks its bytes.
    ///
    /// # Errors
    /// [`digest::ReadError`].
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, digest::ReadError> {
        digest::read_verified(&self.object_path(digest), digest)
    }

    /// Returns the blob of a fetched file, by its publisher's digest (`sha256:…`); `None` if it was never fetched.
    pub fn fetched(&self, identity: &str) -> Option<Blob> {
        serde_json::from_slice(&fsio::read_regular(&self.fetched_path(identity), u64::MAX).ok()?).ok()
    }

    /// Records which blob a fetched file became.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remember_fetched(&self, identity: &str, blob: Blob) -> Result<(), CacheError> {
        let text = serde_json::to_string(&blob).unwrap_or_default();
        Ok(fsio::write_atomic(&self.fetched_path(identity), &self.tmp(), text.as_bytes())?)
    }

    /// Returns a path to fetch a file to, with a lock that excludes other fetches of it.
    ///
    /// Waits for another fetch of the same file. Returns `None` if `is_over` says meanwhile that the file is not needed
    /// any more.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn fetch_place(
        &self,
        identity: &str,
        is_over: &mut dyn FnMut() -> bool,
    ) -> Result<Option<(PathBuf, fs::File)>, CacheError> {
        let folder = self.root.join("tmp").join(format!("fetch-{}", identity.replace(':', "-")));
        let lock = folder.join("lock");
        loop {
            // Created again each time: the fetch that held the lock may have removed the folder when it was done.
            fsio::create_dir(&folder)?;
            let file = fs::File::create(&lock).on("write", &lock)?;
            match file.try_lock() {
                Ok(()) => return Ok(Some((folder.join("file"), file))),
                Err(fs::TryLockError::WouldBlock) if is_over() => return Ok(None),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOOK),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(Err::<(), _>(error).on("lock", &lock).unwrap_err().into());
                }
            }
        }
    }

    /// Removes a fetch place once the file is a blob. A fetch that waits for its lock looks for the blob first.
    pub(crate) fn leave_fetch_place(&self, file: &Path) {
        if let Some(folder) = file.parent() {
            // A leftover costs a few bytes.
            _ = fs::remove_dir_all(folder);
        }
    }

    fn fetched_path(&self, identity: &str) -> PathBuf {
        self.root.join("fetched").join(format!("{}.json", identity.replace(':', "-")))
    }

    /// Moves a corrupt blob away, so that it is made or fetched again; returns the new path.
    ///
    /// Returns `None` if the blob is absent or correct.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn quarantine(&self, digest: Digest) -> Result<Option<PathBuf>, CacheError> {
        Ok(match self.kept(digest)? {
            Kept::Nothing | Kept::Good => None,
            Kept::Rotten(path) => Some(path),
        })
    }

    /// Returns what the cache has of a blob. Moves corrupt bytes away.
    fn kept(&self, digest: Digest) -> Result<Kept, CacheError> {
        let from = self.object_path(digest);
        match fsio::open_own(&from).and_then(|(file, _)| Digest::of_open(&file, &from)) {
            Ok(found) if found == digest => return Ok(Kept::Good),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Kept::Nothing),
            // An unreadable blob is as useless as a corrupt one.
            Ok(_) | Err(_) => {}
        }
        let folder = self.root.join("quarantine");
        fsio::create_dir(&folder)?;
        let to = folder.join(format!("{digest}-{}", jiff::Timestamp::now().as_millisecond()));
        match fs::rename(&from, &to) {
            // Another process has moved it at the same time.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Nothing),
            moved => Ok(moved.on("move away", &from).map(|()| Kept::Rotten(to))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_found_by_their_bytes_and_corrupt_ones_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let file = dir.path().join("tmp/out");
        fs::write(&file, b"weights").unwrap();
        let blob = cache.ingest(&file).unwrap();
        assert!(!file.exists() && cache.has(blob));
        assert_eq!(cache.read(blob.digest).unwrap(), b"weights");
        assert_eq!(cache.put(b"weights").unwrap(), blob);

        let path = cache.object_path(blob.digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"weighty").unwrap();
        assert!(cache.has(blob), "length alone does not tell");
        assert!(matches!(cache.read(blob.digest), Err(digest::ReadError::Corrupt { .. })));
        // Good bytes replace corrupt ones, through both functions.
        fs::write(&file, b"weights").unwrap();
        let (taken, rotten) = cache.take_in(&file).unwrap();
        assert!(taken == blob && fs::read(rotten.unwrap()).unwrap() == b"weighty");
        assert_eq!(cache.read(blob.digest).unwrap(), b"weights");
        for rot in ["weighty", ""] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, rot).unwrap();
            assert_eq!(cache.put(b"weights").unwrap(), blob);
            assert_eq!(cache.read(blob.digest).unwrap(), b"weights");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"weighty").unwrap();
        let kept = cache.quarantine(blob.digest).unwrap().unwrap();
        assert!(!cache.has(blob) && kept.exists());
        assert_eq!(cache.quarantine(blob.digest).unwrap(), None, "it is away already");
    }

    #[test]
    fn a_file_of_another_file_system_is_copied() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = Cache::open(dir.path()).unwrap();
        let file = other.path().join("out");
        for kept in [Kept::Nothing, Kept::Good] {
            fs::write(&file, b"weights").unwrap();
            let found = fs::symlink_metadata(&file).unwrap();
            let (blob, unnamed, _) = cache.prepare(&file, &found, true).unwrap();
            assert_eq!(blob, Blob { digest: Digest::of(b"weights"), size: 7 });
            assert!(!file.exists(), "the cache has it now");
            assert_eq!(unnamed.is_some(), matches!(kept, Kept::Nothing));
            if let Some(unnamed) = unnamed {
                assert_eq!(unnamed.from.parent(), Some(&*cache.tmp()));
                assert_eq!(fs::metadata(&unnamed.from).unwrap().mode() & 0o333, 0, "it is only read");
                unnamed.name().unwrap();
            }
            assert_eq!(cache.read(blob.digest).unwrap(), b"weights");
        }
        assert_eq!(fs::read_dir(cache.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn a_cache_of_another_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "99\n").unwrap();
        assert!(matches!(Cache::open(dir.path()), Err(CacheError::Format { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
