//! Published numbers beside reproduced ones: read from CSV, found by their labels, and judged cell by cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::csv::{CsvError, read_csv};
use super::{Number, TableDocument};
use crate::kinds::{Metric, PublishedParams};

/// How a number compares with the published one. The first that is true of a cell is its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equal when rounded to as many decimals as were published.
    Same,
    /// No further away than the table's tolerance.
    WithinTolerance,
    /// The published number lies in the 95 % interval of this one.
    WithinSamplingError,
    /// None of these.
    Different,
    /// A number was published, and there is none here.
    Missing,
    /// None was published.
    NotPublished,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 6] = [
        Verdict::Same,
        Verdict::WithinTolerance,
        Verdict::WithinSamplingError,
        Verdict::Different,
        Verdict::Missing,
        Verdict::NotPublished,
    ];

    /// The verdict in words.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::WithinTolerance => "within tolerance",
            Verdict::WithinSamplingError => "within sampling error",
            Verdict::Different => "different",
            Verdict::Missing => "missing",
            Verdict::NotPublished => "not published",
        }
    }
}

/// A published number beside one of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// The published number, in percent where it is a share; `null` where none was published.
    pub value: Option<f64>,
    /// The decimals it is rounded to: the most that its column has.
    pub decimals: usize,
    /// Our number less the published one, in percentage points where they are shares.
    pub difference: Option<f64>,
    /// How they compare.
    pub verdict: Verdict,
    /// Why the published number cannot be right as printed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<String>,
}

impl Beside {
    /// Whether a reproduction failed here: it differs, and the published number is not known to be wrong.
    pub fn fails(&self) -> bool {
        self.verdict == Verdict::Different && self.anomaly.is_none()
    }

    /// The published number as it was printed, or with the decimals of its column.
    pub fn printed(&self) -> Option<String> {
        self.value.map(|value| format!("{value:.*}", self.decimals))
    }
}

/// Why a file holds no published numbers for a table.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PublishedError {
    /// Not CSV.
    #[error("it is not CSV as expected: {0}")]
    Csv(#[from] CsvError),
    /// A field is no number.
    #[error("row `{row}`, column `{column}`: `{text}` is no number")]
    NoNumber {
        /// The row's label.
        row: String,
        /// The column's label.
        column: String,
        /// What stands there.
        text: String,
    },
    /// A label stands twice.
    #[error("it has {what} `{label}` twice")]
    Twice {
        /// A row or a column.
        what: &'static str,
        /// Its label.
        label: String,
    },
    /// A row or a column that the table needs is not there.
    #[error("it has no {what} `{label}`")]
    Lacks {
        /// A row or a column.
        what: &'static str,
        /// Its label.
        label: String,
    },
    /// A file of anomalies has other columns.
    #[error("its first line must be `table,row,column,published,reason`")]
    AnomalyColumns,
    /// An anomaly is of a cell that is not there, or of another number.
    #[error(
        "it has no published number {published} in row `{row}`, column `{column}`, which the file of anomalies names"
    )]
    Anomaly {
        /// The row's label.
        row: String,
        /// The column's label.
        column: String,
        /// The number that it names.
        published: String,
    },
}

/// A table of published numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedTable {
    /// Labels of its rows, in order.
    pub rows: Vec<String>,
    /// Labels of its columns, in order.
    pub columns: Vec<String>,
    cells: BTreeMap<(String, String), f64>,
    decimals: BTreeMap<String, usize>,
    anomalies: BTreeMap<(String, String), String>,
}

