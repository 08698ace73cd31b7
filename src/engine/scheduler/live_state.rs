//! Shows the state of this run to other terminals: a thread writes what changed into the cache about twice a second.
//!
//! The scheduler never waits for it. A run that ends within the first half second leaves no trace, and one that cannot
//! write its state goes on without.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::HALF;
use crate::action::ActionKey;
use crate::cache::{Cache, LiveFolder, LiveRun, LiveStage, LiveWait, RunRecord};
use crate::event::{RunEvent, Status};
use crate::stage_kinds::StageKind;
use crate::time_left::TimeLeft;

/// Interval between two writes.
const PERIOD: Duration = Duration::from_millis(500);

/// Interval between two writes of a run that shares its graph with others: there may be a thousand of them.
const SHARED_PERIOD: Duration = Duration::from_secs(10);

/// Interval after which an unchanged state is written again. On other machines, the file's age is the only sign of
/// life.
const HEARTBEAT: Duration = Duration::from_secs(10);
const SHARED_HEARTBEAT: Duration = Duration::from_secs(300);

/// Bytes of a log that are shown while its stage runs. Later lines are in the log that the cache keeps.
const LONGEST_LOG: u64 = HALF;

/// Bytes that may come between two writes. A program that prints more is not followed any further.
const MOST_PENDING: usize = 1 << 20;

/// State of this run, shown to others from the first stage that runs.
pub(super) struct LiveState {
    shared: Arc<Shared>,
    cache: Cache,
    thread: Option<JoinHandle<()>>,
    is_shared: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the thread at the end of the run.
    over: Condvar,
    period: Duration,
    heartbeat: Duration,
}

struct State {
    run: LiveRun,
    time_left: TimeLeft,
    /// Instances that have ended otherwise than cached, in case one is reopened.
    ended: BTreeMap<String, Status>,
    logs: BTreeMap<String, Log>,
    next_log: usize,
    /// Results that are not written yet.
    made: Vec<(ActionKey, String)>,
    is_changed: bool,
    is_over: bool,
}

/// Log of a running stage, as far as it is not written yet.
#[derive(Default)]
struct Log {
    file: String,
    pending: Vec<u8>,
    size: u64,
    /// Whether a status named it, so that somebody may follow it.
    is_told: bool,
    is_ended: bool,
}

impl LiveState {
    /// `is_shared` is for runs that share their graph with others.
    pub(super) fn new(cache: &Cache, about: &RunRecord, is_shared: bool) -> Self {
        let state = State {
            run: LiveRun::new(about, jiff::Timestamp::now().to_string()),
            time_left: TimeLeft::default(),
            ended: BTreeMap::new(),
            logs: BTreeMap::new(),
            next_log: 0,
            made: Vec::new(),
            is_changed: true,
            is_over: false,
        };
        let (period, heartbeat) = if is_shared { (SHARED_PERIOD, SHARED_HEARTBEAT) } else { (PERIOD, HEARTBEAT) };
        let shared = Arc::new(Shared { state: Mutex::new(state), over: Condvar::new(), period, heartbeat });
        LiveState { shared, cache: cache.clone(), thread: None, is_shared }
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(super) fn mute(&mut self) {
        self.thread = Some(std::thread::spawn(|| ()));
    }

    /// Takes note of a result that this run made, so that it is found by name before the run ends. A thousand agents
    /// would write a thousand lists, so runs that share their graph have none.
    pub(super) fn note_made(&self, stage: &str, key: ActionKey) {
        if !self.is_shared {
            self.shared.lock().made.push((key, stage.to_owned()));
        }
    }

    /// Takes note of an event. The first stage that runs starts the thread.
    pub(super) fn note(&mut self, event: &RunEvent) {
        self.shared.lock().note(event);
        if self.thread.is_none() && matches!(event, RunEvent::StageStarted { .. } | RunEvent::StageWaiting { .. }) {
            let (shared, cache) = (Arc::clone(&self.shared), self.cache.clone());
            // Without a thread nothing is shown.
            self.thread =
                std::thread::Builder::new().name("live".to_owned()).spawn(move || shared.write_on(&cache)).ok();
        }
    }
}

impl Drop for LiveState {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.over.notify_all();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes changes until the run is over or a write fails; removes all of it then.
    fn write_on(&self, cache: &Cache) {
        let mut folder: Option<LiveFolder> = None;
        let mut written = Instant::now();
        loop {
            let state = self.lock();
            let waited = self.over.wait_timeout_while(state, self.period, |state| !state.is_over);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over {
                // Who follows a log gets the rest of it.
                let logs = state.take_logs();
                drop(state);
                _ = folder.map(|folder| write(&folder, None, &logs, &[]));
                return;
            }
            let run = (state.is_changed || written.elapsed() > self.heartbeat).then(|| state.shown());
            let (logs, made) = (state.take_logs(), mem::take(&mut state.made));
            drop(state);
            if let Some(run) = &run {
                written = Instant::now();
                if folder.is_none() {
                    folder = LiveFolder::create(cache, &run.holder).ok();
                }
            }
            let Some(folder) = &folder else { return };
            if write(folder, run.as_ref(), &logs, &made).is_err() {
                return;
            }
        }
    }
}

fn write(folder: &LiveFolder, run: Option<&LiveRun>, logs: &[Log], made: &[(ActionKey, String)]) -> io::Result<()> {
    if !made.is_empty() {
        folder.add_made(made)?;
    }
    // A reader learns of a log from the status, so the log comes first.
    for log in logs {
        folder.append(&log.file, &log.pending)?;
    }
    if let Some(run) = run {
        folder.write(run)?;
    }
    logs.iter().filter(|log| log.is_ended).for_each(|log| folder.remove(&log.file));
    Ok(())
}

impl State {
    fn note(&mut self, event: &RunEvent) {
        self.time_left.note(event);
        self.is_changed = true;
        match event {
            RunEvent::RunStarted { wanted } => self.run.stages = *wanted,
            RunEvent::StageStarted { stage, kind, .. } => self.started(stage, *kind),
            RunEvent::StageWaiting { stage, holder, .. } => {
                self.run.waiting.retain(|waiting| waiting.stage != *stage);
                let holder = holder.as_ref().map(|holder| (holder.host.clone(), holder.pid));
                self.run.waiting.push(LiveWait { stage: stage.clone(), holder });
            }
            RunEvent::StageProgress { stage, progress } => {
                if let Some(running) = self.run.running.iter_mut().find(|running| running.stage == *stage) {
                    running.progress = Some(progress.clone());
                }
            }
            RunEvent::StageLog { stage, line } => self.log(stage, line),
            RunEvent::StageFinished { stage, status, .. } => self.finished(stage, *status),
            RunEvent::StageReopened { stage, .. } => {
                let number = self.number(self.ended.get(stage).copied().unwrap_or(Status::Cached));
                *number = number.saturating_sub(1);
                self.ended.remove(stage);
            }
            RunEvent::RunEstimated(_) | RunEvent::Fetching { .. } | RunEvent::Warning(_) => {}
        }
    }

