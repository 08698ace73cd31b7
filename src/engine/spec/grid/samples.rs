//! The images of a figure of samples, and what models make of them.

use super::super::headings;
use super::super::instance::Need;
use super::super::names::{self, Fractions};
use super::super::problem::Problem;
use super::super::shown_result::ShownResult;
use super::cells::{Grid, told};
use crate::stage_kinds::{Headings, Metric, SamplesParams, SamplesSpec, SamplesTag};

/// Takes one input per set, and per set and model; returns the figure's parameters with all labels spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &SamplesSpec) -> Result<SamplesParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    if let Some(problem) = spec.images.problem() {
        wrong.push(grid.problem(with.key("images"), format!("`images` {problem}")));
    }
    let sets: Vec<Need> = grid.table.needs.iter().filter(|need| need.slot == "sets").cloned().collect();
    let labels: Vec<String> = sets.iter().map(|need| need.label.clone()).collect();
    wrong.extend(headings::check(grid.table, &spec.headings, &labels));
    let (coordinate, key) = match (&spec.probabilities, &spec.predicted) {
        (Some(one), Some(other)) if one != other => {
            let message = "`probabilities` and `predicted` are of the same models: they need the same coordinate";
            wrong.push(grid.problem(with.key("predicted"), message).help(format!("write `{one}`")));
            (Some(one), "probabilities")
        }
        (Some(one), _) => (Some(one), "probabilities"),
        (None, other) => (other.as_ref(), "predicted"),
    };
    let rows = coordinate.map_or_else(Vec::new, |name| told(&mut wrong, grid.labels(name, &with.key(key))));
    if let Some(coordinate) = coordinate {
        let fitting = grid.by_labels(&[coordinate]);
        for row in &rows {
            let of_row = fitting.get(&[row.as_str()][..]).map_or(&[][..], Vec::as_slice);
            for set in &sets {
                let is_of = |result: &&&ShownResult| {
                    let need = result.instance.need("set");
                    need.is_some_and(|need| need.from == set.from && need.output == set.output)
                };
                let found: Vec<&ShownResult> = of_row.iter().filter(is_of).copied().collect();
                let label = format!("{row}/{}", set.label);
                let cell = grid.cell(&found, &label, Metric::ProbabilityOfTrueClass, &with.key(key));
                told(&mut wrong, cell);
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let fractions = Fractions::of(grid.expander, &labels);
    let heading = |label: &String| match spec.headings.of(label) {
        same if same == label => fractions.written(label),
        heading => heading.to_owned(),
    };
    let headings = labels.iter().map(heading).collect();
    let names = names::resolve(grid.expander, grid.table, &Headings::default(), &rows)?;
    grid.needs.extend(sets.into_iter().map(|set| Need { slot: "set".to_owned(), ..set }));
    Ok(SamplesParams {
        draw: SamplesTag::Samples,
        title: spec.title.clone(),
        columns: labels,
        headings,
        images: spec.images.clone(),
        rows: if spec.probabilities.is_some() { rows.clone() } else { Vec::new() },
        predicted: if spec.predicted.is_some() { rows } else { Vec::new() },
        names,
        scale: spec.scale,
        size: spec.size,
        mockup: grid.expander.spec.is_mockup,
    })
}
