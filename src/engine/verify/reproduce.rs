//! Compares recomputed results with published ones.
//!
//! A result is published if it came from a remote cache, now or earlier. The lookup precedes the run, because the run
//! stores its own results under the same keys.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::action::{Action, ActionKey};
use crate::cache::{Blob, Cache, CacheError, Made, Manifest};
use crate::graph::{Graph, Outputs};
use crate::numerics::Numerics;
use crate::plan::rerun_from::RerunFrom;
use crate::plan::{PlanContext, waves};
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;
use crate::verify::{Compared, Verdict, compare, has_numbers};

/// Published results of the instances of a graph, by id.
#[derive(Debug)]
pub struct Published {
    published: PerInstance<Option<Manifest>>,
    here: PerInstance<Option<Manifest>>,
}

impl Published {
    /// Looks up the published results of the instances `of`.
    ///
    /// Their keys come from published inputs where those exist, and from local inputs otherwise.
    ///
    /// # Errors
    /// [`CacheError`] if the remote cache could not be asked.
    pub fn find(
        context: PlanContext<'_>,
        wanted: &PerInstance<bool>,
        of: &PerInstance<bool>,
    ) -> Result<Self, CacheError> {
        let PlanContext { graph, cache, .. } = context;
        let mut published: PerInstance<Option<Manifest>> = graph.per_instance(None);
        let mut here: PerInstance<Option<Manifest>> = graph.per_instance(None);
        for wave in waves(graph, wanted) {
            let mut asked: Vec<(InstanceId, (Action, ActionKey))> = Vec::new();
            for id in wave {
                let base = |producer: InstanceId| -> Option<&Outputs> {
                    published[producer].as_ref().or(here[producer].as_ref()).map(|manifest| &manifest.outputs)
                };
                let need_is_known =
                    |need: &crate::spec::Need| base(need.from).is_some_and(|made| made.contains_key(&need.output));
                if !graph.instance(id).needs.iter().all(need_is_known) {
                    continue;
                }
                let none = Outputs::new();
                let (record, key) = context.action(id, |producer| base(producer).unwrap_or(&none));
                match cache.lookup_action(&record, key) {
                    Some(manifest) if manifest.from.is_some() => published[id] = Some(manifest),
                    manifest => {
                        let is_asked = of[id] || manifest.is_none();
                        here[id] = manifest;
                        if is_asked {
                            asked.push((id, (record, key)));
                        }
                    }
                }
            }
            let (ids, wanted): (Vec<InstanceId>, Vec<(Action, ActionKey)>) = asked.into_iter().unzip();
            for (id, manifest) in ids.into_iter().zip(cache.remote_manifests(&wanted)?) {
                published[id] = manifest;
            }
        }
        Ok(Published { published, here })
    }

    /// Returns the published result of an instance.
    pub fn of(&self, id: InstanceId) -> Option<&Manifest> {
        self.published[id].as_ref()
    }

    /// Returns the published result of an instance, or else the local one. Covers the looked-up instances and all that
    /// they need.
    pub fn base(&self, id: InstanceId) -> Option<&Manifest> {
        self.of(id).or(self.here[id].as_ref())
    }
}

/// Comparison of recomputed results with published ones.
#[derive(Debug, Clone, Serialize)]
pub struct Reproduction {
    /// Level from which they were recomputed.
    pub from: RerunFrom,
    /// Number of predictions or checkpoints that they were computed from.
    pub read: usize,
    /// Number of recomputed instances.
    pub results: usize,
    /// Number of their outputs that have a published counterpart.
    pub compared: usize,
    /// Number of outputs with the same bytes.
    pub identical: usize,
    /// Number of outputs with other bytes and numbers within the tolerance.
    pub within: usize,
    /// Largest difference among those, in percentage points.
    pub points: f64,
    /// Outputs with other bytes and no numbers, made on another machine or from other inputs. They may or may not have
    /// to be the same.
    pub unjudged: Vec<Unjudged>,
    /// Outputs that differ and should not.
    pub different: Vec<Compared>,
    /// Instances without a published result.
    pub unpublished: Vec<String>,
    /// Remote caches of the published results.
    pub remotes: BTreeSet<String>,
}

/// Output with other bytes that may or may not have to be the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unjudged {
    /// Name of the stage.
    pub stage: String,
    /// Name of the output.
    pub output: String,
    /// Machine of the published output, if it is another one; otherwise the inputs differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_on: Option<String>,
}

/// What to compare, and how.
#[derive(Debug, Clone, Copy)]
pub struct ReproductionCheck<'a> {
    /// Instances of the pipeline.
    pub graph: &'a Graph,
    /// Cache with the results.
    pub cache: &'a Cache,
    /// Level from which the results were recomputed.
    pub depth: RerunFrom,
    /// Marks the recomputed instances, by id.
    pub forced: &'a PerInstance<bool>,
    /// Allowed difference of numbers, in percentage points; `None` requires the same bytes.
    pub tolerance: Option<f64>,
}

