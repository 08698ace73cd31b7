//! Leases: which run holds which key, so that two runs on one cache do each stage once, on one machine or on several.
//!
//! Knows nothing of stages.
//!
//! A lease saves work; correctness does not depend on it. If two runs ever held the same lease, they would write the
//! same manifest twice.
//!
//! A lease is a file `leases/KEY.json`, written in full in `tmp/` and then linked to its name. A hard link to an
//! existing name fails, on NFS too, so exactly one of several runs gets the lease. Its holder touches it every few
//! seconds through the open file. All leases of a run are names of one file: a file system takes its time to make and
//! to delete a file, and trivial stages would wait for that.
//!
//! A lease is stale in two cases:
//! - Its holder is known to be dead. On the same machine, there is no such process, it started at another time, or it
//!   belongs to an earlier boot.
//! - No touch was seen for long. The watcher's own clock measures this, so clocks need not agree.
//!
//! A stale lease is removed under the lock `leases/lock`, which the system releases with its holder. It is removed only
//! if it is unchanged since the check. No lease ever waits for a person. A holder releases its
//! own in the same way, for another run may have taken it over; one of a few seconds is just removed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::heart_beat::{HeartBeat, NETWORK_TOUCH_INTERVAL, TOUCH_INTERVAL};
use super::lease_file::{LeaseFile, LeaseLock};
use super::lease_holder::{Holder, Life, OTHER_MACHINE_PATIENCE, UNREADABLE_PATIENCE, is_over, life};
use super::remote::{LEASE_PATIENCE, RemoteAttempt, RemoteLease, RemoteLeases};
use super::{Cache, CacheError};
use crate::action::ActionKey;
use crate::fsio::{self, Context};

/// Outcome of an attempt to take a lease.
#[derive(Debug)]
pub enum Attempt {
    /// This run holds the lease until it is dropped.
    Taken(Lease),
    /// Another run holds it.
    Held(Held),
}

/// Lease that another run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The holder; `None` if it cannot be read.
    pub holder: Option<Holder>,
    /// Longest wait without a sign of life from the holder. `None` if the holder is a process of this machine, whose
    /// end will be seen.
    pub patience: Option<Duration>,
    /// Whether the lease is in the remote cache: each look at it is a request over a network.
    pub is_remote: bool,
}

/// Lease that this process holds; dropping it releases it.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    bytes: Arc<[u8]>,
    /// Open, so that a touch never reaches another run's lease of the same name.
    _file: Arc<File>,
    lock: Arc<LeaseLock>,
    /// When it was taken, by two clocks: one stands still while a machine sleeps, and the other may be set.
    taken: (Instant, SystemTime),
    /// The same key's lease in the remote cache, where runs share work through it. Released after this one.
    _remote: Option<RemoteLease>,
}

/// Leases of one run.
#[derive(Debug)]
pub struct Leases {
    cache: Cache,
    own: Holder,
    patience: Duration,
    /// Whether the cache is on a network file system, where holders touch their leases rarely.
    is_on_network: bool,
    /// Watched leases of other runs: their content, and since when it has not changed.
    watched: HashMap<ActionKey, (LeaseFile, Instant)>,
    /// The file that all leases of keys are names of, once there is one.
    named: Option<NamedFile>,
    lock: Arc<LeaseLock>,
    /// Touches the leases that are held.
    heart: HeartBeat,
    /// Leases in the remote cache, where runs share work through it.
    remote: Option<RemoteLeases>,
}

/// File to be given the name of a lease, or several names.
#[derive(Debug)]
struct NamedFile {
    /// Its name in `tmp/`, which goes with it.
    scratch: tempfile::TempPath,
    file: Arc<File>,
    bytes: Arc<[u8]>,
}

impl Leases {
    /// Creates an empty set of leases.
    pub fn new(cache: &Cache) -> Self {
        let (cache, own) = (cache.clone(), Holder::of_this_process());
        let remote = cache.shared().and_then(|remote| remote.leases());
        let is_on_network = fsio::is_on_network(cache.root());
        Leases {
            cache,
            own,
            patience: OTHER_MACHINE_PATIENCE,
            is_on_network,
            watched: HashMap::new(),
            named: None,
            lock: Arc::default(),
            heart: HeartBeat::every(if is_on_network { NETWORK_TOUCH_INTERVAL } else { TOUCH_INTERVAL }),
            remote,
        }
    }

