//! The points of a figure of curves.

use super::super::instance::Instance;
use super::super::names;
use super::super::problem::Problem;
use super::super::published;
use super::super::shown_result::ShownResult;
use super::super::source::YamlPath;
use super::cells::{ByLabels, Grid, axis, tell, told};
use crate::number::Real;
use crate::stage_kinds::{CurvesSpec, FigureParams, PublishedParams, Scale};

/// Takes one input per point of each curve; returns the figure's parameters with all labels spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &CurvesSpec) -> Result<FigureParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    if !spec.cell.is_share() && !spec.cell.is_of_maps() {
        let message = format!("curves are drawn in percent, and `{}` is no share", spec.cell.name());
        wrong.push(grid.problem(with.key("cell"), message));
    }
    let series = told(&mut wrong, grid.labels(&spec.series, &with.key("series")));
    let points = points(grid, spec, &with, &mut wrong);
    let average = spec.over.clone().or_else(|| grid.seeds());
    let over = match &average {
        None => Vec::new(),
        Some(coordinate) => told(&mut wrong, grid.labels(coordinate, &with.key("over"))),
    };
    let coordinates: Vec<&str> = [spec.series.as_str(), &spec.x].into_iter().chain(average.as_deref()).collect();
    let fitting = grid.by_labels(&coordinates);
    let seeds: Vec<Option<&str>> =
        if over.is_empty() { vec![None] } else { over.iter().map(|seed| Some(seed.as_str())).collect() };
    for (curve, seed) in series.iter().flat_map(|curve| seeds.iter().map(move |seed| (curve, *seed))) {
        let originals = fill_curve(grid, spec, (curve, seed), &points, &fitting, &mut wrong);
        if let Some(original) = spec.original.filter(|_| grid.is_certain) {
            told(&mut wrong, fill_original(grid, spec, (curve, seed), original, &originals));
        }
    }
    let x_labels: Vec<String> = points.iter().map(|(_, label)| label.clone()).collect();
    let labels: Vec<String> = series.iter().chain(&x_labels).cloned().collect();
    let names = told(&mut wrong, names::resolve(grid.expander, grid.table, &spec.names, &labels));
    let published = told(&mut wrong, published_numbers(grid.table, spec, &series, &points));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(FigureParams {
        title: spec.title.clone(),
        x_name: spec.x_title.clone().unwrap_or_else(|| axis(&spec.x).to_owned()),
        x_values: points.iter().map(|(value, _)| *value).collect(),
        x_labels,
        scale: spec.scale,
        series,
        over,
        metric: spec.cell,
        names,
        published,
        maps: std::mem::take(&mut grid.maps),
        size: spec.size,
        legend: spec.legend,
        mockup: grid.expander.spec.is_mockup,
    })
}

/// Returns the values along the x axis with their labels, in ascending order, `original` among them.
fn points(grid: &Grid, spec: &CurvesSpec, with: &YamlPath, wrong: &mut Vec<Problem>) -> Vec<(Real, String)> {
    let mut points = Vec::new();
    for label in told(wrong, grid.labels(&spec.x, &with.key("x"))) {
        // A label has `_` where its value has the slash of a fraction.
        match Real::parse(&label.replace('_', "/")) {
            None => {
                let message =
                    format!("the values of `{}` must be numbers to be drawn along an axis; `{label}` is none", spec.x);
                tell(wrong, grid.problem(with.key("x"), message));
            }
            Some(value) if spec.scale == Scale::Log2 && value.get() <= 0.0 => {
                let message = format!("a logarithmic axis needs values above 0; `{}` has {label}", spec.x);
                tell(wrong, grid.problem(with.key("scale"), message));
            }
            Some(value) => points.push((value, label)),
        }
    }
    if let Some(original) = spec.original {
        if let Some((_, label)) = points.iter().find(|(value, _)| *value == original) {
            let message =
                format!("the untransformed set cannot stand at {original}: a result of `{}` has {label}", spec.x);
            wrong.push(grid.problem(with.key("original"), message).help("choose another place, or remove it"));
        }
        points.push((original, original.to_string()));
    }
    points.sort_by(|a, b| a.0.get().total_cmp(&b.0.get()));
    points
}

/// A curve, and the seed of one of the results behind each of its points.
type Curve<'a> = (&'a str, Option<&'a str>);

/// Returns the label of a point's result.
fn place((curve, seed): Curve<'_>, x: &str) -> String {
    seed.map_or_else(|| format!("{curve}/{x}"), |seed| format!("{curve}/{x}/{seed}"))
}

/// Takes the results of one curve; returns the results of the untransformed sets that belong to them, with repeats.
fn fill_curve<'a>(
    grid: &mut Grid<'a>,
    spec: &CurvesSpec,
    curve: Curve<'_>,
    points: &[(Real, String)],
    fitting: &ByLabels,
    wrong: &mut Vec<Problem>,
) -> Vec<&'a ShownResult<'a>> {
    let path = grid.table.path.key("with").key("x");
    let mut originals = Vec::new();
    for (_, label) in points.iter().filter(|(value, _)| Some(*value) != spec.original) {
        let labels: Vec<&str> = [curve.0, label.as_str()].into_iter().chain(curve.1).collect();
        let found = fitting.get(&labels).map_or(&[][..], Vec::as_slice);
        told(wrong, grid.cell(found, &place(curve, label), spec.cell, &path));
        originals.extend(found.iter().filter_map(|result| grid.untransformed.of(result.id)));
    }
    originals
}

/// Takes the result of a curve's point at `original`.
fn fill_original(
    grid: &mut Grid,
    spec: &CurvesSpec,
    curve: Curve<'_>,
    original: Real,
    results: &[&ShownResult],
) -> Result<(), Vec<Problem>> {
    let path = grid.table.path.key("with").key("original");
    let mut results = results.to_vec();
    results.sort_by(|a, b| (a.id, &a.output).cmp(&(b.id, &b.output)));
    results.dedup_by(|a, b| (a.id, &a.output) == (b.id, &b.output));
    if results.is_empty() {
        let message = format!("no result of `{}` is of the untransformed set, without attack", curve.0);
        let help = "add the stage that makes them to the needs of this one, or remove `original`";
        return Err(vec![grid.problem(path, message).help(help)]);
    }
    grid.cell(&results, &place(curve, &original.to_string()), spec.cell, &path)
}

/// Finds the published number of each point; the untransformed set has none.
fn published_numbers(
    figure: &Instance,
    spec: &CurvesSpec,
    series: &[String],
    points: &[(Real, String)],
) -> Result<Option<PublishedParams>, Vec<Problem>> {
    let Some(published) = &spec.published else { return Ok(None) };
    let is_original = |(value, _): &&(Real, String)| Some(*value) == spec.original;
    let labels: Vec<String> =
        points.iter().filter(|point| !is_original(point)).map(|(_, label)| label.clone()).collect();
    let mut found = published::fit(figure, published, series, &labels, Some(axis(&spec.x)))?;
    if let Some(at) = points.iter().position(|point| is_original(&point)) {
        found.columns.insert(at, None);
    }
    Ok(Some(found))
}
