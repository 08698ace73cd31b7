//! Plans a run: marks every wanted instance as fresh, stale or pending, with the reason.
//!
//! The scheduler asks the same questions of one instance at a time during a run. This module runs nothing.

pub mod causes;
pub mod diagram;
pub mod difference;
mod duration;
mod elsewhere;
pub mod estimate;
mod lost;
pub mod preview;
pub mod rerun_from;
pub mod saved_plan;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::action::{Action, ActionKey};
use crate::address::masked;
use crate::cache::{Blob, Cache, CacheError, Manifest, RunRecord};
use crate::digest::Digest;
use crate::external_inputs::ExternalInputs;
use crate::graph::{Graph, Outputs};
use crate::plan::rerun_from::RerunFrom;
use crate::protocol;
use crate::spec::{Instance, InstanceId, OutputSpec, PerInstance};
use crate::stage_kinds::StageKind;
use duration::{Durations, Estimate, WorkRequest};
use elsewhere::assembled_here;
pub(crate) use lost::read_from_fresh;

/// State of an instance in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlannedState {
    /// Its result is in the cache.
    Fresh,
    /// It has to run.
    Stale,
    /// A producer is not fresh. The instance turns out fresh if that producer makes the same bytes as before.
    Pending,
}

/// Line of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedStage {
    /// Name of the instance.
    pub name: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// State of the instance.
    pub state: PlannedState,
    /// Reason for the state, in a few words.
    pub reason: String,
    /// Duration in seconds, recorded or estimated from an earlier run of similar size. `None` without such a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether `seconds` is scaled from a run with another amount of work.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Whether the nearest earlier run of the instance used a GPU.
    #[serde(skip)]
    pub on_gpu: bool,
}

/// Staleness of an instance whose inputs are all known.
#[derive(Debug)]
pub enum Staleness {
    /// The result is in the cache.
    Fresh(ActionKey, Box<Manifest>),
    /// The result is not in the cache, or may not be used.
    Stale(Box<Action>, StaleReason),
}

/// Reason why an instance is stale.
#[derive(Debug)]
pub enum StaleReason {
    /// The cache has no manifest for the key.
    Unknown,
    /// The manifest exists, but this required output is missing.
    Output(String),
    /// A rerun was requested.
    Forced(RerunRequest),
}

/// Request to rerun an instance although it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunRequest {
    /// The user named the instance.
    Force,
    /// The user chose a rerun level that includes the instance.
    Anew(RerunFrom),
    /// The result came from a remote cache, and its inputs are obtainable: assemble it locally.
    Assemble,
}

impl RerunRequest {
    /// Describes the request in a few words.
    pub fn words(self) -> String {
        match self {
            RerunRequest::Force => "asked for with --force".to_owned(),
            RerunRequest::Anew(depth) => format!("made anew with --from {}", depth.name()),
            RerunRequest::Assemble => "assembled here: its result came from elsewhere".to_owned(),
        }
    }
}

/// Checks whether an instance with known inputs is stale.
///
/// `needed` requires the bytes of its outputs, here or in the remote cache; otherwise the manifest is enough.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn check_staleness<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
    needed: bool,
) -> Result<Staleness, CacheError> {
    let (record, key) = action_for(graph, sources, id, outputs);
    let manifest = cache.find(&record, key)?;
    Ok(classify(graph, cache, id, CacheLookup { key, ahead: false, found: manifest.ok_or(record) }, needed))
}

/// Returns the action and the key of an instance with known inputs.
pub fn action_for<'a>(
    graph: &Graph,
    sources: &ExternalInputs,
    id: InstanceId,
    outputs: impl Fn(InstanceId) -> &'a Outputs,
) -> (Action, ActionKey) {
    let record = graph.record(id, outputs, |need| sources.get(id, need).identity());
    let key = record.key();
    (record, key)
}

