//! Leases in a bucket: which run makes a key, for runs on several machines that share no file system.
//!
//! A lease is the object `leases/KEY.json`. It is written only if there is none (`If-None-Match: *`), so one of several
//! runs gets it. Its holder writes it anew now and then, with another count, so that it gets another tag (`ETag`). A
//! lease whose tag a watcher has not seen change for long, by the watcher's own clock, is stale; the watcher takes it
//! over by a write that holds only for that tag (`If-Match`). Clocks need not agree.
//!
//! A lease saves work; correctness does not depend on it. Knows nothing of stages.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::error::RemoteError;
use crate::action::ActionKey;

/// Interval at which a holder writes its leases anew. Each is a request that a store may charge for.
const BEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Time without a change after which a lease is stale: two beats may be lost.
pub(crate) const LEASE_PATIENCE: Duration = Duration::from_secs(180);

/// Maximum length of a lease, in bytes. One has some hundred.
const LEASE_BYTES: u64 = 16 << 10;

/// Content of a lease: its holder, as the caller describes it, and a count that changes with every beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Content {
    holder: serde_json::Value,
    beat: u64,
}

/// Outcome of an attempt to take a lease.
#[derive(Debug)]
pub(crate) enum RemoteAttempt {
    /// This run holds the lease until it is dropped.
    Taken(RemoteLease),
    /// Another run holds it; holds the description of the holder, if it can be read.
    Held(Option<serde_json::Value>),
}

/// Leases of one run in a bucket.
#[derive(Debug)]
pub(crate) struct RemoteLeases {
    bucket: Arc<Bucket>,
    patience: Duration,
    /// Watched leases of other runs: their tag, and since when it has not changed.
    watched: HashMap<ActionKey, (Option<String>, Instant)>,
    held: Arc<Mutex<Vec<Weak<HeldObject>>>>,
    /// Stops the beating thread when dropped.
    heart: Option<Sender<()>>,
}

/// Lease that this process holds; dropping it releases it.
#[derive(Debug)]
pub(crate) struct RemoteLease {
    _object: Arc<HeldObject>,
}

#[derive(Debug)]
struct HeldObject {
    bucket: Arc<Bucket>,
    path: String,
    /// What was written last; `None` once another run has taken the lease over.
    state: Mutex<Option<Written>>,
}

#[derive(Debug)]
struct Written {
    content: Content,
    version: UpdateVersion,
    at: Instant,
}

impl RemoteLeases {
    /// Returns an empty set of leases.
    pub(super) fn new(bucket: Arc<Bucket>) -> Self {
        RemoteLeases { bucket, patience: LEASE_PATIENCE, watched: HashMap::new(), held: Arc::default(), heart: None }
    }

    /// Tries to take the lease of a key for a holder; never waits. `is_dead` says of a holder whether it is known to be
    /// dead.
    ///
    /// # Errors
    /// [`RemoteError`] if the bucket cannot be read or written.
    pub(crate) fn attempt(
        &mut self,
        key: ActionKey,
        holder: serde_json::Value,
        is_dead: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<RemoteAttempt, RemoteError> {
        let path = lease_path(key);
        let content = Content { holder, beat: 0 };
        // Each iteration but the last follows a change by another run; the limit keeps them finite.
        for _ in 0..4 {
            if let Some(version) = self.bucket.create(&path, bytes_of(&content))? {
                return Ok(RemoteAttempt::Taken(self.taken(key, path, content, version)));
            }
            let Some((bytes, version)) = self.bucket.read_version(&path, LEASE_BYTES)? else { continue };
            let found = serde_json::from_slice::<Content>(&bytes).ok();
            let is_dead = found.as_ref().is_some_and(|found| is_dead(&found.holder));
            if !is_dead && !self.is_stale(key, version.e_tag.as_deref()) {
                return Ok(RemoteAttempt::Held(found.map(|found| found.holder)));
            }
            if let Some(version) = self.bucket.replace(&path, bytes_of(&content), version)? {
                return Ok(RemoteAttempt::Taken(self.taken(key, path, content, version)));
            }
        }
        Ok(RemoteAttempt::Held(None))
    }

    fn is_stale(&mut self, key: ActionKey, tag: Option<&str>) -> bool {
        let (seen, since) = self.watched.entry(key).or_insert_with(|| (tag.map(str::to_owned), Instant::now()));
        if seen.as_deref() != tag {
            (*seen, *since) = (tag.map(str::to_owned), Instant::now());
        }
        since.elapsed() > self.patience
    }

    fn taken(&mut self, key: ActionKey, path: String, content: Content, version: UpdateVersion) -> RemoteLease {
        self.watched.remove(&key);
        let state = Mutex::new(Some(Written { content, version, at: Instant::now() }));
        let object = Arc::new(HeldObject { bucket: self.bucket.clone(), path, state });
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&object));
        self.beat();
        RemoteLease { _object: object }
    }

    /// Writes leases anew for as long as they are held.
    fn beat(&mut self) {
        if self.heart.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel::<()>();
        let held = Arc::clone(&self.held);
        self.heart = Some(sender);
        thread::spawn(move || {
            while receiver.recv_timeout(BEAT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let objects: Vec<Arc<HeldObject>> = {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.retain(|object| object.strong_count() > 0);
                    held.iter().filter_map(Weak::upgrade).collect()
                };
                objects.iter().for_each(|object| object.beat());
            }
        });
    }
}

