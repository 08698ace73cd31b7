//! How far a shared run is, by the cache alone: which instances are done, ready, failed or blocked.
//!
//! Looks only at what was not done before. Starts nothing.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::folder::FailureNote;
use super::instruction_sets::InstructionSets;
use crate::action::{Action, ActionKey};
use crate::cache::{CacheError, FailedStage, RunOutcome, RunRecord, Unmade};
use crate::event::RunSummary;
use crate::graph::Outputs;
use crate::plan::{CacheStatus, Goals, PlanContext, Resumption, Staleness, survey};
use crate::spec::{InstanceId, PerInstance};

/// State of an instance.
#[derive(Debug)]
enum State {
    /// No target needs it.
    Unwanted,
    /// A producer is not done.
    Waiting,
    /// All its inputs are there, and it has no result.
    Ready(Box<Action>, ActionKey),
    /// Its result is there.
    Done { key: ActionKey, outputs: Outputs, seconds: f64, is_new: bool },
    /// It failed for good.
    Failed(ActionKey),
    /// Something that it needs failed.
    Blocked,
}

/// What has changed since the last look.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An instance has its result.
    Done {
        /// The instance.
        id: InstanceId,
        /// Seconds that it ran.
        seconds: f64,
        /// A line on what came out.
        summary: String,
    },
    /// An instance failed for good.
    Failed {
        /// The instance.
        id: InstanceId,
        /// Key of its failure note.
        key: ActionKey,
    },
    /// An instance cannot run, because something that it needs failed.
    Blocked {
        /// The instance.
        id: InstanceId,
    },
}

/// State of a run.
#[derive(Debug)]
pub struct Board<'a> {
    context: PlanContext<'a>,
    goals: &'a Goals,
    states: PerInstance<State>,
    /// Number of instances that were done at the start.
    cached: usize,
    /// With what the results of this run were computed.
    instruction_sets: InstructionSets,
    /// When the run was submitted, RFC 3339 in UTC.
    since: String,
}

/// Work of a class that is left.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkLeft {
    /// Instances whose inputs are all there.
    pub ready: usize,
    /// Instances that can still run, the ready ones among them.
    pub open: usize,
    /// Seconds of all of them that have run before at about this size.
    pub seconds: f64,
    /// Number of those that have not.
    pub never_ran: usize,
}

