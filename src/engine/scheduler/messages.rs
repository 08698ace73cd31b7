//! What reaches the deciding thread, from workers and from the engine's own stages, and what it does about each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::record::Recorded;
use super::{Interrupt, RunError, Running, Scheduler};
use crate::event::RunEvent;
use crate::protocol::{Event, Failure};
use crate::stages::{Guard, Reporter};

/// What reaches the deciding thread.
pub(super) enum Message {
    Worker(usize, Event),
    WorkerSaid(usize, String),
    WorkerGone(usize),
    EngineLog(u64, String),
    EngineProgress(u64, u64, u64, String),
    EngineDone(u64, Result<String, Failure>),
    Recorded(u64, Box<Running>, Recorded),
}

impl Scheduler<'_> {
    pub(super) fn receive(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Worker(worker, event) => match event {
                Event::Hello { .. } | Event::Unusable { .. } => self.workers.greeted(worker, event)?,
                Event::Log { id, line } => self.log(id, &line),
                Event::Warning { id, message } => self.warn(id, &message),
                Event::Progress { id, done, total, message } => self.progress(id, done, total, message),
                Event::Finished { id, summary, peak_memory, earlier_seconds } => {
                    self.workers.freed(worker);
                    self.succeed(id, summary, Some(peak_memory), earlier_seconds);
                }
                Event::Failed { id, failure } => {
                    self.workers.freed(worker);
                    self.fail(id, failure)?;
                }
            },
            Message::WorkerSaid(worker, line) => {
                if let Some(id) = self.workers.job_of(worker) {
                    self.log(id, &line);
                }
                self.workers.said(worker, line);
            }
            Message::WorkerGone(worker) => {
                let job = self.workers.job_of(worker);
                let status = self.workers.gone(worker);
                match (job, status) {
                    (Some(id), status) => self.worker_died(id, &status.unwrap_or_else(|error| error.to_string()))?,
                    (None, status) => _ = status?,
                }
            }
            Message::EngineLog(id, line) => self.log(id, &line),
            Message::EngineProgress(id, done, total, message) => self.progress(id, done, total, message),
            Message::EngineDone(id, Ok(summary)) => self.succeed(id, summary, None, 0.0),
            Message::EngineDone(id, Err(failure)) => self.fail(id, failure)?,
            Message::Recorded(id, running, recorded) => self.recorded(id, *running, recorded)?,
        }
        Ok(())
    }

    fn log(&mut self, id: u64, line: &str) {
        let Some(running) = self.running.get_mut(&id) else { return };
        running.log.extend_from_slice(line.as_bytes());
        running.log.push(b'\n');
        let stage = self.graph.instance(running.id).name.clone();
        self.emit(RunEvent::StageLog { stage, line: line.to_owned() });
    }

    /// What a stage warns of stays in its log, too.
    fn warn(&mut self, id: u64, message: &str) {
        self.log(id, message);
        let Some(running) = self.running.get(&id) else { return };
        let stage = self.name(running.id);
        self.emit(RunEvent::Warning(format!("{stage}: {message}")));
    }

    fn progress(&mut self, id: u64, done: u64, total: u64, message: String) {
        let Some(running) = self.running.get(&id) else { return };
        let stage = self.graph.instance(running.id).name.clone();
        self.emit(RunEvent::StageProgress { stage, done, total, message });
    }
}

/// Tells the deciding thread what a stage says that runs in the engine.
pub(super) struct EngineReporter {
    pub(super) job: u64,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) interrupt: Interrupt,
    pub(super) guard: Arc<Guard>,
    pub(super) sender: Sender<Message>,
}

impl Reporter for EngineReporter {
    fn log(&self, line: &str) {
        _ = self.sender.send(Message::EngineLog(self.job, line.to_owned()));
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        _ = self.sender.send(Message::EngineProgress(self.job, done, total, message.to_owned()));
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::SeqCst)
    }

    fn hurried(&self) -> bool {
        self.interrupt.asked() > 1
    }

    fn guard(&self) -> Option<&Guard> {
        Some(&self.guard)
    }
}
