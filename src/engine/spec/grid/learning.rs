//! The lines of a figure of learning curves.

use serde::Deserialize;

use super::super::instance::Need;
use super::super::names;
use super::super::problem::Problem;
use super::super::shown_result::ShownResult;
use super::super::source::YamlPath;
use super::cells::{Grid, told};
use crate::stage_kinds::{
    LearningMetric, LearningParams, LearningSeries, LearningSpec, LearningTag, StageKind, TrainParams,
};

/// Takes one input per training; returns the figure's parameters with all labels and lines spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &LearningSpec) -> Result<LearningParams, Vec<Problem>> {
    let mut wrong = Vec::new();
    let trainings = told(&mut wrong, trainings(grid, spec));
    let mut series = Vec::new();
    for need in &trainings {
        series.extend(told(&mut wrong, series_of(grid, need).map(Some)));
    }
    let is_certain = wrong.is_empty() && trainings.iter().all(|need| grid.expander.instance(need.from).knows_params);
    let metrics = told(&mut wrong, metrics(grid, spec, &series, is_certain));
    let labels: Vec<String> = series.iter().map(|series| series.label.clone()).collect();
    let names = told(&mut wrong, names::resolve(grid.expander, grid.table, &spec.names, &labels));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    grid.needs.extend(trainings);
    for series in &mut series {
        series.lines.retain(|metric, _| metrics.contains(metric));
    }
    Ok(LearningParams {
        draw: LearningTag::Training,
        title: spec.title.clone(),
        metrics,
        named: spec.metrics.is_some(),
        series,
        names,
        size: spec.size,
        legend: spec.legend,
        mockup: grid.expander.spec.is_mockup,
    })
}

/// Returns the trainings with the label of each: its own, or that of the coordinate `series`.
fn trainings(grid: &Grid, spec: &LearningSpec) -> Result<Vec<Need>, Vec<Problem>> {
    let named: Vec<&Need> = grid.table.needs.iter().filter(|need| need.slot == "trainings").collect();
    let labelled = |need: &Need, label: &str| Need { slot: "training".into(), label: label.into(), ..need.clone() };
    let Some(coordinate) = &spec.series else {
        return Ok(named.iter().map(|need| labelled(need, &need.label)).collect());
    };
    let (labels, fitting) = (grid.labels(coordinate, &series_path(grid))?, grid.by_labels(&[coordinate]));
    let mut found = Vec::new();
    for label in &labels {
        let of_label = fitting.get(&[label.as_str()][..]).map_or(&[][..], Vec::as_slice);
        if of_label.len() > 1 {
            return Err(vec![too_many(grid, label, of_label)]);
        }
        let fits = named.iter().filter(|need| of_label.iter().any(|result| result.id == need.from));
        found.extend(fits.map(|need| labelled(need, label)));
    }
    Ok(found)
}

fn series_path(grid: &Grid) -> YamlPath {
    grid.table.path.key("with").key("series")
}

fn too_many(grid: &Grid, label: &str, several: &[&ShownResult]) -> Problem {
    let names: Vec<String> = several.iter().take(3).map(|result| format!("`{}`", result.instance.name)).collect();
    let message = format!("{} trainings have the label `{label}`: {}", several.len(), names.join(", "));
    let help = "name another coordinate, or remove `series`: each training then has its own lines";
    grid.problem(series_path(grid), message).help(help)
}

/// Returns the lines of a training. Of a command's file it is not known what a training measured.
fn series_of(grid: &Grid, need: &Need) -> Result<LearningSeries, Vec<Problem>> {
    let (made_by, label) = (grid.expander.instance(need.from), need.label.clone());
    if made_by.kind == StageKind::Command {
        return Ok(LearningSeries::of_unknown(label));
    }
    if made_by.kind != StageKind::Train {
        let path = grid.table.path.key("needs").key("trainings");
        let message = format!("`{}` is no training", made_by.name);
        let help = "name a stage of kind `train`, or a command that makes a file as its output `metrics`";
        return Err(vec![grid.problem(path, message).help(help)]);
    }
    Ok(match TrainParams::deserialize(&*made_by.params) {
        Ok(params) => LearningSeries::of_training(label, &params, made_by.need("validation").is_some()),
        // The problems of its parameters are told elsewhere.
        Err(_) => LearningSeries::of_unknown(label),
    })
}

/// Returns the panels: those of the author, or all that some training has.
fn metrics(
    grid: &Grid,
    spec: &LearningSpec,
    series: &[LearningSeries],
    is_certain: bool,
) -> Result<Vec<LearningMetric>, Vec<Problem>> {
    let is_measured = |metric: &LearningMetric| series.iter().any(|series| series.lines.contains_key(metric));
    let Some(metrics) = &spec.metrics else {
        return Ok(LearningMetric::ALL.into_iter().filter(is_measured).collect());
    };
    let mut wrong = Vec::new();
    for (index, metric) in metrics.iter().enumerate() {
        let path = grid.table.path.key("with").key("metrics").index(index);
        if metrics[..index].contains(metric) {
            wrong.push(grid.problem(path, format!("`{}` is drawn twice", metric.name())).help("remove one of the two"));
        } else if is_certain && !is_measured(metric) {
            let message = format!("no training of `{}` has `{}`", grid.table.stage, metric.name());
            wrong.push(grid.problem(path, message).help(metric.needs()));
        }
    }
    if wrong.is_empty() { Ok(metrics.clone()) } else { Err(wrong) }
}
