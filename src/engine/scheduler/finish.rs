//! How a stage ends: its outputs are taken into the cache and recorded, or its failure is, or it is tried again.

use super::{RunError, Running, Scheduler, Stale, State, TRIES};
use crate::cache::{CacheError, FailedStage, MANIFEST_FORMAT, Made, Manifest, OutputBlob};
use crate::depth::Depth;
use crate::digest::Digest;
use crate::event::{RunEvent, Status};
use crate::plan::Absence;
use crate::protocol::{Failure, FailureCode};
use crate::record::Record;
use crate::spec::InstanceId;

impl Scheduler<'_> {
    /// A stage has written its outputs.
    pub(super) fn succeed(&mut self, job: u64, summary: String, peak_memory: Option<u64>) -> Result<(), RunError> {
        let Some(running) = self.running.remove(&job) else { return Ok(()) };
        let id = running.id;
        let seconds = running.started.elapsed().as_secs_f64();
        if let Some(failure) = self.changed_source(id) {
            return self.failed(running, failure);
        }
        let missing = running.outputs.iter().find(|(_, path)| !path.is_file()).map(|(name, _)| name.clone());
        if let Some(name) = missing {
            let message = format!("it ended well but did not write its output `{name}`");
            return self.failed(running, Failure { code: FailureCode::Broken, message, causes: Vec::new() });
        }
        let manifest = self.take_in(&running, seconds, &summary, peak_memory)?;
        let key = self.cache.commit(&manifest)?;
        // Only now: until the result is recorded, its progress is all there is.
        self.cache.drop_partial(key);
        self.made.insert(key);
        let name = self.name(id);
        self.run.keys.insert(name, key);
        for consumer in self.done(id, manifest.outputs, Status::Ran, seconds, summary) {
            self.settle(consumer)?;
        }
        Ok(())
    }

    fn take_in(
        &mut self,
        running: &Running,
        seconds: f64,
        summary: &str,
        peak_memory: Option<u64>,
    ) -> Result<Manifest, CacheError> {
        let mut outputs = std::collections::BTreeMap::new();
        for (name, path) in &running.outputs {
            outputs.insert(name.clone(), self.cache.ingest(path)?);
        }
        let platform = running.worker.map(|worker| self.workers.platform(worker));
        let instance = self.graph.instance(running.id);
        let made = Made {
            stage: instance.name.clone(),
            pipeline: self.options.pipeline.clone(),
            at: jiff::Timestamp::now().to_string(),
            seconds,
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            device: platform.as_ref().map_or_else(|| "engine".to_owned(), |platform| platform.device.clone()),
            device_name: platform.as_ref().map(|platform| platform.device_name.clone()).unwrap_or_default(),
            threads: running.threads,
            atflow: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: platform.map(|platform| platform.libtorch),
            commit: self.commit(),
            peak_memory,
            summary: summary.to_owned(),
            log: self.cache.put(&running.log)?,
        };
        Ok(Manifest { format: MANIFEST_FORMAT, record: running.record.clone(), outputs, made })
    }

    /// The commit that the pipeline file stands at; asked for once a run.
    fn commit(&mut self) -> Option<String> {
        let folder =
            self.options.file.parent().map(|folder| if folder.as_os_str().is_empty() { ".".as_ref() } else { folder });
        self.commit.get_or_insert_with(|| folder.and_then(commit_of)).clone()
    }

    /// A stage failed; some failures are worth another try.
    pub(super) fn fail(&mut self, job: u64, failure: Failure) -> Result<(), RunError> {
        let Some(running) = self.running.remove(&job) else { return Ok(()) };
        let id = running.id;
        self.tries[id.0] += 1;
        match failure.code {
            FailureCode::Cancelled if self.interrupt.asked() == 0 && running.overdue.is_some() => {
                let failure = self.overdue(&running).unwrap_or(failure);
                self.failed(running, failure)
            }
            FailureCode::Cancelled => {
                let seconds = running.started.elapsed().as_secs_f64();
                self.end(id, State::Skipped, Status::Skipped, seconds, String::new(), None);
                Ok(())
            }
            FailureCode::CorruptInput { digest } if self.tries[id.0] < TRIES => {
                // Several stages may have met it at once: the first one moves it away.
                if let Some(kept) = self.cache.quarantine(digest)? {
                    let (name, kept) = (self.name(id), kept.display());
                    self.emit(RunEvent::Warning(format!(
                        "an input of {name} had other bytes than its digest says; it was moved to {kept} and is made again"
                    )));
                }
                self.again(id, running);
                Ok(())
            }
            // Another stage has just found it corrupt and had it moved away, or another run's cleaning took it: it is made again.
            _ if self.tries[id.0] < TRIES && self.inputs(id).iter().any(|input| !input.path.exists()) => {
                self.again(id, running);
                Ok(())
            }
            _ => self.failed(running, failure),
        }
    }

    /// A stage's worker died under it.
    pub(super) fn worker_died(&mut self, job: u64, status: &str) -> Result<(), RunError> {
        let Some(mut running) = self.running.remove(&job) else { return Ok(()) };
        let id = running.id;
        running.worker = None;
        if self.interrupt.asked() > 0 {
            let seconds = running.started.elapsed().as_secs_f64();
            self.end(id, State::Skipped, Status::Skipped, seconds, String::new(), None);
            return Ok(());
        }
        if let Some(failure) = self.overdue(&running) {
            return self.failed(running, failure);
        }
        self.tries[id.0] += 1;
        if self.tries[id.0] < TRIES {
            let name = self.name(id);
            self.emit(RunEvent::Warning(format!(
                "the worker died while it ran {name} ({}); it is tried once more",
                first_line(status)
            )));
            self.again(id, running);
            return Ok(());
        }
        let message = format!("its worker died {TRIES} times ({})", first_line(status));
        let causes = status.lines().skip(1).map(str::to_owned).collect();
        self.failed(running, Failure { code: FailureCode::Broken, message, causes })
    }

    fn again(&mut self, id: InstanceId, running: Running) {
        let Running { record, key, wants, .. } = running;
        self.stale.insert(id, Stale { record, key, reason: "tried again".to_owned(), wants });
        self.states.set(id, State::Ready);
    }

    fn failed(&mut self, running: Running, failure: Failure) -> Result<(), RunError> {
        let id = running.id;
        let seconds = running.started.elapsed().as_secs_f64();
        let name = self.name(id);
        // What the stage left goes first: it may have failed because the disk is full.
        drop(running.scratch);
        let log = match self.cache.put(&running.log) {
            Ok(log) => log,
            Err(error) => {
                self.emit(RunEvent::Warning(format!("the log of {name} could not be kept: {error}")));
                OutputBlob { digest: Digest::of(&running.log), size: running.log.len() as u64 }
            }
        };
        self.run.failed.insert(name, FailedStage { failure: failure.clone(), log });
        self.end(id, State::Failed, Status::Failed, seconds, String::new(), Some(failure));
        self.skip_consumers(id);
        if !self.options.keep_going {
            // What runs may end well: its result is worth keeping.
            self.stopped = true;
        }
        Ok(())
    }

    /// An instance has to run and may not: a result that was thought to be there is not.
    pub(super) fn refuse(&mut self, id: InstanceId, record: &Record, absence: &Absence) {
        let reason = self.history.reason(self.graph.instance(id), record, absence);
        let depth = self.options.depth.map_or("", Depth::name);
        let message = format!("it would have to run ({reason}), and --from {depth} leaves it alone");
        let failure = Failure { code: FailureCode::Barred, message, causes: Vec::new() };
        self.end(id, State::Failed, Status::Failed, 0.0, String::new(), Some(failure));
        self.skip_consumers(id);
        self.stopped |= !self.options.keep_going;
    }

    fn skip_consumers(&mut self, id: InstanceId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let consumers: Vec<InstanceId> = self.graph.consumers(id).collect();
            for consumer in consumers {
                if matches!(self.states.get(consumer), State::Waiting(_) | State::Ready) {
                    self.end(consumer, State::Skipped, Status::Skipped, 0.0, String::new(), None);
                    open.push(consumer);
                }
            }
        }
    }

    /// A stage whose own source changed while it ran must not be recorded: nobody knows which bytes it saw.
    fn changed_source(&self, id: InstanceId) -> Option<Failure> {
        for need in &self.graph.instance(id).sources {
            if let Some((path, digest)) = self.sources.get(id, need).local()
                && !Digest::of_file(path).is_ok_and(|now| now == digest)
            {
                let message =
                    format!("{} changed while it was read, so nothing was recorded; run again", path.display());
                return Some(Failure { code: FailureCode::Broken, message, causes: Vec::new() });
            }
        }
        None
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn commit_of(folder: &std::path::Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if clean { commit } else { format!("{commit}-dirty") })
}
