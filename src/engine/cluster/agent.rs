//! An agent: starts the instances of one class of a frozen plan, waits for those of others, and ends by itself.
//!
//! An agent is a run of the scheduler that does a part of the graph ([`Part`]). Agents share work through the leases of
//! the cache, as any two runs do. What they tell one another beside it is in the folder of the run.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::folder::{AgentNote, AgentStage, ExitNote, ExitReason, FailureNote, RunFolder};
use super::frozen_plan::{FrozenPlan, ThawError};
use super::news::{Item, NewsBoard};
use super::thawed_plan::ThawedPlan;
use crate::action::ActionKey;
use crate::cache::remote::RemoteError;
use crate::cache::{Cache, RunRecord};
use crate::event::{RunEvent, Status};
use crate::external_inputs::causes;
use crate::host;
use crate::plan::{Goals, PlanContext};
use crate::protocol::Failure;
use crate::scheduler::{self, Ended, FailedInstance, Interrupt, Neighbours, News, Options, Part, PartEnd, RunError};
use crate::spec::PerInstance;
use crate::stage_kinds::StageKind;

/// Class of all instances, if a plan has no class of this name.
pub const ALL: &str = "all";

/// Exit code of an agent that cannot use the cache from its machine: `EX_TEMPFAIL`, a temporary failure.
pub const STORAGE_CODE: i32 = 75;

/// Time before its end at which an agent stops: stages get ten seconds to give up.
const STOP_TIME: Duration = Duration::from_secs(15);

/// Shortest and longest time between two notes of an agent: of one that does something, and of one that does nothing.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);
const IDLE_NOTE_INTERVAL: Duration = Duration::from_secs(300);

/// What an agent is told.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Name of the agent, unique in its run.
    pub name: String,
    /// Job of the site's scheduler, if it runs in one.
    pub job: Option<String>,
    /// Class of the instances that it starts, or [`ALL`].
    pub class: String,
    /// Time at which it has to have ended.
    pub until: Option<jiff::Timestamp>,
    /// Longest time without anything to do.
    pub idle: Duration,
    /// CPU threads to use at once.
    pub jobs: usize,
    /// Device for tensors.
    pub device: String,
    /// Program of the worker.
    pub worker: PathBuf,
    /// Program that supervises the programs of stages.
    pub keeper: PathBuf,
    /// Folder of this machine for the files of running stages; in the cache if there is none.
    pub scratch: Option<PathBuf>,
}

/// Reason why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The plan cannot be used.
    #[error(transparent)]
    Plan(#[from] ThawError),
    /// The plan has no such class.
    #[error("the run has no class `{class}`")]
    Class {
        /// The class.
        class: String,
        /// Classes of the plan.
        known: Vec<String>,
    },
}

/// How an agent ended.
#[derive(Debug)]
#[must_use]
pub struct AgentEnd {
    /// Its last words.
    pub note: ExitNote,
    /// Error that ended it, if any.
    pub broken: Option<RunError>,
}

