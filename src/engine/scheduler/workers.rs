//! Worker processes: started when first needed, kept for many stages, replaced when they die. Knows the protocol, not
//! the graph.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::Message;
use crate::digest::Digest;
use crate::lines::read_lines;
use crate::numerics::{Arithmetic, Numerics};
use crate::plain::plain_line;
use crate::protocol::{Event, Job, PROTOCOL_VERSION, Request, is_gpu};

/// How many inputs a worker is believed to keep in memory.
const HELD: usize = 16;

/// So many bytes are told of each.
const LONGEST_TOLD: usize = 400;

/// How long the last words of a dead worker are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A longer line of a worker is broken. Events are shorter; what a library prints need not be.
const LONGEST_EVENT: usize = 1 << 20;

/// The same for its standard error, which is text of a log.
const LONGEST_LINE: usize = 16 << 10;

/// A worker that is killed while it starts is started so often in all, one after the other, before the run gives up.
const STARTS: u32 = 8;

/// One that ends by itself before it is ready will most likely do so again.
const OWN_ENDS: u32 = 3;

/// How long to wait before the next start; it doubles with each that failed, up to the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a worker may take to leave once it is asked to.
const LEAVE: Duration = Duration::from_secs(2);

/// Why no worker can be had.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The worker said that it cannot work.
    #[error("{0}")]
    Unusable(String),
    /// The worker is of another version.
    #[error("{} speaks protocol {found}; this version of atflow speaks {PROTOCOL_VERSION}", program.display())]
    Protocol {
        /// The program.
        program: PathBuf,
        /// Its protocol.
        found: u32,
    },
    /// The worker ended by itself, again and again, before it was ready.
    #[error("{} ended {times} times before it was ready ({status})", program.display())]
    Died {
        /// The program.
        program: PathBuf,
        /// How often.
        times: u32,
        /// How it ended last, and what it said.
        status: String,
    },
    /// The worker was killed, again and again, while it started.
    #[error("{} was killed {times} times while it started ({status})", program.display())]
    Killed {
        /// The program.
        program: PathBuf,
        /// How often.
        times: u32,
        /// By which signal last, and what it said.
        status: String,
    },
}

/// What a worker computes on.
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
    /// A process has one sort of numerics for all its life: libraries read their switches once.
    numerics: Numerics,
    job: Option<u64>,
    /// It was let go, and is noticed when its output ends.
    leaves: bool,
    held: VecDeque<Digest>,
    /// The last lines of its standard error, for when it dies.
    said: VecDeque<String>,
}

/// All workers of a run.
pub(super) struct Workers {
    program: PathBuf,
    device: String,
    limit: usize,
    messages: SyncSender<Message>,
    workers: Vec<Option<Worker>>,
    failed: FailedStarts,
}

/// Starts that failed since a worker was ready.
#[derive(Debug, Default)]
struct FailedStarts {
    killed: u32,
    ended: u32,
    /// The next one is not tried before this.
    again: Option<Instant>,
}

impl FailedStarts {
    fn note(&mut self, was_killed: bool) {
        *(if was_killed { &mut self.killed } else { &mut self.ended }) += 1;
        let pause = PAUSE.saturating_mul(1 << (self.killed + self.ended - 1).min(10));
        self.again = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    fn are_too_many(&self) -> bool {
        self.killed >= STARTS || self.ended >= OWN_ENDS
    }
}

/// How a worker ended.
pub(super) struct WorkerExit {
    /// Its exit status, and what it said last.
    pub status: String,
    /// What to tell the user of a start that failed.
    pub warning: Option<String>,
}

impl Workers {
    /// No workers yet. `limit` is how many may be alive at once.
    pub(super) fn new(program: PathBuf, device: String, limit: usize, messages: SyncSender<Message>) -> Self {
        Workers { program, device, limit, messages, workers: Vec::new(), failed: FailedStarts::default() }
    }

