//! Explains why instances are stale.
//!
//! Walks from them up to the instances whose own action changed, and reports each change. Reads the hashed actions and
//! the manifests of earlier runs. The caller turns causes into sentences.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::action::Action;
use crate::address::Address;
use crate::cache::Manifest;
use crate::external_inputs::CheckedSource;
use crate::plan::difference::{self, Change};
use crate::plan::{CacheStatus, CacheStatuses, History, PlanContext, RerunRequest, StaleReason};
use crate::spec::{self, InstanceId, Need, Overrides, PipelineSpec, Written};
use crate::stage_kinds::StageKind;

/// Reason why one instance, possibly far upstream, has to run.
#[derive(Debug, Serialize)]
pub struct Cause {
    /// Name of the instance.
    pub stage: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// The cause itself.
    #[serde(flatten)]
    pub what: StaleCause,
    /// Where the new value of a parameter is written: the stage first, the root last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
    /// Path from this instance to the instance in question, both included.
    pub way: Vec<String>,
}

/// Cause that makes an instance stale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum StaleCause {
    /// No recorded run of the pipeline has run it.
    NeverRun,
    /// It failed in every recorded run.
    OnlyFailed,
    /// The user requested a rerun, for example with `--force`.
    Forced,
    /// Its result came from a remote cache, and it can be assembled locally.
    #[serde(rename = "elsewhere")]
    FromRemote,
    /// Its action did not change, but its result is gone from the cache.
    ResultGone,
    /// Its action changed, and the earlier one is gone from the cache.
    RecordGone,
    /// A required output is gone from the cache.
    OutputGone {
        /// Name of the output.
        output: String,
    },
    /// Its action changed.
    Changed(Change),
    /// A file that it reads changed.
    Source {
        /// Input slot of the file.
        slot: String,
        /// Path or address of the file.
        file: String,
        /// Earlier contents.
        old: Contents,
        /// Current contents.
        new: Contents,
    },
    /// An input has other bytes without a known cause: a rerun of the same action made them, or the earlier action is
    /// lost.
    OtherBytes {
        /// Name of the input.
        input: String,
        /// Name of the producer.
        from: String,
        /// Time at which the producer made it.
        at: String,
        /// Machine on which the producer made it.
        host: String,
    },
}

/// Contents of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Contents {
    /// Digest, as actions hold it (`blake3:…`, `sha256:…`).
    pub digest: String,
    /// Length in bytes; `None` if it is not known, or not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Data that an explanation reads.
pub struct CauseQuery<'a, 'h> {
    /// Pipeline as written.
    pub spec: &'a PipelineSpec,
    /// Changes from the command line.
    pub overrides: &'a Overrides,
    /// Pipeline, cache and external files.
    pub context: PlanContext<'a>,
    /// States of the instances in question and of everything that they need.
    pub status_of: &'a CacheStatuses,
    /// Earlier runs.
    pub history: &'a History<'h>,
}

impl CauseQuery<'_, '_> {
    /// Returns the causes of an instance, each at the instance where it arises. A fresh instance has none.
    pub fn causes(&self, id: InstanceId) -> Vec<Cause> {
        let mut walk = Walk {
            asked: self,
            towards: HashMap::new(),
            seen: HashSet::from([id]),
            open: vec![(id, None)],
            causes: Vec::new(),
        };
        if matches!(self.status_of[id], Some(CacheStatus::Fresh(..))) {
            return Vec::new();
        }
        while let Some((id, before)) = walk.open.pop() {
            walk.look(id, before);
        }
        walk.causes
    }

    /// Returns the action of an instance, as far as it is known now.
    ///
    /// An input whose producer is not fresh keeps its value from `before`, so it makes no difference.
    fn action(&self, id: InstanceId, before: Option<&Action>) -> Action {
        match &self.status_of[id] {
            Some(CacheStatus::Fresh(_, manifest)) => return manifest.record.clone(),
            Some(CacheStatus::Stale(action, _)) => return (**action).clone(),
            Some(CacheStatus::Pending(_)) | None => {}
        }
        let input = |name: &str, need: &Need| {
            let now = match &self.status_of[need.from] {
                Some(CacheStatus::Fresh(_, manifest)) => {
                    manifest.outputs.get(&need.output).map(|blob| format!("blake3:{}", blob.digest))
                }
                _ => before.and_then(|action| action.inputs.get(name)).cloned(),
            };
            now.unwrap_or_default()
        };
        self.context.graph.action_by(id, input, |source| self.context.sources.get(id, source).identity())
    }
}

struct Walk<'w, 'a, 'h> {
    asked: &'w CauseQuery<'a, 'h>,
    /// Next instance on the path to the instance in question.
    towards: HashMap<InstanceId, InstanceId>,
    seen: HashSet<InstanceId>,
    /// Instances to visit. Each comes with the earlier action whose result its consumer last read, if that is known.
    open: Vec<(InstanceId, Option<Action>)>,
    causes: Vec<Cause>,
}

