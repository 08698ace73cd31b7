//! Runs a graph: a stale stage runs as soon as its inputs exist and a slot is free; a fresh one does not run.
//!
//! One thread decides everything; workers and engine threads talk to it through one channel. The scheduler knows no
//! terminal: it reports everything as [`RunEvent`]s.
//!
//! The loop, in order: handle stop requests and time limits, start ready stages, wait for a message. It looks up an
//! instance in the cache once the last input is known (`Scheduler::resolve`). If a rerun makes the same bytes,
//! everything downstream stays fresh.

mod dispatch;
mod elsewhere;
mod fetch_outputs;
mod finish;
mod lease_wait;
mod limits;
mod log;
mod messages;
mod record;
mod state;
mod workers;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::action::{Action, ActionKey};
use crate::address::masked;
use crate::cache::{CacheError, Lease, Leases, Manifest, RunRecord};
use crate::event::{RunEvent, RunSummary, Status};
use crate::graph::Outputs;
use crate::keeper::Keepers;
use crate::plan::{Goals, History, PlanContext, RerunRequest, StaleReason, Staleness};
use crate::protocol::Failure;
use crate::spec::{InstanceId, Overrides, PerInstance};
use lease_wait::Wait;
use log::StageLog;
use messages::Message;
use state::{State, States};
use workers::Workers;

pub use workers::WorkerError;

/// Longest wait for a message before the loop goes round.
const TICK: Duration = Duration::from_millis(50);

/// Time that stages have to give up once asked.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Time that stages have to end once killed. The rest waits for a server or a disk, and ends with the program.
const LINGER: Duration = Duration::from_secs(1);

/// Capacity of the message channel. A program that prints faster than its log is stored blocks instead of filling
/// memory.
const BACKLOG: usize = 256;

/// Maximum number of attempts of a stage that kills its worker or gets corrupt input.
const MAX_ATTEMPTS: u32 = 2;

/// Options of a run.
#[derive(Debug)]
pub struct Options {
    /// What the user wants of each instance.
    pub goals: Goals,
    /// CPU threads to use at once, at least 1.
    pub jobs: usize,
    /// Device: `auto`, `cpu`, `cuda:N`.
    pub device: String,
    /// Whether to go on with stages that do not need a failed one.
    pub keep_going: bool,
    /// Program of the worker.
    pub worker: PathBuf,
    /// Program that supervises the programs of stages: [`crate::keeper`].
    pub keeper: PathBuf,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file.
    pub file: PathBuf,
    /// Changes from the command line.
    pub overrides: Overrides,
}

/// Counter of stop requests: the first asks stages to give up in good order, the second kills them.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<(AtomicUsize, AtomicUsize)>);

