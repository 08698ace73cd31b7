//! The `figure` stage: numbers from predictions as curves, and as CSV.

use super::error::StageError;
use super::grid::{self, Grid};
use super::published::published_table;
use super::{Reporter, params, write};
use crate::picture::{Curves, Drawing, Point, Series, curves_drawing};
use crate::protocol::Job;
use crate::results::{Cell, Number, PointRow, mockup_csv, points_csv, thousands};
use crate::stage_kinds::FigureParams;

/// A published number and how it was printed; for each curve one for each value of the axis.
type Beside = Vec<Vec<Option<(f64, String)>>>;

/// Slots `value` and `reference`, labelled `SERIES/X` or `SERIES/X/SEED`, and `published`; outputs `svg`, `png`, `pdf`,
/// `csv`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let params: FigureParams = params(job)?;
    let (labels, values) = (params.x_labels.len(), params.x_values.len());
    if labels != values {
        return Err(StageError::AxisLabels { labels, values });
    }
    let column = |label: &String| grid::Column { label: label.clone(), metric: params.metric, batch_mean: None };
    let columns: Vec<grid::Column> = params.x_labels.iter().map(column).collect();
    let cells = Grid::new(job, &params.series, &columns, &params.over, &params.maps)?.cells(None, None, reporter)?;
    let told = grid::told(&cells);

    let beside = beside(job, &params)?;
    write_csv(job, params.mockup, numbers(&params, &cells, &beside))?;
    let named = |label: &String| shown(&params, label).to_owned();
    let mut curves = Curves {
        title: params.title.clone(),
        x_name: params.x_name.clone(),
        y_name: params.metric.title().to_owned(),
        y_note: note(&cells, params.over.len()),
        is_percent: params.metric.is_share(),
        x: params.x_values.iter().map(|value| value.get()).collect(),
        x_labels: params.x_labels.iter().map(named).collect(),
        scale: params.scale,
        series: params.series.iter().zip(&cells).map(|(label, cells)| series(named(label), cells)).collect(),
        published: params.published.as_ref().map(|published| format!("published ({})", published.table)),
        size: params.size,
        legend: params.legend,
    };
    for (series, beside) in curves.series.iter_mut().zip(&beside) {
        series.published = beside.iter().map(|number| number.as_ref().map(|(percent, _)| percent / 100.0)).collect();
    }
    write_picture(job, &curves_drawing(&curves)?)?;
    Ok(format!("{told} in {} curves", curves.series.len()))
}

/// Writes the output `csv`; that of a mock-up says so.
pub(super) fn write_csv(job: &Job, is_mockup: bool, text: String) -> Result<(), StageError> {
    let text = if is_mockup { mockup_csv(&text)? } else { text };
    write(job, "csv", text.as_bytes())
}

/// Writes the outputs `svg`, `png` and `pdf`.
pub(super) fn write_picture(job: &Job, picture: &Drawing) -> Result<(), StageError> {
    write(job, "svg", picture.svg()?.as_bytes())?;
    write(job, "png", &picture.small_png()?)?;
    write(job, "pdf", &picture.pdf()?)
}

/// The published numbers of the points, where the figure has some.
fn beside(job: &Job, params: &FigureParams) -> Result<Beside, StageError> {
    let Some(published) = &params.published else { return Ok(Vec::new()) };
    let table = published_table(job, published)?;
    let number = |row: &Option<String>, column: &Option<String>| table.number(row.as_deref()?, column.as_deref()?);
    let of_row = |row: &Option<String>| published.columns.iter().map(|column| number(row, column)).collect();
    Ok(published.rows.iter().map(of_row).collect())
}

fn shown<'a>(params: &'a FigureParams, label: &'a str) -> &'a str {
    params.names.get(label).map_or(label, String::as_str)
}

fn numbers(params: &FigureParams, cells: &[Vec<Option<Cell>>], beside: &Beside) -> String {
    let mut rows = Vec::new();
    for (curve, (series, points)) in params.series.iter().zip(cells).enumerate() {
        for (at, ((x, x_label), cell)) in params.x_values.iter().zip(&params.x_labels).zip(points).enumerate() {
            let published = beside.get(curve).and_then(|beside| beside.get(at)?.as_ref());
            rows.push(PointRow {
                panel: None,
                series: shown(params, series),
                x: x.get(),
                x_label: shown(params, x_label),
                metric: params.metric,
                number: cell.as_ref().map_or(Number::default(), |cell| cell.number),
                published: published.map(|(_, printed)| printed.as_str()),
            });
        }
    }
    points_csv(rows)
}

/// How many images stand behind the numbers, and whether a number is known without any.
fn note(cells: &[Vec<Option<Cell>>], seeds: usize) -> String {
    let numbers = || cells.iter().flatten().flatten().map(|cell| cell.number).filter(|number| number.value.is_some());
    let counts = || numbers().map(|number| number.n);
    let n = match counts().min().zip(counts().max()) {
        None => String::new(),
        Some((least, most)) if least == most => format!("; n = {}", thousands(most)),
        Some((least, most)) => format!("; n = {} to {}", thousands(least), thousands(most)),
    };
    let fixed = if numbers().any(|number| number.fixed) { "; no band where 100 % by definition" } else { "" };
    let seeds = if seeds > 0 { format!("; mean of {seeds} seeds") } else { String::new() };
    n + &seeds + fixed
}

fn series(name: String, cells: &[Option<Cell>]) -> Series {
    let point = |cell: &Option<Cell>| {
        let number = cell.as_ref()?.number;
        Some(Point { share: number.value?, interval: number.low.zip(number.high) })
    };
    Series { name, points: cells.iter().map(point).collect(), published: Vec::new() }
}
