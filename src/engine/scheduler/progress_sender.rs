//! Sends the progress of one training to the bucket through which runs share work, on a thread of its own. Knows no
//! scheduler.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use crate::action::ActionKey;
use crate::cache::{Cache, CacheError, Lease};
use crate::external_inputs::causes;
use crate::formats::{TRAINING_PROGRESS_FILE, finished_epochs};

/// Interval at which it is looked whether an epoch has ended.
const LOOK: Duration = Duration::from_secs(1);

/// Time before the first sending, and the shortest time between two. Each may cost money, and some hundred megabytes.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// A pause is at least so many times as long as the sending before it: a slow network is left to others.
const PAUSE_FACTOR: u32 = 10;

/// Sends the progress of one training while it runs. Dropping it sends nothing more.
pub(super) struct ProgressSender {
    wishes: Sender<Wish>,
    /// Closed once the thread ends.
    ended: Receiver<()>,
}

/// What is to happen at the end of a training.
enum Wish {
    /// It was stopped: another machine may continue it.
    SendLast,
    /// Its result is there.
    Remove,
}

/// A training that runs no longer, whose progress is being sent or removed.
pub(super) struct Leaving {
    progress: ProgressSender,
    /// Keeps other runs from it meanwhile.
    _lease: Option<Lease>,
}

impl Leaving {
    pub(super) fn new(progress: ProgressSender, lease: Option<Lease>) -> Self {
        Leaving { progress, _lease: lease }
    }

    /// Whether nothing is being sent or removed any more.
    pub(super) fn has_ended(&self) -> bool {
        self.progress.ended.try_recv() == Err(TryRecvError::Disconnected)
    }
}

impl ProgressSender {
    /// Starts to send the progress of a training; `None` if the cache shares no work. `there` is the number of epochs
    /// that the bucket has, if that is known. `warn` is told if progress cannot be sent; it must not block.
    pub(super) fn start(
        cache: &Cache,
        key: ActionKey,
        there: Option<u32>,
        warn: impl FnOnce(String) + Send + 'static,
    ) -> Option<Self> {
        cache.shared()?;
        let (wishes, asked) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let folder = cache.partial_path(key);
        let seen = changed_at(&folder);
        let watch = Watch { cache: cache.clone(), key, folder, there, seen, next: Instant::now() + SHORTEST_PAUSE };
        let thread = std::thread::Builder::new().name("progress".to_owned());
        let thread = thread.spawn(move || {
            let _end = end;
            watch.watch(&asked, warn);
        });
        // A machine without room for a thread trains nevertheless.
        thread.ok().map(|_| ProgressSender { wishes, ended })
    }

    /// Sends what is left to send: another machine may continue the training.
    pub(super) fn send_last(&self) {
        _ = self.wishes.send(Wish::SendLast);
    }

    /// Removes what was sent: the result is there.
    pub(super) fn remove(&self) {
        _ = self.wishes.send(Wish::Remove);
    }
}

/// What the thread of a sender knows.
struct Watch {
    cache: Cache,
    key: ActionKey,
    /// Folder of the progress.
    folder: PathBuf,
    /// Number of epochs that the bucket has; `None` if that is not known.
    there: Option<u32>,
    /// When the file changed that was looked at last.
    seen: Option<SystemTime>,
    /// Earliest time of the next sending.
    next: Instant,
}

impl Watch {
    /// Sends now and then, until the training ends.
    fn watch(mut self, asked: &Receiver<Wish>, warn: impl FnOnce(String)) {
        let mut warn = Some(warn);
        loop {
            let wish = asked.recv_timeout(LOOK);
            match &wish {
                Ok(Wish::Remove) if self.there != Some(0) => return self.cache.drop_sent_partial(self.key),
                Ok(Wish::Remove) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if Instant::now() < self.next => continue,
                Err(RecvTimeoutError::Timeout) | Ok(Wish::SendLast) => {}
            }
            let started = Instant::now();
            if let Err(error) = self.send()
                && let Some(warn) = warn.take()
            {
                let why = causes(&error).join(": ");
                warn(format!("its progress could not be sent, so another machine would repeat more of it: {why}"));
            }
            if wish.is_ok() {
                return;
            }
            self.next = Instant::now() + SHORTEST_PAUSE.max(PAUSE_FACTOR * started.elapsed());
        }
    }

    /// Sends the progress, if it is new and further than what the bucket has.
    fn send(&mut self) -> Result<(), CacheError> {
        let found = changed_at(&self.folder);
        if found.is_none() || found == self.seen {
            return Ok(());
        }
        let there = match self.there {
            Some(there) => there,
            None => self.cache.sent_epochs(self.key)?,
        };
        self.there = Some(there);
        let epochs = finished_epochs(&self.folder).unwrap_or(0);
        // Another machine may have come further, and be gone.
        if epochs > there {
            self.cache.send_partial(self.key)?;
            self.there = Some(epochs);
        }
        self.seen = found;
        Ok(())
    }
}

/// Returns the time of the progress in a folder, if there is any.
fn changed_at(folder: &Path) -> Option<SystemTime> {
    std::fs::metadata(folder.join(TRAINING_PROGRESS_FILE)).and_then(|metadata| metadata.modified()).ok()
}
