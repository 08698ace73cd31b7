//! Blobs: files named by the digest of their bytes, written once and read-only.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Blob, Cache, CacheError};
use crate::digest::{self, Digest};
use crate::fsio::{self, Context, FileError};
use crate::outputs;

/// Why a file could not become a blob.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file cannot be read, copied or changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cache cannot take it.
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

/// How often is looked whether somebody else has fetched what is wanted.
const LOOK: Duration = Duration::from_millis(50);

impl Cache {
    /// Where the blob of a digest is, or would be.
    pub fn object_path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join("objects").join(&name[..2]).join(name)
    }

    /// Whether a blob is there in full length. Its bytes are checked where they are read.
    pub fn has(&self, blob: Blob) -> bool {
        fs::metadata(self.object_path(blob.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    /// Takes a finished file of the cache's file system in as a blob; the file is gone from its old place afterwards. A
    /// blob belongs to the cache alone: a file that has another name, or another owner, is copied.
    ///
    /// # Errors
    /// [`IngestError`] says whether the file or the cache is at fault.
    pub fn ingest(&self, file: &Path) -> Result<Blob, IngestError> {
        self.take_in(file).map(|(blob, _)| blob)
    }

    /// The same; tells where a blob was moved to that had the name and other bytes.
    ///
    /// # Errors
    /// As [`Cache::ingest`].
    pub fn take_in(&self, file: &Path) -> Result<(Blob, Option<PathBuf>), IngestError> {
        let found = fs::symlink_metadata(file).on("read", file)?;
        if !outputs::is_ours_alone(&found) {
            let copy = self.copy_of(file)?;
            let taken = self.take_in_own(&copy)?;
            fs::remove_file(file).on("remove", file)?;
            return Ok(taken);
        }
        self.take_in_own(file)
    }

    /// A copy of a file; a file system that can do so lets the two share their bytes until one is changed.
    fn copy_of(&self, file: &Path) -> Result<tempfile::TempPath, IngestError> {
        let copy = fsio::scratch_file(&self.tmp()).map_err(CacheError::from)?.into_temp_path();
        fs::copy(file, &copy).on("copy", file)?;
        Ok(copy)
    }

    fn take_in_own(&self, file: &Path) -> Result<(Blob, Option<PathBuf>), IngestError> {
        let size = fs::metadata(file).on("read", file)?.len();
        let blob = Blob { digest: Digest::of_file(file).on("read", file)?, size };
        // A length alone does not tell: these bytes are good, those that are there may have rotted. Reading them costs
        // less than writing these.
        let rotten = self.quarantine(blob.digest)?;
        if rotten.is_none() && self.has(blob) {
            self.touch(blob);
            fs::remove_file(file).on("remove", file)?;
            return Ok((blob, None));
        }
        fsio::sync(file)?;
        fsio::make_read_only(file)?;
        let target = self.object_path(blob.digest);
        if let Some(folder) = target.parent() {
            fsio::create_dir(folder).map_err(CacheError::from)?;
        }
        // The bytes are on the disk before they have their name: a crash leaves a blob whole or not there.
        fs::rename(file, &target).on("write", &target).map_err(CacheError::from)?;
        Ok((blob, rotten))
    }

    /// Takes bytes in as a blob.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, CacheError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        // As above, but nobody has to be told: logs are put here, and nothing is made of them.
        if self.quarantine(blob.digest)?.is_none() && self.has(blob) {
            self.touch(blob);
        } else {
            fsio::write_atomic(&self.object_path(blob.digest), &self.tmp(), bytes)?;
        }
        Ok(blob)
    }

    /// Makes a blob young again: a manifest will name it soon, and a collection that runs meanwhile must not take it
    /// for garbage.
    fn touch(&self, blob: Blob) {
        let now = std::time::SystemTime::now();
        // In a cache of somebody else's it cannot be done; then its age is all that protects it.
        _ = fs::File::open(self.object_path(blob.digest)).and_then(|file| file.set_modified(now));
    }

    /// Reads a blob and checks its bytes.
    ///
    /// # Errors
    /// [`digest::ReadError`].
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, digest::ReadError> {
        digest::read_verified(&self.object_path(digest), digest)
    }

    /// The blob that a fetched file became, by its publisher's digest (`sha256:…`); nothing if it was never fetched.
    pub fn fetched(&self, identity: &str) -> Option<Blob> {
        serde_json::from_slice(&fsio::read_regular(&self.fetched_path(identity), u64::MAX).ok()?).ok()
    }

    /// Remembers which blob a fetched file became.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remember_fetched(&self, identity: &str, blob: Blob) -> Result<(), CacheError> {
        let text = serde_json::to_string(&blob).unwrap_or_default();
        Ok(fsio::write_atomic(&self.fetched_path(identity), &self.tmp(), text.as_bytes())?)
    }

    /// A place to fetch a file to, and the lock that keeps others from it while it is held. Somebody else who fetches
    /// the same is waited for; nothing if `is_over` says meanwhile that nobody wants it any more.
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
            // Anew each time: whoever was waited for may have removed the place when it was done.
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

    /// Removes a place to fetch to, once what came is a blob. Whoever waits for its lock looks for the blob first.
    pub(crate) fn leave_fetch_place(&self, file: &Path) {
        if let Some(folder) = file.parent() {
            // What stays costs a few bytes.
            _ = fs::remove_dir_all(folder);
        }
    }

    fn fetched_path(&self, identity: &str) -> PathBuf {
        self.root.join("fetched").join(format!("{}.json", identity.replace(':', "-")))
    }

    /// Moves a blob with other bytes than its name out of the way, so that it is made or fetched again, and tells where
    /// to; nothing if the blob is gone or right.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn quarantine(&self, digest: Digest) -> Result<Option<PathBuf>, CacheError> {
        let from = self.object_path(digest);
        match Digest::of_file(&from) {
            Ok(found) if found == digest => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // What cannot be read is of no more use than what is wrong.
            Ok(_) | Err(_) => {}
        }
        let folder = self.root.join("quarantine");
        fsio::create_dir(&folder)?;
        let to = folder.join(format!("{digest}-{}", jiff::Timestamp::now().as_millisecond()));
        match fs::rename(&from, &to) {
            // Somebody else has met it at the same time.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            moved => Ok(moved.on("move away", &from).map(|()| Some(to))?),
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
        // Good bytes take the place of rotten ones, by both ways.
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
    fn a_cache_of_another_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("VERSION"), "99\n").unwrap();
        assert!(matches!(Cache::open(dir.path()), Err(CacheError::Format { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
