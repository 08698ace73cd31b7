//! What would run, and why: every wanted instance is fresh, stale, or pending on one that is. The scheduler asks the same questions of one instance at a
//! time while it runs; nothing is changed here.

use std::cell::RefCell;
use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, CacheError, Manifest, OutputBlob, RunRecord};
use crate::depth::Depth;
use crate::explain;
use crate::graph::{Graph, Outputs};
use crate::kinds::Kind;
use crate::record::{Key, Record};
use crate::sources::Sources;
use crate::spec::{Instance, InstanceId, OutputSpec};

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    Forced(Order),
}

/// How somebody asked that an instance run though it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By its name.
    Force,
    /// By the depth from which everything is made anew.
    Anew(Depth),
}

impl Order {
    /// The order in a few words.
    pub fn words(self) -> String {
        match self {
            Order::Force => "asked for with --force".to_owned(),
            Order::Anew(depth) => format!("made anew with --from {}", depth.name()),
        }
    }
}

/// Looks an instance up whose inputs are all known. `needed` says that its outputs themselves must be there, here or in the remote cache, not just be
/// known.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn assess<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
    needed: bool,
) -> Result<Assessment, CacheError> {
    assess_by(graph, cache, sources, id, outputs, needed, |record, key| cache.find(record, key))
}

fn assess_by<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
    needed: bool,
    find: impl FnOnce(&Record, Key) -> Result<Option<Manifest>, CacheError>,
) -> Result<Assessment, CacheError> {
    let record = graph.record(id, outputs, |need| sources.get(id, need).identity());
    let key = record.key();
    let Some(manifest) = find(&record, key)? else {
        return Ok(Assessment::Stale(Box::new(record), Absence::Unknown));
    };
    let missing = graph.instance(id).outputs.iter().find(|output| {
        let is_there = |blob: &OutputBlob| !must_be_there(output, needed) || cache.has_remote() || cache.has(*blob);
        !manifest.outputs.get(&output.name).is_some_and(is_there)
    });
    Ok(match missing {
        Some(output) => Assessment::Stale(Box::new(record), Absence::Output(output.name.clone())),
        None => Assessment::Fresh(key, Box::new(manifest)),
    })
}

/// Whether the bytes of an output must be there at the end of a run: they were asked for by name, or are for people.
pub fn must_be_there(output: &OutputSpec, needed: bool) -> bool {
    needed || output.result.is_some()
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

    /// The newest manifest of an instance's name that fits.
    pub fn find(&self, name: &str, fits: impl Fn(&Manifest) -> bool) -> Option<Manifest> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        let mut tried: Vec<Key> = Vec::new();
        read.iter().filter_map(|run| run.keys.get(name)).find_map(|key| {
            let is_new = !tried.contains(key);
            tried.push(*key);
            self.cache.lookup(*key).filter(|manifest| is_new && fits(manifest))
        })
    }

    /// The key that an instance had when it was last heard of.
    pub fn last_key(&self, name: &str) -> Option<Key> {
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
            Absence::Forced(order) => return order.words(),
            Absence::Output(name) => return format!("its output `{name}` is gone from the cache"),
            Absence::Unknown => {}
        }
        let Some(last_key) = self.last_key(&instance.name) else { return "never run".to_owned() };
        let Some(last) = self.cache.lookup(last_key) else {
            let is_same = last_key == record.key();
            let reason = if is_same { "its result is gone from the cache" } else { "changed since its last run" };
            return reason.to_owned();
        };
        let changes = explain::changes(&last.record, record);
        match changes.as_slice() {
            [] => "its result is gone from the cache".to_owned(),
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        }
    }
}

/// How an instance stands, with what is known of it.
#[derive(Debug)]
pub enum Standing {
    /// Its result is in the cache.
    Fresh(Key, Box<Manifest>),
    /// It has to run.
    Stale(Box<Record>, Absence),
    /// It needs this one, which is not fresh.
    Pending(InstanceId),
}

