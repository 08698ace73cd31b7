//! The `figure` stage: numbers from predictions as curves, and as CSV.

use super::error::StageError;
use super::{Reporter, grid, params, write};
use crate::kinds::{FigureParams, Metric};
use crate::picture::{Curves, Point, Series, curves_png, curves_svg};
use crate::protocol::Job;
use crate::results::{Counts, PointRow, points_csv};

/// Slots `value` and `reference`, labelled `SERIES/X`; outputs `svg`, `png`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: FigureParams = params(job)?;
    let (labels, values) = (params.x_labels.len(), params.x_values.len());
    if labels != values {
        return Err(StageError::AxisLabels { labels, values });
    }
    let columns: Vec<_> = params.x_labels.iter().map(|label| (label.clone(), params.metric)).collect();
    let counts = grid::counts(job, &params.series, &columns, reporter)?;
    let told = grid::told(&counts);

    let rows = params.series.iter().zip(&counts).flat_map(|(series, points)| {
        let along = params.x_values.iter().zip(&params.x_labels).zip(points);
        along.filter_map(move |((x, x_label), counts)| {
            Some(PointRow { series, x: x.get(), x_label, metric: params.metric, counts: (*counts)? })
        })
    });
    write(job, "csv", points_csv(rows).as_bytes())?;
    let curves = Curves {
        title: params.title,
        x_name: params.x_name,
        y_name: axis_name(params.metric).to_owned(),
        x: params.x_values.iter().map(|value| value.get()).collect(),
        x_labels: params.x_labels,
        scale: params.scale,
        series: params.series.into_iter().zip(counts).map(|(name, counts)| series(name, &counts)).collect(),
    };
    write(job, "svg", curves_svg(&curves)?.as_bytes())?;
    write(job, "png", &curves_png(&curves)?)?;
    Ok(format!("{told} in {} curves", curves.series.len()))
}

fn series(name: String, counts: &[Option<Counts>]) -> Series {
    let point = |counts: &Option<Counts>| {
        let counts = (*counts)?;
        let (low, high) = counts.interval();
        Some(Point { share: counts.share()?, low, high })
    };
    Series { name, points: counts.iter().map(point).collect() }
}

fn axis_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::AccuracyOnCorrect => "accuracy on correctly classified images",
    }
}
