//! Diagram of a pipeline: boxes, arrows, and the languages it is written in.
//!
//! `layout` places the boxes for SVG; Graphviz and Mermaid place them themselves.

mod layout;
mod svg;

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Graph;
use crate::plan::{CacheStatuses, PlannedState};
use crate::spec::PerInstance;
use crate::stage_kinds::StageKind;

/// Box of a diagram.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name of the stage or of the instance.
    pub name: String,
    /// Kind of the stage.
    pub kind: StageKind,
    /// Number of instances that the box stands for.
    pub count: usize,
    /// Number of instances in each state; empty if the states are unknown.
    pub states: BTreeMap<PlannedState, usize>,
    /// What else is to be said of it in a few words; empty for nothing.
    pub note: String,
    /// Whether an instance failed.
    pub has_failed: bool,
}

/// Boxes and arrows.
#[derive(Debug, Clone, Default)]
pub struct Diagram {
    /// Boxes, producers first.
    pub nodes: Vec<Node>,
    /// Arrows from producer to consumer, by index into `nodes`.
    pub edges: BTreeSet<(usize, usize)>,
}

impl Diagram {
    /// Builds the diagram of a graph: a box for each stage, or for each instance if `all`. `status_of` may be empty.
    pub fn new(graph: &Graph, status_of: &CacheStatuses, all: bool) -> Self {
        let mut diagram = Diagram::default();
        let mut boxes: BTreeMap<&str, usize> = BTreeMap::new();
        let mut of: PerInstance<usize> = PerInstance::default();
        for id in graph.ids() {
            let instance = graph.instance(id);
            let name = if all { &instance.name } else { &instance.stage };
            let index = *boxes.entry(name).or_insert(diagram.nodes.len());
            if index == diagram.nodes.len() {
                let node = Node {
                    name: name.clone(),
                    kind: instance.kind,
                    count: 0,
                    states: BTreeMap::new(),
                    note: String::new(),
                    has_failed: false,
                };
                diagram.nodes.push(node);
            }
            let node = &mut diagram.nodes[index];
            node.count += 1;
            if let Some(Some(status)) = status_of.get(id) {
                *node.states.entry(status.state()).or_default() += 1;
            }
            of.push(index);
            diagram.edges.extend(graph.producers(id).map(|producer| (of[producer], index)));
        }
        diagram.edges.retain(|(from, to)| from != to);
        diagram
    }

    /// Renders the diagram as Graphviz dot.
    pub fn dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut text =
            "digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fontname=monospace];\n"
                .to_owned();
        for node in &self.nodes {
            let label = quoted(&format!("{}\n{}", node.title(), node.kind)).replace('\n', "\\n");
            text.push_str(&format!("  {} [label={label}, fillcolor=\"{}\"];\n", quoted(&node.name), node.fill()));
        }
        for (from, to) in &self.edges {
            text.push_str(&format!("  {} -> {};\n", quoted(&self.nodes[*from].name), quoted(&self.nodes[*to].name)));
        }
        text + "}\n"
    }

    /// Renders the diagram as Mermaid.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (index, node) in self.nodes.iter().enumerate() {
            let title = node.title().replace('"', "#quot;");
            text.push_str(&format!("  n{index}[\"{title}<br/>{}\"]\n", node.kind));
        }
        for (from, to) in &self.edges {
            text.push_str(&format!("  n{from} --> n{to}\n"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            text.push_str(&format!("  style n{index} fill:{},stroke:{},color:#1f2328\n", node.fill(), svg::STROKE));
        }
        text
    }

    /// Renders the diagram as SVG.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }
}

impl Node {
    /// Returns the name and the number of instances: `model ×4`.
    fn title(&self) -> String {
        if self.count > 1 { format!("{} ×{}", self.name, self.count) } else { self.name.clone() }
    }

    /// Returns the kind and the states of the instances: `train · 2 stale, 2 fresh`.
    fn subtitle(&self) -> String {
        let one = |(state, count): (&PlannedState, &usize)| {
            let word = match state {
                PlannedState::Fresh => "fresh",
                PlannedState::Stale => "stale",
                PlannedState::Pending => "pending",
            };
            if self.count > 1 { format!("{count} {word}") } else { word.to_owned() }
        };
        let states: Vec<String> = self.states.iter().map(one).collect();
        let states = (!states.is_empty()).then(|| states.join(", "));
        let note = (!self.note.is_empty()).then(|| self.note.clone());
        std::iter::once(self.kind.to_string()).chain(states).chain(note).collect::<Vec<_>>().join(" · ")
    }

    /// Returns the fill colour: that of the state with the most work left.
    fn fill(&self) -> &'static str {
        let has = |state| self.states.contains_key(&state);
        match () {
            () if self.has_failed => "#ffc9c9",
            () if has(PlannedState::Stale) => "#ffd8b5",
            () if has(PlannedState::Pending) => "#fff3bf",
            () if has(PlannedState::Fresh) => "#d3f0d8",
            () => "#eef1f4",
        }
    }
}
