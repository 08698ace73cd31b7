//! How many agents of which class are submitted, and when.

use std::time::{Duration, Instant};

use super::super::classes::Class;
use super::super::fleet::{RESERVE, make_logs_folder};
use super::super::folder::JobLine;
use super::super::site::{SiteError, Submission};
use super::super::slurm::term_lead;
use super::{Controller, ControllerError, LONGEST_CHAIN, ROUNDS, UNKNOWN_SHARE, USED_TIME, WorkLeft};
use crate::spec::InstanceId;

impl<'a> Controller<'a, '_> {
    pub(super) fn work(&self) -> Vec<WorkLeft> {
        self.board.work_left(self.run.classes.len(), self.run.class_of, self.run.seconds)
    }

    /// Submits agents for what is ready and, where the site can make jobs wait, for what others make ready: so the run
    /// does not need a controller.
    pub(super) fn submit_first(&mut self, is_detached: bool) -> Result<(), ControllerError> {
        let has_agents = self.fleet.open().next().is_some();
        let work = self.work();
        for (class, left) in work.iter().enumerate() {
            let alive = self.alive(class);
            let wanted = self.wanted(class, left);
            self.states[class].target = if alive > 0 { alive } else { wanted };
            if alive == 0 && wanted > 0 {
                self.submit_agents(class, wanted, "start", &[], None)?;
            }
        }
        if has_agents {
            return Ok(());
        }
        let steps = self.board.steps(self.run.class_of);
        let graph = self.run.context.graph;
        let longest = graph.ids().map(|id| steps[id]).max().unwrap_or(0);
        let mut before: Vec<String> = self.fleet.open().map(|agent| agent.job.clone()).collect();
        for step in 1..=longest.min(LONGEST_CHAIN) {
            let mut jobs = Vec::new();
            for class in 0..self.states.len() {
                let is_here =
                    |id: &InstanceId| steps[*id] == step && self.run.class_of[*id] == class && self.board.is_open(*id);
                let ids: Vec<InstanceId> = graph.ids().filter(is_here).collect();
                if ids.is_empty() {
                    continue;
                }
                let seconds = ids.iter().filter_map(|id| self.run.seconds[*id]).sum();
                let never_ran = ids.iter().filter(|id| self.run.seconds[**id].is_none()).count();
                let left = WorkLeft { ready: ids.len(), open: ids.len(), seconds, never_ran };
                let count = self.wanted(class, &left);
                if self.site.can_wait() {
                    jobs.extend(self.submit_agents(class, count, RESERVE, &before, None)?);
                } else if is_detached && self.alive(class) == 0 {
                    // It has to wait itself, for all that others do first.
                    let of = self.class(class).map(|of| of.time);
                    jobs.extend(self.submit_agents(class, 1, "waits for others", &[], of)?);
                }
            }
            if !jobs.is_empty() {
                before = jobs;
            }
        }
        Ok(())
    }

    pub(super) fn class(&self, class: usize) -> Option<&'a Class> {
        self.run.cluster.class(&self.run.classes[class])
    }

    /// Agents of a class that work or will, without those that wait for the end of others.
    pub(super) fn alive(&self, class: usize) -> usize {
        let name = &self.run.classes[class];
        self.fleet.open().filter(|agent| agent.class == *name && !agent.is_reserve).count()
    }

    /// How many agents the work of a class is for.
    pub(super) fn wanted(&self, class: usize, left: &WorkLeft) -> usize {
        let Some(of) = self.class(class) else { return 0 };
        if left.ready == 0 {
            return 0;
        }
        let time = of.time.as_secs_f64();
        let expected = left.seconds + left.never_ran as f64 * UNKNOWN_SHARE * time;
        let agents = (expected / (USED_TIME * time)).ceil().max(1.0) as usize;
        agents.clamp(1, of.max_agents.min(left.ready).min(self.states[class].limit.unwrap_or(usize::MAX)).max(1))
    }

    /// Submits agents for those that ended, and for queues that stay long.
    pub(super) fn submit_more(&mut self, now: Instant) -> Result<(), ControllerError> {
        let work = self.work();
        for (class, left) in work.iter().enumerate() {
            let Some(of) = self.class(class) else { continue };
            let (alive, most) = (self.alive(class), of.max_agents.min(left.ready));
            let wanted = self.wanted(class, left);
            let state = &mut self.states[class];
            if left.ready == 0 || state.given_up.is_some() {
                state.long_queue = None;
                continue;
            }
            if state.strikes.len() >= ROUNDS {
                let why =
                    format!("{ROUNDS} submissions of class {} ended without progress: {}", of.name, state.last_strike);
                state.given_up = Some(why);
                continue;
            }
            // A queue that stays long gets as many agents again.
            let is_long = alive > 0 && left.ready > 2 * alive && alive < most;
            let since = *state.long_queue.get_or_insert(now);
            let mut why = "replaces those that ended";
            if !is_long {
                state.long_queue = None;
            } else if now.saturating_duration_since(since) >= self.run.pace.growth {
                state.long_queue = None;
                state.target = (2 * alive).min(most);
                why = "the queue stays long";
            }
            if alive == 0 && state.target == 0 {
                state.target = wanted;
                why = "start";
            }
            let count = state.target.min(most).min(state.limit.unwrap_or(usize::MAX)).saturating_sub(alive);
            let is_paused = state.paused_until.is_some_and(|until| now < until);
            let is_soon =
                self.last_submit.is_some_and(|last| now.saturating_duration_since(last) < self.run.pace.submit);
            if count == 0 || is_paused || is_soon {
                continue;
            }
            self.submit_agents(class, count, why, &[], None)?;
        }
        Ok(())
    }

    /// Submits agents; returns the names of their jobs.
    pub(super) fn submit_agents(
        &mut self,
        class: usize,
        count: usize,
        why: &str,
        after: &[String],
        idle: Option<Duration>,
    ) -> Result<Vec<String>, ControllerError> {
        let Some(of) = self.class(class) else { return Ok(Vec::new()) };
        let class_at = class;
        self.last_submit = Some(Instant::now());
        let run = &self.run.folder.id().0;
        let idle = idle.unwrap_or(of.idle);
        let memory = of.memory_after(self.states[class].memory_level);
        let mut agent: Vec<String> = vec![self.run.program.to_owned(), "agent".to_owned()];
        let mut set = |name: &str, value: String| agent.extend([format!("--{name}"), value]);
        match self.run.folder.bucket() {
            // Its own cache is one of its machine, as its environment says.
            Some(bucket) => set("remote", bucket),
            None => set("cache", self.run.context.cache.root().display().to_string()),
        }
        set("run", run.clone());
        set("class", of.name.clone());
        set("seconds", (of.time.as_secs().saturating_sub(term_lead(of.time))).max(1).to_string());
        set("idle", idle.as_secs().max(1).to_string());
        set("jobs", of.cpus.to_string());
        set("device", of.device.clone());
        let logs = make_logs_folder(self.run.folder)?;
        let is_slurm = self.run.cluster.commands.is_none();
        let mut all = Vec::new();
        // Slurm takes an array at once, a command one agent.
        let mut left = count;
        while left > 0 {
            let mut env = self.run.env.to_vec();
            env.extend(of.env.iter().cloned());
            let token = (!is_slurm).then(|| {
                self.submissions += 1;
                format!("{}x{}", jiff::Timestamp::now().as_microsecond(), self.submissions)
            });
            env.extend(token.iter().map(|token| ("ATFLOW_AGENT".to_owned(), token.clone())));
            let submission = Submission {
                run,
                class: of,
                count: left,
                agent: &agent,
                env: &env,
                memory,
                exclude: &self.excluded,
                after,
                logs: &logs,
            };
            let jobs = match self.site.submit(&submission) {
                Ok(jobs) if !jobs.is_empty() => jobs,
                Ok(_) => break,
                Err(error) => {
                    self.refused(class_at, count - left, error)?;
                    break;
                }
            };
            left = left.saturating_sub(jobs.len());
            let job =
                jobs[0].rsplit_once('_').filter(|_| is_slurm).map_or(jobs[0].as_str(), |(array, _)| array).to_owned();
            let (at, class, why) = (jiff::Timestamp::now().to_string(), of.name.clone(), why.to_owned());
            let line = JobLine { at, class, job, count: jobs.len(), why, memory, agent: token };
            self.run.folder.add_job(&line)?;
            self.fleet.add(&line, Instant::now());
            let progress = self.states[class_at].progress;
            for job in &jobs {
                let name = line.agent.as_ref().unwrap_or(job);
                if let Some(agent) = self.fleet.agent_mut(name) {
                    agent.progress_before = Some(progress);
                }
            }
            all.extend(jobs);
        }
        if !all.is_empty() {
            let agents = if all.len() == 1 { "1 agent".to_owned() } else { format!("{} agents", all.len()) };
            let waits = if after.is_empty() { "" } else { ", which wait until the others end" };
            let first = &all[0];
            self.say(format!("submitted {agents} of class {} (job {first}{waits})", of.name));
        }
        Ok(all)
    }

    /// Handles a refusal after `taken` agents of this submission.
    pub(super) fn refused(&mut self, class: usize, taken: usize, error: SiteError) -> Result<(), ControllerError> {
        let name = self.run.classes[class].clone();
        let now = Instant::now();
        match error {
            SiteError::Limit { .. } => {
                let alive = self.alive(class) + taken;
                // Half as many next time, but never none.
                let target = (self.states[class].target / 2).max(1);
                self.warn(format!("{error}: class {name} gets fewer agents"));
                let state = &mut self.states[class];
                state.limit = Some(target.max(alive));
                state.target = target.max(alive);
                state.paused_until = Some(now + self.run.pace.submit);
                Ok(())
            }
            error if error.may_pass() => {
                if !std::mem::replace(&mut self.is_away, true) {
                    self.warn(format!("{error}; what runs goes on, and it is tried again"));
                }
                let state = &mut self.states[class];
                state.paused_until = Some(now + self.run.pace.list);
                Ok(())
            }
            source if self.fleet.open().next().is_none() => Err(ControllerError::Site { class: name, source }),
            source => {
                self.warn(format!("{source}: class {name} gets no more agents"));
                self.states[class].given_up = Some(source.to_string());
                Ok(())
            }
        }
    }
}
