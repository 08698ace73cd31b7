//! A table as Markdown: a pipe table that reads well as plain text too.
//!
//! Cells are percentages with their interval, `87.4 [85.9, 88.8]`: the Wilson interval is not symmetric, so `±` would be wrong
//! in the last digit that is shown. How many images stand behind the numbers is told below the table.

use super::{Cell, TableDocument};
use crate::kinds::Metric;

/// What stands where there is no number.
const ABSENT: &str = "–";

/// The table as Markdown, with its title as a heading where it has one.
pub fn markdown(table: &TableDocument) -> String {
    let mut lines = vec![];
    let heading = [one_line(&table.corner)].into_iter();
    lines.push(heading.chain(table.columns.iter().map(|column| one_line(&column.label))).collect::<Vec<_>>());
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        lines.push([one_line(row)].into_iter().chain(cells.iter().map(|cell| percent(cell.as_ref()))).collect());
    }
    let widths: Vec<usize> = (0..=table.columns.len())
        .map(|column| lines.iter().map(|line| width(&line[column])).max().unwrap_or(0).max(3))
        .collect();

    let mut text = table.title.as_deref().map_or(String::new(), |title| format!("# {}\n\n", one_line(title)));
    for (index, line) in lines.iter().enumerate() {
        text += &pipes(line.iter().zip(&widths).enumerate().map(|(column, (field, &wide))| {
            let space = " ".repeat(wide - width(field));
            if column == 0 { format!("{field}{space}") } else { format!("{space}{field}") }
        }));
        if index == 0 {
            text += &pipes(
                widths.iter().enumerate().map(
                    |(column, &wide)| {
                        if column == 0 { "-".repeat(wide) } else { "-".repeat(wide - 1) + ":" }
                    },
                ),
            );
        }
    }
    for note in notes(table) {
        text += "\n";
        text += &note;
        text += "\n";
    }
    text
}

fn pipes(fields: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", fields.collect::<Vec<_>>().join(" | "))
}

/// Text that can stand in a cell or a heading: no line ends, and no bar that would end the cell.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn percent(cell: Option<&Cell>) -> String {
    match cell.and_then(|cell| Some((cell, cell.share?))) {
        Some((cell, share)) => {
            format!("{:.1} [{:.1}, {:.1}]", share * 100.0, cell.low * 100.0, cell.high * 100.0)
        }
        None => ABSENT.to_owned(),
    }
}

/// What the numbers are, and of how many images.
fn notes(table: &TableDocument) -> Vec<String> {
    let counts_of = |metric: Metric| -> Vec<u64> {
        let in_row = |row: &Vec<Option<Cell>>| -> Vec<u64> {
            let cells = row.iter().zip(&table.columns).filter(|(_, column)| column.metric == metric);
            cells.filter_map(|(cell, _)| cell.as_ref().map(|cell| cell.n)).collect()
        };
        table.cells.iter().flat_map(in_row).collect()
    };
    let about = [
        (Metric::Accuracy, "Accuracy", "images"),
        (
            Metric::AccuracyOnCorrect,
            "Accuracy on correctly classified images",
            "images that the same model classifies correctly untransformed",
        ),
    ];
    about
        .into_iter()
        .filter_map(|(metric, name, images)| {
            let counts = counts_of(metric);
            let (&least, &most) = (counts.iter().min()?, counts.iter().max()?);
            let n =
                if least == most { thousands(least) } else { format!("{} to {}", thousands(least), thousands(most)) };
            Some(format!("{name} in percent [95 % Wilson interval], n = {n} {images}."))
        })
        .collect()
}

/// `12,345`
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::example;

    #[test]
    fn a_table_reads_well_as_text() {
        insta::assert_snapshot!(markdown(&example()), @r#"
        # Accuracy under saturation

        | model.variant |             clean |            p = 64 |
        | ------------- | ----------------: | ----------------: |
        | standard      | 91.7 [90.4, 92.8] | 21.9 [20.1, 23.9] |
        | pgd-inf-8     | 85.1 [83.5, 86.6] |                 – |
        | a\|b, "c"     |    0.0 [0.0, 0.2] |                 – |

        Accuracy in percent [95 % Wilson interval], n = 2,000 images.

        Accuracy on correctly classified images in percent [95 % Wilson interval], n = 0 to 1,834 images that the same model classifies correctly untransformed.
        "#);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_table_of_nothing_has_headings_only() {
        let mut empty = example();
        (empty.title, empty.rows, empty.cells) = (None, vec![], vec![]);
        insta::assert_snapshot!(markdown(&empty), @r#"
        | model.variant | clean | p = 64 |
        | ------------- | ----: | -----: |
        "#);
    }
}