impl PublishedTable {
    /// Reads a CSV file: labels of columns in its first line, each other line a row's label and its numbers; an empty field is none.
    ///
    /// # Errors
    /// [`PublishedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PublishedError> {
        let (header, lines) = read_csv(bytes)?;
        let columns: Vec<String> = header.into_iter().skip(1).collect();
        unique("column", &columns)?;
        let mut table = PublishedTable {
            rows: Vec::new(),
            columns,
            cells: BTreeMap::new(),
            decimals: BTreeMap::new(),
            anomalies: BTreeMap::new(),
        };
        for fields in lines {
            let row = fields[0].clone();
            for (column, text) in table.columns.iter().zip(&fields[1..]).filter(|(_, text)| !text.is_empty()) {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                    PublishedError::NoNumber { row: row.clone(), column: column.clone(), text: text.clone() }
                })?;
                table.cells.insert((row.clone(), column.clone()), value);
                let decimals = table.decimals.entry(column.clone()).or_default();
                *decimals = text.split_once('.').map_or(0, |(_, after)| after.len()).max(*decimals);
            }
            table.rows.push(row);
        }
        unique("row", &table.rows)?;
        Ok(table)
    }

    /// Marks the cells that a file of anomalies names for the table called `name`.
    ///
    /// # Errors
    /// [`PublishedError`], also where a named cell is not there or has another number: then one of the files is wrong.
    pub fn mark(&mut self, name: &str, anomalies: &[u8]) -> Result<(), PublishedError> {
        let (header, lines) = read_csv(anomalies)?;
        if header != ["table", "row", "column", "published", "reason"] {
            return Err(PublishedError::AnomalyColumns);
        }
        for line in lines.into_iter().filter(|line| line[0] == name) {
            let [_, row, column, published, reason] = <[String; 5]>::try_from(line).unwrap_or_default();
            let cell = (row, column);
            if self.cells.get(&cell).is_none_or(|value| published.parse() != Ok(*value)) {
                return Err(PublishedError::Anomaly { row: cell.0, column: cell.1, published });
            }
            self.anomalies.insert(cell, reason);
        }
        Ok(())
    }

    /// Puts the published number and a verdict in each cell of a table; a cell that is empty becomes one where a number was published.
    ///
    /// # Errors
    /// [`PublishedError::Lacks`] if `params` names a row or a column that is not there.
    pub fn judge(&self, params: &PublishedParams, table: &mut TableDocument) -> Result<(), PublishedError> {
        for (what, wanted, there) in [("row", &params.rows, &self.rows), ("column", &params.columns, &self.columns)] {
            if let Some(label) = wanted.iter().flatten().find(|label| !there.contains(label)) {
                return Err(PublishedError::Lacks { what, label: label.clone() });
            }
        }
        for (row, cells) in params.rows.iter().zip(&mut table.cells) {
            for ((name, column), cell) in params.columns.iter().zip(&table.columns).zip(cells) {
                let place = row.clone().zip(name.clone());
                let published = place.as_ref().and_then(|place| self.cells.get(place)).copied();
                if cell.is_none() && published.is_none() {
                    continue;
                }
                let cell = cell.get_or_insert_default();
                let decimals = name.as_ref().and_then(|name| self.decimals.get(name)).copied().unwrap_or(0);
                let anomaly = place.as_ref().and_then(|place| self.anomalies.get(place)).cloned();
                let beside = judge(column.metric, &cell.number, published, decimals, params.tolerance);
                cell.published = Some(Beside { anomaly, ..beside });
            }
        }
        Ok(())
    }
}

fn unique(what: &'static str, labels: &[String]) -> Result<(), PublishedError> {
    let again = labels.iter().enumerate().find(|(index, label)| labels[..*index].contains(label));
    again.map_or(Ok(()), |(_, label)| Err(PublishedError::Twice { what, label: label.clone() }))
}

/// Differences of decimal numbers are off by a rounding of this order, which must not decide.
const SLACK: f64 = 1e-9;

