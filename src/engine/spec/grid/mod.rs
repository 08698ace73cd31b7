//! Assigns results to the cells of a table or the points of a figure, by coordinates. The numbers are not known here.

mod cells;
mod curves;
mod learning;
mod maps;
mod samples;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use self::cells::Grid;
use super::baseline::Baselines;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::instance::{Instance, Need};
use super::problem::Problem;
use super::shown_result::ShownResult;
use crate::stage_kinds::{FigureSpec, StageKind, TableSpec};

/// The need of saliency stages whose measures are shown.
const MEASURES: &str = "measures";

/// Replaces the results that a table or figure needs by one input per cell, and its parameters by the resolved ones.
pub(super) fn resolve(expander: &Expander, instance: &mut Instance, notes: &mut Diagnostics) {
    match resolved(expander, instance) {
        Ok((params, needs)) => (instance.params, instance.needs) = (Arc::new(params), needs),
        Err(problems) => {
            instance.knows_params = false;
            problems.into_iter().for_each(|problem| notes.tell(problem));
        }
    }
}

fn resolved(expander: &Expander, instance: &Instance) -> Result<(Json, Vec<Need>), Vec<Problem>> {
    let is_result = |need: &&Need| ["results", "trainings", MEASURES].contains(&need.slot.as_str());
    let needs = instance.needs.iter().filter(is_result);
    let results: Vec<ShownResult> = needs.flat_map(|need| ShownResult::of(need, expander)).collect();
    let untransformed = Baselines::new(expander, &results);
    let is_certain = results.iter().all(|result| untransformed.is_certain(result.id));
    let mut grid = Grid {
        expander,
        table: instance,
        results: &results,
        is_certain,
        needs: Vec::new(),
        maps: BTreeMap::new(),
        untransformed,
    };
    grid.check_measures()?;
    let params = match instance.kind {
        StageKind::Table => {
            let spec: TableSpec = grid.read_spec()?;
            grid.takes_any()?;
            let params = table::resolve(&mut grid, &spec)?;
            grid.canonical(&params)?
        }
        _ => match grid.read_spec()? {
            FigureSpec::Curves(spec) => {
                let needed = if spec.cell.is_of_maps() { [MEASURES, "results"] } else { ["results", MEASURES] };
                grid.takes(needed[0], &["sets", "maps", "trainings", needed[1]], "curves")?;
                let params = curves::resolve(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
            FigureSpec::Samples(spec) => {
                let is_of_models = spec.probabilities.is_some() || spec.predicted.is_some();
                let without = ["maps", "trainings", MEASURES, "results"];
                grid.takes("sets", if is_of_models { &without[..3] } else { &without }, "images")?;
                let params = samples::resolve(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
            FigureSpec::Maps(spec) => {
                grid.takes("maps", &["sets", "results", "trainings", MEASURES], "saliency maps")?;
                let params = maps::resolve(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
            FigureSpec::Training(spec) => {
                grid.takes("trainings", &["sets", "results", "maps", MEASURES], "learning curves")?;
                let params = learning::resolve(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
        },
    };
    Ok((params, grid.needs))
}