/// Works on a run until the end, and leaves last words in its folder.
///
/// # Errors
/// [`AgentError`] if it cannot begin.
pub fn run(
    cache: &Cache,
    folder: &RunFolder,
    options: &AgentOptions,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(RunEvent),
) -> Result<AgentEnd, AgentError> {
    let note = AgentNote {
        name: options.name.clone(),
        class: options.class.clone(),
        host: host(),
        pid: std::process::id(),
        job: options.job.clone(),
        started: jiff::Timestamp::now().to_string(),
        until: options.until.map(|until| until.to_string()),
        jobs: options.jobs,
        ..AgentNote::default()
    };
    // A job that was put back into the queue starts again under its name.
    folder.forget_exit(&options.name);
    let begun = begin(folder, options);
    let plan = match begun {
        Ok(plan) => plan,
        Err(error) => {
            let message = error.to_string();
            leave(folder, last_words(&note, ExitReason::Failed, 2, message, 0));
            return Err(error);
        }
    };
    if let Some(end) = already_over(folder) {
        let note = last_words(&note, end, 0, "the run was over before it began".to_owned(), 0);
        leave(folder, note.clone());
        return Ok(AgentEnd { note, broken: None });
    }
    if let Some(scratch) = &options.scratch {
        cache.clear_abandoned_in(scratch);
    }
    let notes = Arc::new(Notes::new(folder, note));
    let (over, is_over) = mpsc::channel::<()>();
    let writer = Arc::clone(&notes);
    // An agent that cannot write its note works on without.
    let thread = std::thread::Builder::new().name("note".to_owned()).spawn(move || writer.write_on(&is_over)).ok();
    let Ended { summary: _, broken, part, peak_memory } = work(cache, options, plan, &notes, interrupt, observer);
    drop(over);
    if let Some(thread) = thread {
        _ = thread.join();
    }
    let (reason, code) = match (&broken, part) {
        (Some(error), _) if is_of_storage(error) => (ExitReason::Storage, STORAGE_CODE),
        (Some(_), _) => (ExitReason::Failed, 2),
        (None, Some(PartEnd::Finished)) => (ExitReason::Finished, 0),
        (None, Some(PartEnd::Idle)) => (ExitReason::Idle, 0),
        (None, Some(PartEnd::Cancelled)) => (ExitReason::Cancelled, 0),
        // The site's scheduler announces the end of a job by a signal.
        (None, Some(PartEnd::OutOfTime) | None) => (ExitReason::Deadline, 0),
    };
    let message = broken.as_ref().map(words).unwrap_or_default();
    let own = notes.lock().0.clone();
    let note = last_words(&own, reason, code, message, peak_memory.max(host::peak_memory()));
    leave(folder, note.clone());
    Ok(AgentEnd { note, broken })
}

/// Reads the plan, and checks the class.
fn begin(folder: &RunFolder, options: &AgentOptions) -> Result<ThawedPlan, AgentError> {
    let plan = FrozenPlan::read(folder)?.thaw();
    if options.class != ALL && !plan.classes.contains(&options.class) {
        return Err(AgentError::Class { class: options.class.clone(), known: plan.classes });
    }
    Ok(plan)
}

fn already_over(folder: &RunFolder) -> Option<ExitReason> {
    if folder.is_cancelled() {
        return Some(ExitReason::Cancelled);
    }
    folder.ended().map(|_| ExitReason::Finished)
}

fn work(
    cache: &Cache,
    options: &AgentOptions,
    plan: ThawedPlan,
    notes: &Arc<Notes>,
    interrupt: &Interrupt,
    observer: &mut dyn FnMut(RunEvent),
) -> Ended {
    let mut scheduler_options = scheduler_options(&plan, options, Arc::new(Neighbourhood::new(notes)));
    if cache.shared().is_some() {
        // Whoever submitted the run fetches its results, not every agent.
        scheduler_options.goals.needed = plan.graph.per_instance(false);
    }
    let cache = cache.clone().listing();
    let context = PlanContext { graph: &plan.graph, cache: &cache, sources: &plan.sources };
    let ended = scheduler::run(context, &scheduler_options, interrupt, &mut |event| {
        notes.event(&event);
        observer(event);
    });
    // A program that ends need not take thousands of stages apart.
    std::mem::forget(plan);
    ended
}

/// Returns the options of the run that an agent is.
pub(super) fn scheduler_options(plan: &ThawedPlan, options: &AgentOptions, neighbours: Arc<dyn Neighbours>) -> Options {
    let starts = starts(plan, &options.class);
    let own: Vec<_> = starts.marked().collect();
    let reached = plan.graph.reached_from(&own);
    let wanted = plan.graph.ids().map(|id| plan.goals.wanted[id] && reached[id]).collect();
    let part = Part {
        starts,
        seconds: plan.seconds.clone(),
        until: options.until.map(stop_at),
        idle: options.idle,
        name: options.name.clone(),
        scratch: options.scratch.clone(),
        neighbours,
    };
    Options {
        goals: Goals { wanted, ..plan.goals.clone() },
        jobs: options.jobs,
        device: options.device.clone(),
        keep_going: true,
        worker: options.worker.clone(),
        keeper: options.keeper.clone(),
        about: RunRecord { host: Some(host()), ..plan.about.clone() },
        part: Some(part),
    }
}

