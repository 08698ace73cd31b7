//! What a run on a cluster sends to the bucket that its agents share, and what it fetches from there at the end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use atflow::cache::remote::at_once;
use atflow::cache::{Blob, Cache, CacheError, Manifest, Origin};
use atflow::cluster::kept_sources::KeptSources;
use atflow::event::RunSummary;
use atflow::plan::{CacheStatus, CacheStatuses, must_be_there};
use atflow::publish::{self, PublishError};
use atflow::scheduler::Interrupt;
use indicatif::ProgressBar;

use super::Loaded;
use crate::progress::{Progress, bar_of_bytes};
use crate::report::CliError;
use crate::ui;

/// What to do if a file is not what it was when the pipeline was read.
pub(super) const CHANGED: &str = "a file changed since the pipeline was read; run again";

/// The bucket of a cache, and how the user learns what goes there.
pub(super) struct Bucket<'a> {
    cache: &'a Cache,
    progress: &'a mut Progress,
    is_told: bool,
}

impl<'a> Bucket<'a> {
    pub(super) fn new(cache: &'a Cache, progress: &'a mut Progress, is_told: bool) -> Self {
        Bucket { cache, progress, is_told }
    }

    fn tell(&mut self, line: &str) {
        if self.is_told {
            self.progress.line(line);
        }
    }

    fn bar(&self, bytes: u64) -> ProgressBar {
        if self.is_told { bar_of_bytes(bytes) } else { ProgressBar::hidden() }
    }

    /// Sends files that stages read.
    pub(super) fn send_sources(&mut self, sources: &KeptSources) -> Result<(), CliError> {
        for line in &sources.left_out {
            self.tell(&format!("warning: {line}"));
        }
        let unsent = &sources.unsent;
        let bytes = unsent.iter().map(|(blob, _)| blob.size).sum();
        if !unsent.is_empty() {
            let (count, bytes) = (ui::count(unsent.len(), "file"), ui::bytes(bytes));
            self.tell(&format!("sending {count} ({bytes}) that stages read, as far as the bucket lacks them"));
        }
        let bar = self.bar(bytes);
        let sent = publish::share_blobs(self.cache, unsent, &|blob| bar.inc(blob.size));
        bar.finish_and_clear();
        sent.map_err(|error| {
            let is_loss = error.is_loss();
            let error = CliError::from(CacheError::from(error));
            if is_loss { error.help(CHANGED) } else { error }
        })
    }

    /// Sends results of this cache: agents would make them again.
    pub(super) fn send_results(&mut self, survey: &CacheStatuses) -> Result<(), CliError> {
        let cache = self.cache;
        let is_from_there = |from: &Origin| cache.shared().is_some_and(|remote| remote.name().secret() == from.remote);
        let own: Vec<&Manifest> = survey
            .values()
            .filter_map(|status| match status {
                Some(CacheStatus::Fresh(_, manifest)) => Some(manifest.as_ref()),
                _ => None,
            })
            .filter(|manifest| !manifest.from.as_ref().is_some_and(is_from_there))
            .collect();
        if !own.is_empty() {
            let count = ui::count(own.len(), "result");
            self.tell(&format!("sending {count} that are here, as far as the bucket lacks them"));
        }
        let bytes_of = |manifest: &Manifest| manifest.outputs.values().map(|blob| blob.size).sum::<u64>();
        let bar = self.bar(own.iter().map(|manifest| bytes_of(manifest)).sum());
        let sent = at_once(&own, |manifest| {
            let sent = publish::share(cache, manifest);
            bar.inc(bytes_of(manifest));
            sent
        });
        bar.finish_and_clear();
        for sent in sent {
            sent.map_err(|error| match error {
                PublishError::Remote(error) => CliError::from(CacheError::from(error)),
                PublishError::Key(error) => CliError::environment(error.to_string()),
            })?;
        }
        Ok(())
    }

    /// Fetches what the user asked for. Returns whether the user stopped that.
    pub(super) fn fetch_results(
        &mut self,
        loaded: &Loaded,
        summary: &RunSummary,
        interrupt: &Interrupt,
    ) -> Result<bool, CliError> {
        let cache = self.cache;
        let mut blobs = BTreeMap::new();
        for id in loaded.goals.wanted.marked() {
            let instance = loaded.graph.instance(id);
            let Some(key) = summary.keys.get(&instance.name) else { continue };
            let Some(manifest) = cache.lookup(*key) else { continue };
            for output in instance.outputs.iter().filter(|output| must_be_there(output, loaded.goals.needed[id])) {
                let blob = cache.output(&manifest, &output.name)?;
                blobs.insert(blob.digest, blob);
            }
        }
        let absent: Vec<Blob> = blobs.into_values().filter(|blob| !cache.has(*blob)).collect();
        if absent.is_empty() {
            return Ok(false);
        }
        let bytes = absent.iter().map(|blob| blob.size).sum();
        self.tell(&format!("fetching {} ({}) from the bucket", ui::count(absent.len(), "file"), ui::bytes(bytes)));
        let bar = self.bar(bytes);
        let before = interrupt.requests();
        let fetched = cache.obtain_all(&absent, &|done| {
            bar.set_position(done);
            let asked = interrupt.requests();
            interrupt.acknowledge(asked);
            if asked > before { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        match fetched {
            Err(error) if error.is_stopped() => Ok(true),
            Err(error) => Err(error.into()),
            // What is not there is told where it is laid out.
            Ok(_) => Ok(false),
        }
    }
}
