//! Worker processes: started when first needed, kept for many stages, replaced when they die. Knows the protocol, not the graph.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::Message;
use crate::digest::Digest;
use crate::numerics::{Arithmetic, Numerics};
use crate::protocol::{Event, Job, PROTOCOL_VERSION, Request, is_gpu};

/// How many inputs a worker is believed to keep in memory.
const HELD: usize = 16;

/// How long the last words of a dead worker are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    /// The worker left before it was ready.
    #[error("{} ended before it was ready ({status})", program.display())]
    Died {
        /// The program.
        program: PathBuf,
        /// How, and what it said last.
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
    messages: Sender<Message>,
    workers: Vec<Option<Worker>>,
}

impl Workers {
    /// No workers yet. `limit` is how many may be alive at once.
    pub(super) fn new(program: PathBuf, device: String, limit: usize, messages: Sender<Message>) -> Self {
        Workers { program, device, limit, messages, workers: Vec::new() }
    }

    /// A worker of these numerics that can take a job with these inputs now, the one that holds most of them. A new one is started if none is idle and
    /// there may be more; an idle one of other numerics makes room for it.
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
        if starting {
            return Ok(None);
        }
        if alive >= self.limit {
            let Some(other) = self.workers.iter_mut().flatten().find(|worker| worker.is_idle()) else {
                return Ok(None);
            };
            (other.stdin, other.leaves) = (None, true);
        }
        self.start(numerics)?;
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
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if messages.send(Message::WorkerSaid(index, line)).is_err() {
                        break;
                    }
                }
                drop(stderr_ended);
            });
        }
        if let Some(stdout) = child.stdout.take() {
            let messages = self.messages.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let message = match serde_json::from_str(&line) {
                        Ok(event) => Message::Worker(index, event),
                        // A library that prints to standard output must not break the conversation.
                        Err(_) => Message::WorkerSaid(index, line),
                    };
                    if messages.send(message).is_err() {
                        return;
                    }
                }
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
    pub(super) fn said(&mut self, index: usize, line: String) {
        if let Some(worker) = self.get(index) {
            worker.said.push_back(line);
            if worker.said.len() > 20 {
                worker.said.pop_front();
            }
        }
    }

    /// Buries a worker whose output has ended; tells how it died and, if it never was ready, that no worker can be had.
    pub(super) fn gone(&mut self, index: usize) -> Result<String, WorkerError> {
        let Some(mut worker) = self.workers.get_mut(index).and_then(Option::take) else { return Ok(String::new()) };
        let status = worker.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let said: Vec<String> = worker.said.drain(..).collect();
        let status = [vec![status], said].concat().join("\n");
        match worker.platform {
            Some(_) => Ok(status),
            None => Err(WorkerError::Died { program: self.program.clone(), status }),
        }
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
