//! Jobs of a run: stages that run, stages whose results are being recorded, and the slots that they take.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::log::StageLog;
use super::pace::Paces;
use super::progress_sender::ProgressSender;
use super::scratch::Scratch;
use super::tasks::Satisfaction;
use crate::action::{Action, ActionKey};
use crate::cache::Lease;
use crate::spec::{InstanceId, fits_on_gpu};

/// Number of stages beyond `jobs` that may be in recording. More would only fill the disk's queue.
const MAX_EXTRA_RECORDINGS: usize = 32;

/// Instance that is running.
pub(super) struct Running {
    pub(super) id: InstanceId,
    pub(super) action: Action,
    pub(super) key: ActionKey,
    pub(super) started: Instant,
    /// Seconds that it ran, once its outputs are written.
    pub(super) ran: f64,
    /// `None` once its contents are recorded.
    pub(super) scratch: Option<Scratch>,
    pub(super) outputs: HashMap<String, PathBuf>,
    pub(super) worker: Option<usize>,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) share: Share,
    pub(super) log: StageLog,
    pub(super) pace: Paces,
    pub(super) wants: Satisfaction,
    /// Sends its progress, if it is a training that another machine may have to go on with.
    pub(super) progress: Option<ProgressSender>,
    /// When it was told that its time limit is over.
    pub(super) overdue: Option<Instant>,
    /// Keeps other runs from the same key. Released when the stage ends, however it ends.
    pub(super) lease: Option<Lease>,
}

/// Resources that stages take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// CPU threads.
    pub(super) threads: usize,
    /// Share of a GPU, or 0.
    pub(super) gpu: f64,
}

impl Share {
    pub(super) fn add(&mut self, other: Share) {
        self.threads += other.threads;
        self.gpu += other.gpu;
    }
}

/// Stages that run or are being recorded.
pub(super) struct Jobs {
    /// CPU threads to use at once.
    threads: usize,
    running: HashMap<u64, Running>,
    /// Keys of stages that have finished and whose results are being recorded, by job.
    recording: HashMap<u64, ActionKey>,
    next: u64,
}

impl Jobs {
    /// Creates an empty set of jobs, which use at most `threads` CPU threads at once.
    pub(super) fn new(threads: usize) -> Self {
        Jobs { threads, running: HashMap::new(), recording: HashMap::new(), next: 0 }
    }

    /// Returns the number of the next job.
    pub(super) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn start(&mut self, job: u64, running: Running) {
        self.running.insert(job, running);
    }

    /// Removes a stage that runs no longer.
    pub(super) fn end(&mut self, job: u64) -> Option<Running> {
        self.running.remove(&job)
    }

    pub(super) fn get(&self, job: u64) -> Option<&Running> {
        self.running.get(&job)
    }

    pub(super) fn get_mut(&mut self, job: u64) -> Option<&mut Running> {
        self.running.get_mut(&job)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (u64, &Running)> {
        self.running.iter().map(|(job, running)| (*job, running))
    }

    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = (u64, &mut Running)> {
        self.running.iter_mut().map(|(job, running)| (*job, running))
    }

    pub(super) fn start_recording(&mut self, job: u64, key: ActionKey) {
        self.recording.insert(job, key);
    }

    pub(super) fn end_recording(&mut self, job: u64) {
        self.recording.remove(&job);
    }

    /// Whether nothing runs and nothing is being recorded.
    pub(super) fn are_none(&self) -> bool {
        self.running.is_empty() && self.recording.is_empty()
    }

    /// Whether a stage with this key runs or is being recorded.
    pub(super) fn make(&self, key: ActionKey) -> bool {
        self.running.values().any(|running| running.key == key) || self.recording.values().any(|other| *other == key)
    }

    /// Returns the resources that the running stages take.
    pub(super) fn used(&self) -> Share {
        let mut used = Share::default();
        self.running.values().for_each(|running| used.add(running.share));
        used
    }

    /// Whether another stage may start beside those that take `used`, given the stages in recording.
    pub(super) fn have_room(&self, used: Share) -> bool {
        used.threads < self.threads && self.recording.len() < self.threads + MAX_EXTRA_RECORDINGS
    }

    /// Whether a stage that takes `share` fits beside those that take `used`.
    pub(super) fn fit(&self, used: Share, share: Share) -> bool {
        used.threads + share.threads <= self.threads && fits_on_gpu(used.gpu, share.gpu)
    }
}
