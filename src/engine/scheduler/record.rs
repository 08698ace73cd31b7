//! Records the results of stages in the cache, on threads of their own.
//!
//! Syncing to disk takes longer than deciding what runs next, and a disk takes several writes at once. The order for
//! each stage is fixed: record outputs, log and manifest ([`ResultFiles`]), then drop the progress and the lease.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::jobs::Running;
use super::messages::{Message, Recorded};
use super::scratch::Scratch;
use super::workers::Platform;
use super::{RunError, Scheduler};
use crate::cache::{Blob, Cache, IngestError, MANIFEST_FORMAT, Made, Manifest, ResultFiles};
use crate::clock;
use crate::event::{RunEvent, Status};
use crate::external_inputs::{CheckedSource, causes};
use crate::fsio::FileError;
use crate::outputs::{self, Unfit};
use crate::protocol::{Failure, FailureCode};
use crate::publish;
use crate::stage_kinds::StageKind;

impl Scheduler<'_> {
    /// Starts recording a stage that has written its outputs. `earlier_seconds` is the time of earlier runs that it
    /// resumed.
    pub(super) fn succeed(&mut self, job: u64, summary: String, peak_memory: Option<u64>, earlier_seconds: f64) {
        let Some(mut running) = self.jobs.end(job) else { return };
        self.peak_memory = self.peak_memory.max(peak_memory.unwrap_or(0));
        let id = running.id;
        running.ran = clock::now().duration_since(running.started).as_secs_f64();
        let platform = running.worker.map(|worker| self.workers.platform(worker));
        let made = self.made(&running, running.ran + earlier_seconds, summary, peak_memory, platform);
        let sources: Vec<CheckedSource> = self
            .context
            .graph
            .instance(id)
            .sources
            .iter()
            .map(|need| self.context.sources.get(id, need).clone())
            .collect();
        self.jobs.start_recording(job, running.key);
        let (cache, neighbours) = (self.context.cache.clone(), self.neighbours());
        self.threads.start(move || {
            let mut running = running;
            let recorded = match action(&cache, &mut running, &sources, made) {
                Ok((manifest, rotten)) => {
                    // Not earlier: until the result is recorded, the progress is all there is.
                    if running.action.kind == StageKind::Train {
                        cache.drop_partial(running.key);
                    }
                    // Other runs wait for the lease, and look for the result then.
                    let unsent = publish::share(&cache, &manifest).err().map(Box::new);
                    if let Some(neighbours) = neighbours {
                        neighbours.note_done(running.key);
                    }
                    (running.scratch, running.lease) = (None, None);
                    // Last: an upload may be going on, and nobody has to wait for it.
                    if let Some(progress) = running.progress.as_ref().filter(|_| unsent.is_none()) {
                        progress.remove();
                    }
                    Recorded::Done(Box::new(manifest), rotten, unsent)
                }
                Err(recorded) => recorded,
            };
            Message::Recorded(job, Box::new(running), recorded)
        });
    }

    /// Handles the end of recording, with or without a result.
    pub(super) fn recorded(&mut self, job: u64, mut running: Running, recorded: Recorded) -> Result<(), RunError> {
        self.jobs.end_recording(job);
        self.leave_done(&mut running);
        self.leases.looks.refill();
        if self.states.next_ready(None).is_none() {
            // Nothing is left to start: what others have made counts now.
            self.leases.looks.quicken(clock::now());
        }
        let (manifest, rotten, unsent) = match recorded {
            Recorded::Done(manifest, rotten, unsent) => (manifest, rotten, unsent),
            Recorded::Failed(failure) => return self.failed(running, failure),
            Recorded::Broken(error) => return Err(error.into()),
        };
        let id = running.id;
        self.journal.note_made(running.key);
        self.compare_assembled(id, &manifest.outputs);
        let name = self.name(id);
        for kept in rotten {
            let kept = kept.display();
            self.emit(RunEvent::Warning(format!(
                "the cache had a file of {name} with other bytes than its digest says; it was moved to {kept}, \
                 and what was made now is there"
            )));
        }
        if let Some(error) = unsent {
            if self.options.part.is_some() {
                // The others would wait for it in vain. This machine does no good then, and another may.
                let (message, causes) = (error.to_string(), causes(error.as_ref()));
                return Err(RunError::Storage { stage: name, message, causes });
            }
            let why = causes(error.as_ref()).join(": ");
            self.emit(RunEvent::Warning(format!(
                "{name} was not sent to the remote cache, so other runs may repeat it: {why}"
            )));
        }
        self.live.note_made(&name, running.key);
        self.journal.note_result(name.clone(), running.key);
        self.journal.note_time(name, running.ran);
        let Manifest { outputs, made, .. } = *manifest;
        let consumers = self.done(id, outputs, Status::Ran, running.ran, made.summary);
        Ok(self.settle(consumers)?)
    }

    fn made(
        &mut self,
        running: &Running,
        seconds: f64,
        summary: String,
        peak_memory: Option<u64>,
        platform: Option<Platform>,
    ) -> Made {
        let device = platform.as_ref().map_or_else(|| "engine".to_owned(), |platform| platform.device.clone());
        Made {
            stage: self.name(running.id),
            pipeline: self.options.about.pipeline.clone(),
            at: jiff::Timestamp::now().to_string(),
            seconds,
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            device,
            device_name: platform.as_ref().map(|platform| platform.device_name.clone()).unwrap_or_default(),
            threads: running.share.threads,
            atflow: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: platform.as_ref().map(|platform| platform.libtorch.clone()),
            arithmetic: platform.map(|platform| platform.arithmetic),
            commit: self.journal.commit(),
            peak_memory,
            summary,
            // A placeholder until the log is in the cache.
            log: running.log.lost().into(),
        }
    }
}