    fn started(&mut self, stage: &str, kind: StageKind) {
        // A stage that is tried again starts a log of its own.
        self.end_log(stage);
        let log = format!("{}.log", self.next_log);
        self.next_log += 1;
        self.run.waiting.retain(|waiting| waiting.stage != stage);
        self.run.running.retain(|running| running.stage != stage);
        let (started, progress) = (jiff::Timestamp::now().to_string(), None);
        self.run.running.push(LiveStage { stage: stage.to_owned(), kind, started, progress, log: log.clone() });
        self.logs.insert(stage.to_owned(), Log { file: log, ..Log::default() });
    }

    fn log(&mut self, stage: &str, line: &str) {
        let Some(log) = self.logs.get_mut(stage) else { return };
        if log.pending.len() > MOST_PENDING {
            log.size = LONGEST_LOG;
        } else if log.size < LONGEST_LOG {
            log.pending.extend_from_slice(line.as_bytes());
            log.pending.push(b'\n');
            log.size += line.len() as u64 + 1;
        }
    }

    fn finished(&mut self, stage: &str, status: Status) {
        self.run.running.retain(|running| running.stage != stage);
        self.run.waiting.retain(|waiting| waiting.stage != stage);
        *self.number(status) += 1;
        if status != Status::Cached {
            self.ended.insert(stage.to_owned(), status);
            self.end_log(stage);
        }
    }

    /// Returns the number of instances that ended in a way.
    fn number(&mut self, status: Status) -> &mut usize {
        match status {
            Status::Ran => &mut self.run.ran,
            Status::Cached => &mut self.run.cached,
            Status::Failed => &mut self.run.failed,
            Status::Skipped => &mut self.run.skipped,
        }
    }

    /// Marks the log of a stage as ended, under a name that no stage has.
    fn end_log(&mut self, stage: &str) {
        if let Some(mut log) = self.logs.remove(stage) {
            log.is_ended = true;
            self.logs.insert(format!("{stage} {}", log.file), log);
        }
    }

    /// Returns the state as it is to be written.
    fn shown(&mut self) -> LiveRun {
        self.is_changed = false;
        self.logs.values_mut().filter(|log| !log.is_ended).for_each(|log| log.is_told = true);
        self.run.at = jiff::Timestamp::now().to_string();
        (self.run.seconds_left, self.run.never_ran) = (self.time_left.seconds(), self.time_left.never_ran());
        self.run.clone()
    }

    /// Returns what is new in the logs, and forgets the logs that have ended.
    fn take_logs(&mut self) -> Vec<Log> {
        // Nobody was told of the log of a stage that came and went between two writes.
        self.logs.retain(|_, log| log.is_told || !log.is_ended);
        let of = |log: &mut Log| Log { file: log.file.clone(), pending: mem::take(&mut log.pending), ..*log };
        let new = self.logs.values_mut().filter(|log| !log.pending.is_empty() || log.is_ended).map(of).collect();
        self.logs.retain(|_, log| !log.is_ended);
        new
    }
}
