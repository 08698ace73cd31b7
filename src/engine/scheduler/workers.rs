//! Worker processes: started on first use, kept for many stages, replaced when they die.
//!
//! Knows the protocol, not the graph.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::Message;
use crate::digest::Digest;
use crate::lines::read_lines;
use crate::numerics::{Arithmetic, Numerics};
use crate::plain::plain_line;
use crate::protocol::{Event, Job, PROTOCOL_VERSION, Request, is_gpu};

/// Number of inputs that a worker is assumed to keep in memory.
const MAX_HELD_INPUTS: usize = 16;

/// Maximum length of a remembered line of output, in bytes.
const LONGEST_SAID: usize = 400;

/// Time to wait for the standard error of a dead worker.
const STDERR_WAIT: Duration = Duration::from_secs(1);

/// Maximum length of a protocol line, in bytes. Events are shorter; output of libraries may be longer.
const LONGEST_EVENT: usize = 1 << 20;

/// Maximum length of a line on standard error, which goes to a log.
const LONGEST_LINE: usize = 16 << 10;

/// Total number of starts, one after another, if workers are killed while they start. Then the run gives up.
const MAX_KILLED_STARTS: u32 = 8;

/// Maximum number of starts that end by themselves. A further start would most likely end the same way.
const MAX_OWN_ENDS: u32 = 3;

/// Pause before the next start. It doubles with each failed start, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Time that a worker has to exit once asked.
const EXIT_TIME: Duration = Duration::from_secs(2);

/// Reason why no worker is available.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The worker reports that it cannot work.
    #[error("{0}")]
    Unusable(String),
    /// The worker speaks another protocol version.
    #[error("{} speaks protocol {found}; this version of atflow speaks {PROTOCOL_VERSION}", program.display())]
    Protocol {
        /// The program.
        program: PathBuf,
        /// Its protocol version.
        found: u32,
    },
    /// The worker repeatedly ended by itself before it was ready.
    #[error("{} ended {times} times before it was ready ({status})", program.display())]
    Died {
        /// The program.
        program: PathBuf,
        /// Number of attempts.
        times: u32,
        /// Last exit status, and last output.
        status: String,
    },
    /// The worker was repeatedly killed while it started.
    #[error("{} was killed {times} times while it started ({status})", program.display())]
    Killed {
        /// The program.
        program: PathBuf,
        /// Number of attempts.
        times: u32,
        /// Last signal, and last output.
        status: String,
    },
}

/// Platform on which a worker computes.
#[derive(Debug, Clone, Default)]
pub(super) struct Platform {
    pub libtorch: String,
    pub device: String,
    pub device_name: String,
    pub arithmetic: Arithmetic,
}

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    platform: Option<Platform>,
    /// Position of its device among those of the run.
    slot: usize,
    /// Numerics mode of the process, fixed for its lifetime: libraries read their switches once.
    numerics: Numerics,
    job: Option<u64>,
    /// It was told to exit. The end of its output confirms that it did.
    leaves: bool,
    held: VecDeque<Digest>,
    /// Last lines outside the protocol, reported if it dies.
    said: VecDeque<String>,
}

/// All workers of a run.
pub(super) struct Workers {
    program: PathBuf,
    /// One device for all workers, or one for each of them.
    devices: Vec<String>,
    /// Whether they may run the TorchScript networks in checkpoints.
    scripts: bool,
    limit: usize,
    messages: SyncSender<Message>,
    workers: Vec<Option<Worker>>,
    failed: FailedStarts,
}

/// Failed starts since a worker was last ready.
#[derive(Debug, Default)]
struct FailedStarts {
    killed: u32,
    ended: u32,
    /// Earliest time of the next start.
    again: Option<Instant>,
}

impl FailedStarts {
    fn note(&mut self, was_killed: bool) {
        *(if was_killed { &mut self.killed } else { &mut self.ended }) += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.killed + self.ended - 1).min(10));
        self.again = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    fn are_too_many(&self) -> bool {
        self.killed >= MAX_KILLED_STARTS || self.ended >= MAX_OWN_ENDS
    }
}

/// How a worker ended.
pub(super) struct WorkerExit {
    /// Exit status, and last output.
    pub status: String,
    /// Warning for the user about a failed start.
    pub warning: Option<String>,
}

impl Workers {
    /// Creates an empty pool. At most `limit` workers are alive at once; of several devices, each has one of them.
    ///
    /// `scripts` allows them to run the TorchScript networks in checkpoints.
    pub(super) fn new(
        (program, devices): (PathBuf, Vec<String>),
        scripts: bool,
        limit: usize,
        messages: SyncSender<Message>,
    ) -> Self {
        let limit = if devices.len() > 1 { limit.min(devices.len()) } else { limit };
        Workers { program, devices, scripts, limit, messages, workers: Vec::new(), failed: FailedStarts::default() }
    }