    /// A worker of these numerics that can take a job with these inputs now, the one that holds most of them. A new one
    /// is started if none is idle and there may be more; an idle one of other numerics makes room for it.
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
        // One after another: the first tells what the device is, and with that how many stages may be at it.
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
            // The system is short of memory or of processes, as when it kills a worker that starts.
            Err(WorkerError::Start { source, .. }) if is_shortage(&source) && self.failed.killed + 1 < STARTS => {
                self.failed.note(true);
            }
            started => started?,
        }
        Ok(None)
    }

    /// Whether workers compute on a GPU. False as long as none has told.
    pub(super) fn are_on_gpu(&self) -> bool {
        let mut platforms = self.workers.iter().flatten().filter_map(|worker| worker.platform.as_ref());
        platforms.any(|platform| is_gpu(&platform.device))
    }

    fn start(&mut self, numerics: Numerics) -> Result<(), WorkerError> {
        let index = self.workers.len();
        let mut child = Command::new(&self.program)
            .args(["--device", &self.device, "--numerics", numerics.name()])
            .env_clear()
            .envs(numerics.environment(std::env::vars_os()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
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
                        // A library that prints to standard output must not break the conversation.
                        Err(_) => Message::WorkerSaid(index, line.to_owned()),
                    };
                    messages.send(message).is_ok()
                });
                // Its last words come first; a grandchild that holds the pipe open is not waited for.
                _ = wait_for_stderr.recv_timeout(LAST_WORDS);
                _ = messages.send(Message::WorkerGone(index));
            });
        }
        let stdin = child.stdin.take();
        let (held, said) = (VecDeque::new(), VecDeque::new());
        let worker = Worker { child, stdin, platform: None, numerics, job: None, leaves: false, held, said };
        self.workers.push(Some(worker));
        Ok(())
    }

    /// Notes the first line of a worker.
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

    /// Gives a job to an idle worker. A worker that is gone is noticed when its output ends.
    pub(super) fn give(&mut self, index: usize, job: &Job) {
        if let Some(worker) = self.get(index) {
            worker.job = Some(job.id);
            for input in &job.inputs {
                worker.held.retain(|held| *held != input.digest);
                worker.held.push_back(input.digest);
            }
            while worker.held.len() > HELD {
                worker.held.pop_front();
            }
            worker.send(&Request::Run(job.clone()));
        }
    }

    /// Asks a worker to give its job up.
    pub(super) fn cancel(&mut self, index: usize, id: u64) {
        if let Some(worker) = self.get(index) {
            worker.send(&Request::Cancel { id });
        }
    }

    /// A worker has ended its job.
    pub(super) fn freed(&mut self, index: usize) {
        if let Some(worker) = self.get(index) {
            worker.job = None;
        }
    }

    /// The job that a worker is at.
    pub(super) fn job_of(&self, index: usize) -> Option<u64> {
        self.workers.get(index)?.as_ref()?.job
    }

    /// What a worker computes on.
    pub(super) fn platform(&self, index: usize) -> Platform {
        let worker = self.workers.get(index).and_then(Option::as_ref);
        worker.and_then(|worker| worker.platform.clone()).unwrap_or_default()
    }

    /// Notes a line that a worker wrote outside the protocol.
    pub(super) fn said(&mut self, index: usize, line: &str) {
        if let Some(worker) = self.get(index) {
            worker.said.push_back(plain_line(line, LONGEST_TOLD));
            if worker.said.len() > 20 {
                worker.said.pop_front();
            }
        }
    }

    /// Buries a worker whose output has ended, and tells how it ended. One that never was ready is started again,
    /// unless that has failed too often: then no worker can be had.
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
            let (times, of) = if signal.is_some() { (killed, STARTS) } else { (ended, OWN_ENDS) };
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

    /// Kills a worker that does not listen; it is noticed when its output ends.
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

/// Whether a program was not started for want of memory or of processes.
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
            // A worker that is gone is noticed when its output ends.
            _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
        }
    }
}

impl Drop for Workers {
    /// Lets the workers leave, and kills those that do not.
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            worker.stdin = None;
        }
        let deadline = Instant::now() + LEAVE;
        for worker in self.workers.iter_mut().flatten() {
            while Instant::now() < deadline && matches!(worker.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ = worker.child.kill();
            _ = worker.child.wait();
        }
    }
}