impl<'a> Board<'a> {
    /// Looks at everything. Results that were made at or after `since` are of this run.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn new(context: PlanContext<'a>, goals: &'a Goals, since: &str) -> Result<Self, CacheError> {
        let (text, since): (String, Option<Timestamp>) = (since.to_owned(), since.parse().ok());
        let survey = survey(context, goals)?;
        let (mut cached, mut instruction_sets) = (0, InstructionSets::default());
        let states = survey
            .into_iter()
            .map(|(_, status)| match status {
                None => State::Unwanted,
                Some(CacheStatus::Pending(_)) => State::Waiting,
                Some(CacheStatus::Stale(action, _)) => {
                    let key = action.key();
                    State::Ready(action, key)
                }
                Some(CacheStatus::Fresh(key, manifest)) => {
                    let seconds = manifest.made.seconds;
                    let made: Option<Timestamp> = manifest.made.at.parse().ok();
                    let is_new = made.is_some_and(|made| since.is_some_and(|since| made >= since));
                    cached += usize::from(!is_new);
                    if is_new {
                        instruction_sets.add(&manifest);
                    }
                    State::Done { key, outputs: manifest.outputs, seconds, is_new }
                }
            })
            .collect();
        Ok(Board { context, goals, states, cached, instruction_sets, since: text })
    }

    /// Looks at the ready instances again, and at those that this makes ready. `failed` are keys with the note of a
    /// failure, `told` those that agents said are done. Where agents share a bucket, only these are asked for, or all
    /// if it is `None`.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn look(
        &mut self,
        failed: &HashSet<ActionKey>,
        told: Option<&HashSet<ActionKey>>,
    ) -> Result<Vec<Change>, CacheError> {
        let mut changes = Vec::new();
        let cache = self.context.cache;
        let is_far = cache.shared().is_some();
        if is_far {
            self.ask_again(told)?;
        }
        let listed = if is_far { None } else { cache.list_keys(self.ready().count()) };
        let may_be_there = |key: &ActionKey| listed.as_ref().is_none_or(|keys| keys.contains(key));
        // Producers come before their consumers, so one pass is enough.
        for id in self.states.ids() {
            match &self.states[id] {
                State::Waiting => self.settle(id)?,
                State::Ready(..) => {}
                State::Unwanted | State::Done { .. } | State::Failed(_) | State::Blocked => continue,
            }
            let State::Ready(action, key) = &self.states[id] else {
                if matches!(self.states[id], State::Blocked) {
                    changes.push(Change::Blocked { id });
                }
                continue;
            };
            let key = *key;
            // What the bucket lacked a moment ago is not asked for again.
            let found = if may_be_there(&key) { cache.find(action, key)? } else { None };
            match found {
                // A manifest alone is not enough where its outputs have to be there.
                Some(_) => {
                    let outputs = |producer: InstanceId| self.outputs(producer);
                    let found = self.context.check_staleness(id, outputs, self.goals.needed[id])?;
                    if let Staleness::Fresh(key, manifest) = found {
                        self.instruction_sets.add(&manifest);
                        let (seconds, summary) = (manifest.made.seconds, manifest.made.summary.clone());
                        self.states[id] = State::Done { key, outputs: manifest.outputs, seconds, is_new: true };
                        changes.push(Change::Done { id, seconds, summary });
                    }
                }
                None if failed.contains(&key) => {
                    self.states[id] = State::Failed(key);
                    changes.push(Change::Failed { id, key });
                }
                None => {}
            }
        }
        Ok(changes)
    }

    /// Asks the bucket for the ready instances with these keys, or for all, many at once.
    fn ask_again(&self, told: Option<&HashSet<ActionKey>>) -> Result<(), CacheError> {
        let is_asked = |key: &ActionKey| told.is_none_or(|told| told.contains(key));
        let asked: Vec<(Action, ActionKey)> = self
            .states
            .values()
            .filter_map(|state| match state {
                State::Ready(action, key) if is_asked(key) => Some((Action::clone(action), *key)),
                _ => None,
            })
            .collect();
        asked.iter().for_each(|(_, key)| self.context.cache.forget_absence(*key));
        self.context.cache.prefetch(asked)
    }

    /// Makes a waiting instance ready or blocked, if its producers are done or one of them has failed.
    fn settle(&mut self, id: InstanceId) -> Result<(), CacheError> {
        let graph = self.context.graph;
        if graph.producers(id).any(|from| matches!(self.states[from], State::Failed(_) | State::Blocked)) {
            self.states[id] = State::Blocked;
        } else if graph.producers(id).all(|from| matches!(self.states[from], State::Done { .. })) {
            let (action, key) = self.context.action(id, |producer| self.outputs(producer));
            self.states[id] = State::Ready(Box::new(action), key);
        }
        Ok(())
    }

    fn outputs(&self, id: InstanceId) -> &Outputs {
        match &self.states[id] {
            State::Done { outputs, .. } => outputs,
            _ => unreachable!("the producers of a ready instance are done"),
        }
    }

    /// Whether nothing is left that could run.
    pub fn is_over(&self) -> bool {
        !self.states.values().any(|state| matches!(state, State::Waiting | State::Ready(..)))
    }

    /// Says whether results of this run may depend on which machine made them; `None` if not.
    pub fn mixture(&self) -> Option<String> {
        self.instruction_sets.warning()
    }

    /// Number of instances that are done.
    pub fn done(&self) -> usize {
        self.states.values().filter(|state| matches!(state, State::Done { .. })).count()
    }

    /// Whether an instance was done at the start.
    pub fn is_cached(&self, id: InstanceId) -> bool {
        matches!(self.states[id], State::Done { is_new: false, .. })
    }

    /// Returns the ready instance of a name, and its key.
    pub fn ready_named(&self, name: &str) -> Option<(InstanceId, ActionKey)> {
        self.states.iter().find_map(|(id, state)| match state {
            State::Ready(_, key) if self.context.graph.instance(id).name == name => Some((id, *key)),
            _ => None,
        })
    }

    /// Returns the ready instances and their keys.
    pub fn ready(&self) -> impl Iterator<Item = (InstanceId, ActionKey)> + '_ {
        self.states.iter().filter_map(|(id, state)| match state {
            State::Ready(_, key) => Some((id, *key)),
            _ => None,
        })
    }

    /// Returns the work that is left, by class. `class_of` and `seconds` are those of the plan.
    pub fn work_left(
        &self,
        classes: usize,
        class_of: &PerInstance<usize>,
        seconds: &PerInstance<Option<f64>>,
    ) -> Vec<WorkLeft> {
        let mut left = vec![WorkLeft::default(); classes];
        for (id, state) in self.states.iter() {
            let of = &mut left[class_of[id]];
            match state {
                State::Ready(..) => of.ready += 1,
                State::Waiting => {}
                State::Unwanted | State::Done { .. } | State::Failed(_) | State::Blocked => continue,
            }
            of.open += 1;
            match seconds[id] {
                Some(seconds) => of.seconds += seconds,
                None => of.never_ran += 1,
            }
        }
        left
    }

    /// A number that grows with all that a class has done: results, and epochs of trainings that go on. `epochs` tells
    /// how many epochs of an instance agents have told of: where they share no folder, their progress is not here.
    pub fn progress(&self, class: usize, class_of: &PerInstance<usize>, epochs: &dyn Fn(&str) -> u32) -> usize {
        let of = |(id, state): (InstanceId, &State)| match state {
            _ if class_of[id] != class => 0,
            // More than any training has epochs.
            State::Done { .. } | State::Failed(_) => 1_000_000,
            State::Ready(action, _) => {
                let kept = Resumption::of(self.context.cache, action, false).map_or(0, |kept| kept.epoch);
                kept.max(epochs(&self.context.graph.instance(id).name)) as usize
            }
            State::Unwanted | State::Waiting | State::Blocked => 0,
        };
        self.states.iter().map(of).sum()
    }

    /// How many steps from class to class lie before an instance that is not done: 0 if agents of its class alone can
    /// reach it.
    pub fn steps(&self, class_of: &PerInstance<usize>) -> PerInstance<usize> {
        let graph = self.context.graph;
        let mut steps = graph.per_instance(0);
        for id in graph.ids() {
            let open =
                graph.producers(id).filter(|from| matches!(self.states[*from], State::Waiting | State::Ready(..)));
            steps[id] = open.map(|from| steps[from] + usize::from(class_of[from] != class_of[id])).max().unwrap_or(0);
        }
        steps
    }

    /// Whether an instance can still run.
    pub fn is_open(&self, id: InstanceId) -> bool {
        matches!(self.states[id], State::Waiting | State::Ready(..))
    }

    /// The outcome, if the run is over.
    pub fn outcome(&self) -> RunOutcome {
        let has_failed = self.states.values().any(|state| matches!(state, State::Failed(_) | State::Blocked));
        match (self.is_over(), has_failed) {
            (true, false) => RunOutcome::Done,
            (true, true) => RunOutcome::Failed,
            (false, _) => RunOutcome::Interrupted,
        }
    }

    /// The counts of the run so far.
    pub fn summary(&self) -> RunSummary {
        let count = |is: fn(&State) -> bool| self.states.values().filter(|state| is(state)).count();
        RunSummary {
            ran: count(|state| matches!(state, State::Done { is_new: true, .. })),
            cached: count(|state| matches!(state, State::Done { is_new: false, .. })),
            failed: count(|state| matches!(state, State::Failed(_))),
            skipped: count(|state| matches!(state, State::Waiting | State::Ready(..) | State::Blocked)),
            keys: self.keys(),
            ..RunSummary::default()
        }
    }

    fn keys(&self) -> BTreeMap<String, ActionKey> {
        let key = |(id, state): (InstanceId, &State)| match state {
            State::Done { key, .. } => Some((self.context.graph.instance(id).name.clone(), *key)),
            _ => None,
        };
        self.states.iter().filter_map(key).collect()
    }

    /// The record of the run. `about` says what is known of it from the start, `notes` why instances failed.
    pub fn record(&self, about: RunRecord, outcome: RunOutcome, notes: &[FailureNote]) -> RunRecord {
        let graph = self.context.graph;
        let (mut ran, mut failed, mut skipped, mut unmade) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        for (id, state) in self.states.iter() {
            let instance = graph.instance(id);
            let name = instance.name.clone();
            let needs = || graph.producers(id).map(|from| graph.instance(from).name.clone()).collect();
            match state {
                State::Unwanted => {}
                State::Done { seconds, is_new, .. } => {
                    if *is_new {
                        ran.insert(name, *seconds);
                    }
                }
                State::Failed(key) => {
                    if let Some(note) = notes.iter().find(|note| note.key == *key) {
                        let FailureNote { failure, log, at, seconds, .. } = note.clone();
                        failed.insert(name.clone(), FailedStage { failure, log, at, seconds });
                    }
                    unmade.insert(name, Unmade { kind: instance.kind, needs: needs() });
                }
                State::Waiting | State::Ready(..) | State::Blocked => {
                    skipped.push(name.clone());
                    unmade.insert(name, Unmade { kind: instance.kind, needs: needs() });
                }
            }
        }
        RunRecord {
            at: Timestamp::now().to_string(),
            started: Some(self.since.clone()),
            outcome: Some(outcome),
            keys: self.keys(),
            cached: Some(self.cached),
            ran,
            failed,
            skipped,
            unmade,
            ..about
        }
    }
}
