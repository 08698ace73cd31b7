//! Runs a graph: what is stale runs as soon as its inputs are there and a slot is free, what is fresh is left alone. One thread decides everything;
//! workers and engine threads talk to it through one channel. It knows no terminal: what happens goes out as [`RunEvent`]s.
//!
//! The loop, in order: take back what was interrupted, start what is ready, wait for a message. An instance is looked up in the cache at the moment
//! its last input becomes known ([`Scheduler::settle`]), so a rerun that gives the same bytes stops there and what hangs on it stays fresh.

mod finish;
mod state;
mod workers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::cache::{Cache, CacheError, Manifest, Obtained, OutputBlob, RunRecord};
use crate::event::{RunEvent, RunSummary, Status};
use crate::fetch::FetchError;
use crate::graph::{Graph, Outputs};
use crate::plan::{Absence, Assessment, History, assess, must_be_there};
use crate::protocol::{Event, Failure, FailureCode, Input, Job};
use crate::record::{Key, Record};
use crate::remote::RemoteError;
use crate::sources::{CheckedSource, Sources, obtain};
use crate::spec::InstanceId;
use crate::stages::{self, Reporter};
use state::{State, States};
use workers::Workers;

pub use workers::WorkerError;

/// How often the loop looks up without a message.
const TICK: Duration = Duration::from_millis(50);

/// How long stages may take to give up once they are asked to.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A stage that kills its worker, or gets corrupt input, is tried so often in all.
const TRIES: u32 = 2;

/// What to run and how.
#[derive(Debug)]
pub struct Options {
    /// Which instances the targets reach, by id.
    pub wanted: Vec<bool>,
    /// Which instances run even if they are fresh, by id.
    pub forced: Vec<bool>,
    /// Which instances' outputs must be there in the end, by id; of others it is enough to know them.
    pub needed: Vec<bool>,
    /// CPU threads to use at once, at least 1.
    pub jobs: usize,
    /// `auto`, `cpu`, `cuda:N`.
    pub device: String,
    /// Go on with what does not need a failed stage.
    pub keep_going: bool,
    /// The worker's program.
    pub worker: PathBuf,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file.
    pub file: PathBuf,
}

/// Counts requests to stop: the first lets stages give up in good order, the second kills them.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Asks for a stop.
    pub fn ask(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How often a stop was asked for.
    pub fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why a run could not go on at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No worker can be had.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The cache cannot be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What reaches the deciding thread.
enum Message {
    Worker(usize, Event),
    WorkerSaid(usize, String),
    WorkerGone(usize),
    EngineLog(u64, String),
    EngineProgress(u64, u64, u64, String),
    EngineDone(u64, Result<String, Failure>),
}

/// An instance that is being run.
struct Running {
    id: InstanceId,
    record: Record,
    key: Key,
    started: Instant,
    scratch: tempfile::TempDir,
    outputs: HashMap<String, PathBuf>,
    worker: Option<usize>,
    cancel: Arc<AtomicBool>,
    threads: usize,
    log: Vec<u8>,
}

/// What a ready instance is to run.
struct Stale {
    record: Record,
    key: Key,
    reason: String,
}

struct Scheduler<'a> {
    graph: &'a Graph,
    cache: &'a Cache,
    sources: &'a Sources,
    options: &'a Options,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn FnMut(RunEvent),
    history: History<'a>,
    states: States,
    workers: Workers,
    messages: Receiver<Message>,
    sender: Sender<Message>,
    running: HashMap<u64, Running>,
    next_job: u64,
    tries: Vec<u32>,
    /// Instances that run once even if their result is known, and why.
    forced: HashMap<InstanceId, Absence>,
    /// Producers that run again because an output of theirs was lost, and who waits for it. Everybody else had them counted as done before.
    revived: HashMap<InstanceId, Vec<InstanceId>>,
    /// What ready instances are to run, and why.
    stale: HashMap<InstanceId, Stale>,
    /// Keys that this run made: another instance of the same key need not run.
    made: HashSet<Key>,
    run: RunRecord,
    commit: Option<Option<String>>,
    stopped: bool,
}