impl HeldObject {
    /// Shows that the holder lives.
    fn beat(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(written) = &mut *state else { return };
        let content = Content { beat: written.content.beat + 1, ..written.content.clone() };
        match self.bucket.replace(&self.path, bytes_of(&content), written.version.clone()) {
            Ok(Some(version)) => *written = Written { content, version, at: Instant::now() },
            // Another run has taken it over, and does the same work.
            Ok(None) => *state = None,
            // The next beat may succeed.
            Err(_) => {}
        }
    }
}

impl Drop for HeldObject {
    /// Releases the lease, unless another run may have taken it over.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Stores delete without a condition. Within this time after a beat, no run takes a lease over.
        let is_ours = state.as_ref().is_some_and(|written| written.at.elapsed() < LEASE_PATIENCE - BEAT_INTERVAL);
        if is_ours {
            // One that stays is stale in time.
            _ = self.bucket.remove(&self.path);
        }
    }
}

fn bytes_of(content: &Content) -> Vec<u8> {
    serde_json::to_vec(content).unwrap_or_default()
}

fn lease_path(key: ActionKey) -> String {
    format!("leases/{key}.json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;

    fn key() -> ActionKey {
        serde_json::from_value(json!(Digest::of(b"key"))).unwrap()
    }

    fn leases(bucket: &Arc<Bucket>, patience: Duration) -> RemoteLeases {
        RemoteLeases { patience, ..RemoteLeases::new(bucket.clone()) }
    }

    fn attempt(leases: &mut RemoteLeases, name: &str) -> Result<RemoteLease, Option<serde_json::Value>> {
        match leases.attempt(key(), json!(name), |holder| holder == "dead").unwrap() {
            RemoteAttempt::Taken(lease) => Ok(lease),
            RemoteAttempt::Held(holder) => Err(holder),
        }
    }

    #[test]
    fn one_of_two_runs_gets_a_lease_and_the_other_when_it_is_given_up() {
        let bucket = Arc::new(Bucket::in_memory());
        let (mut one, mut other) = (leases(&bucket, LEASE_PATIENCE), leases(&bucket, LEASE_PATIENCE));
        let lease = attempt(&mut one, "one").unwrap();
        assert_eq!(attempt(&mut other, "other").unwrap_err(), Some(json!("one")));
        drop(lease);
        assert!(attempt(&mut other, "other").is_ok());
    }

    #[test]
    fn a_lease_is_stale_once_its_holder_is_dead_or_has_not_written_it_for_long() {
        let bucket = Arc::new(Bucket::in_memory());
        let short = Duration::from_millis(150);
        let (mut one, mut other) = (leases(&bucket, short), leases(&bucket, short));
        let lease = attempt(&mut one, "one").unwrap();
        for _ in 0..4 {
            assert!(attempt(&mut other, "other").is_err(), "it beats");
            thread::sleep(short / 2);
            lease._object.beat();
        }
        assert!(attempt(&mut other, "other").is_err());
        thread::sleep(short * 2);
        let taken = attempt(&mut other, "dead").unwrap();
        // The first holder finds out, and leaves the lease of the other alone.
        lease._object.beat();
        assert!(lease._object.state.lock().unwrap().is_none());
        drop(lease);
        assert!(bucket.read_version(&lease_path(key()), LEASE_BYTES).unwrap().is_some());
        let mut third = leases(&bucket, LEASE_PATIENCE);
        let third = attempt(&mut third, "third").unwrap();
        drop(taken);
        drop(third);
    }

    #[test]
    fn what_is_no_lease_is_waited_for_and_then_replaced() {
        let bucket = Arc::new(Bucket::in_memory());
        bucket.write(&lease_path(key()), vec![b'x'; LEASE_BYTES as usize + 9]).unwrap();
        let mut one = leases(&bucket, Duration::from_millis(50));
        assert_eq!(attempt(&mut one, "one").unwrap_err(), None);
        thread::sleep(Duration::from_millis(100));
        assert!(attempt(&mut one, "one").is_ok());
    }

    #[test]
    fn of_many_that_want_a_lease_one_gets_it() {
        let bucket = Arc::new(Bucket::in_memory());
        for _ in 0..20 {
            let taken = Mutex::new(Vec::new());
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        // Kept, so that no other thread gets a released lease.
                        if let Ok(lease) = attempt(&mut leases(&bucket, LEASE_PATIENCE), "some") {
                            taken.lock().unwrap().push(lease);
                        }
                    });
                }
            });
            assert_eq!(taken.into_inner().unwrap().len(), 1);
        }
    }
}