impl Standing {
    /// The same without what is known.
    pub fn state(&self) -> PlannedState {
        match self {
            Standing::Fresh(..) => PlannedState::Fresh,
            Standing::Stale(..) => PlannedState::Stale,
            Standing::Pending(_) => PlannedState::Pending,
        }
    }
}

/// Fewer manifests than this are read faster one by one.
const READ_AHEAD: usize = 128;

/// The manifests that the instances had in the newest run, read on all cores: most of them are asked for next.
fn read_ahead(graph: &Graph, cache: &Cache, wanted: &[bool]) -> HashMap<Key, Manifest> {
    let wanted: Vec<InstanceId> = graph.ids().filter(|id| wanted[id.0]).collect();
    let newest = if wanted.len() < READ_AHEAD { None } else { cache.runs(None).next() };
    let Some(newest) = newest else { return HashMap::new() };
    let keys: Vec<Key> = wanted.iter().filter_map(|id| newest.keys.get(&graph.instance(*id).name).copied()).collect();
    keys.into_par_iter().filter_map(|key| Some((key, cache.read_manifest(key)?))).collect()
}

/// Looks at every instance that is `wanted`; nothing for the others. `forced` says which run in any case, `needed` whose outputs must be there; all by id.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn survey(
    graph: &Graph,
    cache: &Cache,
    sources: &Sources,
    wanted: &[bool],
    forced: &[Option<Order>],
    needed: &[bool],
) -> Result<Vec<Option<Standing>>, CacheError> {
    let mut standings: Vec<Option<Standing>> = Vec::with_capacity(graph.len());
    let mut read = read_ahead(graph, cache, wanted);
    for id in graph.ids() {
        if !wanted[id.0] {
            standings.push(None);
            continue;
        }
        let is_fresh = |producer: InstanceId| matches!(standings[producer.0], Some(Standing::Fresh(..)));
        let standing = if let Some(producer) = graph.producers(id).filter(|producer| !is_fresh(*producer)).min() {
            Standing::Pending(producer)
        } else {
            let outputs = |producer: InstanceId| match &standings[producer.0] {
                Some(Standing::Fresh(_, manifest)) => &manifest.outputs,
                _ => unreachable!("producers were found fresh above"),
            };
            let find = |record: &Record, key| match read.remove(&key) {
                Some(manifest) if manifest.record == *record => Ok(Some(manifest)),
                _ => cache.find(record, key),
            };
            match assess_by(graph, cache, sources, id, outputs, needed[id.0], find)? {
                Assessment::Fresh(key, manifest) => match forced[id.0] {
                    None => Standing::Fresh(key, manifest),
                    Some(order) => Standing::Stale(Box::new(manifest.record), Absence::Forced(order)),
                },
                Assessment::Stale(record, absence) => Standing::Stale(record, absence),
            }
        };
        standings.push(Some(standing));
    }
    Ok(standings)
}

/// Tells a survey, one line for each instance that was looked at. `forced` is what the survey was made with.
pub fn plan(
    graph: &Graph,
    standings: &[Option<Standing>],
    forced: &[Option<Order>],
    history: &History,
) -> Vec<PlannedStage> {
    let tell = |id: InstanceId| {
        let instance = graph.instance(id);
        let standing = standings[id.0].as_ref()?;
        let last = || history.last(&instance.name).map(|manifest| manifest.made.seconds);
        let mut state = standing.state();
        let (reason, seconds) = match (standing, forced[id.0]) {
            (Standing::Fresh(_, manifest), _) => ("up to date".to_owned(), Some(manifest.made.seconds)),
            (Standing::Stale(record, absence), _) => (history.reason(instance, record, absence), last()),
            // Whatever comes out of what it needs, it runs.
            (Standing::Pending(_), Some(order)) => {
                state = PlannedState::Stale;
                (order.words(), last())
            }
            (Standing::Pending(producer), None) => (format!("needs {}", graph.instance(*producer).name), last()),
        };
        Some(PlannedStage { name: instance.name.clone(), kind: instance.kind, state, reason, seconds })
    };
    graph.ids().filter_map(tell).collect()
}
