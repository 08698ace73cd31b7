//! Context of a running stage: parameters, inputs, outputs, random numbers, and messages to the engine.

use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atflow::protocol::{Event, Input, Job, ProgressMetrics};
use serde::de::DeserializeOwned;
use tch::Device;

use crate::checkpoint::Checkpoint;
use crate::data::{DeviceSet, Library};
use crate::device::ChosenDevice;
use crate::error::StageError;
use crate::rng::Rng;

/// Minimum interval between progress reports.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// Maximum interval between them, as long as a stage calls [`Reporter::check_cancelled`].
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// The cancelled jobs; shared with the thread that listens to the engine.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: Mutex<Vec<u64>>,
    closed: AtomicBool,
}

impl Control {
    /// Marks a job as cancelled, whether it is running or not.
    pub fn cancel(&self, id: u64) {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Cancels every job, because the engine has left.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.closed.load(Ordering::Acquire)
            || self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}

/// Reports a job's progress to the engine.
pub struct Reporter<'a> {
    id: u64,
    events: &'a mut dyn FnMut(Event),
    control: &'a Control,
    /// When progress was last sent.
    last_sent: Option<Instant>,
    done: u64,
    total: u64,
    report: Report,
    /// Images processed so far.
    images: Option<u64>,
}

/// Content of a progress report: words for people, and the same as numbers.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// A few words.
    pub message: String,
    /// Numbers other than `images`, which the reporter counts.
    pub metrics: ProgressMetrics,
}

impl From<String> for Report {
    fn from(message: String) -> Self {
        Report { message, metrics: ProgressMetrics::default() }
    }
}

impl Reporter<'_> {
    /// Reports progress; builds `report` only if a report is due. Fails if the job is cancelled.
    ///
    /// # Errors
    /// [`StageError::Cancelled`].
    pub fn progress<R: Into<Report>>(
        &mut self,
        done: u64,
        total: u64,
        report: impl FnOnce() -> R,
    ) -> Result<(), StageError> {
        if self.is_report_due(done, total) {
            self.report(done, total, report());
        }
        self.fail_if_cancelled()
    }

    /// Returns whether a report is due: enough time has passed, or the last unit is done.
    pub fn is_report_due(&self, done: u64, total: u64) -> bool {
        self.is_silent_for(SHORTEST_PAUSE) || (done == total && self.done != total)
    }

    /// Reports progress unconditionally.
    pub fn report(&mut self, done: u64, total: u64, report: impl Into<Report>) {
        (self.done, self.total, self.report) = (done, total, report.into());
        self.send_progress();
    }

    /// Counts images that were processed: the reports carry the sum.
    pub fn count_images(&mut self, images: usize) {
        self.images = Some(self.images.unwrap_or(0) + images as u64);
    }

    /// Repeats the last report if the engine has heard nothing for a while. Fails if the job is cancelled.
    ///
    /// # Errors
    /// [`StageError::Cancelled`].
    pub fn check_cancelled(&mut self) -> Result<(), StageError> {
        if self.is_silent_for(LONGEST_PAUSE) {
            self.send_progress();
        }
        self.fail_if_cancelled()
    }

    /// Adds a line to the stage's log.
    pub fn log(&mut self, line: impl Into<String>) {
        (self.events)(Event::Log { id: self.id, line: line.into() });
    }

    /// Shows a warning to the user while the stage continues; also logs it.
    pub fn warn(&mut self, message: impl Into<String>) {
        (self.events)(Event::Warning { id: self.id, message: message.into() });
    }

    fn is_silent_for(&self, pause: Duration) -> bool {
        self.last_sent.is_none_or(|sent| sent.elapsed() >= pause)
    }

    fn send_progress(&mut self) {
        self.last_sent = Some(Instant::now());
        let (id, done, total) = (self.id, self.done, self.total);
        let Report { message, metrics } = self.report.clone();
        let metrics = ProgressMetrics { images: self.images, ..metrics };
        (self.events)(Event::Progress { id, done, total, message, metrics });
    }

    fn fail_if_cancelled(&self) -> Result<(), StageError> {
        if self.control.is_cancelled(self.id) { Err(StageError::Cancelled) } else { Ok(()) }
    }
}

/// The context of a running stage.
pub struct Context<'a> {
    /// The requested job.
    pub job: &'a Job,
    /// The device to compute on.
    pub device: Device,
    /// The device selection, with its numerics.
    pub chosen: &'a ChosenDevice,
    /// The job's random numbers.
    pub rng: Rng,
    /// Reports the job's progress.
    pub reporter: Reporter<'a>,
    /// Start time of the job.
    pub started: Instant,
    /// Time that earlier jobs spent on the progress this one resumes from.
    pub earlier: Duration,
    library: &'a mut Library,
}

impl<'a> Context<'a> {
    /// Creates the context of one job.
    pub fn new(
        job: &'a Job,
        chosen: &'a ChosenDevice,
        library: &'a mut Library,
        events: &'a mut dyn FnMut(Event),
        control: &'a Control,
    ) -> Self {
        let reporter = Reporter {
            id: job.id,
            events,
            control,
            last_sent: None,
            done: 0,
            total: 0,
            report: "starting".to_owned().into(),
            images: None,
        };
        let (started, earlier) = (Instant::now(), Duration::ZERO);
        Context { job, device: chosen.device, chosen, rng: Rng::new(job.seed), reporter, started, earlier, library }
    }

    /// Returns the parameters as the kind's type.
    ///
    /// # Errors
    /// [`StageError::Params`].
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, StageError> {
        T::deserialize(&self.job.params).map_err(|source| StageError::Params { kind: self.job.kind, source })
    }

    /// Returns the single input of a slot.
    ///
    /// # Errors
    /// [`StageError::Slot`] unless there is exactly one.
    pub fn input(&self, slot: &'static str) -> Result<&'a Input, StageError> {
        let inputs = self.inputs(slot);
        match inputs[..] {
            [input] => Ok(input),
            _ => Err(StageError::Slot { slot, expected: "one input", found: inputs.len() }),
        }
    }

    /// Returns every input of a slot, in order.
    pub fn inputs(&self, slot: &'static str) -> Vec<&'a Input> {
        self.job.inputs_of(slot).collect()
    }

    /// Returns the image set of an input.
    ///
    /// # Errors
    /// As [`Library::set`].
    pub fn set(&mut self, input: &Input) -> Result<Rc<DeviceSet>, StageError> {
        self.library.set(input)
    }

    /// Returns the checkpoint of an input.
    ///
    /// # Errors
    /// As [`Library::checkpoint`].
    pub fn checkpoint(&mut self, input: &Input) -> Result<Rc<Checkpoint>, StageError> {
        self.library.checkpoint(input)
    }

    /// Returns the path of the file for an output.
    ///
    /// # Errors
    /// [`StageError::NoOutput`].
    pub fn output(&self, output: &str) -> Result<&'a PathBuf, StageError> {
        self.job.outputs.get(output).ok_or_else(|| StageError::NoOutput(output.to_owned()))
    }

    /// Writes an output.
    ///
    /// # Errors
    /// [`StageError::NoOutput`] or [`StageError::Write`].
    pub fn write(&self, output: &str, bytes: &[u8]) -> Result<(), StageError> {
        let path = self.output(output)?;
        let written = std::fs::File::create(path).and_then(|mut file| file.write_all(bytes));
        written.map_err(|source| StageError::Write { path: path.clone(), source })
    }
}