impl Walk<'_, '_, '_> {
    fn look(&mut self, id: InstanceId, before: Option<Action>) {
        let asked = self.asked;
        match &asked.status_of[id] {
            Some(CacheStatus::Stale(_, StaleReason::Forced(RerunRequest::Assemble))) => {
                return self.cause(id, StaleCause::FromRemote);
            }
            Some(CacheStatus::Stale(_, StaleReason::Forced(_))) => return self.cause(id, StaleCause::Forced),
            Some(CacheStatus::Stale(_, StaleReason::Output(output))) => {
                return self.cause(id, StaleCause::OutputGone { output: output.clone() });
            }
            _ => {}
        }
        let unfinished: Vec<InstanceId> = asked.context.graph.producers(id).collect();
        for producer in unfinished {
            if !matches!(asked.status_of[producer], Some(CacheStatus::Fresh(..))) {
                self.go(producer, id, None);
            }
        }
        let nearest = || {
            asked
                .history
                .nearest(asked.context.graph.instance(id), &asked.action(id, None))
                .map(|manifest| manifest.record)
        };
        let Some(before) = before.or_else(nearest) else {
            return self.without_action(id);
        };
        let now = asked.action(id, Some(&before));
        let changes = difference::changes(&before, &now);
        if changes.is_empty() && matches!(asked.status_of[id], Some(CacheStatus::Stale(..))) {
            return self.cause(id, StaleCause::ResultGone);
        }
        for change in changes {
            match change {
                Change::Input { name } => self.input(id, &name, &before),
                change => self.cause(id, StaleCause::Changed(change)),
            }
        }
    }

    /// Adds the cause of an instance whose earlier action is unknown.
    fn without_action(&mut self, id: InstanceId) {
        let asked = self.asked;
        let instance = asked.context.graph.instance(id);
        let what = match (asked.history.last_key(instance), &asked.status_of[id]) {
            (None, _) if asked.history.has_failed(&instance.name) => StaleCause::OnlyFailed,
            (None, _) => StaleCause::NeverRun,
            (Some(last), Some(CacheStatus::Stale(action, _))) if action.key() != last => StaleCause::RecordGone,
            (Some(_), _) => StaleCause::ResultGone,
        };
        self.cause(id, what);
    }

    /// Explains an input with other bytes that nothing will make again: its producer is fresh, or it is an external
    /// file.
    fn input(&mut self, id: InstanceId, input: &str, before: &Action) {
        let asked = self.asked;
        let Some((_, need)) = asked.context.graph.inputs(id).find(|(name, _)| name == input) else {
            let source = asked.context.graph.instance(id).sources.iter().find(|source| source.slot == input);
            let Some(source) = source.map(|source| asked.context.sources.get(id, source)) else { return };
            let (file, bytes) = match source {
                CheckedSource::Local { path, .. } | CheckedSource::ByHand { path, .. } => {
                    (path.display().to_string(), std::fs::metadata(path).ok().map(|metadata| metadata.len()))
                }
                CheckedSource::Folder { path, .. } | CheckedSource::KeptFolder { path, .. } => {
                    (path.display().to_string(), None)
                }
                CheckedSource::Kept { path, blob, .. } => (path.display().to_string(), Some(blob.size)),
                CheckedSource::Remote { source } => {
                    (Address::new(source.url.as_deref().unwrap_or_default()).to_string(), None)
                }
            };
            let contents = |digest: String, bytes: Option<u64>| {
                let bytes = bytes.or_else(|| asked.history.fetched_bytes(&digest));
                Contents { digest, bytes }
            };
            let old = contents(before.inputs.get(input).cloned().unwrap_or_default(), None);
            let new = contents(source.identity(), bytes);
            return self.cause(id, StaleCause::Source { slot: input.to_owned(), file, old, new });
        };
        let Some(CacheStatus::Fresh(_, manifest)) = &asked.status_of[need.from] else { return };
        let was = before.inputs.get(input);
        let gave = |old: &Manifest| {
            old.outputs.get(&need.output).map(|blob| format!("blake3:{}", blob.digest)).as_ref() == was
        };
        match asked.history.find(asked.context.graph.instance(need.from), gave) {
            Some(old) if old.record != manifest.record => self.go(need.from, id, Some(old.record)),
            _ => {
                let (from, made) = (asked.context.graph.instance(need.from).name.clone(), &manifest.made);
                let (at, host) = (made.at.clone(), made.host.clone());
                self.cause(id, StaleCause::OtherBytes { input: input.to_owned(), from, at, host });
            }
        }
    }

    fn go(&mut self, to: InstanceId, towards: InstanceId, before: Option<Action>) {
        if self.seen.insert(to) {
            self.towards.insert(to, towards);
            self.open.push((to, before));
        }
    }

    fn cause(&mut self, id: InstanceId, what: StaleCause) {
        let asked = self.asked;
        let instance = asked.context.graph.instance(id);
        let (path, texts) = match &what {
            StaleCause::Changed(Change::Param { path, old, new }) => (Some(path.as_str()), text(old).zip(text(new))),
            StaleCause::Changed(Change::Seed { .. }) => (Some("seed"), None),
            StaleCause::Changed(Change::Numerics { .. }) => (Some("numerics"), None),
            _ => (None, None),
        };
        let written = |path| spec::written(asked.spec, asked.overrides, instance, path, texts);
        let written = path.map(written).unwrap_or_default();
        let way = std::iter::successors(Some(id), |id| self.towards.get(id).copied());
        let way = way.map(|id| asked.context.graph.instance(id).name.clone()).collect();
        self.causes.push(Cause { stage: instance.name.clone(), kind: instance.kind, what, written, way });
    }
}

/// Parses a shown parameter as text; `None` if it is no text.
fn text(shown: &Option<String>) -> Option<String> {
    serde_json::from_str(shown.as_deref()?).ok()
}
