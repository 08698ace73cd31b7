//! Threads of the engine, which run stages without tensors and tell the scheduler thread how they end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use super::Interrupt;
use super::messages::Message;
use super::progress_sender::ProgressSender;
use crate::action::ActionKey;
use crate::cache::Cache;
use crate::executors::{self, Reporter};
use crate::external_inputs::{CheckedSource, obtain};
use crate::keeper::Keepers;
use crate::protocol::{Failure, FailureCode, Input, Job};

/// What threads of the engine share.
pub(super) struct EngineThreads {
    cache: Cache,
    keepers: Arc<Keepers>,
    interrupt: Interrupt,
    sender: SyncSender<Message>,
    /// Threads that wait for work.
    idle: Arc<Mutex<Vec<Sender<Work>>>>,
    #[cfg(test)]
    held: Option<Arc<Mutex<Held>>>,
}

/// What a simulation does in its own time, instead of threads.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Held {
    pub(super) stages: Vec<Job>,
    pub(super) works: Vec<Work>,
}

/// Work of a thread, and the message that comes of it.
pub(super) type Work = Box<dyn FnOnce() -> Message + Send>;

impl EngineThreads {
    pub(super) fn new(cache: Cache, keepers: Keepers, interrupt: Interrupt, sender: SyncSender<Message>) -> Self {
        EngineThreads {
            cache,
            keepers: Arc::new(keepers),
            interrupt,
            sender,
            idle: Arc::default(),
            #[cfg(test)]
            held: None,
        }
    }

    /// Holds all work back from now on.
    #[cfg(test)]
    pub(super) fn hold(&mut self) -> Arc<Mutex<Held>> {
        Arc::clone(self.held.get_or_insert_default())
    }

    /// Runs a stage without tensors on its own thread. `sources` are its external files, by slot.
    pub(super) fn start_stage(&self, mut job: Job, sources: Vec<(String, CheckedSource)>, cancel: Arc<AtomicBool>) {
        #[cfg(test)]
        if let Some(held) = &self.held {
            return held.lock().unwrap().stages.push(job);
        }
        let (interrupt, keepers) = (self.interrupt.clone(), Arc::clone(&self.keepers));
        let reporter = EngineReporter { job: job.id, cancel, interrupt, keepers, sender: self.sender.clone() };
        let cache = self.cache.clone();
        self.start(move || {
            let id = job.id;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut available = Vec::with_capacity(sources.len());
                for (slot, source) in sources {
                    let found = obtain(&source, &cache, &reporter)?;
                    job.inputs.push(Input {
                        slot,
                        label: String::new(),
                        path: found.path.clone(),
                        digest: found.digest,
                    });
                    available.push(found);
                }
                executors::run(&job, &reporter)
            }));
            let result = result.unwrap_or_else(|_| {
                let message = "the engine broke while it ran this stage".to_owned();
                Err(Failure { code: FailureCode::Broken, message, causes: Vec::new() })
            });
            Message::EngineDone(id, result)
        });
    }

    /// Sends the progress of a training while it runs, if another machine may have to go on with it.
    /// `there` is the number of epochs that the bucket has, if that is known.
    pub(super) fn send_progress(&self, key: ActionKey, job: u64, there: Option<u32>) -> Option<ProgressSender> {
        let sender = self.sender.clone();
        // The run may be busy or over, and nothing here must wait for it.
        let warn = move |text| _ = sender.try_send(Message::EngineWarning(job, text));
        ProgressSender::start(&self.cache, key, there, warn)
    }

    /// Works on a thread of its own, and sends the message that comes of it.
    pub(super) fn start(&self, work: impl FnOnce() -> Message + Send + 'static) {
        let mut work: Work = Box::new(work);
        #[cfg(test)]
        if let Some(held) = &self.held {
            return held.lock().unwrap().works.push(work);
        }
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(idle) = idle else { break };
            match idle.send(work) {
                Ok(()) => return,
                // That thread is gone: its work broke.
                Err(mpsc::SendError(unsent)) => work = unsent,
            }
        }
        let (sender, idle) = (self.sender.clone(), Arc::downgrade(&self.idle));
        std::thread::spawn(move || {
            loop {
                let message = work();
                // Whoever has the other end drops it at the end of the run.
                let (own, works) = mpsc::channel();
                if let Some(idle) = idle.upgrade() {
                    idle.lock().unwrap_or_else(PoisonError::into_inner).push(own);
                }
                // The send fails only if the run is over.
                if sender.send(message).is_err() {
                    return;
                }
                match works.recv() {
                    Ok(next) => work = next,
                    Err(_) => return,
                }
            }
        });
    }
}

/// Reports from an engine stage to the scheduler thread.
struct EngineReporter {
    job: u64,
    cancel: Arc<AtomicBool>,
    interrupt: Interrupt,
    keepers: Arc<Keepers>,
    sender: SyncSender<Message>,
}

impl Reporter for EngineReporter {
    fn log(&self, line: &str) {
        self.log_lines(line);
    }

    fn log_lines(&self, lines: &str) {
        _ = self.sender.send(Message::EngineLog(self.job, lines.to_owned()));
    }

    fn warn(&self, message: &str) {
        _ = self.sender.send(Message::EngineWarning(self.job, message.to_owned()));
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        _ = self.sender.send(Message::EngineProgress(self.job, done, total, message.to_owned()));
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::SeqCst)
    }

    fn hurried(&self) -> bool {
        self.interrupt.requests() > 1
    }

    fn has_program_folder(&self) -> bool {
        true
    }

    fn keepers(&self) -> Option<&Keepers> {
        Some(&self.keepers)
    }
}
