//! What a controller sees: the cache, the notes of agents, and the site's jobs. It tells what is new.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

use super::super::board::Change;
use super::super::folder::JobLine;
use super::super::news::Item;
use super::super::site::SiteJob;
use super::super::slurm::comment;
use super::{Controller, ControllerError, Told};
use crate::action::ActionKey;
use crate::event::{RunEvent, Status};
use crate::protocol::Failure;
use crate::spec::InstanceId;

/// One look in so many does without the news, where agents share a bucket.
const LOOKS_BY_NEWS: u32 = 10;

impl Controller<'_, '_> {
    pub(super) fn tell_start(&mut self) {
        let wanted: Vec<InstanceId> = self.run.goals.wanted.marked().collect();
        (self.tell)(Told::Run(RunEvent::RunStarted { wanted: wanted.len() }));
        for id in wanted.into_iter().filter(|id| self.board.is_cached(*id)) {
            let stage = self.name(id);
            (self.tell)(Told::Run(finished(stage, Status::Cached, 0.0, String::new(), None)));
        }
    }

    /// Looks at the cache and at the notes of agents; tells what is new. Returns whether anything is.
    pub(super) fn look(&mut self) -> Result<bool, ControllerError> {
        let failed: HashSet<ActionKey> = self.run.folder.failed_keys().into_iter().collect();
        let told = self.told();
        let changes = self.board.look(&failed, told.as_ref())?;
        for change in &changes {
            let event = match change.clone() {
                Change::Done { id, seconds, summary } => finished(self.name(id), Status::Ran, seconds, summary, None),
                Change::Failed { id, key } => {
                    let note = self.run.folder.failure_of(key);
                    if let Some(note) = &note {
                        // Where agents share a bucket, it is not here. Without it, the failure is told all the same.
                        _ = self.run.context.cache.obtain(note.log, &mut |_, _| ControlFlow::Continue(()));
                    }
                    let (failure, seconds) = note.map(|note| (note.failure, note.seconds)).unzip();
                    finished(self.name(id), Status::Failed, seconds.unwrap_or(0.0), String::new(), failure)
                }
                Change::Blocked { id } => finished(self.name(id), Status::Skipped, 0.0, String::new(), None),
            };
            if let RunEvent::StageFinished { stage, .. } = &event {
                self.shown.remove(stage);
            }
            (self.tell)(Told::Run(event));
        }
        Ok(self.look_at_agents() || !changes.is_empty())
    }

    /// Returns the keys that are done by the news, where agents share a bucket; `None` if all have to be looked at,
    /// because news may get lost.
    fn told(&mut self) -> Option<HashSet<ActionKey>> {
        if !self.run.folder.is_in_bucket() {
            return None;
        }
        let done = |item: Item| if let Item::Done(key) = item { Some(key) } else { None };
        let told = self.news.read().into_iter().filter_map(done).collect();
        self.looks += 1;
        (!self.looks.is_multiple_of(LOOKS_BY_NEWS)).then_some(told)
    }

    /// Tells what agents run, by their notes. Returns whether anything is new.
    fn look_at_agents(&mut self) -> bool {
        let mut is_new = false;
        let ended = self.run.folder.ended_agents();
        for note in self.run.folder.agents().into_iter().filter(|note| !ended.contains(&note.name)) {
            for running in note.running {
                if self.board.ready_named(&running.stage).is_none() {
                    continue;
                }
                let before = self.shown.get(&running.stage).filter(|(agent, _)| *agent == note.name);
                let is_told = before.is_some_and(|(_, progress)| *progress == running.progress);
                if before.is_none() {
                    is_new = true;
                    let (stage, kind, reason) = (running.stage.clone(), running.kind, format!("on {}", note.host));
                    (self.tell)(Told::Run(RunEvent::StageStarted { stage, kind, reason }));
                }
                self.shown.insert(running.stage.clone(), (note.name.clone(), running.progress.clone()));
                if let Some(progress) = running.progress.filter(|_| !is_told) {
                    (self.tell)(Told::Run(RunEvent::StageProgress { stage: running.stage, progress }));
                }
            }
        }
        is_new
    }

    /// Asks the site for its jobs. Returns whether it answered.
    pub(super) fn ask_site(&mut self, now: Instant) -> bool {
        let answer = self.site.list();
        let listed: Option<Vec<SiteJob>> = match answer {
            Ok(listed) => {
                if std::mem::take(&mut self.is_away) {
                    self.say("the site answers again".to_owned());
                }
                self.list_wait = self.run.pace.list;
                listed
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    self.warn(format!("{error}; what runs goes on, and the site is asked again"));
                }
                self.list_wait = (self.list_wait * 2).min(self.run.pace.list * 4);
                None
            }
        };
        self.next_list = now + self.list_wait;
        if let Some(jobs) = &listed {
            self.adopt(jobs, now);
        }
        self.fleet.update(self.run.folder, listed.as_deref(), now);
        listed.is_some()
    }

    /// Adds submissions of this run that no line tells of: their controller was killed before it wrote one.
    fn adopt(&mut self, jobs: &[SiteJob], now: Instant) {
        let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (class, job) in self.run.classes.iter().flat_map(|class| jobs.iter().map(move |job| (class, job))) {
            let Some((array, task)) = job.id.split_once('_') else { continue };
            if job.comment != comment(&self.run.folder.id().0, class) || self.fleet.knows(array) {
                continue;
            }
            let count = found.entry((array.to_owned(), class.clone())).or_default();
            *count = (*count).max(task.parse().unwrap_or(0) + 1);
        }
        for ((job, class), count) in found {
            let why = "found by its comment".to_owned();
            let at = jiff::Timestamp::now().to_string();
            let line = JobLine { at, class, job, count, why, memory: None, agent: None };
            // It is found again if it cannot be written.
            _ = self.run.folder.add_job(&line);
            self.fleet.add(&line, now);
        }
    }
}

fn finished(stage: String, status: Status, seconds: f64, summary: String, failure: Option<Failure>) -> RunEvent {
    RunEvent::StageFinished { stage, status, seconds, summary, failure }
}