fn classify(graph: &Graph, cache: &Cache, id: InstanceId, look: CacheLookup, needed: bool) -> Staleness {
    let key = look.key;
    let manifest = match look.found {
        Ok(manifest) => manifest,
        Err(record) => return Staleness::Stale(Box::new(record), StaleReason::Unknown),
    };
    let missing = graph.instance(id).outputs.iter().find(|output| {
        let is_there = |blob: &Blob| !must_be_there(output, needed) || cache.has_remote() || cache.has(*blob);
        !manifest.outputs.get(&output.name).is_some_and(is_there)
    });
    match missing {
        Some(output) => Staleness::Stale(Box::new(manifest.record), StaleReason::Output(output.name.clone())),
        None => Staleness::Fresh(key, Box::new(manifest)),
    }
}

/// Whether the bytes of an output must exist after a run: the user asked for them, or the output is a result file.
pub fn must_be_there(output: &OutputSpec, needed: bool) -> bool {
    needed || output.result.is_some()
}

/// Number of recent runs that are searched for the action nearest to the current one.
const RECENT: usize = 16;

/// Lazy reader of a pipeline's earlier runs. It reads only as far back as a caller asks.
pub struct History<'a> {
    cache: &'a Cache,
    runs: RefCell<(Vec<RunRecord>, Box<dyn Iterator<Item = RunRecord> + 'a>)>,
}

impl<'a> History<'a> {
    /// Returns the history of a pipeline, under any profile.
    pub fn new(cache: &'a Cache, pipeline: &str) -> Self {
        Self::of(cache, cache.runs(Some(pipeline)))
    }

    /// Returns the history of a pipeline under one profile, or under none.
    ///
    /// Results of another profile are not an earlier state of these.
    pub fn of_profile(cache: &'a Cache, pipeline: &str, profile: Option<&str>) -> Self {
        let profile = profile.map(str::to_owned);
        Self::of(cache, cache.runs(Some(pipeline)).filter(move |run| run.profile == profile))
    }

    fn of(cache: &'a Cache, runs: impl Iterator<Item = RunRecord> + 'a) -> Self {
        History { cache, runs: RefCell::new((Vec::new(), Box::new(runs))) }
    }

    /// Returns the manifest of `name` nearest to `record`, among the latest runs.
    ///
    /// It is the one with the fewest differences; the newer one wins a tie.
    pub fn nearest(&self, name: &str, record: &Action) -> Option<Manifest> {
        let manifests = self.recent_keys(name).into_iter().filter_map(|key| self.cache.lookup(key));
        manifests.min_by_key(|manifest| difference::changes(&manifest.record, record).len())
    }

