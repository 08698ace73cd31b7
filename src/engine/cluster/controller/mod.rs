//! Submits agents for a run and watches it: plan, submit, watch, submit again, end.
//!
//! The run does not need it. It may be killed at any time: the agents go on, and another controller takes over where it
//! was. Of several controllers of one run, one decides; it holds a lease. It never runs a stage.

mod endings;
mod pace;
mod sights;
mod submissions;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

pub use pace::Pace;

use super::board::{Board, WorkLeft};
use super::classes::ClusterFile;
use super::fleet::{Fleet, make_logs_folder};
use super::folder::RunFolder;
use super::news::NewsBoard;
use super::site::{Site, SiteError};
use super::verdict::{Consequence, consequence};
use crate::action::ActionKey;
use crate::cache::{Attempt, Cache, CacheError, Lease, Leases, RunOutcome, RunRecord};
use crate::digest::Digest;
use crate::event::{RunEvent, RunSummary};
use crate::fsio::FileError;
use crate::plan::{Goals, PlanContext};
use crate::protocol::StageProgress;
use crate::scheduler::Interrupt;
use crate::spec::{InstanceId, PerInstance};

/// Share of an agent's time that is planned with.
const USED_TIME: f64 = 0.7;

/// An instance that never ran is planned with this share of an agent's time.
const UNKNOWN_SHARE: f64 = 0.1;

/// So many submissions of a class in a row may end without any progress before the class is given up.
const ROUNDS: usize = 3;

/// Longest chain of submissions that wait for one another.
const LONGEST_CHAIN: usize = 8;

/// What a controller works on.
pub struct SharedRun<'a> {
    /// Graph, cache and sources of the plan.
    pub context: PlanContext<'a>,
    /// What the run is to achieve.
    pub goals: &'a Goals,
    /// Its folder, with the plan in it.
    pub folder: &'a RunFolder,
    /// What its record says from the start.
    pub about: RunRecord,
    /// When its plan was frozen, RFC 3339 in UTC.
    pub since: &'a str,
    /// Names of the classes.
    pub classes: &'a [String],
    /// Class of each instance: its position in `classes`.
    pub class_of: &'a PerInstance<usize>,
    /// Seconds that each instance takes, by earlier runs.
    pub seconds: &'a PerInstance<Option<f64>>,
    /// The machines.
    pub cluster: &'a ClusterFile,
    /// Program of the agents, and their environment.
    pub program: &'a str,
    /// Variables of their environment.
    pub env: &'a [(String, String)],
    /// Intervals.
    pub pace: Pace,
}

/// What a controller tells.
#[derive(Debug, Clone)]
pub enum Told {
    /// A fact of the run.
    Run(RunEvent),
    /// What was submitted, and what waits for what.
    Site(String),
}

/// What the user wants who stops a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The agents go on without it.
    Detach,
    /// The run ends.
    Cancel,
}

/// Why a controller ended.
#[derive(Debug)]
pub enum Ended {
    /// The run is over; its record is in the cache.
    Over(RunSummary, RunOutcome),
    /// The run goes on without it.
    Detached(RunSummary),
    /// No class can do the rest.
    GivenUp(RunSummary, Vec<String>),
}

/// Reason why a controller cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A file of the run's folder failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The site does not take the agents of any class.
    #[error("no agent of class `{class}` can be started")]
    Site {
        /// The class.
        class: String,
        /// What the site says.
        source: SiteError,
    },
}

/// What is known of a class.
#[derive(Debug, Default)]
struct ClassState {
    /// Agents that are wanted now.
    target: usize,
    /// Memory level: how often its agents ran out of memory.
    memory_level: u32,
    /// Progress at the last look, and since the strikes were counted.
    progress: usize,
    /// Submissions that ended without progress.
    strikes: HashSet<String>,
    /// Why the last of them did.
    last_strike: String,
    /// No submission before this moment.
    paused_until: Option<Instant>,
    pauses: u32,
    /// Since when its queue has been long.
    long_queue: Option<Instant>,
    /// Why nothing more is submitted for it.
    given_up: Option<String>,
    /// The most agents that the site took, once it refused more.
    limit: Option<usize>,
}