    /// Tries to take the lease of a key; never waits. Where runs share work through the remote cache, takes the lease
    /// there as well.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be written, or the remote cache fails.
    pub fn attempt(&mut self, key: ActionKey) -> Result<Attempt, CacheError> {
        let mut lease = match self.attempt_here(key)? {
            Attempt::Taken(lease) => lease,
            held => return Ok(held),
        };
        let Some(leases) = &mut self.remote else { return Ok(Attempt::Taken(lease)) };
        let own = serde_json::to_value(&self.own).unwrap_or_default();
        let holder = |value| serde_json::from_value::<Holder>(value).ok();
        let is_dead = |value: &serde_json::Value| {
            holder(value.clone()).is_some_and(|holder| matches!(life(Some(&holder)), Life::Dead))
        };
        let attempt = leases.attempt(key, own, is_dead)?;
        // Its holder may have finished since the remote cache was asked.
        self.cache.forget_absence(key);
        Ok(match attempt {
            RemoteAttempt::Taken(remote) => {
                lease._remote = Some(remote);
                Attempt::Taken(lease)
            }
            RemoteAttempt::Held(found) => {
                let patience = Some(LEASE_PATIENCE);
                Attempt::Held(Held { holder: found.and_then(holder), patience, is_remote: true })
            }
        })
    }

    fn attempt_here(&mut self, key: ActionKey) -> Result<Attempt, CacheError> {
        let path = self.cache.lease_path(key);
        // Most leases are free, and the attempt to take one tells of one that is not.
        let mut may_be_free = !self.watched.contains_key(&key);
        // Each iteration but the last follows a change by another run; the limit keeps them finite.
        for _ in 0..8 {
            let found = if std::mem::take(&mut may_be_free) { None } else { LeaseFile::at(&path) };
            let Some(found) = found else {
                let named = match self.named.take() {
                    Some(named) => named,
                    None => {
                        let bytes = serde_json::to_vec(&self.next()).unwrap_or_default();
                        self.write(bytes)?
                    }
                };
                let lease = self.name(&named, &path);
                self.named = Some(named);
                match lease? {
                    Some(lease) => {
                        self.watched.remove(&key);
                        return Ok(Attempt::Taken(lease));
                    }
                    None => continue,
                }
            };
            let found = &found;
            if !self.is_stale(key, found) || !self.lock.remove(&path, |now| now == found) {
                let patience = match self.life(found) {
                    Life::Unseen(patience) => Some(patience),
                    Life::Alive | Life::Dead => None,
                };
                return Ok(Attempt::Held(Held { holder: found.holder(), patience, is_remote: false }));
            }
        }
        Ok(Attempt::Held(Held { holder: None, patience: None, is_remote: false }))
    }

    fn life(&self, found: &LeaseFile) -> Life {
        let holder = found.holder();
        match life(holder.as_ref()) {
            // Its holder may be on a network file system and touch it as rarely as one on another machine.
            Life::Unseen(_) if holder.is_none() && self.is_on_network => Life::Unseen(self.patience),
            Life::Unseen(patience) => Life::Unseen(patience.min(self.patience)),
            life => life,
        }
    }

    fn is_stale(&mut self, key: ActionKey, found: &LeaseFile) -> bool {
        let patience = match self.life(found) {
            Life::Dead => return true,
            Life::Alive => return false,
            Life::Unseen(patience) => patience,
        };
        let (seen, since) = self.watched.entry(key).or_insert_with(|| (found.clone(), Instant::now()));
        if seen != found {
            (*seen, *since) = (found.clone(), Instant::now());
        }
        since.elapsed() > patience
    }

    /// Returns this run as the holder of one more lease.
    pub(super) fn next(&mut self) -> Holder {
        self.own.number += 1;
        self.own.clone()
    }