impl Interrupt {
    /// Requests a stop; returns the number of requests so far.
    pub fn request(&self) -> usize {
        self.0.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns the number of stop requests.
    pub fn requests(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Acknowledges the first `asked` requests: from now on, the run is sure to end soon.
    fn acknowledge(&self, asked: usize) {
        self.0.1.fetch_max(asked, Ordering::SeqCst);
    }

    /// Returns the number of acknowledged requests. It lags behind while the run waits for a server, for example.
    pub fn acknowledged(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Error that stops a whole run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No worker is available.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Result of a run, complete or not.
#[derive(Debug)]
#[must_use]
pub struct Ended {
    /// What the run achieved.
    pub summary: RunSummary,
    /// Error that stopped the run, if any. A failed stage is no such error.
    pub broken: Option<RunError>,
}

/// Instance that is running.
struct Running {
    id: InstanceId,
    record: Action,
    key: ActionKey,
    started: Instant,
    /// Seconds that it ran, once its outputs are written.
    ran: f64,
    /// `None` once its contents are recorded.
    scratch: Option<tempfile::TempDir>,
    outputs: HashMap<String, PathBuf>,
    worker: Option<usize>,
    cancel: Arc<AtomicBool>,
    threads: usize,
    /// Share of a GPU that it takes, or 0.
    gpu: f64,
    log: StageLog,
    wants: Satisfaction,
    /// When it was told that its time limit is over.
    overdue: Option<Instant>,
    /// Keeps other runs from the same key. Released when the stage ends, however it ends.
    lease: Option<Lease>,
}

/// What a ready instance is to run.
struct Stale {
    record: Action,
    key: ActionKey,
    reason: String,
    wants: Satisfaction,
}

/// What a concurrent run must provide for this instance to be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Satisfaction {
    /// A recorded result.
    Result,
    /// A recorded result, with the bytes of its outputs.
    Blobs,
    /// Nothing is enough: this instance was forced to rerun.
    Rerun,
}

struct Scheduler<'a> {
    context: PlanContext<'a>,
    options: &'a Options,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn FnMut(RunEvent),
    history: History<'a>,
    states: States,
    workers: Workers,
    messages: Receiver<Message>,
    sender: SyncSender<Message>,
    keepers: Arc<Keepers>,
    running: HashMap<u64, Running>,
    /// Keys of stages that have finished and whose results are being recorded, by job.
    recording: HashMap<u64, ActionKey>,
    next_job: u64,
    tries: PerInstance<u32>,
    /// Marks the instances that may not run, by id.
    barred: PerInstance<bool>,
    /// Rerun requests that are not fulfilled yet, by id.
    forced: PerInstance<Option<RerunRequest>>,
    /// Instances that run again because this output was lost, until it exists again.
    lost: HashMap<InstanceId, String>,
    /// Producers that run again because an output was lost, with the instances that wait for them. All other consumers
    /// have counted them as done before.
    rebuilding: HashMap<InstanceId, Vec<InstanceId>>,
    /// What ready instances are to run, and why.
    stale: HashMap<InstanceId, Stale>,
    leases: Leases,
    /// Tells collections what this run may need. `Some` once a stage is about to run.
    note: Option<Lease>,
    /// Ready instances whose lease another run holds.
    waits: HashMap<InstanceId, Wait>,
    /// Results from a remote cache: used as they are, or assembled locally instead.
    elsewhere: elsewhere::Elsewhere,
    /// Keys that this run made: another instance of the same key need not run.
    made: HashSet<ActionKey>,
    run: RunRecord,
    commit: Option<Option<String>>,
    stopped: bool,
}

/// Runs the wanted instances that are not fresh. A failed stage is reported as an event and does not break the run.
pub fn run(
    context: PlanContext<'_>,
    options: &Options,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(RunEvent),
) -> Ended {
    let started = Instant::now();
    let PlanContext { graph, cache, .. } = context;
    let (sender, messages) = mpsc::sync_channel(BACKLOG);
    let mut scheduler = Scheduler {
        context,
        options,
        interrupt,
        observer,
        history: History::new(cache, &options.pipeline),
        states: States::new(graph.urgency()),
        workers: Workers::new(options.worker.clone(), options.device.clone(), options.jobs, sender.clone()),
        messages,
        sender,
        keepers: Arc::new(Keepers::new(options.keeper.clone())),
        running: HashMap::new(),
        recording: HashMap::new(),
        next_job: 0,
        tries: graph.per_instance(0),
        barred: options.goals.forbidden(graph),
        forced: options.goals.forced.clone(),
        lost: HashMap::new(),
        rebuilding: HashMap::new(),
        stale: HashMap::new(),
        leases: Leases::new(cache),
        note: None,
        waits: HashMap::new(),
        elsewhere: elsewhere::Elsewhere::default(),
        made: HashSet::new(),
        run: RunRecord {
            pipeline: options.pipeline.clone(),
            file: options.file.clone(),
            profile: options.overrides.profile.clone(),
            // For people only: no later run reads these values back.
            set: options.overrides.set.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
            ..RunRecord::default()
        },
        commit: None,
        stopped: false,
    };
    let broken = scheduler.run().err();
    scheduler.skip_the_rest();
    let mut summary = RunSummary {
        ran: scheduler.states.count(Status::Ran),
        cached: scheduler.states.count(Status::Cached),
        failed: scheduler.states.count(Status::Failed),
        skipped: scheduler.states.count(Status::Skipped),
        seconds: 0.0,
        elsewhere: scheduler.elsewhere.counts(),
        assembled: std::mem::take(&mut scheduler.elsewhere.assembled),
        interrupted: interrupt.requests() > 0,
        keys: scheduler.run.keys.clone(),
    };
    // A run without new results or keys adds nothing to the last run record.
    if summary.ran + summary.failed > 0
        || scheduler.run.keys.iter().any(|(name, key)| !scheduler.history.knows(name, *key))
    {
        scheduler.run.at = jiff::Timestamp::now().to_string();
        if let Err(error) = cache.remember(&scheduler.run) {
            // Results are stored without it. If nothing ran, on a read-only shared cache, it does not matter.
            if summary.ran + summary.failed > 0 {
                scheduler.emit(RunEvent::Warning(format!("this run could not be noted in the cache: {error}")));
            }
        }
    }
    drop(scheduler);
    summary.seconds = started.elapsed().as_secs_f64();
    Ended { summary, broken }
}

impl Scheduler<'_> {
    fn run(&mut self) -> Result<(), RunError> {
        let wanted: Vec<InstanceId> = self.context.graph.ids().filter(|id| self.options.goals.wanted[*id]).collect();
        self.emit(RunEvent::RunStarted { wanted: wanted.len() });
        for id in &wanted {
            self.states.set(*id, State::Waiting(self.context.graph.producers(*id).count()));
        }
        let first = wanted.into_iter().filter(|id| *self.states.get(*id) == State::Waiting(0)).collect();
        self.settle_all(first)?;
        let (mut asked, mut are_killed) = (0, false);
        let mut deadline: Option<Instant> = None;
        loop {
            if self.interrupt.requests() > asked {
                asked = self.interrupt.requests();
                self.interrupt.acknowledge(asked);
                self.stopped = true;
                are_killed = asked > 1;
                self.give_up(are_killed);
                deadline = Some(Instant::now() + if are_killed { LINGER } else { GIVE_UP });
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                if are_killed {
                    break;
                }
                self.workers.kill();
                are_killed = true;
                deadline = Some(Instant::now() + LINGER);
            }
            self.end_overdue();
            if !self.stopped {
                self.start_ready()?;
            }
            let is_idle = self.running.is_empty() && self.recording.is_empty();
            if is_idle && (self.stopped || self.states.next_ready(None).is_none()) {
                break;
            }
            match self.messages.recv_timeout(TICK) {
                Ok(message) => self.receive(message)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(())
    }

    /// Skips what has not finished: the run was stopped or is broken.
    fn skip_the_rest(&mut self) {
        for id in self.context.graph.ids() {
            if matches!(self.states.get(id), State::Waiting(_) | State::Ready | State::Running) {
                self.end(id, State::Skipped, Status::Skipped, 0.0, String::new(), None);
            }
        }
    }

    fn emit(&mut self, event: RunEvent) {
        (self.observer)(event);
    }

    fn name(&self, id: InstanceId) -> String {
        self.context.graph.instance(id).name.clone()
    }

    /// Looks up an instance once all producers are done, then any instances this unblocks.
    fn resolve(&mut self, id: InstanceId) -> Result<(), CacheError> {
        self.settle_all(vec![id])
    }

    /// Like [`Scheduler::resolve`], for several instances in one batch.
    fn settle_all(&mut self, ids: Vec<InstanceId>) -> Result<(), CacheError> {
        let mut open = ids;
        while !open.is_empty() {
            let mut known = Vec::with_capacity(open.len());
            for id in std::mem::take(&mut open) {
                let rebuilding: Vec<InstanceId> =
                    self.context.graph.producers(id).filter(|p| self.states.outputs(*p).is_none()).collect();
                if rebuilding.is_empty() {
                    known.push(id);
                } else {
                    self.wait_for(id, &rebuilding);
                }
            }
            let states = &self.states;
            let outputs = |producer| states.outputs(producer).expect("checked above");
            let needed = &self.options.goals.needed;
            let assessed = self.context.check_staleness_of_all(&known, outputs, needed)?;
            for (id, assessment) in known.into_iter().zip(assessed) {
                let (key, manifest) = match assessment {
                    Staleness::Fresh(key, manifest) => (key, manifest),
                    Staleness::Stale(record, absence) => {
                        self.make_ready(id, *record, &absence);
                        continue;
                    }
                };
                if let Some(absence) = self.has_to_run(id, &manifest)? {
                    self.make_ready(id, manifest.record, &absence);
                    continue;
                }
                let name = self.name(id);
                self.run.keys.insert(name, key);
                self.elsewhere.note(id, manifest.from);
                open.extend(self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary));
            }
        }
        Ok(())
    }

    /// Returns why an instance has to run although its result is cached.
    ///
    /// It may be asked more than once, because the instance's inputs may have to be made again first.
    fn has_to_run(&mut self, id: InstanceId, manifest: &Manifest) -> Result<Option<StaleReason>, CacheError> {
        let order = self.forced[id];
        match order {
            Some(RerunRequest::Assemble) if !self.is_assembled_here(id, manifest)? => {}
            Some(order) => return Ok(Some(StaleReason::Forced(order))),
            None => {}
        }
        if let Some(output) = self.lost.get(&id)
            && !self.context.cache.has(self.context.cache.output(manifest, output)?)
        {
            return Ok(Some(StaleReason::Output(output.clone())));
        }
        Ok(self.bring_outputs(id, manifest)?.map(StaleReason::Output))
    }

    /// Sends an instance back to waiting for producers that run again.
    fn wait_for(&mut self, id: InstanceId, producers: &[InstanceId]) {
        self.states.set(id, State::Waiting(producers.len()));
        for producer in producers {
            self.rebuilding.entry(*producer).or_default().push(id);
        }
    }

    fn make_ready(&mut self, id: InstanceId, record: Action, absence: &StaleReason) {
        if self.barred[id] {
            return self.refuse(id, &record, absence);
        }
        let reason = self.history.reason(self.context.graph.instance(id), &record, absence);
        let key = record.key();
        let wants = match absence {
            StaleReason::Unknown => Satisfaction::Result,
            StaleReason::Output(_) => Satisfaction::Blobs,
            StaleReason::Forced(_) => Satisfaction::Rerun,
        };
        self.stale.insert(id, Stale { record, key, reason, wants });
        self.states.set(id, State::Ready);
    }

    /// Finishes an instance whose outputs are known; returns the consumers that this unblocks.
    fn done(
        &mut self,
        id: InstanceId,
        outputs: Outputs,
        status: Status,
        seconds: f64,
        summary: String,
    ) -> Vec<InstanceId> {
        self.end(id, State::Done(outputs), status, seconds, summary, None);
        self.forced[id] = None;
        self.lost.remove(&id);
        let consumers = self.rebuilding.remove(&id).unwrap_or_else(|| self.context.graph.consumers(id).collect());
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
        if let Some(status) = self.states.end(id, status) {
            let stage = self.name(id);
            self.emit(RunEvent::StageFinished { stage, status, seconds, summary, failure });
        }
    }
}
