//! Starts ready stages, once a slot and a worker are free and no other instance or run is making the same result.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::jobs::{Running, Share};
use super::log::StageLog;
use super::pace::Paces;
use super::tasks::{Satisfaction, Task};
use super::{RunError, Scheduler, State};
use crate::cache::{CacheError, Lease};
use crate::clock;
use crate::event::{RunEstimate, RunEvent, Status};
use crate::plan::estimate::{CostInputs, price};
use crate::plan::{PlanContext, PlannedState, plan, survey};
use crate::protocol::{Input, Job};
use crate::spec::{ExternalInput, InstanceId};
use crate::stage_kinds::StageKind;

impl Scheduler<'_> {
    /// Starts ready stages, most urgent first, as far as slots and workers allow.
    pub(super) fn start_ready(&mut self) -> Result<(), RunError> {
        self.check_other_runs()?;
        if self.states.next_ready(None).is_some() {
            self.announce()?;
            self.estimate();
        }
        let (mut used, on_gpu) = (self.jobs.used(), self.workers.share_a_gpu());
        let mut has_worker = true;
        let (mut before, now) = (None, clock::now());
        let (mut too_long, mut others, mut waits_for_room) = (false, false, false);
        // Thousands may be ready: the loop looks at them only while a slot is free.
        while self.jobs.have_room(used) && self.interrupt.requests() == 0 {
            let Some(id) = self.states.next_ready(before) else { break };
            before = Some(id);
            if let Some(part) = &self.options.part {
                // Looks at leases of others are counted. A run without work does not look at all of them at once.
                if self.leases.looks.left() == 0 {
                    others = true;
                    break;
                }
                if !part.has_time_for(self.context.graph, id, now) {
                    too_long = true;
                    continue;
                }
            }
            others = true;
            let instance = self.context.graph.instance(id);
            let needs_worker = instance.kind.needs_worker();
            let share = Share {
                threads: instance.threads.min(self.options.jobs),
                gpu: if needs_worker && on_gpu { instance.gpu } else { 0.0 },
            };
            if !self.jobs.fit(used, share) || (needs_worker && !has_worker) {
                waits_for_room |= !self.leases.is_held(id);
                continue;
            }
            if self.leases.is_waiting(id) || self.revive_producers(id)? || self.is_made_under_another_name(id)? {
                continue;
            }
            let worker = if needs_worker {
                let inputs: Vec<_> = self.inputs(id).into_iter().map(|input| input.digest).collect();
                let worker = self.workers.idle_for(instance.numerics, &inputs)?;
                has_worker = worker.is_some();
                if worker.is_none() {
                    waits_for_room = true;
                    continue;
                }
                worker
            } else {
                None
            };
            // Taken last, so this run holds no lease of a stage that it cannot start.
            if let Some(lease) = self.lease(id)? {
                self.start(id, worker, share, lease)?;
                used.add(share);
            }
        }
        self.lacks_time = too_long && !others;
        self.leases.looks.note_work(waits_for_room || !self.jobs.have_room(used), now);
        Ok(())
    }

    /// Emits, once per run, an estimate of its duration from the local cache.
    fn estimate(&mut self) {
        // The plan of runs that share a graph has the durations, and a survey would read every manifest again.
        if std::mem::replace(&mut self.is_estimated, true) || self.options.part.is_some() {
            return;
        }
        let goals = &self.options.goals;
        // Offline: settling an instance queries the remote cache anyway.
        let cache = self.context.cache.clone().offline();
        let context = PlanContext { cache: &cache, ..self.context };
        let Ok(status_of) = survey(context, goals) else { return };
        let stages = plan(self.context.graph, &status_of, goals, &self.journal.history);
        let cost = CostInputs { context, goals, status_of: &status_of };
        let wall = price(&cost, &stages, self.options.jobs, false).wall;
        let may_run = stages.into_iter().filter(|stage| stage.state != PlannedState::Fresh);
        let stages = may_run.map(|stage| (stage.name, stage.seconds)).collect();
        self.emit(RunEvent::RunEstimated(RunEstimate { stages, wall }));
    }

    /// Whether another instance is making or has made the same result: two names of one computation run once.
    fn is_made_under_another_name(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let Some(key) = self.tasks.get(id).map(|task| task.key) else { return Ok(false) };
        if self.jobs.make(key) {
            return Ok(true);
        }
        let manifest = self.journal.has_made(key).then(|| self.context.cache.lookup(key)).flatten();
        let Some(manifest) = manifest else { return Ok(false) };
        self.tasks.take(id);
        let name = self.name(id);
        self.journal.note_result(name, key);
        let consumers = self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary);
        self.settle(consumers)?;
        Ok(true)
    }

    /// Returns the inputs of an instance that are blobs.
    pub(super) fn inputs(&self, id: InstanceId) -> Vec<Input> {
        let input = |need: &crate::spec::Need| {
            let blob = *self.states.outputs(need.from)?.get(&need.output)?;
            let path = self.context.cache.object_path(blob.digest);
            Some(Input { slot: need.slot.clone(), label: need.label.clone(), path, digest: blob.digest })
        };
        self.context.graph.instance(id).needs.iter().filter_map(input).collect()
    }

    fn start(&mut self, id: InstanceId, worker: Option<usize>, share: Share, lease: Lease) -> Result<(), RunError> {
        let instance = self.context.graph.instance(id);
        let is_training = instance.kind == StageKind::Train;
        let begun = self.tasks.get(id).filter(|task| is_training && task.wants != Satisfaction::Rerun);
        let there = begun.map(|task| task.key).and_then(|key| self.fetch_progress(id, key));
        // A stop may have come meanwhile.
        if self.interrupt.requests() > 0 {
            return Ok(());
        }
        let Some(Task { action, key, reason, wants }) = self.tasks.take(id) else { return Ok(()) };
        let scratch = self.scratch.take()?;
        let folder = scratch.path();
        // Files are numbered: the pipeline's author chooses output names, which may not be valid file names.
        let file =
            |(index, output): (usize, &crate::spec::OutputSpec)| (output.name.clone(), folder.join(index.to_string()));
        let outputs: HashMap<String, PathBuf> = instance.outputs.iter().enumerate().map(file).collect();
        let job = Job {
            id: self.jobs.next(),
            stage: instance.name.clone(),
            kind: instance.kind,
            params: (*instance.params).clone(),
            seed: instance.seed,
            threads: share.threads,
            inputs: self.inputs(id),
            outputs: outputs.clone().into_iter().collect(),
            partial: is_training.then(|| self.context.cache.partial_path(key)),
            // A forced rerun computes everything again and must not start from an earlier state.
            onward: action
                .onward_key()
                .filter(|_| wants != Satisfaction::Rerun)
                .map(|key| self.context.cache.partial_path(key)),
        };
        // First, so that no epoch ends unseen.
        let progress = if is_training { self.threads.send_progress(key, job.id, there) } else { None };
        let cancel = Arc::new(AtomicBool::new(false));
        let started = clock::now();
        match worker {
            Some(worker) => self.workers.give(worker, &job),
            None => {
                let source = |need: &ExternalInput| (need.slot.clone(), self.context.sources.get(id, need).clone());
                let sources = instance.sources.iter().map(source).collect();
                self.threads.start_stage(job.clone(), sources, cancel.clone());
            }
        }
        let (log, overdue) = (StageLog::new(scratch.log()), None);
        let running = Running {
            id,
            action,
            key,
            started,
            ran: 0.0,
            scratch: Some(scratch),
            outputs,
            worker,
            cancel,
            share,
            log,
            pace: Paces::default(),
            wants,
            progress,
            overdue,
            lease: Some(lease),
        };
        self.jobs.start(job.id, running);
        self.states.set(id, State::Running);
        self.emit(RunEvent::StageStarted { stage: job.stage, kind: job.kind, reason });
        Ok(())
    }
}
