//! Touches the leases that a run holds every few seconds: a sign of life for runs on other machines.

use std::fs::File;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// Interval at which a holder touches its leases.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_secs(5);

/// The same on a network file system. A server that serves a thousand holders gets 33 touches a second, not 200. A
/// watcher on another machine waits for six of them.
pub(super) const NETWORK_TOUCH_INTERVAL: Duration = Duration::from_secs(30);

/// Touches files for as long as they are open elsewhere. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct HeartBeat {
    interval: Duration,
    held: Arc<Mutex<Vec<Weak<File>>>>,
    /// Stops the thread when dropped. `None` before the first file.
    thread: Option<Sender<()>>,
}

impl HeartBeat {
    /// Creates one that has nothing to touch.
    pub(super) fn every(interval: Duration) -> Self {
        HeartBeat { interval, held: Arc::default(), thread: None }
    }

    /// Touches a file for as long as somebody else has it.
    pub(super) fn beat_for(&mut self, file: &Arc<File>) {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().any(|held| std::ptr::eq(held.as_ptr(), Arc::as_ptr(file))) {
            all.push(Arc::downgrade(file));
        }
        drop(all);
        if self.thread.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel::<()>();
        let (held, interval) = (Arc::clone(&self.held), self.interval);
        self.thread = Some(sender);
        std::thread::spawn(move || {
            while receiver.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                held.lock().unwrap_or_else(PoisonError::into_inner).retain(|file| {
                    // A failed touch may succeed the next time. At worst, another run does the same work.
                    file.upgrade().map(|file| file.set_modified(SystemTime::now())).is_some()
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_touched_while_somebody_has_it_and_not_after_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lease");
        let file = Arc::new(File::create(&path).unwrap());
        let touched = || path.metadata().unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH;
        let mut heart = HeartBeat::every(Duration::from_millis(1));
        heart.beat_for(&file);
        heart.beat_for(&file);
        assert_eq!(heart.held.lock().unwrap().len(), 1, "two leases may be names of one file");
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        while !touched() {
            std::thread::yield_now();
        }
        drop(file);
        while !heart.held.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
    }
}
