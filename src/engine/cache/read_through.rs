//! Reads a remote cache through the local one: manifests when their key is looked up, blobs when their bytes are
//! needed.
//!
//! Fetched files stay in the local cache.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Blob, Cache, CacheError, MANIFEST_FORMAT, Manifest, Origin, longest_manifest};
use crate::action::{Action, ActionKey};
use crate::cache::remote::{Remote, RemoteError, at_once};
use crate::fetch::{FetchError, Progress};

/// Progress of several fetches at once: told the bytes that have come for all of them; says whether to go on.
pub type SharedProgress<'a> = dyn Fn(u64) -> ControlFlow<()> + Sync + 'a;

/// Outcome of obtaining a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obtained {
    /// It was here.
    Here,
    /// It was fetched.
    Fetched,
    /// Neither cache has it.
    Missing,
    /// The remote cache has other bytes under its name; holds the message.
    Wrong(String),
}

impl Cache {
    /// Finds the manifest of an action whose key is `key`, here or in the remote cache.
    ///
    /// # Errors
    /// [`CacheError::Remote`] if the remote could not be asked. A remote manifest that is unreadable or of another key
    /// counts as absent.
    pub fn find(&self, action: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        if let Some(manifest) = self.lookup_action(action, key) {
            return Ok(Some(manifest));
        }
        match &self.remote {
            Some(remote) => self.fetch_manifest(remote, action, key),
            None => Ok(None),
        }
    }

    /// Fetches the missing manifests of these actions in one batch. A later [`Cache::find`] is a cache hit or a known
    /// miss.
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn prefetch(&self, mut wanted: Vec<(Action, ActionKey)>) -> Result<(), CacheError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        wanted.sort_unstable_by_key(|(_, key)| *key);
        wanted.dedup_by_key(|(_, key)| *key);
        wanted.retain(|(action, key)| self.lookup_action(action, *key).is_none());
        for fetched in at_once(&wanted, |(action, key)| self.fetch_manifest(remote, action, *key)) {
            fetched?;
        }
        Ok(())
    }

    fn fetch_manifest(&self, remote: &Remote, action: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        let manifest = self.ask(remote, action, key)?;
        if let Some(manifest) = &manifest {
            self.commit(manifest)?;
        }
        Ok(manifest)
    }

    /// Returns the remote manifests of these keys, in order; stores nothing here.
    ///
    /// # Errors
    /// As [`Cache::find`].
    pub fn remote_manifests(&self, wanted: &[(Action, ActionKey)]) -> Result<Vec<Option<Manifest>>, CacheError> {
        match &self.remote {
            Some(remote) => at_once(wanted, |(action, key)| self.ask(remote, action, *key)).into_iter().collect(),
            None => Ok(vec![None; wanted.len()]),
        }
    }

    /// Asks the remote cache for a manifest and sets its origin. An untrusted manifest counts as absent.
    fn ask(&self, remote: &Remote, action: &Action, key: ActionKey) -> Result<Option<Manifest>, CacheError> {
        if self.guard.as_ref().is_some_and(|guard| guard.has_refused(key)) {
            return Ok(None);
        }
        let Some(text) = remote.manifest(key, longest_manifest(action))? else { return Ok(None) };
        let Ok(mut manifest) = serde_json::from_str::<Manifest>(&text) else { return Ok(None) };
        if manifest.format != MANIFEST_FORMAT || manifest.record != *action {
            return Ok(None);
        }
        let mut signed = None;
        if let Some(guard) = &self.guard {
            let signature = remote.signature(key)?;
            let Some(by) = guard.judge(key, text.as_bytes(), signature.as_deref()) else { return Ok(None) };
            signed = signature.map(|signature| (by, signature));
        }
        // Overrides the origin that the manifest claims: it came from this remote, now.
        manifest.from = Some(Origin::now(remote.name().secret(), signed));
        Ok(Some(manifest))
    }

    /// Whether each blob is here or in the remote cache, in order.
    ///
    /// Fetches nothing; bytes are checked where they are read.
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

    /// Makes a blob available here, fetching it from the remote cache if necessary.
    ///
    /// # Errors
    /// [`CacheError`] if the remote could not be asked, or the blob could not be stored.
    pub fn obtain(&self, blob: Blob, progress: &mut Progress<'_>) -> Result<Obtained, CacheError> {
        if self.has(blob) {
            return Ok(Obtained::Here);
        }
        let Some(remote) = &self.remote else { return Ok(Obtained::Missing) };
        if progress(0, Some(blob.size)).is_break() {
            return Err(RemoteError::Fetch(FetchError::Stopped).into());
        }
        // Each blob has one fetch place: an interrupted fetch resumes there, and two runs do not fetch the same blob.
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

    /// Makes blobs available here, several at once and the largest first; returns their outcomes, in order.
    ///
    /// # Errors
    /// As [`Cache::obtain`]. The first failure stops the other fetches; a later one continues where they stopped.
    pub fn obtain_all(&self, blobs: &[Blob], progress: &SharedProgress<'_>) -> Result<Vec<Obtained>, CacheError> {
        let order = largest_first(blobs);
        let (came, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let ended = at_once(&order, |at| {
            let mut counted = 0;
            let outcome = self.obtain(blobs[*at], &mut |done, _| {
                // A fetch that has to start again counts down.
                let more = done.wrapping_sub(std::mem::replace(&mut counted, done));
                let all = came.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
                if failed.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { progress(all) }
            });
            failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
            outcome
        });
        let mut outcomes: Vec<(usize, Obtained)> = Vec::with_capacity(blobs.len());
        let mut stopped = None;
        for (at, outcome) in order.into_iter().zip(ended) {
            match outcome {
                Ok(outcome) => outcomes.push((at, outcome)),
                // Perhaps only because another one failed.
                Err(error) if error.is_stopped() => stopped = Some(error),
                Err(error) => return Err(error),
            }
        }
        outcomes.sort_unstable_by_key(|(at, _)| *at);
        stopped.map_or_else(|| Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect()), Err)
    }
}

/// Returns the order in which to fetch blobs. The last one to come is then a short one, and does not keep the others
/// waiting.
fn largest_first(blobs: &[Blob]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..blobs.len()).collect();
    order.sort_by_key(|at| Reverse(blobs[*at].size));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn the_largest_blob_is_fetched_first() {
        let blobs = [3, 70, 5, 70].map(|size| Blob { digest: Digest::of(b""), size });
        assert_eq!(largest_first(&blobs), [1, 3, 2, 0]);
    }
}
