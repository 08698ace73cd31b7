//! Small random pipelines of commands that compute whole numbers, and what they should compute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use proptest::prelude::*;

/// A stage: `(constant + the sum of its needs) / divisor`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) constant: u32,
    pub(crate) divisor: u32,
    /// Positions of earlier stages.
    pub(crate) needs: BTreeSet<usize>,
}

pub(crate) type Pipeline = Vec<Stage>;

pub(crate) fn pipeline() -> impl Strategy<Value = Pipeline> {
    let stage = (0_u32..4, 1_u32..4, prop::collection::btree_set(0_usize..6, 0..4));
    prop::collection::vec(stage, 1..6).prop_map(|stages| {
        let stage = |(at, (constant, divisor, needs)): (usize, (u32, u32, BTreeSet<usize>))| Stage {
            name: format!("s{at}"),
            constant,
            divisor,
            needs: needs.into_iter().filter(|need| *need < at).collect(),
        };
        stages.into_iter().enumerate().map(stage).collect()
    })
}

impl Stage {
    fn command(&self) -> String {
        let inputs: String = self.needs.iter().fold(String::new(), |mut text, need| {
            write!(text, " + $(cat ${{in.i{need}}})").unwrap();
            text
        });
        format!("echo $(( ({}{inputs}) / {} )) > ${{out.n}}", self.constant, self.divisor)
    }

    /// The stage as an entry of `stages`; `style` changes how it is written and not what it says.
    pub(crate) fn yaml(&self, pipeline: &[Stage], style: u32) -> String {
        let needs: Vec<String> = self.needs.iter().map(|need| format!("i{need}: {}", pipeline[*need].name)).collect();
        let mut fields =
            vec!["kind: command".to_owned(), format!("with: {{run: '{}', outputs: {{n: n.txt}}}}", self.command())];
        if !needs.is_empty() {
            fields.push(format!("needs: {{{}}}", rotated(&needs, style).join(", ")));
        }
        let fields = rotated(&fields, style / 2);
        let comment = if style % 5 == 0 { "  # a comment: with {braces}" } else { "" };
        match style % 3 {
            0 => format!("  {}: {{{}}}{comment}\n", self.name, fields.join(",   ")),
            1 => format!("  {}:{comment}\n    {}\n", self.name, fields.join("\n    ")),
            _ => format!("\n  \"{}\":\n      # indented\n      {}\n\n", self.name, fields.join("\n\n      ")),
        }
    }
}

/// The pipeline as a file. `styles` gives the way in which each stage is written, and their order.
pub(crate) fn yaml(pipeline: &[Stage], styles: &[u32]) -> String {
    let style = |at: usize| styles.get(at % styles.len().max(1)).copied().unwrap_or(0);
    let mut stages: Vec<(u32, String)> = pipeline
        .iter()
        .enumerate()
        .map(|(at, stage)| (style(at).wrapping_mul(2_654_435_761) >> 8, stage.yaml(pipeline, style(at))))
        .collect();
    if !styles.is_empty() {
        stages.sort();
    }
    let stages: String = stages.into_iter().map(|(_, text)| text).collect();
    format!("pipeline: random\nstages:\n{stages}")
}

fn rotated(items: &[String], by: u32) -> Vec<String> {
    let mut items = items.to_vec();
    let by = by as usize % items.len().max(1);
    items.rotate_left(by);
    items
}

/// What a stage computes: its command, and the value of each input by name.
pub(crate) type Computation = (String, BTreeMap<String, u32>);

/// What each stage of a pipeline computes, in its order, and what comes out.
pub(crate) fn simulate(pipeline: &[Stage]) -> Vec<(Computation, u32)> {
    let mut done: Vec<(Computation, u32)> = Vec::new();
    for stage in pipeline {
        let inputs: BTreeMap<String, u32> =
            stage.needs.iter().map(|need| (format!("i{need}"), done[*need].1)).collect();
        let value = (stage.constant + inputs.values().sum::<u32>()) / stage.divisor;
        done.push(((stage.command(), inputs), value));
    }
    done
}
