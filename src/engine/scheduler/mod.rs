//! Runs a graph: a stale stage runs as soon as its inputs exist and a slot is free; a fresh one does not run.
//!
//! One thread decides everything; workers and engine threads talk to it through one channel. The scheduler knows no
//! terminal: it reports everything as [`RunEvent`]s.
//!
//! The loop, in order: handle stop requests and time limits, start ready stages, wait for a message. It looks up an
//! instance in the cache once the last input is known (`Scheduler::settle`). If a rerun makes the same bytes,
//! everything downstream stays fresh.

mod devices;
mod dispatch;
mod engine_threads;
mod fetch_outputs;
mod finish;
mod jobs;
mod journal;
mod lease_wait;
mod limits;
mod live_state;
mod log;
mod looks;
mod messages;
mod neighbours;
mod pace;
mod part;
mod progress_sender;
mod record;
mod recovery;
mod remote_results;
mod scratch;
mod settle;
mod shared_progress;
#[cfg(test)]
pub(crate) mod simulation;
mod state;
mod stop;
mod tasks;
mod workers;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::action::ActionKey;
use crate::cache::{CacheError, RunId, RunRecord, Unmade};
use crate::event::{RunEvent, RunSummary, Status};
use crate::graph::Graph;
use crate::keeper::Keepers;
use crate::plan::{Goals, PlanContext};
use crate::protocol::Failure;
use crate::spec::InstanceId;
use engine_threads::EngineThreads;
use jobs::Jobs;
use journal::Journal;
use lease_wait::RunLeases;
use live_state::LiveState;
use messages::Message;
use progress_sender::Leaving;
use recovery::Recovery;
use remote_results::RemoteResults;
use scratch::ScratchFolders;
use state::{State, States};
use stop::Stop;
use tasks::Tasks;
use workers::Workers;

pub(crate) use journal::commit_of;
pub use part::{FailedInstance, Neighbours, News, Part, PartEnd};
pub use stop::Interrupt;
pub use workers::WorkerError;

/// Longest wait for a message before the loop goes round.
const MESSAGE_WAIT: Duration = Duration::from_millis(50);

/// The same while nothing runs, in a run that waits for others.
const IDLE_WAIT: Duration = Duration::from_millis(200);

/// Number of messages that may wait. A program that prints faster than its log is stored blocks instead of filling
/// memory.
const MAX_WAITING_MESSAGES: usize = 256;

/// Options of a run.
#[derive(Debug)]
pub struct Options {
    /// What the user wants of each instance.
    pub goals: Goals,
    /// CPU threads to use at once, at least 1.
    pub jobs: usize,
    /// Device: `auto`, `cpu`, `cuda:N`; `cuda` for a worker on each GPU that this process may use.
    pub device: String,
    /// Whether to go on with stages that do not need a failed one.
    pub keep_going: bool,
    /// Program of the worker.
    pub worker: PathBuf,
    /// Program that supervises the programs of stages: [`crate::keeper`].
    pub keeper: PathBuf,
    /// What the run's record says of it from the start: pipeline, parameters, targets, user.
    pub about: RunRecord,
    /// The part of the graph that this run does, if others do the rest. Such a run leaves no record of its own.
    pub part: Option<Part>,
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
    /// A stage could not read or write its files, on a machine of several that share a run.
    #[error("the files of {stage} could not be read or written: {message}")]
    Storage {
        /// Name of the instance.
        stage: String,
        /// What happened.
        message: String,
        /// What caused it, outermost first.
        causes: Vec<String>,
    },
}

/// Result of a run, complete or not.
#[derive(Debug)]
#[must_use]
pub struct Ended {
    /// What the run achieved.
    pub summary: RunSummary,
    /// Error that stopped the run, if any. A failed stage is no such error.
    pub broken: Option<RunError>,
    /// Why a run that does a part of a graph ended; `None` for other runs, and if it was interrupted.
    pub part: Option<PartEnd>,
    /// Largest resident memory of a worker, in bytes; 0 if none has told.
    pub peak_memory: u64,
}

struct Scheduler<'a> {
    context: PlanContext<'a>,
    options: &'a Options,
    interrupt: &'a Interrupt,
    observer: &'a mut dyn FnMut(RunEvent),
    messages: Receiver<Message>,
    states: States,
    tasks: Tasks,
    jobs: Jobs,
    workers: Workers,
    threads: EngineThreads,
    leases: RunLeases,
    scratch: ScratchFolders,
    recovery: Recovery,
    remote_results: RemoteResults,
    journal: Journal<'a>,
    /// Trainings that run no longer, whose progress is being sent or removed.
    leaving: Vec<Leaving>,
    live: LiveState,
    /// Whether the duration of the run was estimated.
    is_estimated: bool,
    stop: Stop,
    /// Failures of other runs that share the graph.
    failed_elsewhere: HashMap<ActionKey, Failure>,
    /// Why the run ends, if it does a part of the graph.
    part_end: Option<PartEnd>,
    /// Since when such a run has nothing to do.
    idle_since: Option<Instant>,
    /// Whether all that such a run could start would take longer than it may run.
    lacks_time: bool,
    peak_memory: u64,
}