    /// Returns the distinct keys of an instance in the latest runs, newest first.
    fn recent_keys(&self, name: &str) -> Vec<ActionKey> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        let missing = RECENT.saturating_sub(read.len());
        read.extend(rest.by_ref().take(missing));
        let mut keys: Vec<ActionKey> = Vec::new();
        for key in read.iter().take(RECENT).filter_map(|run| run.keys.get(name)) {
            if !keys.contains(key) {
                keys.push(*key);
            }
        }
        keys
    }

    /// Whether `key` is the last key that the runs recorded for an instance.
    pub fn knows(&self, name: &str, key: ActionKey) -> bool {
        self.last_key(name) == Some(key)
    }

    /// Returns the newest manifest of `name` that `fits` accepts.
    pub fn find(&self, name: &str, fits: impl Fn(&Manifest) -> bool) -> Option<Manifest> {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        let mut tried: Vec<ActionKey> = Vec::new();
        read.iter().filter_map(|run| run.keys.get(name)).find_map(|key| {
            let is_new = !tried.contains(key);
            tried.push(*key);
            self.cache.lookup(*key).filter(|manifest| is_new && fits(manifest))
        })
    }

    /// Whether an instance failed in any recorded run.
    pub fn has_failed(&self, name: &str) -> bool {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        read.iter().any(|run| run.failed.contains_key(name))
    }

    /// Returns the length in bytes of a fetched file, by its publisher's digest; `None` for any other identity.
    pub fn fetched_bytes(&self, identity: &str) -> Option<u64> {
        self.cache.fetched(identity).map(|blob| blob.size)
    }

    /// Returns the length in bytes of the local blob that an action's input names; `None` if it is not here.
    fn blob_bytes(&self, identity: &str) -> Option<u64> {
        let digest: Digest = identity.strip_prefix("blake3:")?.parse().ok()?;
        std::fs::metadata(self.cache.object_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Returns the last key that the runs recorded for an instance.
    pub fn last_key(&self, name: &str) -> Option<ActionKey> {
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

    /// Describes in a few words why an instance is stale.
    pub fn reason(&self, instance: &Instance, record: &Action, absence: &StaleReason) -> String {
        let is_unknown = matches!(absence, StaleReason::Unknown);
        let before = if is_unknown { self.nearest(&instance.name, record) } else { None };
        self.reason_beside(instance, record, absence, before.as_ref())
    }

    /// Like [`History::reason`], with the [nearest](History::nearest) earlier manifest given.
    fn reason_beside(
        &self,
        instance: &Instance,
        record: &Action,
        absence: &StaleReason,
        before: Option<&Manifest>,
    ) -> String {
        match absence {
            StaleReason::Forced(order) => return order.words(),
            StaleReason::Output(name) => return format!("its output `{name}` is gone from the cache"),
            StaleReason::Unknown => {}
        }
        let Some(last_key) = self.last_key(&instance.name) else {
            return if self.has_failed(&instance.name) { "failed so far" } else { "never run" }.to_owned();
        };
        let Some(before) = before else {
            let is_same = last_key == record.key();
            let reason = if is_same { "its result is gone from the cache" } else { "changed since its last run" };
            return reason.to_owned();
        };
        let changes = difference::changes(&before.record, record);
        match changes.as_slice() {
            [] => "its result is gone from the cache".to_owned(),
            // The text of a command may contain an address with a password.
            [one] => masked(&one.to_string()),
            [first, rest @ ..] => format!("{} (and {} more)", masked(&first.to_string()), rest.len()),
        }
    }
}

/// State of an instance, with its manifest, its action, or the producer that it waits for.
#[derive(Debug)]
pub enum Standing {
    /// Its result is in the cache.
    Fresh(ActionKey, Box<Manifest>),
    /// It has to run.
    Stale(Box<Action>, StaleReason),
    /// It needs this instance, which is not fresh.
    Pending(InstanceId),
}

impl Standing {
    /// Returns the plain state.
    pub fn state(&self) -> PlannedState {
        match self {
            Standing::Fresh(..) => PlannedState::Fresh,
            Standing::Stale(..) => PlannedState::Stale,
            Standing::Pending(_) => PlannedState::Pending,
        }
    }
}

/// States of the instances of a pipeline; `None` for those that nobody wants.
pub type Standings = PerInstance<Option<Standing>>;

/// Batch size from which manifests are read in parallel. Smaller batches are faster one by one.
const AT_ONCE: usize = 128;

/// Reads the manifests of the newest run on all cores: the survey asks for most of them next.
fn read_ahead(graph: &Graph, cache: &Cache, wanted: &PerInstance<bool>) -> HashMap<ActionKey, Manifest> {
    let wanted: Vec<InstanceId> = graph.ids().filter(|id| wanted[*id]).collect();
    let newest = if wanted.len() < AT_ONCE { None } else { cache.runs(None).next() };
    let Some(newest) = newest else { return HashMap::new() };
    let keys: Vec<ActionKey> =
        wanted.iter().filter_map(|id| newest.keys.get(&graph.instance(*id).name).copied()).collect();
    keys.into_par_iter().filter_map(|key| Some((key, cache.read_manifest(key)?))).collect()
}

/// Determines the state of every `wanted` instance; the others get `None`.
///
/// `forced` holds the rerun requests, and `needed` marks the instances whose outputs must exist.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn survey(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    wanted: &PerInstance<bool>,
    forced: &PerInstance<Option<RerunRequest>>,
    needed: &PerInstance<bool>,
) -> Result<Standings, CacheError> {
    let mut standings: Standings = graph.ids().map(|_| None).collect();
    let waves = waves(graph, wanted);
    // A wave is read in one batch. In long chains the waves are small, so the newest run predicts which manifests to
    // read.
    let is_chain = waves.iter().map(Vec::len).sum::<usize>() < waves.len() * AT_ONCE;
    let mut read = if is_chain { read_ahead(graph, cache, wanted) } else { HashMap::new() };
    for wave in waves.iter().cloned() {
        let is_fresh = |producer: &InstanceId| matches!(standings[*producer], Some(Standing::Fresh(..)));
        let pending = |id: InstanceId| graph.producers(id).filter(|producer| !is_fresh(producer)).min();
        let (open, known): (Vec<InstanceId>, Vec<InstanceId>) = wave.into_iter().partition(|id| pending(*id).is_some());
        let outputs = |producer: InstanceId| match &standings[producer] {
            Some(Standing::Fresh(_, manifest)) => &manifest.outputs,
            _ => unreachable!("producers were found fresh before"),
        };
        let open: Vec<(InstanceId, Option<InstanceId>)> = open.into_iter().map(|id| (id, pending(id))).collect();
        let looks = look_up(graph, cache, sources, &known, outputs, &mut read)?;
        let classify = |(id, look): (&InstanceId, CacheLookup)| classify(graph, cache, *id, look, needed[*id]);
        let assessed: Vec<Staleness> = known.iter().zip(looks).map(classify).collect();
        let assembled = assembled_here(graph, cache, &known, &assessed, forced, outputs)?;
        for (id, producer) in open {
            standings[id] = producer.map(Standing::Pending);
        }
        for ((id, assessment), is_assembled) in known.into_iter().zip(assessed).zip(assembled) {
            let order = forced[id].filter(|order| *order != RerunRequest::Assemble || is_assembled);
            standings[id] = Some(match (assessment, order) {
                (Staleness::Fresh(key, manifest), None) => Standing::Fresh(key, manifest),
                (Staleness::Fresh(_, manifest), Some(order)) => {
                    Standing::Stale(Box::new(manifest.record), StaleReason::Forced(order))
                }
                (Staleness::Stale(record, absence), _) => Standing::Stale(record, absence),
            });
        }
    }
    lost::mark(graph, cache, &waves, &mut standings)?;
    Ok(standings)
}

/// Checks many instances with known inputs at once: on all cores here, in one batch in the remote cache.
///
/// Returns the results in the order of `ids`.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn check_staleness_of_all<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    ids: &[InstanceId],
    outputs: impl Fn(InstanceId) -> &'a Outputs + Sync,
    needed: &PerInstance<bool>,
) -> Result<Vec<Staleness>, CacheError> {
    let looks = look_up(graph, cache, sources, ids, outputs, &mut HashMap::new())?;
    let classify = |(id, look): (&InstanceId, CacheLookup)| classify(graph, cache, *id, look, needed[*id]);
    Ok(if ids.len() < AT_ONCE {
        ids.iter().zip(looks).map(classify).collect()
    } else {
        ids.par_iter().zip(looks).map(classify).collect()
    })
}

