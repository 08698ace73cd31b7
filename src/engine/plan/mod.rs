//! What would run, and why: every wanted instance is fresh, stale, or pending on one that is. The scheduler asks the
//! same questions of one instance at a time while it runs; nothing is changed here.

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
use crate::spec::{Instance, InstanceId, OutputSpec};
use crate::stage_kinds::StageKind;
use duration::{Durations, Estimate, WorkRequest};
use elsewhere::assembled_here;
pub(crate) use lost::read_from_fresh;

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
    pub kind: StageKind,
    /// How it stands.
    pub state: PlannedState,
    /// Why.
    pub reason: String,
    /// How long it took, or may take by an earlier run of about as much work, in seconds; not known if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Whether that is the duration of another amount of work, made longer or shorter in proportion.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Whether that was on a GPU.
    #[serde(skip)]
    pub on_gpu: bool,
}

/// Whether the result of an instance whose inputs are known is there.
#[derive(Debug)]
pub enum Staleness {
    /// It is there.
    Fresh(ActionKey, Box<Manifest>),
    /// It is not.
    Stale(Box<Action>, StaleReason),
}

/// Why a result is not there.
#[derive(Debug)]
pub enum StaleReason {
    /// Nothing is recorded under the key.
    Unknown,
    /// The manifest is there, an output that is asked for is not.
    Output(String),
    /// The user asked for a rerun.
    Forced(RerunRequest),
}

/// How somebody asked that an instance run though it is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunRequest {
    /// By its name.
    Force,
    /// By the depth from which everything is made anew.
    Anew(RerunFrom),
    /// Where its result came from elsewhere and what it is made of can be had: the result is assembled here.
    Assemble,
}

impl RerunRequest {
    /// The order in a few words.
    pub fn words(self) -> String {
        match self {
            RerunRequest::Force => "asked for with --force".to_owned(),
            RerunRequest::Anew(depth) => format!("made anew with --from {}", depth.name()),
            RerunRequest::Assemble => "assembled here: its result came from elsewhere".to_owned(),
        }
    }
}

/// Looks an instance up whose inputs are all known. `needed` says that its outputs themselves must be there, here or in
/// the remote cache, not just be known.
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

/// The record and the key of an instance whose inputs are all known.
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

/// Whether the bytes of an output must be there at the end of a run: they were asked for by name, or are for people.
pub fn must_be_there(output: &OutputSpec, needed: bool) -> bool {
    needed || output.result.is_some()
}

/// Among the results of so many runs the one is looked for that is nearest to what is wanted now.
const RECENT: usize = 16;

/// What earlier runs of a pipeline knew, read as far back as somebody asks.
pub struct History<'a> {
    cache: &'a Cache,
    runs: RefCell<(Vec<RunRecord>, Box<dyn Iterator<Item = RunRecord> + 'a>)>,
}

impl<'a> History<'a> {
    /// The history of a pipeline.
    pub fn new(cache: &'a Cache, pipeline: &str) -> Self {
        Self::of(cache, cache.runs(Some(pipeline)))
    }

    /// The history of a pipeline under one profile, or under none: results of other profiles are no earlier state of
    /// these.
    pub fn of_profile(cache: &'a Cache, pipeline: &str, profile: Option<&str>) -> Self {
        let profile = profile.map(str::to_owned);
        Self::of(cache, cache.runs(Some(pipeline)).filter(move |run| run.profile == profile))
    }

    fn of(cache: &'a Cache, runs: impl Iterator<Item = RunRecord> + 'a) -> Self {
        History { cache, runs: RefCell::new((Vec::new(), Box::new(runs))) }
    }

    /// The manifest of an instance's name that differs least from a record, by those of its latest runs; the newer of
    /// equals.
    pub fn nearest(&self, name: &str, record: &Action) -> Option<Manifest> {
        let manifests = self.recent_keys(name).into_iter().filter_map(|key| self.cache.lookup(key));
        manifests.min_by_key(|manifest| difference::changes(&manifest.record, record).len())
    }

    /// The keys that an instance had in the latest runs, newest first, each once.
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

