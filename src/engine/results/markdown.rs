//! A table as Markdown: a pipe table that reads well as plain text too.
//!
//! Cells are percentages with their interval, `87.4 [85.9, 88.8]`: the Wilson interval is not symmetric, so `±` would
//! be wrong in the last digit that is shown. Published numbers and comparisons stand in lines of their own under a row,
//! so that columns stay narrow and what belongs together stands together. How many images stand behind the numbers is
//! told below the table.

use super::{Cell, TableDocument, words};

/// The table as Markdown, with its title as a heading where it has one.
pub fn markdown(table: &TableDocument) -> String {
    let table = &table.shown();
    let mut lines = vec![];
    let heading = [one_line(&table.corner)].into_iter();
    lines.push(heading.chain(table.columns.iter().map(|column| one_line(&column.label))).collect::<Vec<_>>());
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        let numbers = table.columns.iter().zip(cells).map(|(column, cell)| match cell {
            None => words::ABSENT.to_owned(),
            Some(cell) => {
                let interval = words::interval(column.metric, &cell.number);
                let interval = interval.map_or(String::new(), |interval| format!(" {interval}"));
                words::number(column.metric, cell) + &interval
            }
        });
        lines.push([one_line(row)].into_iter().chain(numbers).collect());
        let mut below = |label: String, text: &dyn Fn(&Cell) -> Option<String>| {
            let texts: Vec<Option<String>> = cells.iter().map(|cell| cell.as_ref().and_then(text)).collect();
            if texts.iter().any(Option::is_some) {
                let texts = texts.into_iter().map(|text| text.unwrap_or_else(|| words::ABSENT.to_owned()));
                lines.push([one_line(&label)].into_iter().chain(texts).collect());
            }
        };
        if let Some(compare) = &table.compare {
            below(words::comparison_label(&compare.to), &|cell| cell.compared.as_ref().map(words::compared));
        }
        if table.published.is_some() {
            let is_published = |cell: &&Cell| cell.published.as_ref().is_some_and(|beside| beside.value.is_some());
            below(words::PUBLISHED.to_owned(), &|cell| Some(cell).filter(is_published).map(words::published));
        }
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
    for note in words::notes(table, true) {
        text += "\n";
        text += &one_line(&note);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::{everything, example};

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

        An interval is over images: another seed of a training may change a number by more than that.
        "#);
    }

    #[test]
    fn all_that_is_known_of_a_cell_stands_under_it() {
        insta::assert_snapshot!(markdown(&everything()));
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
