//! What would run, and why: every wanted instance is fresh, stale, or pending on one that is. The scheduler asks the same questions of one instance at a
//! time while it runs; nothing is changed here.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::cache::{Cache, Manifest, OutputBlob, RunRecord};
use crate::explain;
use crate::graph::{Graph, Outputs};
use crate::kinds::Kind;
use crate::record::{Key, Record};
use crate::sources::Sources;
use crate::spec::{Instance, InstanceId};

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedState {
    /// Its result is in the cache.
    Fresh,
    /// It has to run.
    Stale,
    /// It needs something that is stale; it may turn out fresh if that comes out as before.
    Pending,
}

/// One line of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// The instance's name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// How it stands.
    pub state: PlannedState,
    /// Why.
    pub reason: String,
    /// How long it took when it ran last, if it ever did, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// Whether the result of an instance whose inputs are known is there.
#[derive(Debug)]
pub enum Assessment {
    /// It is there.
    Fresh(Key, Box<Manifest>),
    /// It is not.
    Stale(Box<Record>, Absence),
}

/// Why a result is not there.
#[derive(Debug)]
pub enum Absence {
    /// Nothing is recorded under the key.
    Unknown,
    /// The manifest is there, an output that is asked for is not.
    Output(String),
    /// The user asked for a rerun.
    Forced,
}

/// Looks an instance up whose inputs are all known. `needed` says that its outputs themselves must be there, not just be known.
pub fn assess<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
    needed: bool,
) -> Assessment {
    let record = graph.record(id, outputs, |need| sources.get(id, need).identity());
    let key = record.key();
    let Some(manifest) = cache.lookup(key) else { return Assessment::Stale(Box::new(record), Absence::Unknown) };
    let instance = graph.instance(id);
    let missing = instance.outputs.iter().find(|output| {
        let shown = needed || output.result.is_some();
        let is_there = |blob: &OutputBlob| !shown || cache.has(*blob);
        !manifest.outputs.get(&output.name).is_some_and(is_there)
    });
    match missing {
        Some(output) => Assessment::Stale(Box::new(record), Absence::Output(output.name.clone())),
        None => Assessment::Fresh(key, Box::new(manifest)),
    }
}

/// What earlier runs of a pipeline knew, read as far back as somebody asks.
pub struct History<'a> {
    cache: &'a Cache,
    runs: RefCell<(Vec<RunRecord>, Box<dyn Iterator<Item = RunRecord> + 'a>)>,
}

impl<'a> History<'a> {
    /// The history of a pipeline.
    pub fn new(cache: &'a Cache, pipeline: &str) -> Self {
        let runs = cache.runs(Some(pipeline));
        History { cache, runs: RefCell::new((Vec::new(), Box::new(runs))) }
    }

    /// The newest manifest of an instance's name.
    pub fn last(&self, name: &str) -> Option<Manifest> {
        self.cache.lookup(self.last_key(name)?)
    }

    /// Whether an instance had this key when it was last heard of.
    pub fn knows(&self, name: &str, key: Key) -> bool {
        self.last_key(name) == Some(key)
    }

    fn last_key(&self, name: &str) -> Option<Key> {
        let mut runs = self.runs.borrow_mut();
        let known = runs.0.iter().find_map(|run| run.keys.get(name)).copied();
        known.or_else(|| {
            let (read, rest) = &mut *runs;
            rest.by_ref().find_map(|run| {
                let key = run.keys.get(name).copied();
                read.push(run);
                key
            })
        })
    }

    /// Why an instance is stale, in a few words.
    pub fn reason(&self, instance: &Instance, record: &Record, absence: &Absence) -> String {
        match absence {
            Absence::Forced => return "asked for with --force".to_owned(),
            Absence::Output(name) => return format!("its output `{name}` is gone from the cache"),
            Absence::Unknown => {}
        }
        let Some(last) = self.last(&instance.name) else { return "never run".to_owned() };
        let changes = explain::changes(&last.record, record);
        match changes.as_slice() {
            [] => "its result is gone from the cache".to_owned(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        }
    }
}

/// Plans a run. `wanted` says which instances the targets reach, `forced` which must run, `needed` whose outputs must be there; all by id.
pub fn plan(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    pipeline: &str,
    wanted: &[bool],
    forced: &[bool],
    needed: &[bool],
) -> Vec<PlannedStage> {
    let history = History::new(cache, pipeline);
    let mut fresh: BTreeMap<InstanceId, Outputs> = BTreeMap::new();
    let mut stages = Vec::new();
    for id in graph.ids().filter(|id| wanted[id.0]) {
        let instance = graph.instance(id);
        let waits_for = graph.producers(id).filter(|producer| !fresh.contains_key(producer)).min();
        let (state, reason, seconds) = if let Some(producer) = waits_for {
            let reason = format!("needs {}", graph.instance(producer).name);
            (PlannedState::Pending, reason, history.last(&instance.name).map(|manifest| manifest.made.seconds))
        } else {
            match assess(graph, cache, sources, id, |producer| &fresh[&producer], needed[id.0]) {
                Assessment::Fresh(_, manifest) if !forced[id.0] => {
                    fresh.insert(id, manifest.outputs);
                    (PlannedState::Fresh, "up to date".to_owned(), Some(manifest.made.seconds))
                }
                Assessment::Fresh(_, manifest) => {
                    let reason = history.reason(instance, &manifest.record, &Absence::Forced);
                    (PlannedState::Stale, reason, Some(manifest.made.seconds))
                }
                Assessment::Stale(record, absence) => {
                    let reason = history.reason(instance, &record, &absence);
                    (PlannedState::Stale, reason, history.last(&instance.name).map(|manifest| manifest.made.seconds))
                }
            }
        };
        stages.push(PlannedStage { name: instance.name.clone(), kind: instance.kind, state, reason, seconds });
    }
    stages
}
