//! The results of a run, joined to a graph by the contents of their inputs and outputs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use crate::action::ActionKey;
use crate::cache::{Cache, Manifest, RunRecord};
use crate::digest::Digest;
use crate::plan::diagram::{Diagram, Node};

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
        self.name.split_once('/').map_or(&self.name, |(stage, _)| stage)
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

    /// Returns the stages of the run as boxes, each with the seconds that its instances took, and the arrows between
    /// them.
    pub fn diagram(&self, describe: impl Fn(&[&JoinedStage]) -> String) -> Diagram {
        let mut diagram = Diagram::default();
        let mut boxes: HashMap<&str, usize> = HashMap::new();
        let mut members: Vec<Vec<&JoinedStage>> = Vec::new();
        let mut of = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let index = *boxes.entry(stage.stage()).or_insert(members.len());
            if index == members.len() {
                members.push(Vec::new());
            }
            members[index].push(stage);
            of.push(index);
        }
        for members in &members {
            let node = Node {
                name: members[0].stage().to_owned(),
                kind: members[0].manifest.record.kind,
                count: members.len(),
                states: BTreeMap::new(),
                note: describe(members),
            };
            diagram.nodes.push(node);
        }
        for (consumer, stage) in self.stages.iter().enumerate() {
            diagram.edges.extend(stage.producers.values().map(|producer| (of[*producer], of[consumer])));
        }
        // Boxes are drawn from producer to consumer; equal contents of two stages could point the other way.
        diagram.edges.retain(|(from, to)| from < to);
        diagram
    }
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
