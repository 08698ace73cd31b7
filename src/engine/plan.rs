//! What would run, and why: every wanted instance is fresh, stale, or pending on one that is. The scheduler asks the same questions of one instance at a
//! time while it runs; nothing is changed here.

use std::cell::RefCell;
use std::collections::HashMap;

use rayon::prelude::*;
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
    assess_by(graph, cache, sources, id, outputs, needed, |record, key| cache.lookup_record(record, key))
}

fn assess_by<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
    needed: bool,
    lookup: impl FnOnce(&Record, Key) -> Option<Manifest>,
) -> Assessment {
    let record = graph.record(id, outputs, |need| sources.get(id, need).identity());
    let key = record.key();
    let Some(manifest) = lookup(&record, key) else { return Assessment::Stale(Box::new(record), Absence::Unknown) };
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

    /// The key that an instance had in the newest record.
    fn newest_key(&self, name: &str) -> Option<Key> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        if read.is_empty() {
            read.extend(rest.next());
        }
        read.first()?.keys.get(name).copied()
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

/// Fewer manifests than this are read faster one by one.
const READ_AHEAD: usize = 128;

/// The manifests that the instances had when they were last heard of, read on all cores: most of them are asked for next.
fn read_ahead(graph: &Graph, cache: &Cache, history: &History, wanted: &[bool]) -> HashMap<Key, Manifest> {
    let wanted: Vec<InstanceId> = graph.ids().filter(|id| wanted[id.0]).collect();
    if wanted.len() < READ_AHEAD {
        return HashMap::new();
    }
    let keys: Vec<Key> = wanted.iter().filter_map(|id| history.newest_key(&graph.instance(*id).name)).collect();
    keys.into_par_iter().filter_map(|key| Some((key, cache.read_manifest(key)?))).collect()
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
    let mut fresh: Vec<Option<Outputs>> = vec![None; graph.len()];
    let mut read = read_ahead(graph, cache, &history, wanted);
    let mut stages = Vec::new();
    for id in graph.ids().filter(|id| wanted[id.0]) {
        let instance = graph.instance(id);
        let waits_for = graph.producers(id).filter(|producer| fresh[producer.0].is_none()).min();
        let (state, reason, seconds) = if let Some(producer) = waits_for {
            let reason = format!("needs {}", graph.instance(producer).name);
            (PlannedState::Pending, reason, history.last(&instance.name).map(|manifest| manifest.made.seconds))
        } else {
            let outputs = |producer: InstanceId| fresh[producer.0].as_ref().expect("its producers are fresh");
            let lookup = |record: &Record, key| match read.remove(&key) {
                Some(manifest) if manifest.record == *record => Some(manifest),
                _ => cache.lookup_record(record, key),
            };
            match assess_by(graph, cache, sources, id, outputs, needed[id.0], lookup) {
                Assessment::Fresh(_, manifest) if !forced[id.0] => {
                    fresh[id.0] = Some(manifest.outputs);
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