    /// Whether an instance had this key when it was last heard of.
    pub fn knows(&self, name: &str, key: ActionKey) -> bool {
        self.last_key(name) == Some(key)
    }

    /// The newest manifest of an instance's name that fits.
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

    /// Whether an instance has failed in a run that is still known.
    pub fn has_failed(&self, name: &str) -> bool {
        let mut runs = self.runs.borrow_mut();
        let (read, rest) = &mut *runs;
        read.extend(rest);
        read.iter().any(|run| run.failed.contains_key(name))
    }

    /// The length of a file that was fetched, in bytes, by its publisher's digest; nothing for others.
    pub fn fetched_bytes(&self, identity: &str) -> Option<u64> {
        self.cache.fetched(identity).map(|blob| blob.size)
    }

    /// The length of a blob that an input of a record names, in bytes; nothing if it is not here.
    fn blob_bytes(&self, identity: &str) -> Option<u64> {
        let digest: Digest = identity.strip_prefix("blake3:")?.parse().ok()?;
        std::fs::metadata(self.cache.object_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// The key that an instance had when it was last heard of.
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

    /// Why an instance is stale, in a few words.
    pub fn reason(&self, instance: &Instance, record: &Action, absence: &StaleReason) -> String {
        let is_unknown = matches!(absence, StaleReason::Unknown);
        let before = if is_unknown { self.nearest(&instance.name, record) } else { None };
        self.reason_beside(instance, record, absence, before.as_ref())
    }

    /// The same beside the [nearest](History::nearest) of what it made before.
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
            // A command's text may have an address with a password in it.
            [one] => masked(&one.to_string()),
            [first, rest @ ..] => format!("{} (and {} more)", masked(&first.to_string()), rest.len()),
        }
    }
}