/// Marks the instances that agents of a class start.
///
/// Light ones are started by the agents of their inputs, too: who made the inputs has looked them up anyway.
fn starts(plan: &ThawedPlan, class: &str) -> PerInstance<bool> {
    let own = plan.classes.iter().position(|known| known == class);
    let mut starts = plan.graph.per_instance(false);
    for id in plan.graph.ids().filter(|id| plan.goals.wanted[*id]) {
        let is_light =
            matches!(plan.graph.instance(id).kind, StageKind::Table | StageKind::Figure | StageKind::WorstCase);
        starts[id] = own.is_none_or(|own| plan.class_of[id] == own)
            || (is_light && plan.graph.producers(id).any(|producer| starts[producer]));
    }
    let own: Vec<_> = starts.marked().collect();
    // A file is no work, and whoever reads it may fetch it.
    for id in plan.graph.reached_from(&own).marked() {
        starts[id] |= plan.goals.wanted[id] && plan.graph.instance(id).kind == StageKind::File;
    }
    starts
}

/// Returns when an agent has to stop that has to have ended at a time.
fn stop_at(until: jiff::Timestamp) -> Instant {
    let left = Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or_default();
    // Of a short time, most is for work.
    Instant::now() + left.saturating_sub(STOP_TIME.min(left / 10))
}

fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

fn last_words(note: &AgentNote, reason: ExitReason, code: i32, message: String, peak_memory: u64) -> ExitNote {
    ExitNote {
        name: note.name.clone(),
        class: note.class.clone(),
        host: note.host.clone(),
        pid: note.pid,
        job: note.job.clone(),
        started: note.started.clone(),
        at: jiff::Timestamp::now().to_string(),
        reason,
        code,
        message,
        peak_memory,
        ran: note.ran,
        failed: note.failed,
    }
}

fn leave(folder: &RunFolder, note: ExitNote) {
    // Without last words, the lease and the site tell.
    _ = folder.write_exit(&note);
}

/// Returns an error with its causes.
fn words(error: &RunError) -> String {
    let mut texts = causes(error);
    if let RunError::Storage { causes, .. } = error {
        texts.extend(causes.iter().cloned());
    }
    // `transparent` errors name themselves twice.
    texts.dedup();
    texts.join(": ")
}

/// Whether an error is that of a file system or a bucket: another machine may have more luck.
fn is_of_storage(error: &RunError) -> bool {
    use rustix::io::Errno;
    let errors = [Errno::IO, Errno::NOSPC, Errno::STALE, Errno::DQUOT, Errno::ROFS];
    let is_storage = |code: i32| errors.iter().any(|error| error.raw_os_error() == code);
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<RemoteError>()
            || error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).is_some_and(is_storage)
        {
            return true;
        }
        next = error.source();
    }
    matches!(error, RunError::Storage { .. })
}

/// The note of this agent, and whether it has changed since it was written.
#[derive(Debug)]
pub(super) struct Notes {
    folder: RunFolder,
    state: Mutex<(AgentNote, bool)>,
}

impl Notes {
    pub(super) fn new(folder: &RunFolder, note: AgentNote) -> Self {
        Notes { folder: folder.clone(), state: Mutex::new((note, true)) }
    }