/// Result of looking up a key.
struct CacheLookup {
    key: ActionKey,
    /// Whether the manifest was read ahead.
    ahead: bool,
    /// The manifest, or the action if the cache has none.
    found: Result<Manifest, Action>,
}

/// Looks up instances by key. `read` holds manifests that were read ahead; this function removes those that it uses.
fn look_up<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    ids: &[InstanceId],
    outputs: impl Fn(InstanceId) -> &'a Outputs + Sync,
    read: &mut HashMap<ActionKey, Manifest>,
) -> Result<Vec<CacheLookup>, CacheError> {
    let is_read = |record: &Action, key: &ActionKey| read.get(key).is_some_and(|manifest| manifest.record == *record);
    let look = |id: &InstanceId| {
        let (record, key) = action_for(graph, sources, *id, &outputs);
        let ahead = is_read(&record, &key);
        let manifest = if ahead { None } else { cache.lookup_record(&record, key) };
        CacheLookup { key, ahead, found: manifest.ok_or(record) }
    };
    let mut looks: Vec<CacheLookup> =
        if ids.len() < AT_ONCE { ids.iter().map(look).collect() } else { ids.par_iter().map(look).collect() };
    let absent = |look: &CacheLookup| match &look.found {
        Err(record) if !look.ahead => Some((record.clone(), look.key)),
        _ => None,
    };
    if cache.has_remote() {
        cache.prefetch(looks.iter().filter_map(absent).collect())?;
    }
    for look in &mut looks {
        if let Err(record) = &look.found {
            let manifest = match read.remove(&look.key).filter(|manifest| manifest.record == *record) {
                Some(manifest) => Some(manifest),
                // Another instance with the same key may have removed it.
                None if look.ahead || cache.has_remote() => cache.find(record, look.key)?,
                None => None,
            };
            if let Some(manifest) = manifest {
                look.found = Ok(manifest);
            }
        }
    }
    Ok(looks)
}

