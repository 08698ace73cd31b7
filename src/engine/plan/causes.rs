//! Why instances are stale or fresh: walks from them up to those whose own record changed, and says of each what it
//! was. It asks the records that are hashed and the manifests of earlier runs; sentences are made by who shows it.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::action::Action;
use crate::address::Address;
use crate::cache::Manifest;
use crate::external_inputs::{CheckedSource, ExternalInputs};
use crate::graph::Graph;
use crate::plan::difference::{self, Change};
use crate::plan::{History, RerunRequest, StaleReason, Standing};
use crate::spec::{self, InstanceId, Need, Overrides, PipelineSpec, Written};
use crate::stage_kinds::StageKind;

/// Why one instance, which may be far up, has to run.
#[derive(Debug, Serialize)]
pub struct Cause {
    /// Its name.
    pub stage: String,
    /// What it does.
    pub kind: StageKind,
    /// What it is.
    #[serde(flatten)]
    pub what: StaleCause,
    /// For a parameter: where its new value is written, the stage first and the root of it last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
    /// The way from this instance to the one that was asked about, both included.
    pub way: Vec<String>,
}

/// What made an instance stale.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum StaleCause {
    /// No run of the pipeline knows it.
    NeverRun,
    /// Whenever it ran, it failed.
    OnlyFailed,
    /// `--force` names it.
    Forced,
    /// Its result came from elsewhere, and it can be assembled here.
    Elsewhere,
    /// Its record is as it was, and its result is gone from the cache.
    ResultGone,
    /// Its record changed, and the one before is gone from the cache.
    RecordGone,
    /// An output that is asked for is gone from the cache.
    OutputGone {
        /// Its name.
        output: String,
    },
    /// Its record changed.
    Changed(Change),
    /// A file that it reads changed.
    Source {
        /// The slot that it fills.
        slot: String,
        /// The file or address.
        file: String,
        /// What was in it.
        old: Contents,
        /// What is in it.
        new: Contents,
    },
    /// An input was made anew from the same record and came out with other bytes, or nobody knows any more what it was
    /// made from before.
    OtherBytes {
        /// The input's name.
        input: String,
        /// Who made it.
        from: String,
        /// When.
        at: String,
        /// Where.
        host: String,
    },
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Contents {
    /// Its digest, as records have it (`blake3:…`, `sha256:…`).
    pub digest: String,
    /// Its length in bytes; nothing where it is not known any more, or not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What is asked.
pub struct Question<'a, 'h> {
    /// The pipeline as written, and what the command line changed in it.
    pub spec: &'a PipelineSpec,
    /// The same.
    pub overrides: &'a Overrides,
    /// Its instances.
    pub graph: &'a Graph,
    /// Its files.
    pub sources: &'a ExternalInputs,
    /// How every instance stands that those asked about need.
    pub standings: &'a [Option<Standing>],
    /// What earlier runs knew.
    pub history: &'a History<'h>,
}

impl Question<'_, '_> {
    /// The causes of an instance, each in the instance where it arises; none if it is fresh.
    pub fn causes(&self, id: InstanceId) -> Vec<Cause> {
        let mut walk = Walk {
            asked: self,
            towards: HashMap::new(),
            seen: HashSet::from([id]),
            open: vec![(id, None)],
            causes: Vec::new(),
        };
        if matches!(self.standings[id.0], Some(Standing::Fresh(..))) {
            return Vec::new();
        }
        while let Some((id, before)) = walk.open.pop() {
            walk.look(id, before);
        }
        walk.causes
    }

    /// What is known of the record of an instance now. An input whose producer is not fresh stands as it did `before`,
    /// so that it makes no difference.
    fn record(&self, id: InstanceId, before: Option<&Action>) -> Action {
        match &self.standings[id.0] {
            Some(Standing::Fresh(_, manifest)) => return manifest.record.clone(),
            Some(Standing::Stale(record, _)) => return (**record).clone(),
            Some(Standing::Pending(_)) | None => {}
        }
        let input = |name: &str, need: &Need| {
            let now = match &self.standings[need.from.0] {
                Some(Standing::Fresh(_, manifest)) => {
                    manifest.outputs.get(&need.output).map(|blob| format!("blake3:{}", blob.digest))
                }
                _ => before.and_then(|record| record.inputs.get(name)).cloned(),
            };
            now.unwrap_or_default()
        };
        self.graph.record_by(id, input, |source| self.sources.get(id, source).identity())
    }
}

struct Walk<'w, 'a, 'h> {
    asked: &'w Question<'a, 'h>,
    /// The next instance on the way to the one that was asked about.
    towards: HashMap<InstanceId, InstanceId>,
    seen: HashSet<InstanceId>,
    /// Who is to be looked at, and, where it is known, what record its consumer last saw the result of.
    open: Vec<(InstanceId, Option<Action>)>,
    causes: Vec<Cause>,
}

