//! Numbers as CSV: one line for each, which a spreadsheet sorts and filters and pandas reads as it is. And CSV read.
//!
//! A table is `row,column,metric,value,low,high,hits,n`: labels as the table shows them, numbers with six decimals
//! (shares from 0 to 1), counts as integers; what else its cells have stands in more columns. Cells without a result
//! have no line unless a number was published, so that counts stay integers to every reader;
//! `pivot(index="row", columns="column")` gives the table back with gaps where they were. A figure is the same with
//! `series`, `x` as a number and `x_label` as the author wrote it in place of row and column, and `panel` before them
//! where it has panels. UTF-8, comma, line feed, quotes where RFC 4180 asks for them.

use super::{Cell, Comparison, Number, TableDocument};
use crate::stage_kinds::Metric;

/// The table as CSV.
pub fn csv(table: &TableDocument) -> String {
    let table = &table.shown();
    let has = |what: fn(&Cell) -> bool| table.cells.iter().flatten().flatten().any(what);
    let parts: Vec<Part> = [
        (table.mockup, MOCKUP),
        (has(|cell| cell.number.fixed), FIXED),
        (has(Cell::is_not_as_it_is_now), STATE),
        (!table.over.is_empty(), SPREAD),
        (table.compare.is_some(), COMPARED),
        (table.published.is_some(), PUBLISHED),
    ]
    .into_iter()
    .filter_map(|(is_there, part)| is_there.then_some(part))
    .collect();
    let extra = parts.iter().flat_map(|(names, _)| names.iter().copied());
    let mut text = line(["row", "column"].into_iter().chain(NUMBERS).chain(extra));
    for (row, cells) in table.rows.iter().zip(&table.cells) {
        for (column, cell) in table.columns.iter().zip(cells) {
            let published = |cell: &&Cell| cell.published.as_ref().is_some_and(|beside| beside.value.is_some());
            let Some(cell) = cell.as_ref().filter(|cell| cell.number.value.is_some() || published(cell)) else {
                continue;
            };
            let mut fields = vec![row.clone(), column.label.clone()];
            fields.extend(numbers(column.metric, &cell.number));
            parts.iter().for_each(|(_, part)| fields.extend(part(table, cell)));
            text += &line(fields.iter().map(String::as_str));
        }
    }
    text
}

/// More columns: their names, and their fields for a cell.
type Part = (&'static [&'static str], fn(&TableDocument, &Cell) -> Vec<String>);

const MOCKUP: Part = (&[MOCKUP_COLUMN], |_, _| vec![true.to_string()]);

const STATE: Part = (&["state"], |_, cell| vec![cell.state.name().to_owned()]);

const SPREAD: Part = (&["seeds", "deviation"], |_, cell| {
    let spread = cell.spread.as_ref();
    let seeds = spread.map_or(0, |spread| spread.values.len());
    vec![seeds.to_string(), real(spread.and_then(|spread| spread.deviation))]
});

const FIXED: Part = (&["fixed"], |_, cell| vec![cell.number.fixed.to_string()]);

const COMPARED: Part = (
    &["compared_to", "difference", "difference_low", "difference_high", "p", "p_holm", "family", "compared_n"],
    |table, cell| {
        let Some((compare, compared)) = table.compare.as_ref().zip(cell.compared.as_ref()) else {
            return vec![String::new(); 8];
        };
        let p = |p: Option<f64>| p.map_or(String::new(), |p| format!("{p:.6e}"));
        let Comparison { difference, low, high, p: plain, p_holm, family, n, .. } = *compared;
        let differences = [difference, low, high].map(real);
        [vec![compare.to.clone()], differences.to_vec(), vec![p(plain), p(p_holm), family.to_string(), n.to_string()]]
            .concat()
    },
);

const PUBLISHED: Part = (&["published", "minus_published", "verdict", "anomaly"], |_, cell| {
    let Some(beside) = &cell.published else { return vec![String::new(); 4] };
    let difference = beside.difference.map_or(String::new(), |points| format!("{points:.4}"));
    let verdict = serde_json::to_value(beside.verdict).ok().and_then(|name| name.as_str().map(str::to_owned));
    let anomaly = beside.anomaly.clone().unwrap_or_default();
    vec![beside.printed().unwrap_or_default(), difference, verdict.unwrap_or_default(), anomaly]
});

/// One number of a figure.
#[derive(Debug, Clone, Copy)]
pub struct PointRow<'a> {
    /// The plot it stands in, where there are several.
    pub panel: Option<&'a str>,
    /// The curve.
    pub series: &'a str,
    /// Where along the horizontal axis.
    pub x: f64,
    /// The same as the author wrote it.
    pub x_label: &'a str,
    /// What the number is.
    pub metric: Metric,
    /// The number.
    pub number: Number,
    /// The published number, as it was printed.
    pub published: Option<&'a str>,
}