/// Runs the wanted instances that are not fresh. A failed stage is reported as an event and does not break the run.
pub fn run(
    context: PlanContext<'_>,
    options: &Options,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(RunEvent),
) -> Ended {
    let started = Instant::now();
    let mut scheduler = Scheduler::new(context, options, interrupt, observer);
    let broken = scheduler.run().err();
    scheduler.skip_the_rest();
    scheduler.wait_for_progress();
    let mut summary = RunSummary {
        ran: scheduler.states.count(Status::Ran),
        cached: scheduler.states.count(Status::Cached),
        failed: scheduler.states.count(Status::Failed),
        skipped: scheduler.states.count(Status::Skipped),
        seconds: 0.0,
        elsewhere: scheduler.remote_results.counts(),
        assembled: std::mem::take(&mut scheduler.remote_results.assembled),
        interrupted: interrupt.requests() > 0,
        keys: scheduler.journal.keys().clone(),
        run: None,
    };
    if options.part.is_none() {
        summary.run = scheduler.remember(&summary, broken.is_some());
    }
    let (part, peak_memory) = (scheduler.part_end, scheduler.peak_memory);
    drop(scheduler);
    summary.seconds = started.elapsed().as_secs_f64();
    Ended { summary, broken, part, peak_memory }
}

impl<'a> Scheduler<'a> {
    fn new(
        context: PlanContext<'a>,
        options: &'a Options,
        interrupt: &'a Interrupt,
        observer: &'a mut dyn FnMut(RunEvent),
    ) -> Self {
        let PlanContext { graph, cache, .. } = context;
        let (sender, messages) = mpsc::sync_channel(MAX_WAITING_MESSAGES);
        let keepers = Keepers::new(options.keeper.clone());
        Scheduler {
            context,
            options,
            interrupt,
            observer,
            messages,
            states: States::new(options.part.as_ref().map_or_else(|| graph.urgency(), |part| part.urgency(graph))),
            tasks: Tasks::new(options.goals.forbidden(graph), options.goals.forced.clone()),
            jobs: Jobs::new(options.jobs),
            workers: Workers::new(
                (options.worker.clone(), devices::slots(&options.device)),
                has_scripts(graph),
                options.jobs,
                sender.clone(),
            ),
            threads: EngineThreads::new(cache.clone(), keepers, interrupt.clone(), sender),
            leases: RunLeases::new(cache),
            scratch: ScratchFolders::new(cache, options.part.as_ref().and_then(|part| part.scratch.as_deref())),
            recovery: Recovery::new(graph),
            remote_results: RemoteResults::default(),
            journal: Journal::new(cache, options),
            leaving: Vec::new(),
            live: LiveState::new(cache, &options.about, options.part.is_some()),
            is_estimated: false,
            stop: Stop::default(),
            failed_elsewhere: HashMap::new(),
            part_end: None,
            idle_since: None,
            lacks_time: false,
            peak_memory: 0,
        }
    }

    fn run(&mut self) -> Result<(), RunError> {
        self.begin()?;
        while self.turn()? {
            let is_idle = self.options.part.is_some() && self.jobs.are_none();
            match self.messages.recv_timeout(if is_idle { IDLE_WAIT } else { MESSAGE_WAIT }) {
                Ok(message) => self.receive(message)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(())
    }

    /// Looks up what can be looked up before anything runs.
    fn begin(&mut self) -> Result<(), RunError> {
        let wanted: Vec<InstanceId> = self.context.graph.ids().filter(|id| self.options.goals.wanted[*id]).collect();
        self.emit(RunEvent::RunStarted { wanted: wanted.len() });
        for id in &wanted {
            self.states.set(*id, State::Waiting(self.context.graph.producers(*id).count()));
        }
        let first = wanted.into_iter().filter(|id| *self.states.get(*id) == State::Waiting(0)).collect();
        Ok(self.settle(first)?)
    }

    /// Does what can be done before the next message. Returns whether the run goes on.
    fn turn(&mut self) -> Result<bool, RunError> {
        if self.answer_stop_requests().is_break() {
            return Ok(false);
        }
        self.end_overdue();
        if !self.stop.starts_nothing {
            self.start_ready()?;
        }
        Ok(self.goes_on())
    }

    /// Stores the record of this run, and warns if that cannot be done; returns its name.
    fn remember(&mut self, summary: &RunSummary, is_broken: bool) -> Option<RunId> {
        let graph = self.context.graph;
        for id in graph.ids() {
            if let Some(status @ (Status::Failed | Status::Skipped)) = self.states.ended(id) {
                let instance = graph.instance(id);
                let needs = graph.producers(id).map(|producer| graph.instance(producer).name.clone()).collect();
                self.journal.note_unmade(instance.name.clone(), Unmade { kind: instance.kind, needs }, status);
            }
        }
        match self.journal.write(self.context.cache, summary, is_broken) {
            Ok(id) => id,
            Err(error) => {
                // Results are stored without it.
                self.emit(RunEvent::Warning(format!("this run could not be noted in the cache: {error}")));
                None
            }
        }
    }

    fn emit(&mut self, event: RunEvent) {
        self.live.note(&event);
        (self.observer)(event);
    }

    fn name(&self, id: InstanceId) -> String {
        self.context.graph.instance(id).name.clone()
    }
}

/// Returns whether the pipeline itself has TorchScript networks. If not, a checkpoint with one is not what it seems.
fn has_scripts(graph: &Graph) -> bool {
    let is_script =
        |id| graph.instance(id).params.pointer("/net/arch").and_then(serde_json::Value::as_str) == Some("torchscript");
    graph.ids().any(is_script)
}
