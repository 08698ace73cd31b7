//! Messages from workers and engine stages to the scheduler thread, and their handling.

use std::path::PathBuf;
use std::time::Instant;

use super::jobs::Running;
use super::pace::{Pace, Sample};
use super::{RunError, Scheduler};
use crate::cache::{CacheError, Manifest};
use crate::event::RunEvent;
use crate::plain::{plain, plain_line};
use crate::protocol::{Event, Failure, ProgressMetrics, StageProgress};
use crate::publish::PublishError;

/// Maximum length of a worker's summary in messages and manifests, in bytes.
const LONGEST_SUMMARY: usize = 500;
/// Maximum length of each text of a failure, in bytes.
const LONGEST_TEXT: usize = 16 << 10;
/// Maximum number of causes of a failure.
const MOST_CAUSES: usize = 30;

/// Message to the scheduler thread.
pub(super) enum Message {
    Worker(usize, Event),
    WorkerSaid(usize, String),
    WorkerGone(usize),
    /// One line, or several lines with their line ends.
    EngineLog(u64, String),
    EngineWarning(u64, String),
    EngineProgress(u64, u64, u64, String),
    EngineDone(u64, Result<String, Failure>),
    Recorded(u64, Box<Running>, Recorded),
}

/// Outcome of recording a stage.
pub(super) enum Recorded {
    /// The result is in the cache. Files with the names of its blobs and other bytes were moved to these paths. Where
    /// runs share work, the failure to send it to the remote cache.
    Done(Box<Manifest>, Vec<PathBuf>, Option<Box<PublishError>>),
    /// The stage turns out to have no result.
    Failed(Failure),
    /// The cache cannot be written.
    Broken(CacheError),
}

impl Scheduler<'_> {
    pub(super) fn receive(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Worker(worker, event) => match event {
                Event::Hello { .. } | Event::Unusable { .. } => {
                    if let (Event::Hello { device, arithmetic, .. }, Some(part)) = (&event, &self.options.part) {
                        part.neighbours.note_worker(device, &arithmetic.isa);
                    }
                    self.workers.greeted(worker, event)?;
                }
                Event::Log { id, line } => self.log(id, &line),
                Event::Warning { id, message } => self.warn(id, &message),
                Event::Progress { id, done, total, message, metrics } => {
                    self.progress(id, done, total, message, metrics);
                }
                Event::Finished { id, summary, peak_memory, earlier_seconds } => {
                    self.workers.freed(worker);
                    self.succeed(id, plain_line(&summary, LONGEST_SUMMARY), Some(peak_memory), earlier_seconds);
                }
                Event::Failed { id, failure } => {
                    self.workers.freed(worker);
                    self.fail(id, bounded(failure))?;
                }
                // A run asks for none.
                Event::Measured { .. } => {}
            },
            Message::WorkerSaid(worker, line) => {
                if let Some(id) = self.workers.job_of(worker) {
                    self.log(id, &line);
                }
                self.workers.said(worker, &line);
            }
            Message::WorkerGone(worker) => {
                let job = self.workers.job_of(worker);
                let status = self.workers.gone(worker);
                match (job, status) {
                    (Some(id), status) => {
                        let status = status.map_or_else(|error| error.to_string(), |gone| gone.status);
                        self.worker_died(id, &status)?;
                    }
                    // The user who stopped the run may have killed the worker, and wants no new one.
                    (None, _) if self.interrupt.requests() > 0 => {}
                    (None, status) => {
                        if let Some(warning) = status?.warning {
                            self.emit(RunEvent::Warning(warning));
                        }
                    }
                }
            }
            Message::EngineLog(id, lines) => self.log(id, &lines),
            Message::EngineWarning(id, message) => {
                self.log(id, &format!("warning: {message}"));
                self.alert(id, &message);
            }
            Message::EngineProgress(id, done, total, message) => {
                self.progress(id, done, total, message, ProgressMetrics::default());
            }
            Message::EngineDone(id, Ok(summary)) => self.succeed(id, summary, None, 0.0),
            Message::EngineDone(id, Err(failure)) => self.fail(id, failure)?,
            Message::Recorded(id, running, recorded) => self.recorded(id, *running, recorded)?,
        }
        Ok(())
    }

    fn log(&mut self, id: u64, lines: &str) {
        let Some(running) = self.jobs.get_mut(id) else { return };
        running.log.add(lines);
        let id = running.id;
        let stage = self.name(id);
        for line in lines.lines() {
            self.emit(RunEvent::StageLog { stage: stage.clone(), line: line.to_owned() });
        }
    }

    /// Emits a warning of a stage and adds it to the stage's log.
    fn warn(&mut self, id: u64, message: &str) {
        self.log(id, message);
        self.alert(id, message);
    }

    fn alert(&mut self, id: u64, message: &str) {
        let Some(running) = self.jobs.get(id) else { return };
        let stage = self.name(running.id);
        self.emit(RunEvent::Warning(format!("{stage}: {message}")));
    }

    fn progress(&mut self, id: u64, done: u64, total: u64, message: String, metrics: ProgressMetrics) {
        let Some(running) = self.jobs.get_mut(id) else { return };
        let pace = running.pace.after(Sample { at: Instant::now(), done, images: metrics.images }, total);
        let Pace { images_per_second, seconds_left } = pace;
        let stage = running.id;
        let progress = StageProgress { done, total, message, metrics, images_per_second, seconds_left };
        self.emit(RunEvent::StageProgress { stage: self.name(stage), progress });
    }
}

/// Limits and cleans the text of another program's failure.
fn bounded(failure: Failure) -> Failure {
    let Failure { code, message, causes } = failure;
    let causes = causes.iter().take(MOST_CAUSES).map(|cause| plain_text(cause)).collect();
    Failure { code, message: plain_text(&message), causes }
}

fn plain_text(text: &str) -> String {
    let text = plain(text);
    if text.len() <= LONGEST_TEXT {
        return text.into_owned();
    }
    let cut = &text[..text.floor_char_boundary(LONGEST_TEXT)];
    format!("{cut}… ({} more bytes)", text.len() - cut.len())
}
