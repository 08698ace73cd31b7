//! The graph of instances: who makes what for whom, what a target reaches, and the record of an instance once its
//! inputs are known. Knows no cache and runs nothing.

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use crate::action::{Action, RECORD_FORMAT};
use crate::cache::Blob;
use crate::spec::{ExternalInput, Instance, InstanceId, Need, Pattern, Problem};
use crate::stage_kinds::StageKind;

/// What an instance made: its outputs by name.
pub type Outputs = BTreeMap<String, Blob>;

/// Instances, and an edge from each producer to each of its consumers. Producers have smaller ids than their consumers.
#[derive(Debug)]
pub struct Graph {
    dag: DiGraph<Instance, ()>,
}

impl Graph {
    /// Joins the instances of a pipeline, producers before consumers, as [`crate::spec::expand`] gives them.
    pub fn new(instances: Vec<Instance>) -> Self {
        let mut dag = DiGraph::with_capacity(instances.len(), instances.len() * 2);
        for instance in instances {
            let mut producers: Vec<InstanceId> = instance.needs.iter().map(|need| need.from).collect();
            producers.sort_unstable();
            producers.dedup();
            let node = dag.add_node(instance);
            for producer in producers {
                debug_assert!(producer.0 < node.index(), "producers come first");
                dag.add_edge(NodeIndex::new(producer.0), node, ());
            }
        }
        Graph { dag }
    }

    /// Number of instances.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An instance.
    pub fn instance(&self, id: InstanceId) -> &Instance {
        &self.dag[NodeIndex::new(id.0)]
    }

    /// All of them, producers before consumers.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = InstanceId> + use<> {
        (0..self.len()).map(InstanceId)
    }

    /// Those that need something of an instance.
    pub fn consumers(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> + '_ {
        self.neighbours(id, Direction::Outgoing)
    }

    /// Those that an instance needs something of.
    pub fn producers(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> + '_ {
        self.neighbours(id, Direction::Incoming)
    }

    fn neighbours(&self, id: InstanceId, direction: Direction) -> impl Iterator<Item = InstanceId> + '_ {
        self.dag.neighbors_directed(NodeIndex::new(id.0), direction).map(|node| InstanceId(node.index()))
    }

    /// The instances that targets name: an instance's name, a stage's, or a pattern over names (`tested/pgd-*`); labels
    /// that are left out at its end mean all.
    ///
    /// # Errors
    /// A [`Problem`] for each target that names nothing.
    pub fn targets(&self, targets: &[String]) -> Result<Vec<InstanceId>, Vec<Problem>> {
        if targets.is_empty() {
            return Ok(self.ids().collect());
        }
        let mut found = Vec::new();
        let mut problems = Vec::new();
        for target in targets {
            let pattern = Pattern::new(target);
            let fits = |id: &InstanceId| pattern.fits(&self.instance(*id).name);
            let before = found.len();
            found.extend(self.ids().filter(fits));
            if found.len() == before {
                let stages = self.ids().map(|id| self.instance(id).stage.as_str());
                let mut names: Vec<&str> = stages.chain(self.ids().map(|id| self.instance(id).name.as_str())).collect();
                names.sort_unstable();
                names.dedup();
                problems.push(
                    Problem::anywhere(format!("nothing in the pipeline is called `{target}`")).suggest(target, names),
                );
            }
        }
        found.sort_unstable();
        found.dedup();
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Which instances the targets need, themselves included; by id.
    pub fn reached_from(&self, targets: &[InstanceId]) -> Vec<bool> {
        let mut wanted = vec![false; self.len()];
        let upwards = Reversed(&self.dag);
        let mut walk = Dfs::empty(upwards);
        for target in targets {
            walk.move_to(NodeIndex::new(target.0));
            while let Some(node) = walk.next(upwards) {
                wanted[node.index()] = true;
            }
        }
        wanted
    }

    /// How much work hangs on each instance, itself included: the longest way to an end of the graph. Long ways are
    /// started first.
    pub fn urgency(&self) -> Vec<f64> {
        let mut urgency = vec![0.0; self.len()];
        for id in self.ids().rev() {
            let after = self.consumers(id).map(|consumer| urgency[consumer.0]).fold(0.0, f64::max);
            urgency[id.0] = after + rough_cost(self.instance(id));
        }
        urgency
    }

    /// The inputs that other instances make for this one, by their names in its record.
    pub fn inputs(&self, id: InstanceId) -> impl Iterator<Item = (String, &Need)> {
        let instance = self.instance(id);
        let mut in_slot: BTreeMap<&str, usize> = BTreeMap::new();
        instance.needs.iter().map(move |need| {
            let position = in_slot.entry(&need.slot).or_default();
            *position += 1;
            (input_name(instance, *position - 1, need), need)
        })
    }

    /// The record of an instance whose inputs are known. `outputs` gives what a producer made, `sources` the identity
    /// of a source.
    pub fn record<'a>(
        &self,
        id: InstanceId,
        outputs: impl Fn(InstanceId) -> &'a Outputs,
        sources: impl Fn(&ExternalInput) -> String,
    ) -> Action {
        self.record_by(id, |_, need| format!("blake3:{}", outputs(need.from)[&need.output].digest), sources)
    }

    /// The same with the identity of each input given by its name in the record and its need: what is hashed and what
    /// is explained are put together here alone.
    pub fn record_by(
        &self,
        id: InstanceId,
        input: impl Fn(&str, &Need) -> String,
        source: impl Fn(&ExternalInput) -> String,
    ) -> Action {
        let instance = self.instance(id);
        let made = self.inputs(id).map(|(name, need)| {
            let identity = input(&name, need);
            (name, identity)
        });
        let read = instance.sources.iter().map(|need| (need.slot.clone(), source(need)));
        Action {
            format: RECORD_FORMAT,
            kind: instance.kind,
            version: instance.kind.version(),
            numerics: instance.recorded_numerics(),
            params: instance.params.clone(),
            seed: instance.recorded_seed(),
            inputs: made.chain(read).collect(),
        }
    }
}

/// The name of an input in a record. Where several inputs share a slot their order matters and is part of the name,
/// except in tables and figures, whose inputs are told apart by their cell. `position` counts the inputs of the same
/// slot.
fn input_name(instance: &Instance, position: usize, need: &Need) -> String {
    match instance.kind {
        _ if need.label.is_empty() => need.slot.clone(),
        StageKind::Table | StageKind::Figure => format!("{}/{}", need.slot, need.label),
        _ => format!("{}/{position:04}/{}", need.slot, need.label),
    }
}

/// How long an instance takes relative to others, where nothing better is known: attack steps and epochs are what
/// costs.
fn rough_cost(instance: &Instance) -> f64 {
    let number = |pointer: &str| instance.params.pointer(pointer).and_then(serde_json::Value::as_f64);
    match instance.kind {
        StageKind::Train => {
            let steps = number("/adversary/steps").or_else(|| number("/adversary/eps").map(|_| 1.0)).unwrap_or(0.0);
            100.0 * number("/epochs").unwrap_or(1.0) * (1.0 + steps)
        }
        StageKind::Evaluate => 10.0 * (1.0 + number("/attack/steps").unwrap_or(0.0)),
        StageKind::Saliency => 50.0,
        _ => 1.0,
    }
}
