//! Reading a remote cache through the local one: manifests when a key is asked for, blobs when somebody needs their
//! bytes. What was fetched stays here.

use super::{Blob, Cache, CacheError, MANIFEST_FORMAT, Manifest, Origin, longest_manifest};
use crate::action::{Action, ActionKey};
use crate::cache::remote::{Remote, RemoteError, at_once};
use crate::fetch::{FetchError, Progress};

/// What came of asking for a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obtained {
    /// It was here.
    Here,
    /// It was fetched.
    Fetched,
    /// Nobody has it.
    Missing,
    /// The remote has other bytes under its name; what it says of it.
    Wrong(String),
}

impl Cache {
    /// The manifest of a record whose key is `key`, from here or from the remote cache.
    ///
    /// # Errors
    /// [`CacheError::Remote`] if the remote could not be asked. A manifest of it that cannot be read, or that is of
    /// another key, counts as not there.
    pub fn find(&self, record: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        if let Some(manifest) = self.lookup_record(record, key) {
            return Ok(Some(manifest));
        }
        match &self.remote {
            Some(remote) => self.fetch_manifest(remote, record, key),
            None => Ok(None),
        }
    }

    /// Fetches the manifests of these records that are not here, all at once; then [`Cache::find`] has nobody to ask.
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn prefetch(&self, mut wanted: Vec<(Action, ActionKey)>) -> Result<(), CacheError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        wanted.sort_unstable_by_key(|(_, key)| *key);
        wanted.dedup_by_key(|(_, key)| *key);
        wanted.retain(|(record, key)| self.lookup_record(record, *key).is_none());
        for fetched in at_once(&wanted, |(record, key)| self.fetch_manifest(remote, record, *key)) {
            fetched?;
        }
        Ok(())
    }

    fn fetch_manifest(&self, remote: &Remote, record: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        let manifest = self.ask(remote, record, key)?;
        if let Some(manifest) = &manifest {
            self.commit(manifest)?;
        }
        Ok(manifest)
    }

    /// What the remote cache has under these keys, in their order; nothing of it is kept here.
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn elsewhere(&self, wanted: &[(Action, ActionKey)]) -> Result<Vec<Option<Manifest>>, CacheError> {
        match &self.remote {
            Some(remote) => at_once(wanted, |(record, key)| self.ask(remote, record, *key)).into_iter().collect(),
            None => Ok(vec![None; wanted.len()]),
        }
    }

    /// Asks the remote cache for a manifest and notes where it comes from. One that counts for nothing here is as none.
    fn ask(&self, remote: &Remote, record: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        if self.guard.as_ref().is_some_and(|guard| guard.has_refused(key)) {
            return Ok(None);
        }
        let Some(text) = remote.manifest(key, longest_manifest(record))? else { return Ok(None) };
        let Ok(mut manifest) = serde_json::from_str::<Manifest>(&text) else { return Ok(None) };
        if manifest.format != MANIFEST_FORMAT || manifest.record != *record {
            return Ok(None);
        }
        let mut signed = None;
        if let Some(guard) = &self.guard {
            let signature = remote.signature(key)?;
            let Some(by) = guard.judge(key, text.as_bytes(), signature.as_deref()) else { return Ok(None) };
            signed = signature.map(|signature| (by, signature));
        }
        // Whatever it says of its own origin, it came from there now.
        manifest.from = Some(Origin::now(remote.name().secret(), signed));
        Ok(Some(manifest))
    }

    /// Which blobs are here or in the remote cache, in their order. Nothing is fetched; bytes are checked where they
    /// are read.
    ///
    /// # Errors
    /// [`CacheError::Remote`] if the remote could not be asked.
    pub fn can_obtain(&self, blobs: &[Blob]) -> Result<Vec<bool>, CacheError> {
        let mut there: Vec<bool> = blobs.iter().map(|blob| self.has(*blob)).collect();
        let Some(remote) = &self.remote else { return Ok(there) };
        let absent: Vec<usize> = (0..blobs.len()).filter(|at| !there[*at]).collect();
        for (at, found) in absent.iter().zip(at_once(&absent, |at| remote.has_blob(blobs[*at]))) {
            there[*at] = found?;
        }
        Ok(there)
    }

    /// Sees to it that a blob is here, fetching it from the remote cache if it has to be.
    ///
    /// # Errors
    /// [`CacheError`] if the remote could not be asked, or what it gave could not be kept.
    pub fn obtain(&self, blob: Blob, progress: &mut Progress<'_>) -> Result<Obtained, CacheError> {
        if self.has(blob) {
            return Ok(Obtained::Here);
        }
        let Some(remote) = &self.remote else { return Ok(Obtained::Missing) };
        // One place for each blob: a fetch that was cut off goes on where it stopped, and two runs do not fetch the
        // same.
        let is_over = &mut || progress(0, Some(blob.size)).is_break();
        let Some((file, _lock)) = self.fetch_place(&format!("blake3:{}", blob.digest), is_over)? else {
            return Err(RemoteError::Fetch(FetchError::Stopped).into());
        };
        if self.has(blob) {
            return Ok(Obtained::Here);
        }
        match remote.blob(blob, &file, progress) {
            Ok(false) => {
                self.leave_fetch_place(&file);
                Ok(Obtained::Missing)
            }
            Ok(true) => {
                self.ingest(&file)?;
                self.leave_fetch_place(&file);
                Ok(Obtained::Fetched)
            }
            Err(error) if error.is_wrong_bytes() => {
                self.leave_fetch_place(&file);
                Ok(Obtained::Wrong(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