    fn lock(&self) -> MutexGuard<'_, (AgentNote, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rewrites the note until the agent is over.
    fn write_on(&self, is_over: &mpsc::Receiver<()>) {
        let mut written = Instant::now();
        loop {
            let mut state = self.lock();
            let is_due = state.1 || !state.0.running.is_empty() || written.elapsed() >= IDLE_NOTE_INTERVAL;
            let note = is_due.then(|| AgentNote { at: jiff::Timestamp::now().to_string(), ..state.0.clone() });
            state.1 = false;
            drop(state);
            if let Some(note) = note {
                written = Instant::now();
                _ = self.folder.write_agent(&note);
            }
            if is_over.recv_timeout(NOTE_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn event(&self, event: &RunEvent) {
        let mut state = self.lock();
        let (note, is_changed) = &mut *state;
        match event {
            RunEvent::StageStarted { stage, kind, .. } => {
                note.running.retain(|running| running.stage != *stage);
                let started = jiff::Timestamp::now().to_string();
                note.running.push(AgentStage { stage: stage.clone(), kind: *kind, started, progress: None });
            }
            RunEvent::StageProgress { stage, progress } => {
                if let Some(running) = note.running.iter_mut().find(|running| running.stage == *stage) {
                    running.progress = Some(progress.clone());
                }
            }
            RunEvent::StageFinished { stage, status, seconds, .. } => {
                note.running.retain(|running| running.stage != *stage);
                note.ran += usize::from(*status == Status::Ran);
                // What failed elsewhere has no seconds here.
                note.failed += usize::from(*status == Status::Failed && *seconds > 0.0);
            }
            _ => return,
        }
        *is_changed = true;
    }
}

/// The other agents of the run.
#[derive(Debug)]
pub(super) struct Neighbourhood {
    notes: Arc<Notes>,
    /// Board with the news, and whether it was never read.
    news: Mutex<(NewsBoard, bool)>,
}

impl Neighbourhood {
    pub(super) fn new(notes: &Arc<Notes>) -> Self {
        let board = NewsBoard::new(notes.folder.news());
        Neighbourhood { notes: Arc::clone(notes), news: Mutex::new((board, true)) }
    }

    fn folder(&self) -> &RunFolder {
        &self.notes.folder
    }

    /// Returns a failure as another agent tells it.
    fn failure(&self, key: ActionKey) -> Option<(ActionKey, Failure)> {
        let FailureNote { failure, agent, host, .. } = self.folder().failure_of(key)?;
        let message = format!("{} (on {host}, agent {agent})", failure.message);
        Some((key, Failure { message, ..failure }))
    }
}

impl Neighbours for Neighbourhood {
    fn news(&self, is_rare: bool) -> News {
        let mut state = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        let (board, is_first) = &mut *state;
        let mut news = News { is_cancelled: !is_rare && self.folder().is_cancelled(), ..News::default() };
        if std::mem::take(is_first) {
            news.failed.extend(self.folder().failed_keys().into_iter().filter_map(|key| self.failure(key)));
        }
        for item in board.read() {
            match item {
                Item::Done(key) => news.done.push(key),
                Item::Failed(key) => news.failed.extend(self.failure(key)),
                Item::Cancelled => news.is_cancelled = true,
            }
        }
        news
    }

    fn is_cancelled(&self) -> bool {
        self.folder().is_cancelled()
    }

    fn failure_of(&self, key: ActionKey) -> Option<Failure> {
        self.failure(key).map(|(_, failure)| failure)
    }

    fn note_done(&self, key: ActionKey) {
        self.folder().news().tell(Item::Done(key));
    }

    fn note_failure(&self, instance: &FailedInstance<'_>) {
        let (agent, host) = {
            let state = self.notes.lock();
            (state.0.name.clone(), state.0.host.clone())
        };
        let note = FailureNote {
            key: instance.key,
            stage: instance.stage.to_owned(),
            kind: instance.kind,
            failure: instance.failed.failure.clone(),
            log: instance.failed.log,
            agent,
            host,
            at: instance.failed.at.clone(),
            seconds: instance.failed.seconds,
        };
        // Without the note, another agent tries the same and fails, too.
        if self.folder().write_failure(&note).is_ok() {
            self.folder().news().tell(Item::Failed(note.key));
        }
    }

    fn note_worker(&self, device: &str, isa: &str) {
        let mut state = self.notes.lock();
        if !state.0.devices.iter().any(|known| known == device) {
            state.0.devices.push(device.to_owned());
        }
        isa.clone_into(&mut state.0.isa);
        state.1 = true;
    }
}