/// Groups the wanted instances into waves. Each wave depends only on earlier waves.
pub(crate) fn waves(graph: &Graph, wanted: &PerInstance<bool>) -> Vec<Vec<InstanceId>> {
    let mut waves: Vec<Vec<InstanceId>> = Vec::new();
    let mut wave_of = graph.per_instance(0);
    for id in graph.ids().filter(|id| wanted[*id]) {
        let wave = graph.producers(id).map(|producer| wave_of[producer] + 1).max().unwrap_or(0);
        wave_of[id] = wave;
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(id);
    }
    waves
}

/// Turns a survey into plan lines, one for each surveyed instance. `forced` must be the map given to the survey.
pub fn plan(
    graph: &Graph,
    standings: &Standings,
    forced: &PerInstance<Option<RerunRequest>>,
    history: &History,
) -> Vec<PlannedStage> {
    let mut durations = Durations::new(graph, standings, history);
    let tell = |id: InstanceId| {
        let instance = graph.instance(id);
        let standing = standings[id].as_ref()?;
        let record = match standing {
            Standing::Fresh(_, manifest) => Cow::Borrowed(&manifest.record),
            Standing::Stale(record, _) => Cow::Borrowed(&**record),
            // Unknown inputs are left empty: they do not affect which earlier action is nearest.
            Standing::Pending(_) => Cow::Owned(graph.record_by(id, |_, _| String::new(), |_| String::new())),
        };
        let is_fresh = matches!(standing, Standing::Fresh(..));
        let before = if is_fresh { None } else { history.nearest(&instance.name, &record) };
        let estimate = match standing {
            Standing::Fresh(_, manifest) => Some(Estimate { seconds: manifest.made.seconds, is_scaled: false }),
            _ => {
                let is_whole = matches!(standing, Standing::Stale(..));
                durations.of(&WorkRequest { id, record: &record, is_whole, before: before.as_ref() })
            }
        };
        let mut state = standing.state();
        let reason = match (standing, forced[id]) {
            (Standing::Fresh(..), _) => "up to date".to_owned(),
            (Standing::Stale(_, absence), _) => history.reason_beside(instance, &record, absence, before.as_ref()),
            // It runs whatever its producers make.
            (Standing::Pending(_), Some(order)) if order != RerunRequest::Assemble => {
                state = PlannedState::Stale;
                order.words()
            }
            (Standing::Pending(producer), _) => format!("needs {}", graph.instance(*producer).name),
        };
        let on_gpu = before.is_some_and(|before| protocol::is_gpu(&before.made.device));
        let (seconds, estimated) = (estimate.map(|of| of.seconds), estimate.is_some_and(|of| of.is_scaled));
        Some(PlannedStage {
            name: instance.name.clone(),
            kind: instance.kind,
            state,
            reason,
            seconds,
            estimated,
            on_gpu,
        })
    };
    graph.ids().filter_map(tell).collect()
}
