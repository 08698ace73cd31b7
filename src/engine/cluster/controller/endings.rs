//! What follows from the end of an agent, or from its silence.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::fleet::{Decision, did_nothing};
use super::super::folder::FailureNote;
use super::super::verdict::{Consequence, Ending, Verdict, consequence, judge};
use super::{Controller, ControllerError};
use crate::action::ActionKey;
use crate::cache::Blob;
use crate::protocol::{Failure, FailureCode};

impl Controller<'_, '_> {
    /// Judges all agents. Returns whether the run ends because a person cancelled an agent.
    pub(super) fn judge_all(&mut self, is_listed: bool, now: Instant) -> Result<bool, ControllerError> {
        if !is_listed && self.fleet.open().next().is_some() {
            // Last words come without the site.
            self.fleet.update_notes(self.run.folder, now);
        }
        for class in 0..self.states.len() {
            let progress = self.board.progress(class, self.run.class_of, &|stage| self.fleet.epochs(stage));
            let state = &mut self.states[class];
            if progress > state.progress {
                state.progress = progress;
                state.strikes.clear();
                state.pauses = 0;
            }
        }
        let names: Vec<String> = self.fleet.open().map(|agent| agent.name.clone()).collect();
        let mut queued: BTreeMap<(String, String), usize> = BTreeMap::new();
        for name in names {
            let Some(agent) = self.fleet.agent_mut(&name) else { continue };
            let (class_name, job) = (agent.class.clone(), agent.job.clone());
            let Some(class) = self.run.classes.iter().position(|known| *known == class_name) else { continue };
            let Some(of) = self.run.cluster.class(&class_name) else { continue };
            let hang = of.hang;
            let Some(agent) = self.fleet.open().find(|agent| agent.name == name) else { continue };
            let facts = self.fleet.facts(agent, hang, self.run.pace.heartbeat, now);
            match judge(&facts) {
                Verdict::Wait => {}
                Verdict::Queued(reason) => *queued.entry((class_name, reason)).or_default() += 1,
                Verdict::Advise(advice) => {
                    if self.tells(&name, "advice") {
                        self.warn(format!("job {job} of class {class_name} waits ({}): {advice}", facts.reason));
                    }
                }
                Verdict::Silent => {
                    if self.tells(&name, "silent") {
                        let seconds = facts.silent.as_secs();
                        self.warn(format!("agent {name} has been silent for {seconds} s; {} s end it", hang.as_secs()));
                    }
                }
                Verdict::Hangs => {
                    if self.tells(&name, "hangs") {
                        self.warn(format!("agent {name} was silent for {} s and is ended", hang.as_secs()));
                        if let Some(agent) = self.fleet.agent_mut(&name) {
                            agent.ended_here = true;
                        }
                        self.end_jobs(&[job]);
                    }
                }
                Verdict::Strange(word) => {
                    if self.tells(&name, "strange") {
                        self.warn(format!("the site says {word} of job {job}: its results count, and nothing is done"));
                    }
                }
                Verdict::Over(ending) => {
                    if self.over(&name, class, ending, &facts.reason, now)? {
                        return Ok(true);
                    }
                }
            }
        }
        self.tell_queue(&queued);
        Ok(false)
    }

    pub(super) fn tells(&mut self, agent: &str, what: &'static str) -> bool {
        self.fleet.agent_mut(agent).is_some_and(|agent| agent.told.insert(what))
    }

    /// Tells why agents wait, whenever the reasons change.
    pub(super) fn tell_queue(&mut self, queued: &BTreeMap<(String, String), usize>) {
        for class in self.run.classes {
            let parts: Vec<String> = queued
                .iter()
                .filter(|((of, reason), _)| of == class && reason != "Dependency")
                .map(|((_, reason), _)| if reason.is_empty() { "queued".to_owned() } else { reason.clone() })
                .collect();
            let reasons = parts.join(", ");
            let before = self.shown_reasons.insert(class.clone(), reasons.clone()).unwrap_or_default();
            if before != reasons && !reasons.is_empty() {
                self.say(format!("agents of class {class} wait: {reasons}"));
            }
        }
    }