    /// Makes sure that the next lookup of a key asks anew: a remote cache, where runs share work through one, and the
    /// names in the folder of the key's manifest, which the client of a network file system may otherwise remember for
    /// a minute. Opening a folder does that, and opening a file that is not there does not.
    pub(crate) fn refresh(&self, key: ActionKey) {
        self.cache.forget_absence(key);
        if self.is_on_network
            && let Some(folder) = self.cache.action_path(key).parent()
        {
            _ = File::open(folder);
        }
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Creates a lease file of its own; `None` if another run was faster.
    pub(super) fn create(&mut self, path: &Path, bytes: Vec<u8>) -> Result<Option<Lease>, CacheError> {
        let named = self.write(bytes)?;
        self.name(&named, path)
    }

    /// Writes a file that is to get the name of a lease.
    fn write(&self, bytes: Vec<u8>) -> Result<NamedFile, CacheError> {
        let tmp = self.cache.tmp();
        let write = || -> Result<tempfile::NamedTempFile, fsio::FileError> {
            fsio::create_dir(&self.cache.leases())?;
            let mut file = fsio::scratch_file(&tmp)?;
            file.write_all(&bytes).on("write", file.path())?;
            Ok(file)
        };
        let (file, scratch) = write().map_err(|error| self.cache.unwritable(error))?.into_parts();
        Ok(NamedFile { scratch, file: Arc::new(file), bytes: bytes.into() })
    }

    /// Gives a file the name of a lease; `None` if another run was faster.
    fn name(&mut self, named: &NamedFile, path: &Path) -> Result<Option<Lease>, CacheError> {
        // Complete from the first moment. It need not be synced: a crash of the machine ends the holder, too.
        let file = match fs::hard_link(&named.scratch, path) {
            Ok(()) => Arc::clone(&named.file),
            // On NFS, the answer to a successful link may be lost.
            Err(_) if is_name_of(path, &named.file) => Arc::clone(&named.file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(_) => {
                // Without hard links, a reader may see an incomplete lease. It then waits as for an unknown holder.
                let written =
                    File::create_new(path).and_then(|mut file| file.write_all(&named.bytes).map(|()| Arc::new(file)));
                match written {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                    Err(error) => return Err(Err::<(), _>(error).on("write", path).unwrap_err().into()),
                }
            }
        };
        self.heart.beat_for(&file);
        let (bytes, lock) = (Arc::clone(&named.bytes), Arc::clone(&self.lock));
        let taken = (Instant::now(), SystemTime::now());
        Ok(Some(Lease { path: path.to_owned(), bytes, _file: file, lock, taken, _remote: None }))
    }
}

/// Age of a lease up to which no other run has taken it over: all wait longer for a sign of life.
const SURE: Duration = UNREADABLE_PATIENCE.checked_div(2).expect("it is not zero");

impl Lease {
    /// Whether no other run can have taken the lease over. Those of this machine know that its holder lives.
    fn is_surely_own(&self) -> bool {
        let (taken, at) = self.taken;
        taken.elapsed() < SURE && at.elapsed().is_ok_and(|age| age < SURE)
    }
}

impl Drop for Lease {
    /// Releases the lease, unless another run has taken it over.
    fn drop(&mut self) {
        // A short stage spares a network file system the look, and the lock for it.
        if self.is_surely_own() && fs::remove_file(&self.path).is_ok() {
            return;
        }
        for _ in 0..40 {
            if self.lock.remove(&self.path, |now| *now.bytes == *self.bytes) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // The file stays; it is stale as soon as this process ends.
    }
}

impl Cache {
    /// Whether a run may hold a key.
    ///
    /// Returns `false` only if there is no lease, its holder is known to be dead, or an unobservable holder was silent
    /// for a day.
    pub fn is_leased(&self, key: ActionKey) -> bool {
        let path = self.lease_path(key);
        let Some(found) = LeaseFile::at(&path) else { return false };
        !is_over(&path, found.holder().as_ref())
    }

    /// Returns who holds or left the lease of a key.
    pub fn lease_holder(&self, key: ActionKey) -> Option<Holder> {
        LeaseFile::at(&self.lease_path(key))?.holder()
    }

    fn lease_path(&self, key: ActionKey) -> PathBuf {
        self.leases().join(format!("{key}.json"))
    }

    fn leases(&self) -> PathBuf {
        self.root().join("leases")
    }
}

/// Whether a path is a name of an open file.
fn is_name_of(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(open)) = (fs::metadata(path), file.metadata()) else { return false };
    (named.dev(), named.ino()) == (open.dev(), open.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::host::system;

    fn key() -> ActionKey {
        ActionKey(Digest::of(b"a stage"))
    }

    fn leave(cache: &Cache, change: impl FnOnce(&mut Holder)) {
        let mut holder = Leases::new(cache).own;
        change(&mut holder);
        fs::create_dir_all(cache.root().join("leases")).unwrap();
        fs::write(cache.lease_path(key()), serde_json::to_vec(&holder).unwrap()).unwrap();
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        (dir, cache)
    }

    fn is_taken(leases: &mut Leases) -> bool {
        matches!(leases.attempt(key()).unwrap(), Attempt::Taken(_))
    }

    #[test]
    fn one_of_two_runs_gets_a_lease_and_the_other_when_it_is_given_up() {
        let (_dir, cache) = cache();
        let (mut one, mut other) = (Leases::new(&cache), Leases::new(&cache));
        assert!(!cache.is_leased(key()));
        let Attempt::Taken(lease) = one.attempt(key()).unwrap() else { panic!("nobody else wants it") };
        let Attempt::Held(held) = other.attempt(key()).unwrap() else { panic!("it is held") };
        assert_eq!(held, Held { holder: Some(one.own.clone()), patience: None, is_remote: false });
        assert!(cache.is_leased(key()));
        drop(lease);
        assert!(is_taken(&mut other) && !cache.is_leased(key()));
    }

    #[test]
    fn the_lease_of_a_dead_process_is_taken_over_at_once() {
        let (_dir, cache) = cache();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        leave(&cache, |holder| holder.pid = dead.id().cast_signed());
        assert!(!cache.is_leased(key()) && is_taken(&mut Leases::new(&cache)));
        // The same process id, but another process.
        leave(&cache, |holder| holder.started = holder.started.map(|started| started + 1));
        assert!(!cache.is_leased(key()) && is_taken(&mut Leases::new(&cache)));
    }

    #[test]
    fn the_lease_of_an_earlier_boot_is_taken_over_at_once() {
        let (_dir, cache) = cache();
        let boot = |holder: &mut Holder| holder.machine = "0a1b2c3d-before pid:[4026531836]".to_owned();
        // Where the system does not identify itself, two machines may share one host name.
        let tells = !system().is_empty();
        leave(&cache, boot);
        assert_eq!(is_taken(&mut Leases::new(&cache)), tells);
        leave(&cache, boot);
        assert_eq!(cache.is_leased(key()), !tells);
        for (system, host) in [(Some("other"), None), (None, Some("other"))] {
            leave(&cache, |holder| {
                boot(holder);
                holder.system = system.map_or(holder.system.clone(), str::to_owned);
                holder.host = host.map_or(holder.host.clone(), str::to_owned);
            });
            assert!(!is_taken(&mut Leases::new(&cache)) && cache.is_leased(key()));
        }
    }

    #[test]
    fn a_lease_that_cannot_be_read_is_waited_for_a_short_time_and_that_is_told() {
        let (_dir, cache) = cache();
        fs::create_dir_all(cache.root().join("leases")).unwrap();
        for bytes in ["", "{\"host\": \"a", "\0\0\0\0"] {
            fs::write(cache.lease_path(key()), bytes).unwrap();
            let Attempt::Held(held) = Leases::new(&cache).attempt(key()).unwrap() else { panic!("it may be alive") };
            assert_eq!(held, Held { holder: None, patience: Some(UNREADABLE_PATIENCE), is_remote: false });
            let mut leases = Leases { patience: Duration::from_millis(50), ..Leases::new(&cache) };
            assert!(!is_taken(&mut leases));
            std::thread::sleep(Duration::from_millis(80));
            assert!(is_taken(&mut leases));
        }
        leave(&cache, |holder| holder.machine = "elsewhere".to_owned());
        let Attempt::Held(held) = Leases::new(&cache).attempt(key()).unwrap() else { panic!("it may be alive") };
        assert_eq!(held.patience, Some(OTHER_MACHINE_PATIENCE));
    }

    #[test]
    fn the_lease_of_another_machine_is_stale_only_when_it_was_not_touched_for_long() {
        let (_dir, cache) = cache();
        leave(&cache, |holder| (holder.machine, holder.pid) = ("elsewhere".to_owned(), i32::MAX));
        let file = File::options().write(true).open(cache.lease_path(key())).unwrap();
        let mut leases = Leases { patience: Duration::from_millis(200), ..Leases::new(&cache) };
        for seconds in 1..6 {
            // Its clock is years behind, but it is alive.
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            assert!(!is_taken(&mut leases));
            std::thread::sleep(Duration::from_millis(60));
        }
        assert!(cache.is_leased(key()), "nobody can know");
        std::thread::sleep(Duration::from_millis(250));
        assert!(is_taken(&mut leases));
    }

    #[test]
    fn of_many_that_take_a_stale_lease_over_one_gets_it() {
        let (_dir, cache) = cache();
        for _ in 0..20 {
            leave(&cache, |holder| holder.started = Some(1));
            let taken = std::sync::Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut leases = Leases::new(&cache);
                        // Kept, so that no other thread gets a released lease.
                        if let Attempt::Taken(lease) = leases.attempt(key()).unwrap() {
                            taken.lock().unwrap().push(lease);
                        }
                    });
                }
            });
            let taken = taken.into_inner().unwrap();
            // Every thread may have found the lock taken at its only attempt; then the next attempt gets it.
            assert!(taken.len() <= 1, "{}", taken.len());
            assert!(taken.len() == 1 || is_taken(&mut Leases::new(&cache)));
        }
    }

    #[test]
    fn a_holder_that_was_taken_over_leaves_the_new_lease_alone() {
        let (_dir, cache) = cache();
        let mut slow = Leases::new(&cache);
        let Attempt::Taken(mut lease) = slow.attempt(key()).unwrap() else { panic!("nobody else wants it") };
        leave(&cache, |holder| holder.run = "another".to_owned());
        // Long ago by one of two clocks, as it is where the machine slept.
        lease.taken.1 -= OTHER_MACHINE_PATIENCE;
        drop(lease);
        assert!(cache.is_leased(key()));
    }
}
