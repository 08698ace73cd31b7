//! The `figure` stage with `draw: training`: the numbers of trainings by epoch, as panels of lines and as CSV.

use std::collections::BTreeSet;

use super::error::StageError;
use super::figure::{write_csv, write_picture};
use super::{Reporter, check_cancelled, name, params, read};
use crate::formats::{EpochMetrics, TrainingMetrics};
use crate::picture::{Panel, PanelLine, Panels, panels_drawing};
use crate::protocol::Job;
use crate::results::{EpochRow, epochs_csv};
use crate::stage_kinds::{EpochImages, EpochNumber, LearningMetric, LearningParams};

/// A line of a panel: a number of a training at each epoch that has it.
struct Line<'a> {
    /// Index of the training.
    training: usize,
    label: &'a str,
    number: EpochNumber,
    values: Vec<(u32, f64)>,
    /// The epoch whose weights the checkpoint has.
    kept: Option<u32>,
}

/// Slot `training`, labelled as the series; outputs `svg`, `png`, `pdf`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: LearningParams = params(job)?;
    let trainings = trainings(job, &params, reporter)?;
    let mut panels = Vec::new();
    for metric in &params.metrics {
        let lines = lines(&params, &trainings, *metric);
        if lines.is_empty() && params.named {
            return Err(StageError::NotMeasured { metric: *metric });
        }
        panels.push((*metric, lines));
    }
    panels.retain(|(_, lines)| !lines.is_empty());
    write_csv(job, params.mockup, csv(&panels))?;
    write_picture(job, &panels_drawing(&picture(&params, &panels))?)?;
    let epochs = trainings.iter().map(|training| training.epochs.len()).max().unwrap_or(0);
    Ok(format!("{} trainings of up to {epochs} epochs in {} panels", trainings.len(), panels.len()))
}

/// Reads the metrics of each series.
fn trainings(job: &Job, params: &LearningParams, reporter: &dyn Reporter) -> Result<Vec<TrainingMetrics>, StageError> {
    let mut found = Vec::new();
    for series in &params.series {
        check_cancelled(reporter)?;
        let input = job.inputs_of("training").find(|input| input.label == series.label);
        let input = input.ok_or_else(|| StageError::NoInput { slot: format!("training {}", series.label) })?;
        let metrics = TrainingMetrics::from_bytes(&read(input)?);
        found.push(metrics.map_err(|source| StageError::Format { input: name(input), source })?);
    }
    Ok(found)
}

/// The lines of a panel that have a point.
fn lines<'a>(params: &'a LearningParams, trainings: &[TrainingMetrics], metric: LearningMetric) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (index, (series, training)) in params.series.iter().zip(trainings).enumerate() {
        let label = params.names.get(&series.label).unwrap_or(&series.label);
        for number in series.lines.get(&metric).into_iter().flatten() {
            let value = |epoch: &EpochMetrics| Some((epoch.epoch, number.of(epoch)?));
            let values = training.epochs.iter().filter_map(value).collect();
            let kept = training.checkpoint_epoch();
            lines.push(Line { training: index, label, number: *number, values, kept });
        }
    }
    lines.retain(|line| !line.values.is_empty());
    lines
}

fn csv(panels: &[(LearningMetric, Vec<Line>)]) -> String {
    let mut rows = Vec::new();
    for (metric, lines) in panels {
        for line in lines {
            rows.extend(line.values.iter().map(|(epoch, value)| EpochRow {
                metric: metric.name(),
                series: line.label,
                images: line.number.images().map_or("", EpochImages::name),
                epoch: *epoch,
                value: *value,
                kept: line.kept == Some(*epoch),
            }));
        }
    }
    epochs_csv(rows)
}

fn picture(params: &LearningParams, panels: &[(LearningMetric, Vec<Line>)]) -> Panels {
    let images: BTreeSet<EpochImages> =
        panels.iter().flat_map(|(_, lines)| lines).filter_map(|line| line.number.images()).collect();
    let solid: Vec<&str> =
        images.iter().filter(|images| **images != EpochImages::Training).map(|images| images.name()).collect();
    let label = |label: &String| params.names.get(label).unwrap_or(label).clone();
    Panels {
        title: params.title.clone(),
        x_name: "epoch".to_owned(),
        series: params.series.iter().map(|series| label(&series.label)).collect(),
        panels: panels.iter().map(|(metric, lines)| panel(*metric, lines)).collect(),
        dashed: images.contains(&EpochImages::Training).then(|| "training images".to_owned()),
        solid: (!solid.is_empty()).then(|| format!("{} images", solid.join(" or "))),
        mark: "epoch of the checkpoint".to_owned(),
        size: params.size,
        legend: params.legend,
    }
}

fn panel(metric: LearningMetric, lines: &[Line]) -> Panel {
    let scale = if metric.is_share() { 100.0 } else { 1.0 };
    let line = |line: &Line| PanelLine {
        series: line.training,
        is_dashed: line.number.images() == Some(EpochImages::Training),
        points: line.values.iter().map(|(epoch, value)| (*epoch, value * scale)).collect(),
        mark: line.kept,
    };
    Panel { name: metric.title().to_owned(), is_percent: metric.is_share(), lines: lines.iter().map(line).collect() }
}