/// The numbers of a figure as CSV; those without a value are left out unless one was published. Where a number is fixed
/// by definition there is a column `fixed` at the end, where one was published a column `published`.
pub fn points_csv<'a>(points: impl IntoIterator<Item = PointRow<'a>>) -> String {
    let points: Vec<PointRow<'a>> =
        points.into_iter().filter(|point| point.number.value.is_some() || point.published.is_some()).collect();
    let panel = points.first().and_then(|point| point.panel).map(|_| "panel");
    let fixed = points.iter().any(|point| point.number.fixed).then_some("fixed");
    let published = points.iter().any(|point| point.published.is_some()).then_some("published");
    let mut text =
        line(panel.into_iter().chain(["series", "x", "x_label"]).chain(NUMBERS).chain(fixed).chain(published));
    for point in points {
        let x = point.x.to_string();
        let place = point.panel.into_iter().chain([point.series, &x, point.x_label]);
        let is_fixed = fixed.map(|_| if point.number.fixed { "true" } else { "false" });
        let numbers = numbers(point.metric, &point.number);
        let beside = published.map(|_| point.published.unwrap_or_default());
        text += &line(place.chain(numbers.iter().map(String::as_str)).chain(is_fixed).chain(beside));
    }
    text
}

/// A probability of one image, as a figure of images has it.
#[derive(Debug, Clone, Copy)]
pub struct SampleNumber<'a> {
    /// The image's index in the sets.
    pub image: usize,
    /// The name of its class.
    pub class: &'a str,
    /// The set.
    pub set: &'a str,
    /// The model.
    pub row: &'a str,
    /// The probability of the class, 0 to 1.
    pub probability: f64,
    /// The predicted class, where the figure tells it.
    pub predicted: Option<&'a str>,
}

/// The probabilities of a figure of images as CSV. Where it tells predicted classes there is a column `predicted` at
/// the end.
pub fn samples_csv<'a>(numbers: impl IntoIterator<Item = SampleNumber<'a>>) -> String {
    let numbers: Vec<SampleNumber<'a>> = numbers.into_iter().collect();
    let predicted = numbers.iter().any(|number| number.predicted.is_some()).then_some("predicted");
    let names = ["image", "class", "set", "row", "probability_of_true_class"];
    let mut text = line(names.into_iter().chain(predicted));
    for number in numbers {
        let (image, probability) = (number.image.to_string(), real(Some(number.probability)));
        let fields = [image.as_str(), number.class, number.set, number.row, &probability];
        text += &line(fields.into_iter().chain(number.predicted));
    }
    text
}

/// A number of an epoch of a training.
#[derive(Debug, Clone, Copy)]
pub struct EpochRow<'a> {
    /// What the number is.
    pub metric: &'a str,
    /// The training.
    pub series: &'a str,
    /// The images that it is of; empty if it is of none.
    pub images: &'a str,
    /// The epoch, from 1.
    pub epoch: u32,
    /// The number; a share is 0 to 1.
    pub value: f64,
    /// Whether the checkpoint has the weights of this epoch.
    pub kept: bool,
}

/// The numbers of learning curves as CSV. Learning rates may be small, so numbers have all their digits.
pub fn epochs_csv<'a>(rows: impl IntoIterator<Item = EpochRow<'a>>) -> String {
    let mut text = line(["metric", "series", "images", "epoch", "value", "kept"]);
    for row in rows {
        let (epoch, value, kept) = (row.epoch.to_string(), row.value.to_string(), row.kept.to_string());
        text += &line([row.metric, row.series, row.images, &epoch, &value, &kept]);
    }
    text
}

/// The column that says of every number that it is of a mock-up.
const MOCKUP_COLUMN: &str = "mockup";

/// The CSV of a figure with a column more, which says of every line that it is of a mock-up.
///
/// # Errors
/// [`CsvError`] if it is no CSV.
pub fn mockup_csv(text: &str) -> Result<String, CsvError> {
    let (header, records) = read_csv(text.as_bytes())?;
    let with = |fields: &[String], last| line(fields.iter().map(String::as_str).chain([last]));
    let records = records.iter().map(|record| with(record, "true"));
    Ok(with(&header, MOCKUP_COLUMN) + &records.collect::<String>())
}

const NUMBERS: [&str; 6] = ["metric", "value", "low", "high", "hits", "n"];

/// The fields named by [`NUMBERS`]; empty where there is nothing.
fn numbers(metric: Metric, number: &Number) -> [String; 6] {
    let hits = number.hits.map_or(String::new(), |hits| hits.to_string());
    [metric.name().to_owned(), real(number.value), real(number.low), real(number.high), hits, number.n.to_string()]
}

fn real(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.6}"))
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

