//! The images of a figure of samples, and the probabilities above them.

use super::super::headings;
use super::super::instance::{InstanceId, Need};
use super::super::problem::Problem;
use super::cells::{Grid, told};
use crate::stage_kinds::{Metric, SamplesParams, SamplesSpec, SamplesTag};

/// Takes one input per set and per probability; returns the figure's parameters with all labels spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &SamplesSpec) -> Result<SamplesParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    if let Some(problem) = spec.images.problem() {
        wrong.push(grid.problem(with.key("images"), format!("`images` {problem}")));
    }
    let sets: Vec<Need> = grid.table.needs.iter().filter(|need| need.slot == "sets").cloned().collect();
    let labels: Vec<String> = sets.iter().map(|need| need.label.clone()).collect();
    wrong.extend(headings::check(grid.table, &spec.headings, &labels));
    let rows = match &spec.probabilities {
        None => Vec::new(),
        Some(coordinate) => told(&mut wrong, grid.labels(coordinate, &with.key("probabilities"))),
    };
    if let Some(coordinate) = &spec.probabilities {
        let fitting = grid.by_labels(&[coordinate]);
        for row in &rows {
            let of_row = fitting.get(&[row.as_str()][..]).map_or(&[][..], Vec::as_slice);
            for set in &sets {
                let is_of = |id: &&InstanceId| {
                    let need = grid.expander.instance(**id).need("set");
                    need.is_some_and(|need| need.from == set.from && need.output == set.output)
                };
                let found: Vec<InstanceId> = of_row.iter().filter(is_of).copied().collect();
                let label = format!("{row}/{}", set.label);
                let cell = grid.cell(&found, &label, Metric::ProbabilityOfTrueClass, &with.key("probabilities"));
                told(&mut wrong, cell);
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let headings = labels.iter().map(|label| spec.headings.of(label).to_owned()).collect();
    grid.needs.extend(sets.into_iter().map(|set| Need { slot: "set".to_owned(), ..set }));
    Ok(SamplesParams {
        draw: SamplesTag::Samples,
        title: spec.title.clone(),
        columns: labels,
        headings,
        images: spec.images.clone(),
        rows,
        scale: spec.scale,
    })
}
