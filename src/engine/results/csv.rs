//! A table as CSV: one line for each number, which a spreadsheet sorts and filters and pandas reads as it is.
//!
//! `row,column,metric,share,low,high,hits,n`: labels as in the table, shares from 0 to 1 with six decimals, counts as integers.
//! Cells without a result have no line, so that counts stay integers to every reader; `pivot(index="row", columns="column")`
//! gives the table back with gaps where they were. UTF-8, comma, line feed, quotes where RFC 4180 asks for them.

use super::TableDocument;
use crate::kinds::Metric;

/// The table as CSV.
pub fn csv(table: &TableDocument) -> String {
    let mut text = line(["row", "column", "metric", "share", "low", "high", "hits", "n"]);
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        for (column, cell) in table.columns.iter().zip(cells) {
            let Some((cell, share)) = cell.and_then(|cell| Some((cell, cell.share?))) else { continue };
            let real = |value: f64| format!("{value:.6}");
            text += &line([
                row,
                &column.label,
                metric_name(column.metric),
                &real(share),
                &real(cell.low),
                &real(cell.high),
                &cell.hits.to_string(),
                &cell.n.to_string(),
            ]);
        }
    }
    text
}

/// The metric as pipeline files spell it.
pub(crate) const fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "accuracy",
        Metric::AccuracyOnCorrect => "accuracy_on_correct",
    }
}

/// One line of CSV with its end.
pub(crate) fn line<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
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
    fn metrics_are_spelled_as_in_pipeline_files() {
        for metric in [Metric::Accuracy, Metric::AccuracyOnCorrect] {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric_name(metric));
        }
    }
}
