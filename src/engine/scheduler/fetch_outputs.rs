//! Fetches blobs that a stage or the user reads, when they are needed, from the remote cache if necessary.

use std::ops::ControlFlow;
use std::sync::mpsc::{self, RecvTimeoutError};

use super::{MESSAGE_WAIT, Scheduler};
use crate::cache::{Blob, Cache, CacheError, Manifest, Obtained};
use crate::event::RunEvent;
use crate::plan::must_be_there;
use crate::spec::{InstanceId, Need};

/// Message of fetches in progress.
enum FetchNews<T> {
    /// Bytes that have come, and those that there are.
    Progress(u64, u64),
    Ended(Result<T, CacheError>),
}

/// Tells of a fetch the bytes that have come, and those that there are; says whether to go on.
pub(super) type Tell<'a> = dyn Fn(u64, u64) -> ControlFlow<()> + Sync + 'a;

impl Scheduler<'_> {
    /// Fetches the required outputs of a fresh instance; returns the first one that is missing everywhere.
    pub(super) fn fetch_outputs(&mut self, id: InstanceId, manifest: &Manifest) -> Result<Option<String>, CacheError> {
        let graph = self.context.graph;
        let (mut names, mut blobs) = (Vec::new(), Vec::new());
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
            if !self.context.cache.has_remote() {
                if self.context.cache.has(blob) {
                    continue;
                }
                // The stage runs again for it, and writes the others anew, too.
                return Ok(Some(output.name.clone()));
            }
            names.push(&output.name);
            blobs.push(blob);
        }
        let are_here = self.fetch_blobs(id, &blobs)?;
        Ok(names.into_iter().zip(are_here).find(|(_, is_here)| !is_here).map(|(name, _)| name.clone()))
    }

    /// Fetches the inputs of an instance; returns which of its needs are here. A need whose producer is not done is
    /// not.
    pub(super) fn fetch_inputs(&mut self, id: InstanceId) -> Result<Vec<bool>, CacheError> {
        let needs = &self.context.graph.instance(id).needs;
        let made = |need: &Need| self.states.outputs(need.from).and_then(|outputs| outputs.get(&need.output)).copied();
        let inputs: Vec<Option<Blob>> = needs.iter().map(made).collect();
        let blobs: Vec<Blob> = inputs.iter().flatten().copied().collect();
        let mut are_here = self.fetch_blobs(id, &blobs)?.into_iter();
        Ok(inputs.iter().map(|input| input.is_some() && are_here.next() == Some(true)).collect())
    }

    /// Makes blobs available here for an instance, from the remote cache if necessary; returns which are here.
    ///
    /// A blob is not here if no cache has it, or if the user wants to stop.
    fn fetch_blobs(&mut self, id: InstanceId, blobs: &[Blob]) -> Result<Vec<bool>, CacheError> {
        let are_here = |cache: &Cache| -> Vec<bool> { blobs.iter().map(|blob| cache.has(*blob)).collect() };
        let before = are_here(self.context.cache);
        let is_absent = |(blob, is_here): (&Blob, &bool)| (!is_here).then_some(*blob);
        let mut absent: Vec<Blob> = blobs.iter().zip(&before).filter_map(is_absent).collect();
        if absent.is_empty() || !self.context.cache.has_remote() {
            return Ok(before);
        }
        absent.sort_unstable_by_key(|blob| blob.digest);
        absent.dedup();
        self.fetch_absent(id, absent)?;
        Ok(are_here(self.context.cache))
    }

    /// Fetches blobs that are not here, as far as the remote cache has them and the user does not stop.
    fn fetch_absent(&mut self, id: InstanceId, absent: Vec<Blob>) -> Result<(), CacheError> {
        let total = absent.iter().map(|blob| blob.size).sum();
        let cache = self.context.cache.clone();
        let outcomes = self.fetch_aside(id, move |tell| cache.obtain_all(&absent, &|done| tell(done, total)))?;
        for outcome in outcomes.into_iter().flatten() {
            if let Obtained::Wrong(message) = outcome {
                self.emit(RunEvent::Warning(message));
            }
        }
        Ok(())
    }

    /// Fetches something for an instance on a thread of its own, which the run abandons on a stop: a server may be
    /// silent for long. `None` if the user stopped.
    pub(super) fn fetch_aside<T: Send + 'static>(
        &mut self,
        id: InstanceId,
        fetch: impl FnOnce(&Tell<'_>) -> Result<T, CacheError> + Send + 'static,
    ) -> Result<Option<T>, CacheError> {
        let (stage, interrupt) = (self.name(id), self.interrupt.clone());
        let (sender, told) = mpsc::channel();
        std::thread::spawn(move || {
            let ended = fetch(&|done, total| {
                _ = sender.send(FetchNews::Progress(done, total));
                if interrupt.requests() > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            _ = sender.send(FetchNews::Ended(ended));
        });
        let mut shown = None;
        loop {
            match told.recv_timeout(MESSAGE_WAIT) {
                // Several fetches tell, and what one says may be overtaken.
                Ok(FetchNews::Progress(done, total)) if shown.is_none_or(|shown| done > shown) => {
                    self.emit(RunEvent::Fetching { stage: stage.clone(), done, total });
                    shown = Some(done);
                }
                Ok(FetchNews::Progress(..)) => {}
                Ok(FetchNews::Ended(Ok(fetched))) => return Ok(Some(fetched)),
                Ok(FetchNews::Ended(Err(error))) if error.is_stopped() => return Ok(None),
                Ok(FetchNews::Ended(Err(error))) => return Err(error),
                Err(RecvTimeoutError::Timeout) if self.interrupt.requests() == 0 => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}
