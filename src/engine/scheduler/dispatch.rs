//! Starts ready stages, once a slot and a worker are free and no other instance or run is making the same result.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::log::StageLog;
use super::messages::{EngineReporter, Message};
use super::{RunError, Running, Satisfaction, Scheduler, Stale, State};
use crate::cache::{CacheError, Lease};
use crate::event::{RunEvent, Status};
use crate::executors;
use crate::external_inputs::{CheckedSource, obtain};
use crate::protocol::{Failure, FailureCode, Input, Job};
use crate::spec::{InstanceId, fits_on_gpu};
use crate::stage_kinds::StageKind;

/// Resources that a stage takes.
struct Share {
    threads: usize,
    gpu: f64,
}

impl Scheduler<'_> {
    /// Starts ready stages, most urgent first, as far as slots and workers allow.
    pub(super) fn start_ready(&mut self) -> Result<(), RunError> {
        self.look_at_other_runs()?;
        if self.states.next_ready(None).is_some() {
            self.announce()?;
        }
        let mut used: usize = self.running.values().map(|running| running.threads).sum();
        let on_gpu = self.workers.are_on_gpu();
        let mut used_gpu: f64 = self.running.values().map(|running| running.gpu).sum();
        let mut has_worker = true;
        let mut before = None;
        // Thousands may be ready: the loop looks at them only while a slot is free.
        while used < self.options.jobs && self.can_record_more() && self.interrupt.requests() == 0 {
            let Some(id) = self.states.next_ready(before) else { break };
            before = Some(id);
            let instance = self.context.graph.instance(id);
            let threads = instance.threads.min(self.options.jobs);
            let gpu = if instance.kind.needs_worker() && on_gpu { instance.gpu } else { 0.0 };
            if used + threads > self.options.jobs
                || !fits_on_gpu(used_gpu, gpu)
                || (instance.kind.needs_worker() && !has_worker)
            {
                continue;
            }
            if self.waits_for_another_run(id) || self.revive_producers(id)? || self.is_made_elsewhere(id)? {
                continue;
            }
            let worker = if instance.kind.needs_worker() {
                let inputs: Vec<_> = self.inputs(id).into_iter().map(|input| input.digest).collect();
                let worker = self.workers.idle_for(instance.numerics, &inputs)?;
                has_worker = worker.is_some();
                if worker.is_none() {
                    continue;
                }
                worker
            } else {
                None
            };
            // Taken last, so this run holds no lease of a stage that it cannot start.
            if let Some(lease) = self.lease(id)? {
                self.start(id, worker, Share { threads, gpu }, lease)?;
                (used, used_gpu) = (used + threads, used_gpu + gpu);
            }
        }
        Ok(())
    }

    /// Whether another instance is making or has made the same result: two names of one computation run once.
    fn is_made_elsewhere(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let Some(Stale { key, .. }) = self.stale.get(&id) else { return Ok(false) };
        let key = *key;
        if self.running.values().any(|running| running.key == key) || self.recording.values().any(|other| *other == key)
        {
            return Ok(true);
        }
        let manifest = self.made.contains(&key).then(|| self.context.cache.lookup(key)).flatten();
        let Some(manifest) = manifest else { return Ok(false) };
        self.stale.remove(&id);
        let name = self.name(id);
        self.run.keys.insert(name, key);
        let consumers = self.done(id, manifest.outputs, Status::Cached, 0.0, manifest.made.summary);
        self.settle_all(consumers)?;
        Ok(true)
    }

    /// Sends an instance back to waiting if an input blob is gone, and makes its producer run again.
    fn revive_producers(&mut self, id: InstanceId) -> Result<bool, CacheError> {
        let mut lost: Vec<(InstanceId, String)> = Vec::new();
        let mut awaited: Vec<InstanceId> = Vec::new();
        let graph = self.context.graph;
        for need in &graph.instance(id).needs {
            let blob = self.states.outputs(need.from).and_then(|outputs| outputs.get(&need.output)).copied();
            let there = match blob {
                Some(blob) => self.bring(need.from, blob)?,
                // The producer is not done: it already runs again for another consumer.
                None => false,
            };
            if there || awaited.contains(&need.from) {
                continue;
            }
            awaited.push(need.from);
            if blob.is_some() {
                lost.push((need.from, need.output.clone()));
            }
        }
        if awaited.is_empty() {
            return Ok(false);
        }
        if self.interrupt.requests() > 0 {
            // A blob that was not fetched because the user stopped the run is not lost.
            return Ok(true);
        }
        self.wait_for(id, &awaited);
        for (producer, output) in lost {
            self.states.reopen(producer);
            let stage = self.name(producer);
            self.emit(RunEvent::StageReopened { stage, output: output.clone() });
            self.lost.insert(producer, output);
            self.resolve(producer)?;
        }
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
        let Share { threads, gpu } = share;
        let instance = self.context.graph.instance(id);
        let Some(Stale { record, key, reason, wants }) = self.stale.remove(&id) else { return Ok(()) };
        let scratch = self.context.cache.scratch()?;
        let folder = scratch.path().join("out");
        crate::fsio::create_dir(&folder).map_err(CacheError::from)?;
        // Files are numbered: the pipeline's author chooses output names, which may not be valid file names.
        let file =
            |(index, output): (usize, &crate::spec::OutputSpec)| (output.name.clone(), folder.join(index.to_string()));
        let outputs: HashMap<String, PathBuf> = instance.outputs.iter().enumerate().map(file).collect();
        let job = Job {
            id: self.next_job,
            stage: instance.name.clone(),
            kind: instance.kind,
            params: (*instance.params).clone(),
            seed: instance.seed,
            threads,
            inputs: self.inputs(id),
            outputs: outputs.clone().into_iter().collect(),
            partial: (instance.kind == StageKind::Train).then(|| self.context.cache.partial_path(key)),
            // A forced rerun computes everything again and must not start from an earlier state.
            onward: record
                .onward_key()
                .filter(|_| wants != Satisfaction::Rerun)
                .map(|key| self.context.cache.partial_path(key)),
        };
        self.next_job += 1;
        let cancel = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        match worker {
            Some(worker) => self.workers.give(worker, &job),
            None => self.start_in_engine(id, job.clone(), cancel.clone()),
        }
        let (log, overdue) = (StageLog::new(scratch.path().join("log")), None);
        let running = Running {
            id,
            record,
            key,
            started,
            ran: 0.0,
            scratch: Some(scratch),
            outputs,
            worker,
            cancel,
            threads,
            gpu,
            log,
            wants,
            overdue,
            lease: Some(lease),
        };
        self.running.insert(job.id, running);
        self.states.set(id, State::Running);
        self.emit(RunEvent::StageStarted { stage: job.stage, kind: job.kind, reason });
        Ok(())
    }

    /// Runs a stage without tensors on its own thread.
    fn start_in_engine(&self, id: InstanceId, mut job: Job, cancel: Arc<AtomicBool>) {
        let sources: Vec<(String, CheckedSource)> = self
            .context
            .graph
            .instance(id)
            .sources
            .iter()
            .map(|need| (need.slot.clone(), self.context.sources.get(id, need).clone()))
            .collect();
        let (interrupt, keepers) = (self.interrupt.clone(), Arc::clone(&self.keepers));
        let reporter = EngineReporter { job: job.id, cancel, interrupt, keepers, sender: self.sender.clone() };
        let (cache, sender) = (self.context.cache.clone(), self.sender.clone());
        std::thread::spawn(move || {
            let id = job.id;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for (slot, source) in sources {
                    let (path, digest) = obtain(&source, &cache, &reporter)?;
                    job.inputs.push(Input { slot, label: String::new(), path, digest });
                }
                executors::run(&job, &reporter)
            }));
            let result = result.unwrap_or_else(|_| {
                let message = "the engine broke while it ran this stage".to_owned();
                Err(Failure { code: FailureCode::Broken, message, causes: Vec::new() })
            });
            // The send fails only if the run is over.
            _ = sender.send(Message::EngineDone(id, result));
        });
    }

    /// Asks every running stage to give up, and kills the workers if `at_once`.
    pub(super) fn give_up(&mut self, at_once: bool) {
        if at_once {
            self.workers.kill();
        }
        for (job, running) in &self.running {
            running.cancel.store(true, Ordering::SeqCst);
            if let Some(worker) = running.worker {
                self.workers.cancel(worker, *job);
            }
        }
    }
}