impl ReproductionCheck<'_> {
    /// Compares the recomputed results, whose manifests `made` returns, with the published ones.
    ///
    /// # Errors
    /// [`CacheError`] if a published output that differs could not be fetched.
    pub fn compare(
        &self,
        published: &Published,
        made: impl Fn(InstanceId) -> Option<Manifest>,
    ) -> Result<Reproduction, CacheError> {
        let mut told = Reproduction {
            from: self.depth,
            read: self.read(),
            results: 0,
            compared: 0,
            identical: 0,
            within: 0,
            points: 0.0,
            unjudged: Vec::new(),
            different: Vec::new(),
            unpublished: Vec::new(),
            remotes: BTreeSet::new(),
        };
        for id in self.graph.ids().filter(|id| self.forced[*id]) {
            let Some(made) = made(id).filter(|made| made.from.is_none()) else { continue };
            told.results += 1;
            let name = &self.graph.instance(id).name;
            let Some(published) = published.of(id) else {
                told.unpublished.push(name.clone());
                continue;
            };
            told.remotes.extend(published.from.iter().map(|origin| origin.remote.clone()));
            for output in compare_published(self.cache, published, self.cache, &made, self.tolerance)? {
                told.add(Compared { stage: name.clone(), ..output }, published, &made);
            }
        }
        Ok(told)
    }

    /// Counts the predictions or checkpoints that the results were computed from.
    fn read(&self) -> usize {
        let mut read = HashSet::new();
        for id in self.graph.ids().filter(|id| self.forced[*id]) {
            for need in self.graph.instance(id).needs.iter().filter(|need| !self.forced[need.from]) {
                let kind = self.graph.instance(need.from).kind;
                let counts = match self.depth {
                    RerunFrom::Predictions => {
                        kind == StageKind::Evaluate || matches!(need.slot.as_str(), "value" | "reference" | "results")
                    }
                    RerunFrom::Checkpoints => {
                        matches!(kind, StageKind::Train | StageKind::Pretrained | StageKind::Randomised)
                    }
                    RerunFrom::Scratch => false,
                };
                if counts {
                    read.insert((need.from, &need.output));
                }
            }
        }
        read.len()
    }
}

impl Reproduction {
    fn add(&mut self, output: Compared, published: &Manifest, made: &Manifest) {
        self.compared += 1;
        match &output.verdict {
            Verdict::Same => self.identical += 1,
            Verdict::Within { points } => {
                self.within += 1;
                self.points = self.points.max(*points);
            }
            Verdict::Numbers { .. } | Verdict::Bytes => self.different.push(output),
            Verdict::NotCompared if output.same_inputs && is_same_machine(published, made) => {
                self.different.push(Compared { verdict: Verdict::Bytes, ..output });
            }
            Verdict::NotCompared => {
                let made_on = (!is_same_machine(published, made)).then(|| machine(&published.made));
                self.unjudged.push(Unjudged { stage: output.stage, output: output.output, made_on });
            }
        }
    }
}

/// Compares a published result with one that was made from the same or similar inputs.
///
/// If bytes differ, fetches the published output that holds the numbers.
///
/// # Errors
/// [`CacheError`] if it could not be fetched.
pub fn compare_published(
    cache: &Cache,
    published: &Manifest,
    made_in: &Cache,
    made: &Manifest,
    tolerance: Option<f64>,
) -> Result<Vec<Compared>, CacheError> {
    let is_same = |(name, blob): (&String, &Blob)| made.outputs.get(name) == Some(blob);
    if has_numbers(published.record.kind) && !published.outputs.iter().all(is_same) {
        let is_read = |name: &str| published.record.kind != StageKind::Table || name == "json";
        for (_, blob) in published.outputs.iter().filter(|(name, _)| is_read(name)) {
            // An output that is unobtainable or corrupt cannot be compared by its numbers: it then counts as different.
            cache.obtain(*blob, &mut |_, _| ControlFlow::Continue(()))?;
        }
    }
    Ok(compare(cache, published, made_in, made, tolerance))
}

/// Whether two results of one action were computed alike, as far as known, so equal inputs give equal bytes.
///
/// Under portable numerics, the processor does not matter.
pub fn is_same_machine(a: &Manifest, b: &Manifest) -> bool {
    let is_portable = a.record.numerics == Some(Numerics::Portable) && a.made.device == "cpu";
    let (a, b) = (&a.made, &b.made);
    (&a.device, &a.libtorch, &a.arithmetic, a.threads) == (&b.device, &b.libtorch, &b.arithmetic, b.threads)
        && (is_portable || a.device_name == b.device_name)
}

/// Describes in a few words the machine that computed a result.
pub fn machine(made: &Made) -> String {
    let name = if made.device_name.is_empty() { String::new() } else { format!(" ({})", made.device_name) };
    let libtorch = made.libtorch.as_ref().map(|version| format!(", libtorch {version}")).unwrap_or_default();
    let threads = if made.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", made.threads) };
    format!("{}{name}, {threads}{libtorch}", made.device)
}