struct Controller<'a, 'b> {
    run: &'b SharedRun<'a>,
    site: &'b mut dyn Site,
    tell: &'b mut dyn FnMut(Told),
    board: Board<'a>,
    /// What agents say is done, where they share a bucket.
    news: NewsBoard,
    looks: u32,
    fleet: Fleet,
    states: Vec<ClassState>,
    leases: Leases,
    /// Held by the controller that decides.
    lease: Option<Lease>,
    excluded: Vec<String>,
    last_submit: Option<Instant>,
    next_list: Instant,
    list_wait: Duration,
    is_away: bool,
    /// The agent of each instance that is shown as running, and how far it was.
    shown: HashMap<String, (String, Option<StageProgress>)>,
    shown_reasons: BTreeMap<String, String>,
    submissions: u32,
}

/// Submits agents for a run and returns, without waiting for anything. Returns the number of agents.
///
/// # Errors
/// [`ControllerError`].
pub fn submit(run: &SharedRun<'_>, site: &mut dyn Site, tell: &mut dyn FnMut(Told)) -> Result<usize, ControllerError> {
    let mut controller = Controller::new(run, site, tell)?;
    controller.look()?;
    controller.ask_site(Instant::now());
    if controller.leads()? {
        controller.submit_first(true)?;
    }
    Ok(controller.fleet.open().count())
}

/// Submits agents for a run and watches it to its end. `wish` is asked once the user stops it.
///
/// # Errors
/// [`ControllerError`].
pub fn watch(
    run: &SharedRun<'_>,
    site: &mut dyn Site,
    interrupt: &Interrupt,
    wish: &mut dyn FnMut() -> Wish,
    tell: &mut dyn FnMut(Told),
) -> Result<Ended, ControllerError> {
    let mut controller = Controller::new(run, site, tell)?;
    controller.tell_start();
    controller.watch(interrupt, wish)
}

/// Ends the agents of a run. Returns how many jobs the site was asked to end.
///
/// # Errors
/// [`ControllerError`].
pub fn cancel(folder: &RunFolder, site: &mut dyn Site) -> Result<usize, ControllerError> {
    folder.cancel()?;
    let fleet = Fleet::read(folder, Instant::now());
    let with_words = folder.ended_agents();
    let jobs: Vec<String> =
        fleet.open().filter(|agent| !with_words.contains(&agent.name)).map(|agent| agent.job.clone()).collect();
    site.cancel(&jobs).map_err(|source| ControllerError::Site { class: String::new(), source })?;
    Ok(jobs.len())
}

/// Takes the place of a run's controller, if there is none: until the lease is dropped, no other one decides.
///
/// # Errors
/// [`CacheError`].
pub fn take_over(cache: &Cache, folder: &RunFolder) -> Result<Option<Lease>, CacheError> {
    Ok(match Leases::new(cache).attempt(lease_key(folder))? {
        Attempt::Taken(lease) => Some(lease),
        Attempt::Held(_) => None,
    })
}

fn lease_key(folder: &RunFolder) -> ActionKey {
    ActionKey(Digest::of(format!("controller of {}", folder.id().0).as_bytes()))
}

impl<'a, 'b> Controller<'a, 'b> {
    fn new(
        run: &'b SharedRun<'a>,
        site: &'b mut dyn Site,
        tell: &'b mut dyn FnMut(Told),
    ) -> Result<Self, ControllerError> {
        make_logs_folder(run.folder)?;
        let now = Instant::now();
        let fleet = Fleet::read(run.folder, now);
        let mut states: Vec<ClassState> = run.classes.iter().map(|_| ClassState::default()).collect();
        let mut excluded = Vec::new();
        for decision in fleet.decisions() {
            let class = run.classes.iter().position(|name| *name == decision.class);
            match (consequence(decision.ending), class) {
                (Consequence::Exclude, _) if !decision.node.is_empty() => excluded.push(decision.node.clone()),
                (Consequence::MoreMemory, Some(class)) => states[class].memory_level = 1,
                _ => {}
            }
        }
        Ok(Controller {
            run,
            site,
            tell,
            // Before the board, so that nothing is missed.
            news: NewsBoard::new(run.folder.news()),
            looks: 0,
            board: Board::new(run.context, run.goals, run.since)?,
            fleet,
            states,
            leases: Leases::new(run.context.cache),
            lease: None,
            excluded,
            last_submit: None,
            next_list: now,
            list_wait: run.pace.list,
            is_away: false,
            shown: HashMap::new(),
            shown_reasons: BTreeMap::new(),
            submissions: 0,
        })
    }