fn judge(metric: Metric, ours: &Number, published: Option<f64>, decimals: usize, tolerance: Option<f64>) -> Beside {
    let scale = if metric.is_share() { 100.0 } else { 1.0 };
    let value = ours.value.map(|value| value * scale);
    let difference = value.zip(published).map(|(ours, published)| ours - published);
    let half = 0.5 * 10_f64.powi(-i32::try_from(decimals).unwrap_or(i32::MAX));
    let within =
        |(low, high): (f64, f64), published: f64| low * scale <= published + SLACK && published <= high * scale + SLACK;
    let verdict = match (difference, published) {
        (_, None) => Verdict::NotPublished,
        (None, Some(_)) => Verdict::Missing,
        // Half way between two is as near to the one as to the other.
        (Some(difference), _) if difference.abs() <= half + SLACK => Verdict::Same,
        (Some(difference), _) if tolerance.is_some_and(|tolerance| difference.abs() <= tolerance + SLACK) => {
            Verdict::WithinTolerance
        }
        (_, Some(published)) if ours.low.zip(ours.high).is_some_and(|ends| within(ends, published)) => {
            Verdict::WithinSamplingError
        }
        _ => Verdict::Different,
    };
    Beside { value: published, decimals, difference, verdict, anomaly: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Counts;
    use crate::results::table::tests::example;

    const FILE: &str = "model,clean,p=64\nstandard,91.7,22\npgd-inf-8,80,50.5\nunderfit,,1.25\n";

    fn number(hits: u64, n: u64) -> Number {
        Number::from(Counts::new(hits, n).unwrap())
    }

    fn verdict(ours: Number, published: f64, decimals: usize, tolerance: Option<f64>) -> Verdict {
        judge(Metric::Accuracy, &ours, Some(published), decimals, tolerance).verdict
    }

    #[test]
    fn the_first_verdict_that_is_true_is_given() {
        // 917 of 1000: the interval is [89.8, 93.3] percent.
        let ours = number(917, 1000);
        assert_eq!(verdict(ours, 91.7, 1, None), Verdict::Same);
        assert_eq!(verdict(ours, 92.0, 0, None), Verdict::Same, "92 when rounded as published");
        assert_eq!(verdict(ours, 92.0, 2, Some(1.5)), Verdict::WithinTolerance);
        assert_eq!(verdict(ours, 93.2, 2, Some(1.5)), Verdict::WithinTolerance, "exactly the tolerance");
        assert_eq!(verdict(ours, 93.21, 2, Some(1.5)), Verdict::WithinSamplingError);
        assert_eq!(verdict(ours, 92.0, 2, None), Verdict::WithinSamplingError);
        assert_eq!(verdict(ours, 94.0, 2, Some(1.5)), Verdict::Different);
        assert_eq!(verdict(Number { low: None, high: None, ..ours }, 92.0, 2, None), Verdict::Different, "no interval");
        assert_eq!(verdict(Number::default(), 92.0, 2, None), Verdict::Missing);
        let none = judge(Metric::Accuracy, &ours, None, 2, None);
        assert_eq!((none.verdict, none.difference), (Verdict::NotPublished, None));
        let loss = judge(Metric::Loss, &Number { value: Some(0.71), ..ours }, Some(0.7), 1, None);
        assert_eq!(loss.verdict, Verdict::Same, "a loss is no share");
    }

    #[test]
    fn a_table_is_judged_cell_by_cell() {
        let mut published = PublishedTable::parse(FILE.as_bytes()).unwrap();
        published
            .mark("t", b"table,row,column,published,reason\nt,pgd-inf-8,clean,80,\"misprint, surely\"\nu,x,y,1,z\n")
            .unwrap();
        let some = |label: &str| Some(label.to_owned());
        let params = PublishedParams {
            table: "t".into(),
            rows: vec![some("standard"), some("pgd-inf-8"), None],
            columns: vec![some("clean"), some("p=64")],
            tolerance: None,
        };
        let mut table = example();
        published.judge(&params, &mut table).unwrap();
        let beside = |row: usize, column: usize| table.cells[row][column].as_ref().unwrap().published.clone().unwrap();
        assert_eq!(beside(0, 0).verdict, Verdict::Same);
        assert_eq!(
            (beside(0, 1).printed().unwrap(), beside(0, 1).verdict),
            ("22.00".into(), Verdict::WithinSamplingError)
        );
        assert_eq!((beside(1, 0).verdict, beside(1, 0).fails()), (Verdict::Different, false));
        assert_eq!(beside(1, 0).anomaly.as_deref(), Some("misprint, surely"));
        assert_eq!(beside(1, 1).verdict, Verdict::Missing, "there was no result for this cell");
        assert_eq!(beside(2, 0).verdict, Verdict::NotPublished);
        let lacks = PublishedParams { columns: vec![some("clean"), some("p=46")], ..params };
        let error = published.judge(&lacks, &mut example()).unwrap_err();
        assert_eq!(error.to_string(), "it has no column `p=46`");
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let parse = |text: &str| PublishedTable::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(parse("m,a\nx,12.x\n"), "row `x`, column `a`: `12.x` is no number");
        assert_eq!(parse("m,a\nx,inf\n"), "row `x`, column `a`: `inf` is no number");
        assert_eq!(parse("m,a,a\n"), "it has column `a` twice");
        assert_eq!(parse("m,a\nx,1\nx,2\n"), "it has row `x` twice");
        let mut table = PublishedTable::parse(FILE.as_bytes()).unwrap();
        let mut mark = |text: &str| table.mark("t", text.as_bytes()).unwrap_err().to_string();
        assert_eq!(mark("row,column\n"), "its first line must be `table,row,column,published,reason`");
        assert_eq!(
            mark("table,row,column,published,reason\nt,standard,clean,19.7,typo\n"),
            "it has no published number 19.7 in row `standard`, column `clean`, which the file of anomalies names"
        );
    }

    #[test]
    fn the_published_tables_can_be_read_and_their_anomalies_are_there() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/published");
        let anomalies = std::fs::read(folder.join("anomalies.csv")).unwrap();
        // Rows and columns of the paper's tables 1 to 8.
        let sizes = [(11, 6), (11, 4), (3, 3), (11, 8), (11, 8), (11, 8), (11, 3), (11, 3)];
        let mut marked = 0;
        for (index, (rows, columns)) in sizes.into_iter().enumerate() {
            let name = format!("table{}", index + 1);
            let mut table = PublishedTable::parse(&std::fs::read(folder.join(format!("{name}.csv"))).unwrap()).unwrap();
            table.mark(&name, &anomalies).unwrap();
            assert_eq!((table.rows.len(), table.columns.len(), table.cells.len()), (rows, columns, rows * columns));
            marked += table.anomalies.len();
        }
        assert_eq!(marked, anomalies.iter().filter(|byte| **byte == b'\n').count() - 1, "an anomaly of no table");
    }
}
