//! Graph of instances: producers and consumers, the closure of targets, and the action of an instance with known
//! inputs.
//!
//! Knows no cache and runs nothing.

use std::collections::BTreeMap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, Reversed};

use crate::action::{Action, RECORD_FORMAT};
use crate::cache::Blob;
use crate::dense_map::{DenseId, DenseMap};
use crate::spec::{ExternalInput, Instance, InstanceId, Need, Pattern, PerInstance, Problem};
use crate::stage_kinds::StageKind;

/// Outputs of an instance, by name.
pub type Outputs = BTreeMap<String, Blob>;

/// Graph of instances, with an edge from each producer to each of its consumers. Producers have smaller ids.
#[derive(Debug)]
pub struct Graph {
    dag: DiGraph<Instance, ()>,
}

impl Graph {
    /// Builds the graph from the instances of a pipeline, producers first, as [`crate::spec::expand`] returns them.
    pub fn new(instances: Vec<Instance>) -> Self {
        let mut dag = DiGraph::with_capacity(instances.len(), instances.len() * 2);
        for instance in instances {
            let mut producers: Vec<InstanceId> = instance.needs.iter().map(|need| need.from).collect();
            producers.sort_unstable();
            producers.dedup();
            let node = dag.add_node(instance);
            for producer in producers {
                debug_assert!(producer.position() < node.index(), "producers come first");
                dag.add_edge(node_of(producer), node, ());
            }
        }
        Graph { dag }
    }

    /// Returns the number of instances.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether the graph has no instances.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an instance.
    pub fn instance(&self, id: InstanceId) -> &Instance {
        &self.dag[node_of(id)]
    }

    /// Returns all ids, producers before consumers.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = InstanceId> + use<> {
        (0..self.len()).map(InstanceId::at)
    }

    /// Returns a map that has the same value for every instance.
    pub fn per_instance<V: Clone>(&self, value: V) -> PerInstance<V> {
        DenseMap::filled(self.len(), value)
    }

    /// Returns a map that marks the given instances.
    pub fn marking(&self, ids: impl IntoIterator<Item = InstanceId>) -> PerInstance<bool> {
        DenseMap::marking(self.len(), ids)
    }

    /// Returns the instances that need an output of `id`.
    pub fn consumers(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> + '_ {
        self.neighbours(id, Direction::Outgoing)
    }

    /// Returns the instances whose outputs `id` needs.
    pub fn producers(&self, id: InstanceId) -> impl Iterator<Item = InstanceId> + '_ {
        self.neighbours(id, Direction::Incoming)
    }

    fn neighbours(&self, id: InstanceId, direction: Direction) -> impl Iterator<Item = InstanceId> + '_ {
        self.dag.neighbors_directed(node_of(id), direction).map(id_of)
    }

    /// Returns the instances that the targets name; all, if there are no targets.
    ///
    /// A target is the name of an instance or a stage, or a pattern over names (`tested/pgd-*`). Labels omitted at the
    /// end match all.
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

    /// Marks the targets and all instances that they need.
    pub fn reached_from(&self, targets: &[InstanceId]) -> PerInstance<bool> {
        let mut wanted = self.per_instance(false);
        let upwards = Reversed(&self.dag);
        let mut walk = Dfs::empty(upwards);
        for target in targets {
            walk.move_to(node_of(*target));
            while let Some(node) = walk.next(upwards) {
                wanted[id_of(node)] = true;
            }
        }
        wanted
    }

    /// Returns the length of the critical path from each instance to an end of the graph, itself included.
    ///
    /// The scheduler starts instances with longer paths first.
    pub fn urgency(&self) -> PerInstance<f64> {
        let mut urgency = self.per_instance(0.0);
        for id in self.ids().rev() {
            let after = self.consumers(id).map(|consumer| urgency[consumer]).fold(0.0, f64::max);
            urgency[id] = after + rough_cost(self.instance(id));
        }
        urgency
    }

    /// Returns the inputs that other instances make for this one, with their names in its action.
    pub fn inputs(&self, id: InstanceId) -> impl Iterator<Item = (String, &Need)> {
        let instance = self.instance(id);
        let mut in_slot: BTreeMap<&str, usize> = BTreeMap::new();
        instance.needs.iter().map(move |need| {
            let position = in_slot.entry(&need.slot).or_default();
            *position += 1;
            (input_name(instance, *position - 1, need), need)
        })
    }

    /// Returns the action of an instance with known inputs.
    ///
    /// `outputs` returns the outputs of a producer, `sources` the identity of an external file.
    pub fn record<'a>(
        &self,
        id: InstanceId,
        outputs: impl Fn(InstanceId) -> &'a Outputs,
        sources: impl Fn(&ExternalInput) -> String,
    ) -> Action {
        self.action_by(id, |_, need| format!("blake3:{}", outputs(need.from)[&need.output].digest), sources)
    }

    /// Like [`Graph::record`], with a function for the identity of each input, by its name in the action and its need.
    ///
    /// Both the hashed and the explained action are built here, and nowhere else.
    pub fn action_by(
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
            version: instance.code_version(),
            numerics: instance.recorded_numerics(),
            params: instance.params.clone(),
            seed: instance.recorded_seed(),
            inputs: made.chain(read).collect(),
        }
    }
}

/// Returns the node of an instance: instances are added to the graph in the order of their ids.
fn node_of(id: InstanceId) -> NodeIndex {
    NodeIndex::new(id.position())
}

fn id_of(node: NodeIndex) -> InstanceId {
    InstanceId::at(node.index())
}

/// Returns the name of an input in the action.
///
/// The order of several inputs in one slot matters and is part of the name. In tables and figures, the cell identifies
/// the input instead. `position` counts the inputs of the same slot.
fn input_name(instance: &Instance, position: usize, need: &Need) -> String {
    match instance.kind {
        _ if need.label.is_empty() => need.slot.clone(),
        StageKind::Table | StageKind::Figure => format!("{}/{}", need.slot, need.label),
        _ => format!("{}/{position:04}/{}", need.slot, need.label),
    }
}

/// Returns the cost of an instance relative to others, from its parameters: attack steps and epochs dominate.
fn rough_cost(instance: &Instance) -> f64 {
    let number = |pointer: &str| instance.params.pointer(pointer).and_then(serde_json::Value::as_f64);
    match instance.kind {
        StageKind::Train => {
            let steps = number("/adversary/steps").or_else(|| number("/adversary/eps").map(|_| 1.0)).unwrap_or(0.0);
            100.0 * number("/epochs").unwrap_or(1.0) * (1.0 + steps)
        }
        StageKind::Evaluate => 10.0 * (1.0 + number("/attack/steps").unwrap_or(0.0)),
        StageKind::Saliency => 50.0,
        // As many passes as there are frequencies.
        StageKind::FourierMap => 1_000.0,
        _ => 1.0,
    }
}