    fn watch(&mut self, interrupt: &Interrupt, wish: &mut dyn FnMut() -> Wish) -> Result<Ended, ControllerError> {
        let mut wait = self.run.pace.look;
        let mut is_first = true;
        loop {
            let now = Instant::now();
            let has_changed = self.look()?;
            if self.board.is_over() {
                return self.end();
            }
            if self.run.folder.is_cancelled() {
                return self.end_cancelled();
            }
            if let Some(end) = self.run.folder.ended() {
                // Another controller ended it.
                self.tell_mixture();
                return Ok(Ended::Over(self.board.summary(), end.outcome));
            }
            let is_listed = now >= self.next_list && self.ask_site(now);
            if self.leads()? {
                if self.judge_all(is_listed, now)? {
                    return self.end_cancelled();
                }
                if std::mem::take(&mut is_first) {
                    self.submit_first(false)?;
                }
                self.submit_more(now)?;
                if let Some(reasons) = self.given_up() {
                    return self.give_up(reasons);
                }
            }
            wait = if has_changed { self.run.pace.look } else { (wait * 3 / 2).min(self.run.pace.longest_look) };
            if let Some(wish) = self.sleep(wait, interrupt, wish) {
                return match wish {
                    Wish::Detach => Ok(Ended::Detached(self.board.summary())),
                    Wish::Cancel => {
                        self.run.folder.cancel()?;
                        self.end_cancelled()
                    }
                };
            }
        }
    }

    fn sleep(&mut self, wait: Duration, interrupt: &Interrupt, wish: &mut dyn FnMut() -> Wish) -> Option<Wish> {
        let until = Instant::now() + wait;
        loop {
            let requests = interrupt.requests();
            if requests > 0 {
                interrupt.acknowledge(requests + 1000);
                return Some(wish());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Whether this controller decides.
    fn leads(&mut self) -> Result<bool, ControllerError> {
        if self.lease.is_none()
            && let Attempt::Taken(lease) = self.leases.attempt(lease_key(self.run.folder))?
        {
            self.lease = Some(lease);
        }
        Ok(self.lease.is_some())
    }

    fn name(&self, id: InstanceId) -> String {
        self.run.context.graph.instance(id).name.clone()
    }

    /// Why nothing that is left can run: all classes with ready work are given up, and no agent is left.
    fn given_up(&self) -> Option<Vec<String>> {
        let work = self.work();
        let has_agents = self.fleet.open().any(|agent| !agent.is_reserve);
        let ready = work.iter().enumerate().filter(|(_, left)| left.ready > 0);
        let reasons: Option<Vec<String>> = ready.map(|(class, _)| self.states[class].given_up.clone()).collect();
        reasons.filter(|reasons| !reasons.is_empty() && !has_agents)
    }

    fn give_up(&mut self, reasons: Vec<String>) -> Result<Ended, ControllerError> {
        let summary = self.finish(RunOutcome::Broken)?;
        Ok(Ended::GivenUp(summary, reasons))
    }

    fn end(&mut self) -> Result<Ended, ControllerError> {
        let outcome = self.board.outcome();
        self.tell_mixture();
        let summary = self.finish(outcome)?;
        Ok(Ended::Over(summary, outcome))
    }

    fn tell_mixture(&mut self) {
        if let Some(text) = self.board.mixture() {
            self.warn(text);
        }
    }

    fn end_cancelled(&mut self) -> Result<Ended, ControllerError> {
        let summary = self.finish(RunOutcome::Interrupted)?;
        Ok(Ended::Over(RunSummary { interrupted: true, ..summary }, RunOutcome::Interrupted))
    }

    /// Notes the end of the run, once, and ends the jobs that are left.
    fn finish(&mut self, outcome: RunOutcome) -> Result<RunSummary, ControllerError> {
        let mut summary = self.board.summary();
        if !self.leads()? || self.run.folder.ended().is_some() {
            return Ok(summary);
        }
        // Agents see that nothing is left and end by themselves. Those that wait for a machine would start in vain.
        let is_left = |waits: bool| outcome != RunOutcome::Done && outcome != RunOutcome::Failed || waits;
        let words = self.run.folder.ended_agents();
        let jobs: Vec<String> = self
            .fleet
            .open()
            .filter(|agent| !words.contains(&agent.name) && is_left(!agent.is_running()))
            .map(|agent| agent.job.clone())
            .collect();
        if !jobs.is_empty() {
            self.end_jobs(&jobs);
        }
        let record = self.board.record(self.run.about.clone(), outcome, &self.run.folder.failures());
        summary.run = Some(self.run.context.cache.remember(&record)?);
        self.run.folder.end(outcome)?;
        Ok(summary)
    }

    fn say(&mut self, text: String) {
        (self.tell)(Told::Site(text));
    }

    fn warn(&mut self, text: String) {
        (self.tell)(Told::Run(RunEvent::Warning(text)));
    }
}