/// Records the result of a stage; returns the manifest and the new paths of corrupt blobs that had the same names.
fn action(
    cache: &Cache,
    running: &mut Running,
    sources: &[CheckedSource],
    made: Made,
) -> Result<(Manifest, Vec<PathBuf>), Recorded> {
    if let Some(failure) = changed(sources) {
        return Err(Recorded::Failed(failure));
    }
    let is_elsewhere = running.scratch.as_ref().is_some_and(Scratch::is_elsewhere);
    let (mut outputs, mut files) = (BTreeMap::new(), cache.result_files().from_elsewhere(is_elsewhere));
    // In order of names, so of several faulty outputs the same one is reported each time.
    for (name, path) in running.outputs.iter().collect::<BTreeMap<_, _>>() {
        outputs.insert(name.clone(), add(&mut files, name, path)?);
    }
    let log = running.log.keep_in(&mut files).map_err(Recorded::Broken)?;
    let mut made = Made { log, ..made };
    if running.log.left_out() > 0 {
        made.summary.push_str(&format!("; {} bytes of its log were left out", running.log.left_out()));
    }
    let manifest = Manifest { format: MANIFEST_FORMAT, record: running.action.clone(), outputs, made, from: None };
    let rotten = files.commit(&manifest).map_err(|error| match error {
        IngestError::File(error) => match running.outputs.iter().find(|(_, path)| **path == error.path) {
            Some((name, _)) => not_taken(name, &error),
            None => Recorded::Broken(IngestError::File(error).into()),
        },
        IngestError::Cache(error) => Recorded::Broken(error),
    })?;
    Ok((manifest, rotten))
}

/// Adds an output to the files of a result. A fault of the output itself is the stage's failure, not the cache's.
fn add(files: &mut ResultFiles, name: &str, path: &Path) -> Result<Blob, Recorded> {
    let found = match outputs::look(path) {
        Ok(found) => found,
        Err(Unfit::Missing) => {
            return Err(failed(format!("it ended well but did not write its output `{name}`"), Vec::new()));
        }
        Err(unfit) => return Err(failed(format!("its output `{name}` {unfit}"), Vec::new())),
    };
    files.add_found(path, &found).map_err(|error| match error {
        IngestError::File(error) => not_taken(name, &error),
        IngestError::Cache(error) => Recorded::Broken(error),
    })
}

fn not_taken(name: &str, error: &FileError) -> Recorded {
    failed(format!("its output `{name}` could not be taken into the cache"), causes(error))
}

fn failed(message: String, causes: Vec<String>) -> Recorded {
    Recorded::Failed(Failure { code: FailureCode::Broken, message, causes })
}

/// Returns a failure if a source changed while the stage ran: the stage may have read other bytes than recorded.
fn changed(sources: &[CheckedSource]) -> Option<Failure> {
    for source in sources {
        if let Some((path, _)) = source.local()
            && !source.is_unchanged()
        {
            let message = format!("{} changed while it was read, so nothing was recorded; run again", path.display());
            return Some(Failure { code: FailureCode::Broken, message, causes: Vec::new() });
        }
    }
    None
}