/// Why some bytes are no CSV table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CsvError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Text,
    /// No first line.
    #[error("it is empty")]
    Empty,
    /// A quoted field does not end, or goes on after its end.
    #[error("the quotes in the record that begins at line {line} do not fit")]
    Quotes {
        /// The line, from 1.
        line: usize,
    },
    /// A record has another number of fields than the first line.
    #[error("line {line} has {found} fields, the first line {expected}")]
    Fields {
        /// The line, from 1.
        line: usize,
        /// Its fields.
        found: usize,
        /// Those of the first line.
        expected: usize,
    },
}

/// The first line and the other records, all of as many fields, without white space around them; empty lines are left
/// out.
///
/// # Errors
/// [`CsvError`].
pub(super) fn read_csv(bytes: &[u8]) -> Result<(Vec<String>, Vec<Vec<String>>), CsvError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CsvError::Text)?;
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records: Vec<Vec<String>> = Vec::new();
    let mut line = 1;
    while !rest.is_empty() {
        let before = rest;
        let mut fields = Vec::new();
        loop {
            let (field, after) = read_field(rest).ok_or(CsvError::Quotes { line })?;
            fields.push(field);
            rest = after;
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        rest = rest.strip_prefix('\r').unwrap_or(rest);
        rest = rest.strip_prefix('\n').unwrap_or(rest);
        if fields != [""] {
            let expected = records.first().map_or(fields.len(), Vec::len);
            if fields.len() != expected {
                return Err(CsvError::Fields { line, found: fields.len(), expected });
            }
            records.push(fields);
        }
        line += before[..before.len() - rest.len()].matches('\n').count();
    }
    let mut records = records.into_iter();
    Ok((records.next().ok_or(CsvError::Empty)?, records.collect()))
}

/// A field and what follows it; `None` if its quotes do not fit.
fn read_field(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (field, rest) = text.split_at(text.find([',', '\n', '\r']).unwrap_or(text.len()));
        return Some((field.trim().to_owned(), rest));
    };
    let mut field = String::new();
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => (field, rest) = (field + "\"", after),
            None if rest.is_empty() || rest.starts_with([',', '\n', '\r']) => return Some((field, rest)),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;
    use crate::results::table::tests::{everything, example};

    #[test]
    fn one_line_for_each_number() {
        insta::assert_snapshot!(csv(&example()), @r#"
        row,column,metric,value,low,high,hits,n
        standard,clean,accuracy,0.917000,0.904095,0.928306,1834,2000
        standard,p = 64,accuracy_on_correct,0.219193,0.200857,0.238703,402,1834
        pgd-inf-8,clean,accuracy,0.851000,0.834722,0.865933,1702,2000
        "a|b, ""c""",clean,accuracy,0.000000,0.000000,0.001917,0,2000
        "#);
    }

    #[test]
    fn what_cells_have_more_stands_in_more_columns() {
        insta::assert_snapshot!(csv(&everything()));
    }

    #[test]
    fn points_have_their_place_as_number_and_as_written() {
        let point = |x, x_label, hits, n| PointRow {
            panel: None,
            series: "PGD, ε = 8",
            x,
            x_label,
            metric: Metric::Accuracy,
            number: Counts::new(hits, n).unwrap().into(),
            published: None,
        };
        let points = [point(0.5, "1/2", 1, 2), point(1.0, "1", 0, 0), point(1024.0, "1024", 2, 2)];
        insta::assert_snapshot!(points_csv(points), @r#"
        series,x,x_label,metric,value,low,high,hits,n
        "PGD, ε = 8",0.5,1/2,accuracy,0.500000,0.094531,0.905469,1,2
        "PGD, ε = 8",1024,1024,accuracy,1.000000,0.342380,1.000000,2,2
        "#);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (header, lines) = read_csv(csv(&example()).as_bytes()).unwrap();
        assert_eq!((header[0].as_str(), lines.len(), lines[3][0].as_str()), ("row", 4, "a|b, \"c\""));
        let read = |text: &str| read_csv(text.as_bytes());
        let owned = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        let text = "\u{feff}a, b ,\"c\nd\"\r\n\r\n\"\",2,x";
        assert_eq!(read(text), Ok((owned(&["a", "b", "c\nd"]), vec![owned(&["", "2", "x"])])));
        assert_eq!(read("a,b\n\n\"x\ny\",2\n1\n"), Err(CsvError::Fields { line: 5, found: 1, expected: 2 }));
        assert_eq!(read("a\n\"b"), Err(CsvError::Quotes { line: 2 }));
        assert_eq!(read("\"a\"b"), Err(CsvError::Quotes { line: 1 }));
        assert_eq!((read("\n\n"), read_csv(b"\xff")), (Err(CsvError::Empty), Err(CsvError::Text)));
    }
}
