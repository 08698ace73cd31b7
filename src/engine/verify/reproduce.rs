//! What was published of the results that a run makes anew, and how the ones made here compare with it. Published is
//! what came from a remote cache, now or earlier. What is published is looked up before the run, because the run puts
//! its own results in the same places.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::action::{Action, ActionKey};
use crate::cache::{Blob, Cache, CacheError, Made, Manifest};
use crate::external_inputs::ExternalInputs;
use crate::graph::{Graph, Outputs};
use crate::numerics::Numerics;
use crate::plan::rerun_from::RerunFrom;
use crate::plan::{action_for, waves};
use crate::spec::InstanceId;
use crate::stage_kinds::StageKind;
use crate::verify::{Compared, Verdict, compare, has_numbers};

/// What is published of the instances of a graph, by id.
#[derive(Debug)]
pub struct Published {
    published: Vec<Option<Manifest>>,
    here: Vec<Option<Manifest>>,
}

impl Published {
    /// Looks up what is published of the instances `of`, from published inputs where there are such and from those that
    /// are here else.
    ///
    /// # Errors
    /// [`CacheError`] if the remote cache could not be asked.
    pub fn find(
        graph: &Graph,
        cache: &Cache,
        sources: &ExternalInputs,
        wanted: &[bool],
        of: &[bool],
    ) -> Result<Self, CacheError> {
        let mut published: Vec<Option<Manifest>> = vec![None; graph.len()];
        let mut here: Vec<Option<Manifest>> = vec![None; graph.len()];
        for wave in waves(graph, wanted) {
            let mut asked: Vec<(InstanceId, (Action, ActionKey))> = Vec::new();
            for id in wave {
                let base = |producer: InstanceId| -> Option<&Outputs> {
                    published[producer.0].as_ref().or(here[producer.0].as_ref()).map(|manifest| &manifest.outputs)
                };
                let need_is_known =
                    |need: &crate::spec::Need| base(need.from).is_some_and(|made| made.contains_key(&need.output));
                if !graph.instance(id).needs.iter().all(need_is_known) {
                    continue;
                }
                let none = Outputs::new();
                let (record, key) = action_for(graph, sources, id, |producer| base(producer).unwrap_or(&none));
                match cache.lookup_record(&record, key) {
                    Some(manifest) if manifest.from.is_some() => published[id.0] = Some(manifest),
                    manifest => {
                        let is_asked = of[id.0] || manifest.is_none();
                        here[id.0] = manifest;
                        if is_asked {
                            asked.push((id, (record, key)));
                        }
                    }
                }
            }
            let (ids, wanted): (Vec<InstanceId>, Vec<(Action, ActionKey)>) = asked.into_iter().unzip();
            for (id, manifest) in ids.into_iter().zip(cache.elsewhere(&wanted)?) {
                published[id.0] = manifest;
            }
        }
        Ok(Published { published, here })
    }

    /// What is published of an instance.
    pub fn of(&self, id: InstanceId) -> Option<&Manifest> {
        self.published[id.0].as_ref()
    }

    /// What is known of an instance that was looked up or that such need: as published, else as it is here.
    pub fn base(&self, id: InstanceId) -> Option<&Manifest> {
        self.of(id).or(self.here[id.0].as_ref())
    }
}

/// How results that were made anew compare with the published ones.
#[derive(Debug, Clone, Serialize)]
pub struct Reproduction {
    /// From what they were made.
    pub from: RerunFrom,
    /// How many predictions or checkpoints that is.
    pub read: usize,
    /// Instances that were made anew.
    pub results: usize,
    /// Their outputs that have published ones beside them.
    pub compared: usize,
    /// Those with the same bytes.
    pub identical: usize,
    /// Those with other bytes and numbers near enough.
    pub within: usize,
    /// The largest difference among those, in percentage points.
    pub points: f64,
    /// Outputs with other bytes and no numbers, made on another machine or of other inputs: whether they should be the
    /// same cannot be told.
    pub unjudged: Vec<Unjudged>,
    /// Outputs that differ and should not.
    pub different: Vec<Compared>,
    /// Instances that nothing is published of.
    pub unpublished: Vec<String>,
    /// Where the published ones come from.
    pub remotes: BTreeSet<String>,
}

/// An output with other bytes of which it cannot be told whether they should be the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unjudged {
    /// The stage.
    pub stage: String,
    /// The output.
    pub output: String,
    /// On what the published one was made, if that is another machine; else it had other inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_on: Option<String>,
}

/// What is compared, and how.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The pipeline's instances.
    pub graph: &'a Graph,
    /// Where the results are.
    pub cache: &'a Cache,
    /// From what they were made.
    pub depth: RerunFrom,
    /// Which instances were made anew, by id.
    pub anew: &'a [bool],
    /// By how many percentage points numbers may differ; without it bytes must be the same.
    pub tolerance: Option<f64>,
}

impl Question<'_> {
    /// Compares what was made anew, of which `made` gives the manifests, with what was published.
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
        for id in self.graph.ids().filter(|id| self.anew[id.0]) {
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

    /// How many predictions, or checkpoints, the results were made of.
    fn read(&self) -> usize {
        let mut read = HashSet::new();
        for id in self.graph.ids().filter(|id| self.anew[id.0]) {
            for need in self.graph.instance(id).needs.iter().filter(|need| !self.anew[need.from.0]) {
                let kind = self.graph.instance(need.from).kind;
                let counts = match self.depth {
                    RerunFrom::Predictions => {
                        kind == StageKind::Evaluate || matches!(need.slot.as_str(), "value" | "reference")
                    }
                    RerunFrom::Checkpoints => kind == StageKind::Train,
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

/// Compares a published result with one that was made of the same or of like inputs; fetches of the published one what
/// holds the numbers, where bytes differ.
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
        for name in ["json", "predictions"] {
            if let Some(blob) = published.outputs.get(name) {
                // What nobody has, or has with other bytes, cannot be compared by its numbers, and is then one that
                // differs.
                cache.obtain(*blob, &mut |_, _| ControlFlow::Continue(()))?;
            }
        }
    }
    Ok(compare(cache, published, made_in, made, tolerance))
}

/// Whether two results of one record were computed alike, as far as is known: then the same inputs give the same bytes.
/// Under portable numerics the processor does not matter.
pub fn is_same_machine(a: &Manifest, b: &Manifest) -> bool {
    let is_portable = a.record.numerics == Some(Numerics::Portable) && a.made.device == "cpu";
    let (a, b) = (&a.made, &b.made);
    (&a.device, &a.libtorch, &a.arithmetic, a.threads) == (&b.device, &b.libtorch, &b.arithmetic, b.threads)
        && (is_portable || a.device_name == b.device_name)
}

/// On what a result was computed, in a few words.
pub fn machine(made: &Made) -> String {
    let name = if made.device_name.is_empty() { String::new() } else { format!(" ({})", made.device_name) };
    let libtorch = made.libtorch.as_ref().map(|version| format!(", libtorch {version}")).unwrap_or_default();
    let threads = if made.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", made.threads) };
    format!("{}{name}, {threads}{libtorch}", made.device)
}
