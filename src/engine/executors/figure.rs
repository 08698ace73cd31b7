//! The `figure` stage: numbers from predictions as curves, and as CSV.

use super::error::StageError;
use super::grid::{self, Grid};
use super::{Reporter, params, write};
use crate::picture::{Curves, Point, Series, curves_png, curves_svg};
use crate::protocol::Job;
use crate::results::{Cell, PointRow, points_csv, thousands};
use crate::stage_kinds::FigureParams;

/// Slots `value` and `reference`, labelled `SERIES/X`; outputs `svg`, `png`, `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: FigureParams = params(job)?;
    let (labels, values) = (params.x_labels.len(), params.x_values.len());
    if labels != values {
        return Err(StageError::AxisLabels { labels, values });
    }
    let column = |label: &String| grid::Column { label: label.clone(), metric: params.metric, batch_mean: None };
    let columns: Vec<grid::Column> = params.x_labels.iter().map(column).collect();
    let cells = Grid::new(job, &params.series, &columns, &[])?.cells(None, None, reporter)?;
    let told = grid::told(&cells);

    let rows = params.series.iter().zip(&cells).flat_map(|(series, points)| {
        let along = params.x_values.iter().zip(&params.x_labels).zip(points);
        along.filter_map(move |((x, x_label), cell)| {
            let number = cell.as_ref()?.number;
            Some(PointRow { panel: None, series, x: x.get(), x_label, metric: params.metric, number })
        })
    });
    write(job, "csv", points_csv(rows).as_bytes())?;
    let curves = Curves {
        title: params.title,
        x_name: params.x_name,
        y_name: params.metric.title().to_owned(),
        y_note: note(&cells),
        x: params.x_values.iter().map(|value| value.get()).collect(),
        x_labels: params.x_labels,
        scale: params.scale,
        series: params.series.into_iter().zip(cells).map(|(name, cells)| series(name, &cells)).collect(),
    };
    write(job, "svg", curves_svg(&curves)?.as_bytes())?;
    write(job, "png", &curves_png(&curves)?)?;
    Ok(format!("{told} in {} curves", curves.series.len()))
}

/// How many images stand behind the numbers, and whether a number is known without any.
fn note(cells: &[Vec<Option<Cell>>]) -> String {
    let numbers = || cells.iter().flatten().flatten().map(|cell| cell.number).filter(|number| number.value.is_some());
    let counts = || numbers().map(|number| number.n);
    let n = match counts().min().zip(counts().max()) {
        None => String::new(),
        Some((least, most)) if least == most => format!("; n = {}", thousands(most)),
        Some((least, most)) => format!("; n = {} to {}", thousands(least), thousands(most)),
    };
    let fixed = if numbers().any(|number| number.fixed) { "; no band where 100 % by definition" } else { "" };
    n + fixed
}

fn series(name: String, cells: &[Option<Cell>]) -> Series {
    let point = |cell: &Option<Cell>| {
        let number = cell.as_ref()?.number;
        Some(Point { share: number.value?, interval: number.low.zip(number.high) })
    };
    Series { name, points: cells.iter().map(point).collect() }
}