/// How an instance stands, with what is known of it.
#[derive(Debug)]
pub enum Standing {
    /// Its result is in the cache.
    Fresh(ActionKey, Box<Manifest>),
    /// It has to run.
    Stale(Box<Action>, StaleReason),
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
const AT_ONCE: usize = 128;

/// The manifests that the instances had in the newest run, read on all cores: most of them are asked for next.
fn read_ahead(graph: &Graph, cache: &Cache, wanted: &[bool]) -> HashMap<ActionKey, Manifest> {
    let wanted: Vec<InstanceId> = graph.ids().filter(|id| wanted[id.0]).collect();
    let newest = if wanted.len() < AT_ONCE { None } else { cache.runs(None).next() };
    let Some(newest) = newest else { return HashMap::new() };
    let keys: Vec<ActionKey> =
        wanted.iter().filter_map(|id| newest.keys.get(&graph.instance(*id).name).copied()).collect();
    keys.into_par_iter().filter_map(|key| Some((key, cache.read_manifest(key)?))).collect()
}

/// Looks at every instance that is `wanted`; nothing for the others. `forced` says which run in any case, `needed`
/// whose outputs must be there; all by id.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn survey(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    wanted: &[bool],
    forced: &[Option<RerunRequest>],
    needed: &[bool],
) -> Result<Vec<Option<Standing>>, CacheError> {
    let mut standings: Vec<Option<Standing>> = Vec::new();
    standings.resize_with(graph.len(), || None);
    let waves = waves(graph, wanted);
    // What is looked at together is read together. In long chains little is: there the last run tells what will be
    // asked for.
    let is_chain = waves.iter().map(Vec::len).sum::<usize>() < waves.len() * AT_ONCE;
    let mut read = if is_chain { read_ahead(graph, cache, wanted) } else { HashMap::new() };
    for wave in waves.iter().cloned() {
        let is_fresh = |producer: &InstanceId| matches!(standings[producer.0], Some(Standing::Fresh(..)));
        let pending = |id: InstanceId| graph.producers(id).filter(|producer| !is_fresh(producer)).min();
        let (open, known): (Vec<InstanceId>, Vec<InstanceId>) = wave.into_iter().partition(|id| pending(*id).is_some());
        let outputs = |producer: InstanceId| match &standings[producer.0] {
            Some(Standing::Fresh(_, manifest)) => &manifest.outputs,
            _ => unreachable!("producers were found fresh before"),
        };
        let open: Vec<(InstanceId, Option<InstanceId>)> = open.into_iter().map(|id| (id, pending(id))).collect();
        let looks = look_up(graph, cache, sources, &known, outputs, &mut read)?;
        let classify = |(id, look): (&InstanceId, CacheLookup)| classify(graph, cache, *id, look, needed[id.0]);
        let assessed: Vec<Staleness> = known.iter().zip(looks).map(classify).collect();
        let assembled = assembled_here(graph, cache, &known, &assessed, forced, outputs)?;
        for (id, producer) in open {
            standings[id.0] = producer.map(Standing::Pending);
        }
        for ((id, assessment), is_assembled) in known.into_iter().zip(assessed).zip(assembled) {
            let order = forced[id.0].filter(|order| *order != RerunRequest::Assemble || is_assembled);
            standings[id.0] = Some(match (assessment, order) {
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

/// Looks instances up whose inputs are all known, many at once: on all cores here, together in the remote cache. In
/// their order.
///
/// # Errors
/// [`CacheError`] if the remote cache could not be asked.
pub fn check_staleness_of_all<'a>(
    graph: &Graph,
    cache: &Cache,
    sources: &ExternalInputs,
    ids: &[InstanceId],
    outputs: impl Fn(InstanceId) -> &'a Outputs + Sync,
    needed: &[bool],
) -> Result<Vec<Staleness>, CacheError> {
    let looks = look_up(graph, cache, sources, ids, outputs, &mut HashMap::new())?;
    let classify = |(id, look): (&InstanceId, CacheLookup)| classify(graph, cache, *id, look, needed[id.0]);
    Ok(if ids.len() < AT_ONCE {
        ids.iter().zip(looks).map(classify).collect()
    } else {
        ids.par_iter().zip(looks).map(classify).collect()
    })
}

/// What is known under a key.
struct CacheLookup {
    key: ActionKey,
    /// Whether its manifest was read ahead.
    ahead: bool,
    /// The manifest, or the record that none was found for.
    found: Result<Manifest, Action>,
}

/// `read` holds manifests that were read before; those that are wanted are taken out of it.
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
                // Another name of the same computation may have taken it out.
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

/// The wanted instances by their distance from the beginning: what is in one wave depends on earlier ones alone.
pub(crate) fn waves(graph: &Graph, wanted: &[bool]) -> Vec<Vec<InstanceId>> {
    let mut waves: Vec<Vec<InstanceId>> = Vec::new();
    let mut wave_of = vec![0; graph.len()];
    for id in graph.ids().filter(|id| wanted[id.0]) {
        let wave = graph.producers(id).map(|producer| wave_of[producer.0] + 1).max().unwrap_or(0);
        wave_of[id.0] = wave;
        if waves.len() <= wave {
            waves.resize_with(wave + 1, Vec::new);
        }
        waves[wave].push(id);
    }
    waves
}

/// Tells a survey, one line for each instance that was looked at. `forced` is what the survey was made with.
pub fn plan(
    graph: &Graph,
    standings: &[Option<Standing>],
    forced: &[Option<RerunRequest>],
    history: &History,
) -> Vec<PlannedStage> {
    let mut durations = Durations::new(graph, standings, history);
    let tell = |id: InstanceId| {
        let instance = graph.instance(id);
        let standing = standings[id.0].as_ref()?;
        let record = match standing {
            Standing::Fresh(_, manifest) => Cow::Borrowed(&manifest.record),
            Standing::Stale(record, _) => Cow::Borrowed(&**record),
            // Inputs that are not known yet make no difference between the records of earlier runs.
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
        let reason = match (standing, forced[id.0]) {
            (Standing::Fresh(..), _) => "up to date".to_owned(),
            (Standing::Stale(_, absence), _) => history.reason_beside(instance, &record, absence, before.as_ref()),
            // Whatever comes out of what it needs, it runs.
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