    /// Does what follows from an agent's end. Returns whether the run ends.
    pub(super) fn over(
        &mut self,
        name: &str,
        class: usize,
        ending: Ending,
        reason: &str,
        now: Instant,
    ) -> Result<bool, ControllerError> {
        let Some(agent) = self.fleet.open().find(|agent| agent.name == name) else { return Ok(false) };
        let (node, submission, exit) = (agent.node.clone(), agent.submission.clone(), agent.exit.clone());
        let before = agent.progress_before;
        let nothing_done =
            did_nothing(agent) || (ending == Ending::Deadline && before == Some(self.states[class].progress));
        let (running, process) = (agent.running.clone(), agent.process.clone());
        let level = self.states[class].memory_level;
        let of = &self.run.classes[class];
        let memory = self.run.cluster.class(of).and_then(|of| of.memory_after(level));
        let words = exit.as_ref().map(|note| note.message.clone()).filter(|words| !words.is_empty());
        let why = words.unwrap_or_else(|| reason.to_owned());
        let at = jiff::Timestamp::now().to_string();
        let (agent, class_name) = (name.to_owned(), of.clone());
        self.fleet.decide(Decision {
            at,
            agent,
            class: class_name.clone(),
            ending,
            node: node.clone(),
            memory,
            why: why.clone(),
        })?;
        let state = &mut self.states[class];
        let strike = match consequence(ending) {
            Consequence::StopRun => {
                self.say(format!("agent {name} was cancelled: the run ends"));
                self.run.folder.cancel()?;
                return Ok(true);
            }
            Consequence::Free if ending == Ending::Clean => {
                state.target = state.target.saturating_sub(1);
                None
            }
            Consequence::Free if nothing_done => {
                Some("what is left does not fit into the `time` of the class".to_owned())
            }
            Consequence::Free => None,
            Consequence::Exclude => {
                if !node.is_empty() && !self.excluded.contains(&node) {
                    self.excluded.push(node.clone());
                    self.warn(format!("node {node} failed under agent {name}: this run uses it no more"));
                }
                Some(format!("node {node} failed"))
            }
            Consequence::MoreMemory => self.more_memory(class, name, &running, process.as_ref())?,
            Consequence::Charge => {
                let last = self.fleet.last_line(name);
                let what = match ending {
                    Ending::Hung => "it hung".to_owned(),
                    Ending::Lost => "it is gone without a word".to_owned(),
                    _ if why.is_empty() => last,
                    _ => why.clone(),
                };
                self.warn(format!("agent {name} of class {class_name} ended: {what}"));
                Some(what)
            }
            Consequence::Pause => {
                self.warn(format!("agent {name} could not use the cache from {node}: {why}"));
                Some(format!("the cache cannot be used: {why}"))
            }
        };
        let state = &mut self.states[class];
        if let Some(strike) = strike {
            state.strikes.insert(submission);
            state.last_strike = strike;
            // Failures in a row are not submitted again at once.
            state.paused_until = Some(now + self.run.pace.pause * 2_u32.pow(state.pauses.min(6)));
            state.pauses += 1;
        }
        Ok(false)
    }

    /// Gives the class more memory once; after that, what the agent ran fails. Returns a strike, if it is one.
    pub(super) fn more_memory(
        &mut self,
        class: usize,
        name: &str,
        running: &[String],
        process: Option<&(String, u32)>,
    ) -> Result<Option<String>, ControllerError> {
        let Some(of) = self.class(class) else { return Ok(None) };
        let level = self.states[class].memory_level;
        let (now, more) = (of.memory_after(level), of.memory_after(level + 1));
        let had = self.fleet.agent_mut(name).and_then(|agent| agent.memory).or(now);
        match (had, now, more) {
            // Another agent of its array has told already.
            (Some(had), Some(now), _) if had < now => Ok(None),
            (Some(had), _, Some(more)) if level == 0 && more > had => {
                self.states[class].memory_level = 1;
                self.warn(format!("agent {name} ran out of {had} MiB: agents of class {} get {more} MiB now", of.name));
                Ok(None)
            }
            _ => {
                let had = had.map_or("the memory that the site gives".to_owned(), |had| format!("{had} MiB"));
                let place = format!("class `{}` of {}", of.name, self.run.cluster.path.display());
                let message = format!("it ran out of memory: its agent had {had}; write more `memory` for {place}");
                let leased = self.leased_by(process);
                let stages = if leased.is_empty() { running.to_vec() } else { leased };
                for stage in &stages {
                    self.fail(stage, name, &message)?;
                }
                // The next look sees that they failed. Until then, they would seem to need another agent.
                self.states[class].paused_until = Some(Instant::now() + self.run.pace.submit);
                Ok(stages.is_empty().then_some(message))
            }
        }
    }

    /// Ready instances whose lease the process of an agent holds or left.
    pub(super) fn leased_by(&self, process: Option<&(String, u32)>) -> Vec<String> {
        let Some((host, pid)) = process else { return Vec::new() };
        let is_of = |key: &ActionKey| {
            let holder = self.run.context.cache.lease_holder(*key);
            holder.is_some_and(|holder| holder.host == *host && holder.pid == pid.cast_signed())
        };
        self.board.ready().filter(|(_, key)| is_of(key)).map(|(id, _)| self.name(id)).collect()
    }

    /// Notes that an instance failed for good.
    pub(super) fn fail(&mut self, stage: &str, agent: &str, message: &str) -> Result<(), ControllerError> {
        let Some((id, key)) = self.board.ready_named(stage) else { return Ok(()) };
        let tail = self.fleet.log_tail(agent);
        let log: Blob = self.run.context.cache.put(tail.as_bytes())?;
        let failure = Failure { code: FailureCode::Broken, message: message.to_owned(), causes: Vec::new() };
        let kind = self.run.context.graph.instance(id).kind;
        let host = self.fleet.agent_mut(agent).map(|agent| agent.node.clone()).unwrap_or_default();
        let at = jiff::Timestamp::now().to_string();
        let (stage, agent) = (stage.to_owned(), agent.to_owned());
        self.run.folder.write_failure(&FailureNote {
            key,
            stage,
            kind,
            failure,
            log,
            agent,
            host,
            at,
            seconds: 0.0,
        })?;
        Ok(())
    }

    pub(super) fn end_jobs(&mut self, jobs: &[String]) {
        if let Err(error) = self.site.cancel(jobs) {
            self.warn(format!("{error}"));
        }
    }
}