    /// Returns an idle worker of these numerics, preferably the one that holds most of the inputs.
    ///
    /// If none is idle, starts a new one, which a later call returns once it is ready. At the limit, an idle worker of
    /// other numerics exits to make room.
    pub(super) fn idle_for(&mut self, numerics: Numerics, inputs: &[Digest]) -> Result<Option<usize>, WorkerError> {
        let overlap = |worker: &Worker| inputs.iter().filter(|digest| worker.held.contains(digest)).count();
        let idle = self.workers.iter().enumerate().filter_map(|(index, slot)| {
            let worker = slot.as_ref()?;
            (worker.is_idle() && worker.numerics == numerics).then(|| (overlap(worker), std::cmp::Reverse(index)))
        });
        if let Some((_, std::cmp::Reverse(index))) = idle.max() {
            return Ok(Some(index));
        }
        let alive = self.workers.iter().flatten().filter(|worker| !worker.leaves).count();
        // One start at a time: the first worker reports the device, and so how many stages fit on it.
        let starting = self.workers.iter().flatten().any(|worker| worker.platform.is_none());
        if starting || self.failed.again.is_some_and(|again| Instant::now() < again) {
            return Ok(None);
        }
        if alive >= self.limit {
            let Some(other) = self.workers.iter_mut().flatten().find(|worker| worker.is_idle()) else {
                return Ok(None);
            };
            (other.stdin, other.leaves) = (None, true);
        }
        match self.start(numerics) {
            // The system is short of memory or processes, as when it kills a starting worker.
            Err(WorkerError::Start { source, .. })
                if is_shortage(&source) && self.failed.killed + 1 < MAX_KILLED_STARTS =>
            {
                self.failed.note(true);
            }
            started => started?,
        }
        Ok(None)
    }

    /// Whether workers compute on a GPU. `false` until a worker has reported its platform.
    fn are_on_gpu(&self) -> bool {
        let mut platforms = self.workers.iter().flatten().filter_map(|worker| worker.platform.as_ref());
        platforms.any(|platform| is_gpu(&platform.device))
    }

    /// Whether stages share a GPU. Of several, each runs one stage at a time.
    pub(super) fn share_a_gpu(&self) -> bool {
        self.devices.len() == 1 && self.are_on_gpu()
    }

    /// Returns the first device without a worker; the only device, if there is one for all.
    fn free_slot(&self) -> usize {
        let is_taken =
            |slot: &usize| self.workers.iter().flatten().any(|worker| !worker.leaves && worker.slot == *slot);
        (0..self.devices.len()).find(|slot| !is_taken(slot)).unwrap_or(0)
    }