impl Walk<'_, '_, '_> {
    fn look(&mut self, id: InstanceId, before: Option<Action>) {
        let asked = self.asked;
        let name = &asked.graph.instance(id).name;
        match &asked.standings[id.0] {
            Some(Standing::Stale(_, StaleReason::Forced(RerunRequest::Assemble))) => {
                return self.cause(id, StaleCause::Elsewhere);
            }
            Some(Standing::Stale(_, StaleReason::Forced(_))) => return self.cause(id, StaleCause::Forced),
            Some(Standing::Stale(_, StaleReason::Output(output))) => {
                return self.cause(id, StaleCause::OutputGone { output: output.clone() });
            }
            _ => {}
        }
        let unfinished: Vec<InstanceId> = asked.graph.producers(id).collect();
        for producer in unfinished {
            if !matches!(asked.standings[producer.0], Some(Standing::Fresh(..))) {
                self.go(producer, id, None);
            }
        }
        let nearest = || asked.history.nearest(name, &asked.record(id, None)).map(|manifest| manifest.record);
        let Some(before) = before.or_else(nearest) else {
            return self.without_record(id);
        };
        let now = asked.record(id, Some(&before));
        let changes = difference::changes(&before, &now);
        if changes.is_empty() && matches!(asked.standings[id.0], Some(Standing::Stale(..))) {
            return self.cause(id, StaleCause::ResultGone);
        }
        for change in changes {
            match change {
                Change::Input { name } => self.input(id, &name, &before),
                change => self.cause(id, StaleCause::Changed(change)),
            }
        }
    }

    /// Nothing tells what an instance was made from before.
    fn without_record(&mut self, id: InstanceId) {
        let asked = self.asked;
        let name = &asked.graph.instance(id).name;
        let what = match (asked.history.last_key(name), &asked.standings[id.0]) {
            (None, _) if asked.history.has_failed(name) => StaleCause::OnlyFailed,
            (None, _) => StaleCause::NeverRun,
            (Some(last), Some(Standing::Stale(record, _))) if record.key() != last => StaleCause::RecordGone,
            (Some(_), _) => StaleCause::ResultGone,
        };
        self.cause(id, what);
    }

    /// An input holds other bytes than before, and is not to be made again: its producer is fresh, or it is a file.
    fn input(&mut self, id: InstanceId, input: &str, before: &Action) {
        let asked = self.asked;
        let Some((_, need)) = asked.graph.inputs(id).find(|(name, _)| name == input) else {
            let source = asked.graph.instance(id).sources.iter().find(|source| source.slot == input);
            let Some(source) = source.map(|source| asked.sources.get(id, source)) else { return };
            let (file, bytes) = match source {
                CheckedSource::Local { path, .. } | CheckedSource::ByHand { path, .. } => {
                    (path.display().to_string(), std::fs::metadata(path).ok().map(|metadata| metadata.len()))
                }
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
        let Some(Standing::Fresh(_, manifest)) = &asked.standings[need.from.0] else { return };
        let was = before.inputs.get(input);
        let gave = |old: &Manifest| {
            old.outputs.get(&need.output).map(|blob| format!("blake3:{}", blob.digest)).as_ref() == was
        };
        match asked.history.find(&asked.graph.instance(need.from).name, gave) {
            Some(old) if old.record != manifest.record => self.go(need.from, id, Some(old.record)),
            _ => {
                let (from, made) = (asked.graph.instance(need.from).name.clone(), &manifest.made);
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
        let instance = asked.graph.instance(id);
        let (path, texts) = match &what {
            StaleCause::Changed(Change::Param { path, old, new }) => (Some(path.as_str()), text(old).zip(text(new))),
            StaleCause::Changed(Change::Seed { .. }) => (Some("seed"), None),
            StaleCause::Changed(Change::Numerics { .. }) => (Some("numerics"), None),
            _ => (None, None),
        };
        let written = |path| spec::written(asked.spec, asked.overrides, instance, path, texts);
        let written = path.map(written).unwrap_or_default();
        let way = std::iter::successors(Some(id), |id| self.towards.get(id).copied());
        let way = way.map(|id| asked.graph.instance(id).name.clone()).collect();
        self.causes.push(Cause { stage: instance.name.clone(), kind: instance.kind, what, written, way });
    }
}

/// The text that a parameter is; nothing for one that is no text.
fn text(shown: &Option<String>) -> Option<String> {
    serde_json::from_str(shown.as_deref()?).ok()
}
