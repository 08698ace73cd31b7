//! Numbers as CSV: one line for each, which a spreadsheet sorts and filters and pandas reads as it is.
//!
//! A table is `row,column,metric,share,low,high,hits,n`: labels as in the table, shares from 0 to 1 with six decimals, counts as integers.
//! Cells without a result have no line, so that counts stay integers to every reader; `pivot(index="row", columns="column")`
//! gives the table back with gaps where they were. A figure is the same with `series`, `x` as a number and `x_label` as the author wrote
//! it in place of row and column. UTF-8, comma, line feed, quotes where RFC 4180 asks for them.

use super::{Cell, Counts, TableDocument};
use crate::kinds::Metric;

/// The table as CSV.
pub fn csv(table: &TableDocument) -> String {
    let mut text = line(["row", "column"].into_iter().chain(NUMBERS));
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        for (column, cell) in table.columns.iter().zip(cells) {
            if let Some(numbers) = cell.and_then(|cell| numbers(column.metric, cell)) {
                text += &line([row.as_str(), &column.label].into_iter().chain(numbers.iter().map(String::as_str)));
            }
        }
    }
    text
}

/// One number of a figure.
#[derive(Debug, Clone, Copy)]
pub struct PointRow<'a> {
    /// The curve.
    pub series: &'a str,
    /// Where along the horizontal axis.
    pub x: f64,
    /// The same as the author wrote it.
    pub x_label: &'a str,
    /// What the number is.
    pub metric: Metric,
    /// What it was computed from.
    pub counts: Counts,
}

/// The numbers of a figure as CSV.
pub fn points_csv<'a>(points: impl IntoIterator<Item = PointRow<'a>>) -> String {
    let mut text = line(["series", "x", "x_label"].into_iter().chain(NUMBERS));
    for point in points {
        if let Some(numbers) = numbers(point.metric, Cell::from(point.counts)) {
            let x = point.x.to_string();
            let place = [point.series, &x, point.x_label];
            text += &line(place.into_iter().chain(numbers.iter().map(String::as_str)));
        }
    }
    text
}

const NUMBERS: [&str; 6] = ["metric", "share", "low", "high", "hits", "n"];

/// The fields named by [`NUMBERS`]; `None` where no image was counted.
fn numbers(metric: Metric, cell: Cell) -> Option<[String; 6]> {
    let real = |value: f64| format!("{value:.6}");
    let name = metric_name(metric).to_owned();
    Some([name, real(cell.share?), real(cell.low), real(cell.high), cell.hits.to_string(), cell.n.to_string()])
}

/// The metric as pipeline files spell it.
const fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::AccuracyOnCorrect => "accuracy_on_correct",
    }
}

/// One line of CSV with its end.
pub fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = |field: &str| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    };
    fields.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::example;

    #[test]
    fn one_line_for_each_number() {
        insta::assert_snapshot!(csv(&example()), @r#"
        row,column,metric,share,low,high,hits,n
        standard,clean,accuracy,0.917000,0.904095,0.928306,1834,2000
        standard,p = 64,accuracy_on_correct,0.219193,0.200857,0.238703,402,1834
        pgd-inf-8,clean,accuracy,0.851000,0.834722,0.865933,1702,2000
        "a|b, ""c""",clean,accuracy,0.000000,0.000000,0.001917,0,2000
        "#);
    }

    #[test]
    fn points_have_their_place_as_number_and_as_written() {
        let point = |x, x_label, hits, n| PointRow {
            series: "PGD, ε = 8",
            x,
            x_label,
            metric: Metric::Accuracy,
            counts: Counts::new(hits, n).unwrap(),
        };
        let points = [point(0.5, "1/2", 1, 2), point(1.0, "1", 0, 0), point(1024.0, "1024", 2, 2)];
        insta::assert_snapshot!(points_csv(points), @r#"
        series,x,x_label,metric,share,low,high,hits,n
        "PGD, ε = 8",0.5,1/2,accuracy,0.500000,0.094531,0.905469,1,2
        "PGD, ε = 8",1024,1024,accuracy,1.000000,0.342380,1.000000,2,2
        "#);
    }

    #[test]
    fn metrics_are_spelled_as_in_pipeline_files() {
        for metric in [Metric::Accuracy, Metric::AccuracyOnCorrect] {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric_name(metric));
        }
    }
}
