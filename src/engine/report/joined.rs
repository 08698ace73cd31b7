//! The results of a run, joined to a graph by the contents of their inputs and outputs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use crate::action::ActionKey;
use crate::cache::{Cache, Manifest, RunRecord, Unmade};
use crate::digest::Digest;
use crate::plan::diagram::{Diagram, Node};
use crate::stage_kinds::StageKind;

/// The results of a run.
#[derive(Debug)]
pub struct RunResults {
    /// The run.
    pub run: RunRecord,
    /// Its results: by stage in the order of the pipeline file, then by name.
    pub stages: Vec<JoinedStage>,
    /// Instances whose manifest is gone from the cache.
    pub lost: Vec<String>,
}

/// One result and the results that it was made from.
#[derive(Debug)]
pub struct JoinedStage {
    /// The instance.
    pub name: String,
    /// Its key.
    pub key: ActionKey,
    /// Its manifest.
    pub manifest: Manifest,
    /// The results behind its inputs, by the input's name; an input from a file has none.
    pub producers: BTreeMap<String, usize>,
    /// Seconds that it ran in this run, if it did.
    pub ran: Option<f64>,
}

impl JoinedStage {
    /// Returns the name of its stage: the instance's up to the first `/`.
    pub fn stage(&self) -> &str {
        stage_of(&self.name)
    }
}

impl RunResults {
    /// Reads the results of a run.
    pub fn read(cache: &Cache, run: RunRecord) -> Self {
        let mut stages = Vec::with_capacity(run.keys.len());
        let mut lost = Vec::new();
        for (name, key) in &run.keys {
            match cache.lookup(*key) {
                Some(manifest) => stages.push(JoinedStage {
                    name: name.clone(),
                    key: *key,
                    manifest,
                    producers: BTreeMap::new(),
                    ran: run.ran.get(name).copied(),
                }),
                None => lost.push(name.clone()),
            }
        }
        let position: HashMap<&str, usize> =
            run.stages.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        let place = |stage: &JoinedStage| position.get(stage.stage()).copied().unwrap_or(usize::MAX);
        stages.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| natural(&a.name, &b.name)));
        join(&mut stages);
        RunResults { run, stages, lost }
    }

    /// Returns the stages of the run as boxes, those without a result too, and the arrows between them. `describe`
    /// gives the words for the results of a stage.
    pub fn diagram(&self, describe: impl Fn(&[&JoinedStage]) -> String) -> Diagram {
        let families = self.families();
        let mut diagram =
            Diagram { nodes: families.iter().map(|family| family.node(&describe)).collect(), ..Diagram::default() };
        let position: HashMap<&str, usize> =
            families.iter().enumerate().map(|(at, family)| (family.name, at)).collect();
        let mut link = |from: &str, to: &str| {
            diagram.edges.extend(position.get(stage_of(from)).copied().zip(position.get(stage_of(to)).copied()));
        };
        for stage in &self.stages {
            stage.producers.values().for_each(|producer| link(&self.stages[*producer].name, &stage.name));
        }
        for (name, unmade) in &self.run.unmade {
            unmade.needs.iter().for_each(|need| link(need, name));
        }
        // Boxes are drawn from producer to consumer; equal contents of two stages could point the other way.
        diagram.edges.retain(|(from, to)| from < to);
        diagram
    }

    /// Returns the stages with their results and with the instances that have none, in the order of the pipeline file.
    fn families(&self) -> Vec<Family<'_>> {
        let mut families: Vec<Family<'_>> = self.run.stages.iter().map(|name| Family::new(name)).collect();
        for stage in &self.stages {
            family(&mut families, stage.stage()).made.push(stage);
        }
        for (name, unmade) in &self.run.unmade {
            let family = family(&mut families, stage_of(name));
            family.unmade.push(unmade);
            family.failed += usize::from(self.run.failed.contains_key(name));
        }
        families.retain(|family| !family.made.is_empty() || !family.unmade.is_empty());
        families
    }
}

/// Returns the family of a stage; adds it if there is none.
fn family<'a, 'f>(families: &'f mut Vec<Family<'a>>, name: &'a str) -> &'f mut Family<'a> {
    let at = families.iter().position(|family| family.name == name).unwrap_or(families.len());
    if at == families.len() {
        families.push(Family::new(name));
    }
    &mut families[at]
}

/// Instances of one stage.
struct Family<'a> {
    name: &'a str,
    made: Vec<&'a JoinedStage>,
    unmade: Vec<&'a Unmade>,
    /// Number of the unmade instances that failed; the others were not tried.
    failed: usize,
}

impl<'a> Family<'a> {
    fn new(name: &'a str) -> Self {
        Family { name, made: Vec::new(), unmade: Vec::new(), failed: 0 }
    }

    fn node(&self, describe: impl Fn(&[&JoinedStage]) -> String) -> Node {
        let made = self.made.first().map(|stage| stage.manifest.record.kind);
        let kind = made.or(self.unmade.first().map(|unmade| unmade.kind)).unwrap_or(StageKind::Command);
        let words = |count: usize, word: &str| (count > 0).then(|| format!("{count} {word}"));
        let note = (!self.made.is_empty()).then(|| describe(&self.made));
        let note = note.filter(|note| !note.is_empty()).into_iter();
        let note = note.chain(words(self.failed, "failed")).chain(words(self.unmade.len() - self.failed, "not made"));
        Node {
            name: self.name.to_owned(),
            kind,
            count: self.made.len() + self.unmade.len(),
            states: BTreeMap::new(),
            note: note.collect::<Vec<_>>().join(" · "),
            has_failed: self.failed > 0,
        }
    }
}

/// Returns the stage of an instance: its name up to the first `/`.
fn stage_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(stage, _)| stage)
}

/// Compares two names as people sort them: numbers in them by their value, so `p-4` precedes `p-16`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (parts(a), parts(b));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return a.cmp(b),
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a.total_cmp(&b),
                _ => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Cuts a name into numbers and what stands between them.
fn parts(name: &str) -> impl Iterator<Item = &str> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = name;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|c| is_number(c) != is_number(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

/// Finds the producer of each input by its content. Several results may have the same content: the first counts.
fn join(stages: &mut [JoinedStage]) {
    let mut made: HashMap<Digest, usize> = HashMap::new();
    for (index, stage) in stages.iter().enumerate() {
        for blob in stage.manifest.outputs.values() {
            made.entry(blob.digest).or_insert(index);
        }
    }
    for (index, stage) in stages.iter_mut().enumerate() {
        let producer = |digest: &String| {
            let digest: Digest = digest.strip_prefix("blake3:")?.parse().ok()?;
            made.get(&digest).copied().filter(|producer| *producer != index)
        };
        let inputs = stage.manifest.record.inputs.iter();
        stage.producers = inputs.filter_map(|(name, digest)| Some((name.clone(), producer(digest)?))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_sort_by_their_value() {
        let mut names = ["t/p-16", "t/p-4", "t/p-0.25", "t/p-1024", "s/1", "t/a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["s/1", "t/a", "t/p-0.25", "t/p-4", "t/p-16", "t/p-1024"]);
    }
}