    fn start(&mut self, numerics: Numerics) -> Result<(), WorkerError> {
        let index = self.workers.len();
        let slot = self.free_slot();
        let mut child = numerics
            .worker(&self.program, &self.devices[slot])
            .args(self.scripts.then_some("--scripts"))
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| WorkerError::Start { program: self.program.clone(), source })?;
        let (stderr_ended, wait_for_stderr) = std::sync::mpsc::channel::<()>();
        if let Some(stderr) = child.stderr.take() {
            let messages = self.messages.clone();
            std::thread::spawn(move || {
                read_lines(stderr, LONGEST_LINE, |line| {
                    messages.send(Message::WorkerSaid(index, line.to_owned())).is_ok()
                });
                drop(stderr_ended);
            });
        }
        if let Some(stdout) = child.stdout.take() {
            let messages = self.messages.clone();
            std::thread::spawn(move || {
                read_lines(stdout, LONGEST_EVENT, |line| {
                    let message = match serde_json::from_str(line) {
                        Ok(event) => Message::Worker(index, event),
                        // A library that prints to standard output must not break the protocol.
                        Err(_) => Message::WorkerSaid(index, line.to_owned()),
                    };
                    messages.send(message).is_ok()
                });
                // Its standard error comes first, except if a grandchild holds the pipe open.
                _ = wait_for_stderr.recv_timeout(STDERR_WAIT);
                _ = messages.send(Message::WorkerGone(index));
            });
        }
        let stdin = child.stdin.take();
        let (held, said) = (VecDeque::new(), VecDeque::new());
        let worker = Worker { child, stdin, platform: None, slot, numerics, job: None, leaves: false, held, said };
        self.workers.push(Some(worker));
        Ok(())
    }

    /// Handles the first message of a worker.
    pub(super) fn greeted(&mut self, index: usize, event: Event) -> Result<(), WorkerError> {
        match event {
            Event::Hello { protocol, .. } if protocol != PROTOCOL_VERSION => {
                Err(WorkerError::Protocol { program: self.program.clone(), found: protocol })
            }
            Event::Hello { libtorch, device, device_name, arithmetic, .. } => {
                if let Some(worker) = self.get(index) {
                    worker.platform = Some(Platform { libtorch, device, device_name, arithmetic });
                }
                self.failed = FailedStarts::default();
                Ok(())
            }
            Event::Unusable { message } => Err(WorkerError::Unusable(message)),
            _ => Ok(()),
        }
    }

    /// Gives a job to an idle worker. If the worker has died, the end of its output shows that.
    pub(super) fn give(&mut self, index: usize, job: &Job) {
        if let Some(worker) = self.get(index) {
            worker.job = Some(job.id);
            for input in &job.inputs {
                worker.held.retain(|held| *held != input.digest);
                worker.held.push_back(input.digest);
            }
            while worker.held.len() > MAX_HELD_INPUTS {
                worker.held.pop_front();
            }
            worker.send(&Request::Run(job.clone()));
        }
    }

    /// Asks a worker to give up its job.
    pub(super) fn cancel(&mut self, index: usize, id: u64) {
        if let Some(worker) = self.get(index) {
            worker.send(&Request::Cancel { id });
        }
    }

    /// Marks a worker as idle after its job.
    pub(super) fn freed(&mut self, index: usize) {
        if let Some(worker) = self.get(index) {
            worker.job = None;
        }
    }

    /// Returns the job of a worker.
    pub(super) fn job_of(&self, index: usize) -> Option<u64> {
        self.workers.get(index)?.as_ref()?.job
    }

    /// Returns the platform of a worker.
    pub(super) fn platform(&self, index: usize) -> Platform {
        let worker = self.workers.get(index).and_then(Option::as_ref);
        worker.and_then(|worker| worker.platform.clone()).unwrap_or_default()
    }

    /// Remembers a line that a worker wrote outside the protocol.
    pub(super) fn said(&mut self, index: usize, line: &str) {
        if let Some(worker) = self.get(index) {
            worker.said.push_back(plain_line(line, LONGEST_SAID));
            if worker.said.len() > 20 {
                worker.said.pop_front();
            }
        }
    }

    /// Removes a worker whose output has ended; returns how it ended.
    ///
    /// A worker that never was ready is started again. After too many failed starts, the run continues with the living
    /// workers, or fails if there are none.
    pub(super) fn gone(&mut self, index: usize) -> Result<WorkerExit, WorkerError> {
        let Some(mut worker) = self.workers.get_mut(index).and_then(Option::take) else {
            return Ok(WorkerExit { status: String::new(), warning: None });
        };
        let ended = worker.child.wait();
        let signal = ended.as_ref().ok().and_then(ExitStatus::signal);
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said: Vec<String> = worker.said.drain(..).collect();
        let status = [vec![status], said].concat().join("\n");
        if worker.platform.is_some() {
            return Ok(WorkerExit { status, warning: None });
        }
        self.failed.note(signal.is_some());
        let how = match signal {
            Some(signal) => format!("was killed by signal {signal} while it started"),
            None => format!("ended before it was ready ({})", status.lines().next().unwrap_or_default()),
        };
        let FailedStarts { killed, ended, .. } = self.failed;
        let warning = if !self.failed.are_too_many() {
            let (times, of) = if signal.is_some() { (killed, MAX_KILLED_STARTS) } else { (ended, MAX_OWN_ENDS) };
            format!("a worker {how}; it is started again (start {} of {of})", times + 1)
        } else if let alive @ 1.. = self.workers.iter().flatten().filter(|worker| worker.platform.is_some()).count() {
            self.limit = alive;
            format!("a worker {how}; the run goes on with the {alive} that there are")
        } else {
            let program = self.program.clone();
            return Err(match signal {
                Some(_) => WorkerError::Killed { program, times: killed, status },
                None => WorkerError::Died { program, times: ended, status },
            });
        };
        Ok(WorkerExit { status, warning: Some(warning) })
    }

    /// Kills every worker at once.
    pub(super) fn kill(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            // It may have ended by itself.
            _ = worker.child.kill();
        }
    }

    /// Kills a worker that does not respond. The end of its output shows that it is gone.
    pub(super) fn kill_one(&mut self, index: usize) {
        if let Some(worker) = self.get(index) {
            // It may have ended by itself.
            _ = worker.child.kill();
        }
    }

    fn get(&mut self, index: usize) -> Option<&mut Worker> {
        self.workers.get_mut(index)?.as_mut()
    }
}

/// Whether a program failed to start for lack of memory or processes.
fn is_shortage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::OutOfMemory)
}

impl Worker {
    fn is_idle(&self) -> bool {
        self.job.is_none() && self.platform.is_some() && !self.leaves
    }

    fn send(&mut self, request: &Request) {
        if let (Some(stdin), Ok(mut line)) = (&mut self.stdin, serde_json::to_string(request)) {
            line.push('\n');
            // If the worker has died, the end of its output shows that.
            _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
        }
    }
}

impl Drop for Workers {
    /// Asks the workers to exit, and kills those that do not.
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            worker.stdin = None;
        }
        let deadline = Instant::now() + EXIT_TIME;
        for worker in self.workers.iter_mut().flatten() {
            while Instant::now() < deadline && matches!(worker.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ = worker.child.kill();
            _ = worker.child.wait();
        }
    }
}