/// Runs what is wanted and not fresh.
///
/// # Errors
/// [`RunError`] where nothing can run; a stage that fails is no error but an event.
pub fn run(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    options: &Options,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(RunEvent),
) -> Result<RunSummary, RunError> {
    let started = Instant::now();
    let (sender, messages) = mpsc::channel();
    let mut scheduler = Scheduler {
        graph,
        cache,
        sources,
        options,
        interrupt,
        observer,
        history: History::new(cache, &options.pipeline),
        states: States::new(graph.urgency()),
        workers: Workers::new(options.worker.clone(), options.device.clone(), options.jobs, sender.clone()),
        messages,
        sender,
        running: HashMap::new(),
        next_job: 0,
        tries: vec![0; graph.len()],
        forced: graph.ids().filter(|id| options.forced[id.0]).map(|id| (id, Absence::Forced)).collect(),
        revived: HashMap::new(),
        stale: HashMap::new(),
        made: HashSet::new(),
        run: RunRecord { pipeline: options.pipeline.clone(), file: options.file.clone(), ..RunRecord::default() },
        commit: None,
        stopped: false,
    };
    let ended = scheduler.run();
    let mut summary = RunSummary {
        ran: scheduler.states.count(Status::Ran),
        cached: scheduler.states.count(Status::Cached),
        failed: scheduler.states.count(Status::Failed),
        skipped: scheduler.states.count(Status::Skipped),
        seconds: 0.0,
        interrupted: interrupt.asked() > 0,
        keys: scheduler.run.keys.clone(),
    };
    // A run that only looked things up teaches nothing that the last record does not say.
    if summary.ran + summary.failed > 0
        || scheduler.run.keys.iter().any(|(name, key)| !scheduler.history.knows(name, *key))
    {
        scheduler.run.at = jiff::Timestamp::now().to_string();
        cache.remember(&scheduler.run)?;
    }
    drop(scheduler);
    ended?;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

impl Scheduler<'_> {
    fn run(&mut self) -> Result<(), RunError> {
        let wanted: Vec<InstanceId> = self.graph.ids().filter(|id| self.options.wanted[id.0]).collect();
        self.emit(RunEvent::RunStarted { wanted: wanted.len() });
        for id in &wanted {
            self.states.set(*id, State::Waiting(self.graph.producers(*id).count()));
        }
        for id in &wanted {
            if *self.states.get(*id) == State::Waiting(0) {
                self.settle(*id)?;
            }
        }
        let mut asked = 0;
        let mut deadline: Option<Instant> = None;
        loop {
            if self.interrupt.asked() > asked {
                asked = self.interrupt.asked();
                self.stopped = true;
                self.give_up(asked > 1);
                deadline.get_or_insert(Instant::now() + GIVE_UP);
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.workers.kill();
                deadline = Some(Instant::now() + GIVE_UP);
            }
            if !self.stopped {
                self.start_ready()?;
            }
            if self.running.is_empty() && (self.stopped || self.states.ready().next().is_none()) {
                break;
            }
            match self.messages.recv_timeout(TICK) {
                Ok(message) => self.receive(message)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        for id in wanted {
            if matches!(self.states.get(id), State::Waiting(_) | State::Ready) {
                self.end(id, State::Skipped, Status::Skipped, 0.0, String::new(), None);
            }
        }
        Ok(())
    }

    fn emit(&mut self, event: RunEvent) {
        (self.observer)(event);
    }

    fn name(&self, id: InstanceId) -> String {
        self.graph.instance(id).name.clone()
    }

    /// Looks an instance up whose producers are all done; those that this makes ready to be looked up follow.
    fn settle(&mut self, id: InstanceId) -> Result<(), CacheError> {
        let mut open = VecDeque::from([id]);
        while let Some(id) = open.pop_front() {
            let revived: Vec<InstanceId> =
                self.graph.producers(id).filter(|p| self.states.outputs(*p).is_none()).collect();
            if !revived.is_empty() {
                self.wait_for(id, &revived);
                continue;
            }
            let outputs = |producer| self.states.outputs(producer).expect("checked above");
            let needed = self.options.needed[id.0];
            match (assess(self.graph, self.cache, self.sources, id, outputs, needed)?, self.forced.remove(&id)) {
                (Assessment::Fresh(key, manifest), None) => {
                    if let Some(name) = self.bring_outputs(id, &manifest)? {
                        self.make_ready(id, manifest.record, &Absence::Output(name));
                        continue;
                    }
                    let name = self.name(id);
                    self.run.keys.insert(name, key);
                    open.extend(self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary));
                }
                (Assessment::Fresh(_, manifest), Some(absence)) => self.make_ready(id, manifest.record, &absence),
                (Assessment::Stale(record, absence), _) => self.make_ready(id, *record, &absence),
            }
        }
        Ok(())
    }

    /// Fetches the outputs of a fresh instance that must be there; names the first that nobody has.
    fn bring_outputs(&mut self, id: InstanceId, manifest: &Manifest) -> Result<Option<String>, CacheError> {
        let graph = self.graph;
        for output in &graph.instance(id).outputs {
            if must_be_there(output, self.options.needed[id.0]) && !self.bring(id, manifest.outputs[&output.name])? {
                return Ok(Some(output.name.clone()));
            }
        }
        Ok(None)
    }

    /// Sees to it that a blob is here, from the remote cache if need be; `false` if nobody has it.
    fn bring(&mut self, of: InstanceId, blob: OutputBlob) -> Result<bool, CacheError> {
        let stage = self.name(of);
        let (observer, interrupt) = (&mut self.observer, self.interrupt);
        let progress = &mut |done: u64, total: Option<u64>| {
            let total = total.unwrap_or(blob.size);
            observer(RunEvent::Fetching { stage: stage.clone(), done, total });
            if interrupt.asked() > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        match self.cache.obtain(blob, progress) {
            Ok(Obtained::Here | Obtained::Fetched) => Ok(true),
            Ok(Obtained::Missing) => Ok(false),
            Ok(Obtained::Wrong(message)) => {
                self.emit(RunEvent::Warning(message));
                Ok(false)
            }
            Err(CacheError::Remote(RemoteError::Fetch(FetchError::Stopped))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends an instance back to waiting for producers that are made again.
    fn wait_for(&mut self, id: InstanceId, producers: &[InstanceId]) {
        self.states.set(id, State::Waiting(producers.len()));
        for producer in producers {
            self.revived.entry(*producer).or_default().push(id);
        }
    }

    fn make_ready(&mut self, id: InstanceId, record: Record, absence: &Absence) {
        let reason = self.history.reason(self.graph.instance(id), &record, absence);
        let key = record.key();
        self.stale.insert(id, Stale { record, key, reason });
        self.states.set(id, State::Ready);
    }

    /// An instance's outputs are known; gives the consumers that wait for nothing else now.
    fn done(
        &mut self,
        id: InstanceId,
        outputs: Outputs,
        status: Status,
        seconds: f64,
        summary: String,
    ) -> Vec<InstanceId> {
        self.end(id, State::Done(outputs), status, seconds, summary, None);
        let consumers = self.revived.remove(&id).unwrap_or_else(|| self.graph.consumers(id).collect());
        let mut settled = Vec::new();
        for consumer in consumers {
            if let State::Waiting(left) = *self.states.get(consumer) {
                self.states.set(consumer, State::Waiting(left - 1));
                if left == 1 {
                    settled.push(consumer);
                }
            }
        }
        settled
    }

    fn end(
        &mut self,
        id: InstanceId,
        state: State,
        status: Status,
        seconds: f64,
        summary: String,
        failure: Option<Failure>,
    ) {
        self.states.set(id, state);
        let first = self.states.end(id, status);
        if first || status != Status::Cached {
            let stage = self.name(id);
            self.emit(RunEvent::StageFinished { stage, status, seconds, summary, failure });
        }
    }

    /// Starts what is ready, most urgent first, as far as slots and workers go.
    fn start_ready(&mut self) -> Result<(), RunError> {
        let ready: Vec<InstanceId> = self.states.ready().collect();
        for id in ready {
            // Starting one may have sent another back to waiting.
            if *self.states.get(id) != State::Ready || self.revive_producers(id)? {
                continue;
            }
            if self.is_made_elsewhere(id)? {
                continue;
            }
            let instance = self.graph.instance(id);
            let used: usize = self.running.values().map(|running| running.threads).sum();
            let threads = instance.threads.min(self.options.jobs);
            if used > 0 && used + threads > self.options.jobs {
                continue;
            }
            let worker = if instance.kind.needs_worker() {
                let inputs: Vec<_> = self.inputs(id).into_iter().map(|input| input.digest).collect();
                match self.workers.idle_for(&inputs)? {
                    Some(worker) => Some(worker),
                    None => continue,
                }
            } else {
                None
            };
            self.start(id, worker, threads)?;
        }
        Ok(())
    }

    /// Whether another instance is making, or has made, what this one would: two names of the same computation run once.
    fn is_made_elsewhere(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let Some(Stale { key, .. }) = self.stale.get(&id) else { return Ok(false) };
        let key = *key;
        if self.running.values().any(|running| running.key == key) {
            return Ok(true);
        }
        let manifest = self.made.contains(&key).then(|| self.cache.lookup(key)).flatten();
        let Some(manifest) = manifest else { return Ok(false) };
        self.stale.remove(&id);
        let name = self.name(id);
        self.run.keys.insert(name, key);
        for consumer in self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary) {
            self.settle(consumer)?;
        }
        Ok(true)
    }

    /// Sends an instance back to waiting if a blob that it needs is gone, and has its producer run again.
    fn revive_producers(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let mut lost: Vec<(InstanceId, String)> = Vec::new();
        let mut awaited: Vec<InstanceId> = Vec::new();
        let graph = self.graph;
        for need in &graph.instance(id).needs {
            let blob = self.states.outputs(need.from).map(|outputs| outputs[&need.output]);
            let there = match blob {
                Some(blob) => self.bring(need.from, blob)?,
                // One that is not done is being made again for somebody else already.
                None => false,
            };
            if there || awaited.contains(&need.from) {
                continue;
            }
            awaited.push(need.from);
            if blob.is_some() {
                lost.push((need.from, need.output.clone()));
            }
        }
        if awaited.is_empty() {
            return Ok(false);
        }
        self.wait_for(id, &awaited);
        for (producer, output) in lost {
            let message =
                format!("output `{output}` of {} is gone from the cache; it is made again", self.name(producer));
            self.emit(RunEvent::Warning(message));
            self.forced.insert(producer, Absence::Output(output));
            self.settle(producer)?;
        }
        Ok(true)
    }

    /// The inputs of an instance that are blobs.
    fn inputs(&self, id: InstanceId) -> Vec<Input> {
        let input = |need: &crate::spec::Need| {
            let blob = self.states.outputs(need.from)?[&need.output];
            let path = self.cache.object_path(blob.digest);
            Some(Input { slot: need.slot.clone(), label: need.label.clone(), path, digest: blob.digest })
        };
        self.graph.instance(id).needs.iter().filter_map(input).collect()
    }

    fn start(&mut self, id: InstanceId, worker: Option<usize>, threads: usize) -> Result<(), RunError> {
        let instance = self.graph.instance(id);
        let Some(Stale { record, key, reason }) = self.stale.remove(&id) else { return Ok(()) };
        let scratch = self.cache.scratch()?;
        let folder = scratch.path().join("out");
        crate::fsio::create_dir(&folder).map_err(CacheError::from)?;
        // Numbered, because an output's name is the author's and a file's name is not.
        let file =
            |(index, output): (usize, &crate::spec::OutputSpec)| (output.name.clone(), folder.join(index.to_string()));
        let outputs: HashMap<String, PathBuf> = instance.outputs.iter().enumerate().map(file).collect();
        let job = Job {
            id: self.next_job,
            stage: instance.name.clone(),
            kind: instance.kind,
            params: instance.params.clone(),
            seed: instance.seed,
            threads,
            inputs: self.inputs(id),
            outputs: outputs.clone().into_iter().collect(),
        };
        self.next_job += 1;
        let cancel = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        match worker {
            Some(worker) => self.workers.give(worker, &job),
            None => self.start_in_engine(id, job.clone(), cancel.clone()),
        }
        let running = Running { id, record, key, started, scratch, outputs, worker, cancel, threads, log: Vec::new() };
        self.running.insert(job.id, running);
        self.states.set(id, State::Running);
        self.emit(RunEvent::StageStarted { stage: job.stage, kind: job.kind, reason });
        Ok(())
    }

    /// Runs a stage that needs no tensors, on a thread of its own.
    fn start_in_engine(&self, id: InstanceId, mut job: Job, cancel: Arc<AtomicBool>) {
        let sources: Vec<(String, CheckedSource)> = self
            .graph
            .instance(id)
            .sources
            .iter()
            .map(|need| (need.slot.clone(), self.sources.get(id, need).clone()))
            .collect();
        let reporter = EngineReporter { job: job.id, cancel, sender: self.sender.clone() };
        let (cache, sender) = (self.cache.clone(), self.sender.clone());
        std::thread::spawn(move || {
            let id = job.id;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for (slot, source) in sources {
                    let (path, digest) = obtain(&source, &cache, &reporter)?;
                    job.inputs.push(Input { slot, label: String::new(), path, digest });
                }
                stages::run(&job, &reporter)
            }));
            let result = result.unwrap_or_else(|_| {
                let message = "the engine broke while it ran this stage".to_owned();
                Err(Failure { code: FailureCode::Broken, message, causes: Vec::new() })
            });
            // The run is over if nobody listens.
            _ = sender.send(Message::EngineDone(id, result));
        });
    }

    fn receive(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Worker(worker, event) => match event {
                Event::Hello { .. } | Event::Unusable { .. } => self.workers.greeted(worker, event)?,
                Event::Log { id, line } => self.log(id, &line),
                Event::Progress { id, done, total, message } => self.progress(id, done, total, message),
                Event::Finished { id, summary, peak_memory } => {
                    self.workers.freed(worker);
                    self.succeed(id, summary, Some(peak_memory))?;
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
            Message::EngineDone(id, Ok(summary)) => self.succeed(id, summary, None)?,
            Message::EngineDone(id, Err(failure)) => self.fail(id, failure)?,
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

    fn progress(&mut self, id: u64, done: u64, total: u64, message: String) {
        let Some(running) = self.running.get(&id) else { return };
        let stage = self.graph.instance(running.id).name.clone();
        self.emit(RunEvent::StageProgress { stage, done, total, message });
    }

    /// Asks everything that runs to give up.
    fn give_up(&mut self, at_once: bool) {
        if at_once {
            self.workers.kill();
        }
        for (job, running) in &self.running {
            running.cancel.store(true, Ordering::SeqCst);
            if let Some(worker) = running.worker {
                self.workers.cancel(worker, *job);
            }
        }
    }
}

/// Tells the deciding thread what a stage says that runs in the engine.
struct EngineReporter {
    job: u64,
    cancel: Arc<AtomicBool>,
    sender: Sender<Message>,
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
}
