//! Fetches blobs that a stage or the user reads, when they are needed, from the remote cache if necessary.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};

use super::{MESSAGE_WAIT, Scheduler};
use crate::cache::remote::RemoteError;
use crate::cache::{Blob, CacheError, Manifest, Obtained};
use crate::event::RunEvent;
use crate::fetch::FetchError;
use crate::plan::must_be_there;
use crate::spec::InstanceId;

/// Message of a fetch in progress.
enum FetchNews {
    Progress(u64, Option<u64>),
    Ended(Result<Obtained, CacheError>),
}

impl Scheduler<'_> {
    /// Fetches the required outputs of a fresh instance; returns the first one that is missing everywhere.
    pub(super) fn fetch_outputs(&mut self, id: InstanceId, manifest: &Manifest) -> Result<Option<String>, CacheError> {
        let graph = self.context.graph;
        for output in graph.instance(id).outputs.iter().filter(|it| must_be_there(it, self.options.goals.needed[id])) {
            // Without a remote cache, the lookup has just found it.
            if output.result.is_none() && !self.context.cache.has_remote() {
                continue;
            }
            let blob = self.context.cache.output(manifest, &output.name)?;
            // The user is about to read a result file, and bytes are checked where they are read.
            if output.result.is_some()
                && let Some(kept) = self.context.cache.quarantine(blob.digest)?
            {
                let (output, name, kept) = (&output.name, self.name(id), kept.display());
                self.emit(RunEvent::Warning(format!(
                    "output `{output}` of {name} had other bytes than its digest says; it was moved to {kept} and is made again"
                )));
            }
            if !self.fetch_blob(id, blob)? {
                return Ok(Some(output.name.clone()));
            }
        }
        Ok(None)
    }

    /// Makes a blob available here, from the remote cache if necessary.
    ///
    /// Returns `false` if no cache has it, or if the user wants to stop.
    pub(super) fn fetch_blob(&mut self, of: InstanceId, blob: Blob) -> Result<bool, CacheError> {
        if self.context.cache.has(blob) {
            return Ok(true);
        }
        if !self.context.cache.has_remote() {
            return Ok(false);
        }
        let stage = self.name(of);
        let (cache, interrupt) = (self.context.cache.clone(), self.interrupt.clone());
        let (sender, told) = mpsc::channel();
        // The fetch has its own thread, which the run abandons on a stop: a server may be silent for long.
        std::thread::spawn(move || {
            let progress = &mut |done: u64, total: Option<u64>| {
                _ = sender.send(FetchNews::Progress(done, total));
                if interrupt.requests() > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let ended = cache.obtain(blob, progress);
            _ = sender.send(FetchNews::Ended(ended));
        });
        loop {
            match told.recv_timeout(MESSAGE_WAIT) {
                Ok(FetchNews::Progress(done, total)) => {
                    let total = total.unwrap_or(blob.size);
                    self.emit(RunEvent::Fetching { stage: stage.clone(), done, total });
                }
                Ok(FetchNews::Ended(Ok(Obtained::Here | Obtained::Fetched))) => return Ok(true),
                Ok(FetchNews::Ended(Ok(Obtained::Missing))) => return Ok(false),
                Ok(FetchNews::Ended(Ok(Obtained::Wrong(message)))) => {
                    self.emit(RunEvent::Warning(message));
                    return Ok(false);
                }
                Ok(FetchNews::Ended(Err(CacheError::Remote(RemoteError::Fetch(FetchError::Stopped))))) => {
                    return Ok(false);
                }
                Ok(FetchNews::Ended(Err(error))) => return Err(error),
                Err(RecvTimeoutError::Timeout) if self.interrupt.requests() == 0 => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }
}
