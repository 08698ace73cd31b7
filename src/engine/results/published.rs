//! Published numbers beside reproduced ones: read from CSV, found by their labels, and judged cell by cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::wilson;
use super::csv::{CsvError, read_csv};
use super::{Number, TableDocument};
use crate::stage_kinds::{Metric, PublishedParams};

/// How a number compares with the published one. The first that is true of a cell is its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equal when rounded to as many decimals as were published.
    Same,
    /// No further away than the table's tolerance; of shares also no further than half of the published one, and than
    /// half of what that lacks to 100 %.
    WithinTolerance,
    /// The two differ by no more than two samples do at 95 %; the published one is taken as measured on as many images
    /// as this one.
    WithinSamplingError,
    /// None of these.
    Different,
    /// The number here is not the pipeline's as it is now, so nothing can be said.
    NotCompared,
    /// A number was published, and there is none here.
    Missing,
    /// None was published.
    NotPublished,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 7] = [
        Verdict::Same,
        Verdict::WithinTolerance,
        Verdict::WithinSamplingError,
        Verdict::Different,
        Verdict::NotCompared,
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
            Verdict::NotCompared => "not compared",
            Verdict::Missing => "missing",
            Verdict::NotPublished => "not published",
        }
    }
}

/// A published number beside one of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedComparison {
    /// The published number, in percent where it is a share; `null` where none was published.
    pub value: Option<f64>,
    /// The decimals that it was published with.
    pub decimals: usize,
    /// Our number less the published one, in percentage points where they are shares.
    pub difference: Option<f64>,
    /// How they compare.
    pub verdict: Verdict,
    /// Why the published number cannot be right as printed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<String>,
}

impl PublishedComparison {
    /// Whether a reproduction failed here: it differs, and the published number is not known to be wrong.
    pub fn fails(&self) -> bool {
        self.verdict == Verdict::Different && self.anomaly.is_none()
    }

    /// The published number as it was printed.
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
    /// Its first line has one field: it is a text of some other sort.
    #[error("its first line names no columns")]
    NoColumns,
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

/// A number as it was published.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Printed {
    value: f64,
    /// What it was rounded to. A number of fewer decimals than its neighbours is not taken to have zeros that nobody
    /// printed.
    decimals: usize,
}

/// How many decimals a number has as it is written; the exponent moves the point.
fn decimals(text: &str) -> usize {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let after = digits.split_once('.').map_or(0, |(_, after)| after.len() as i64);
    // Nothing that reads as a finite number has more than a few hundred.
    (after - exponent.parse::<i64>().unwrap_or(0)).clamp(0, 400) as usize
}

/// A table of published numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedTable {
    /// Labels of its rows, in order.
    pub rows: Vec<String>,
    /// Labels of its columns, in order.
    pub columns: Vec<String>,
    cells: BTreeMap<(String, String), Printed>,
    anomalies: BTreeMap<(String, String), String>,
}

impl PublishedTable {
    /// Reads a CSV file: labels of columns in its first line, each other line a row's label and its numbers; an empty
    /// field is none.
    ///
    /// # Errors
    /// [`PublishedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PublishedError> {
        let (header, lines) = read_csv(bytes)?;
        let columns: Vec<String> = header.into_iter().skip(1).collect();
        // Some other file, whose lines are not to be shown as the names of rows.
        if columns.is_empty() {
            return Err(PublishedError::NoColumns);
        }
        unique("column", &columns)?;
        let mut table =
            PublishedTable { rows: Vec::new(), columns, cells: BTreeMap::new(), anomalies: BTreeMap::new() };
        for fields in lines {
            let row = fields[0].clone();
            for (column, text) in table.columns.iter().zip(&fields[1..]).filter(|(_, text)| !text.is_empty()) {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| {
                    PublishedError::NoNumber { row: row.clone(), column: column.clone(), text: text.clone() }
                })?;
                let printed = Printed { value, decimals: decimals(text) };
                table.cells.insert((row.clone(), column.clone()), printed);
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
            if self.cells.get(&cell).is_none_or(|printed| published.parse() != Ok(printed.value)) {
                return Err(PublishedError::Anomaly { row: cell.0, column: cell.1, published });
            }
            self.anomalies.insert(cell, reason);
        }
        Ok(())
    }

    /// The number in a row and a column, and how it was printed.
    pub fn number(&self, row: &str, column: &str) -> Option<(f64, String)> {
        let Printed { value, decimals } = self.cells.get(&(row.to_owned(), column.to_owned()))?;
        Some((*value, format!("{value:.decimals$}")))
    }

    /// Puts the published number and a verdict in each cell of a table; a cell that is empty becomes one where a number
    /// was published.
    ///
    /// # Errors
    /// [`PublishedError::Lacks`] if `params` names a row or a column that is not there.
    pub fn judge(&self, params: &PublishedParams, table: &mut TableDocument) -> Result<(), PublishedError> {
        for (what, wanted, there) in [("row", &params.rows, &self.rows), ("column", &params.columns, &self.columns)] {
            if let Some(label) = wanted.iter().flatten().find(|label| !there.contains(label)) {
                return Err(PublishedError::Lacks { what, label: label.clone() });
            }
        }
        let is_mockup = table.mockup;
        for (row, cells) in params.rows.iter().zip(&mut table.cells) {
            for ((name, column), cell) in params.columns.iter().zip(&table.columns).zip(cells) {
                let place = row.clone().zip(name.clone());
                let published = place.as_ref().and_then(|place| self.cells.get(place)).copied();
                if cell.is_none() && published.is_none() {
                    continue;
                }
                let cell = cell.get_or_insert_default();
                let anomaly = place.as_ref().and_then(|place| self.anomalies.get(place)).cloned();
                let mut beside = judge(column.metric, &cell.number, published, params.tolerance);
                if beside.difference.is_some() && (is_mockup || !cell.state.is_made()) {
                    (beside.difference, beside.verdict) = (None, Verdict::NotCompared);
                }
                cell.published = Some(PublishedComparison { anomaly, ..beside });
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

/// How far from a published number is near, where its table allows `points`. A point and a half is little at 50 % and
/// all there is at 1 %: near both ends of the scale a share must keep its size, so that no more than half of it, or of
/// what it lacks to 100, is allowed.
fn allowed(metric: Metric, published: f64, points: f64) -> f64 {
    if metric.is_share() { points.min(published / 2.0).min((100.0 - published) / 2.0) } else { points }
}

/// Whether two shares, 0 to 1, differ by no more than chance at 95 %: both are samples. How many images the published
/// one was measured on is taken to be as many as ours. A mean of ratios or of seeds has no such count: then the
/// published number has to lie in its interval. What a definition gives is no sample.
fn within_sampling_error(metric: Metric, ours: &Number, published: f64, scale: f64) -> bool {
    let is_share = metric.is_share() && ours.hits.is_some() && !ours.fixed && ours.n > 0;
    match ours.value {
        Some(value) if is_share && (0.0..=100.0).contains(&published) => {
            is_chance((value, ours.n), (published / scale, ours.n))
        }
        _ => ours
            .low
            .zip(ours.high)
            .is_some_and(|(low, high)| low * scale <= published + SLACK && published <= high * scale + SLACK),
    }
}

/// Whether 0 lies in the 95 % interval of the difference of two independent shares, each with its number of images: the
/// interval of Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine
/// 17 (1998), method 10, from the Wilson intervals of the two.
fn is_chance(one: (f64, u64), other: (f64, u64)) -> bool {
    let ((upper, of_upper), (lower, of_lower)) = if one.0 >= other.0 { (one, other) } else { (other, one) };
    let (down, up) = (upper - wilson(upper, of_upper).0, wilson(lower, of_lower).1 - lower);
    upper - lower <= down.hypot(up) + SLACK
}

fn judge(metric: Metric, ours: &Number, printed: Option<Printed>, tolerance: Option<f64>) -> PublishedComparison {
    let (published, decimals) = (printed.map(|printed| printed.value), printed.map_or(0, |printed| printed.decimals));
    let scale = if metric.is_share() { 100.0 } else { 1.0 };
    let value = ours.value.map(|value| value * scale);
    let difference = value.zip(published).map(|(ours, published)| ours - published);
    let half = 0.5 * 10_f64.powi(-i32::try_from(decimals).unwrap_or(i32::MAX));
    let near = |difference: f64, published: f64| {
        tolerance.is_some_and(|points| difference.abs() <= allowed(metric, published, points) + SLACK)
    };
    let verdict = match (difference, published) {
        (_, None) => Verdict::NotPublished,
        (None, Some(_)) => Verdict::Missing,
        // Half way between two is as near to the one as to the other.
        (Some(difference), _) if difference.abs() <= half + SLACK => Verdict::Same,
        (Some(difference), Some(published)) if near(difference, published) => Verdict::WithinTolerance,
        (_, Some(published)) if within_sampling_error(metric, ours, published, scale) => Verdict::WithinSamplingError,
        _ => Verdict::Different,
    };
    PublishedComparison { value: published, decimals, difference, verdict, anomaly: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::table::tests::example;
    use crate::results::{Counts, State};

    const FILE: &str = "model,clean,p=64\nstandard,91.7,22\npgd-inf-8,80,50.5\nunderfit,,1.25\n";

    fn number(hits: u64, n: u64) -> Number {
        Number::from(Counts::new(hits, n).unwrap())
    }

    fn verdict(ours: Number, published: f64, decimals: usize, tolerance: Option<f64>) -> Verdict {
        judge(Metric::Accuracy, &ours, Some(Printed { value: published, decimals }), tolerance).verdict
    }

    fn printed(text: &str) -> Option<Printed> {
        Some(Printed { value: text.parse().unwrap(), decimals: decimals(text) })
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
        let bare = Number { low: None, high: None, hits: None, ..ours };
        assert_eq!(verdict(bare, 92.0, 2, None), Verdict::Different, "no interval");
        assert_eq!(verdict(Number::default(), 92.0, 2, None), Verdict::Missing);
        let none = judge(Metric::Accuracy, &ours, None, None);
        assert_eq!((none.verdict, none.difference), (Verdict::NotPublished, None));
        let loss = judge(Metric::Loss, &Number { value: Some(0.71), ..ours }, printed("0.7"), None);
        assert_eq!(loss.verdict, Verdict::Same, "a loss is no share");
    }

    #[test]
    fn a_share_near_an_end_of_the_scale_must_keep_its_size() {
        // Of 10,000 images. The published robustness of 0 is not met by 1.4, though that is within 1.5 points of it.
        let of = |hits, published| verdict(number(hits, 10_000), published, 2, Some(1.5));
        assert_eq!(of(140, 0.0), Verdict::Different);
        assert_eq!(of(0, 0.0), Verdict::Same);
        assert_eq!(of(2, 0.0), Verdict::WithinSamplingError, "0 of 10,000 has the interval [0, 0.038]");
        assert_eq!(of(0, 0.01), Verdict::WithinSamplingError);
        assert_eq!(of(85, 1.66), Verdict::WithinTolerance, "half of it is 0.83");
        assert_eq!(of(82, 1.66), Verdict::Different);
        assert_eq!(of(9_990, 98.9), Verdict::Different, "what it lacks is a tenth");
        assert_eq!(of(1_300, 14.25), Verdict::WithinTolerance, "further up nothing changes");
        // Without a count of images nothing is known of the published number's own error.
        let mean = Number { hits: None, ..number(2, 10_000) };
        assert_eq!(verdict(mean, 0.0, 2, Some(1.5)), Verdict::Different);
        let loss = Number { value: Some(0.4), ..Number::default() };
        assert_eq!(judge(Metric::Loss, &loss, printed("0.30"), Some(0.2)).verdict, Verdict::WithinTolerance);
    }

    /// Two runs of the same truth, every outcome with its probability: at most about 5 % are called different. Where
    /// one number only had to lie outside of the interval of the other, it was one in six.
    #[test]
    fn equal_runs_are_called_different_as_seldom_as_it_says() {
        let n = 120_u64;
        let ln_factorial = |n: u64| (1..=n).map(|k| (k as f64).ln()).sum::<f64>();
        let chances = |p: f64| -> Vec<f64> {
            let chance = |k: u64| {
                let ways = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
                (ways + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()
            };
            (0..=n).map(chance).collect()
        };
        for p in [0.03, 0.2, 0.5, 0.8] {
            let chances = chances(p);
            let (mut called, mut outside) = (0.0, 0.0);
            for (a, of_a) in chances.iter().enumerate() {
                let (share, interval) = (a as f64 / n as f64, wilson(a as f64 / n as f64, n));
                for (b, of_b) in chances.iter().enumerate() {
                    let other = b as f64 / n as f64;
                    called += if is_chance((share, n), (other, n)) { 0.0 } else { of_a * of_b };
                    outside += if (interval.0..=interval.1).contains(&other) { 0.0 } else { of_a * of_b };
                }
            }
            assert!(called < 0.06, "{p}: {called}");
            assert!(outside > 0.1, "{p}: {outside}");
        }
        // statsmodels 0.15.0, confint_proportions_2indep(hits, 1000, 300, 1000, method="newcomb"): [-0.0009, 0.0807] of
        // 340 hits, [0.0001, 0.0817] of 341.
        assert!(is_chance((0.340, 1000), (0.300, 1000)) && !is_chance((0.300, 1000), (0.341, 1000)));
    }

    #[test]
    fn a_number_of_an_earlier_state_gets_no_verdict() {
        let some = |label: &str| Some(label.to_owned());
        let params = PublishedParams {
            table: "t".into(),
            rows: vec![some("standard"), some("pgd-inf-8"), None],
            columns: vec![some("clean"), some("p=64")],
            tolerance: Some(1.5),
        };
        let mut table = example();
        let state = |table: &mut TableDocument, row: usize, column: usize, state| {
            table.cells[row][column].get_or_insert_default().state = state;
        };
        state(&mut table, 0, 0, State::Stale);
        state(&mut table, 0, 1, State::Incomplete);
        state(&mut table, 1, 1, State::Missing);
        PublishedTable::parse(FILE.as_bytes()).unwrap().judge(&params, &mut table).unwrap();
        table.sum_up("t", Some(1.5));
        let of = |row: usize, column: usize| {
            let beside = table.cells[row][column].as_ref().unwrap().published.clone().unwrap();
            (beside.value, beside.difference, beside.verdict)
        };
        assert_eq!(of(0, 0), (Some(91.7), None, Verdict::NotCompared));
        assert_eq!(of(0, 1), (Some(22.0), None, Verdict::NotCompared));
        assert_eq!(of(1, 1), (Some(50.5), None, Verdict::Missing));
        assert_eq!(of(1, 0).2, Verdict::Different);
        let verdicts = &table.published.as_ref().unwrap().verdicts;
        assert_eq!(verdicts.get(&Verdict::Same), None, "91.7 is the published number, of an earlier state");
        assert_eq!(verdicts[&Verdict::NotCompared], 2);
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
        assert_eq!((beside(0, 1).printed().unwrap(), beside(0, 1).verdict), ("22".into(), Verdict::Same));
        assert_eq!((beside(1, 0).verdict, beside(1, 0).fails()), (Verdict::Different, false));
        assert_eq!(beside(1, 0).anomaly.as_deref(), Some("misprint, surely"));
        assert_eq!(beside(1, 1).verdict, Verdict::Missing, "there was no result for this cell");
        assert_eq!(beside(2, 0).verdict, Verdict::NotPublished);
        let lacks = PublishedParams { columns: vec![some("clean"), some("p=46")], ..params };
        let error = published.judge(&lacks, &mut example()).unwrap_err();
        assert_eq!(error.to_string(), "it has no column `p=46`");
    }

    #[test]
    fn a_number_is_compared_at_its_own_decimals() {
        // 21.92 % and 91.70 %, in a column whose other numbers have two decimals and none.
        let (file, params) = ("m,a\none,21.9\ntwo,21.93\nthree,22\nfour,22.0\n", ["one", "two", "three", "four"]);
        let published = PublishedTable::parse(file.as_bytes()).unwrap();
        let verdict = |row: &str| {
            let printed = published.cells.get(&(row.to_owned(), "a".to_owned())).copied();
            judge(Metric::Accuracy, &number(2_192, 10_000), printed, None).verdict
        };
        use Verdict::{Same, WithinSamplingError};
        assert_eq!(params.map(verdict), [Same, WithinSamplingError, Same, WithinSamplingError]);
        let counted = ["91.7", "91.70", "92", "1.5e-3", "1e-3", "1.25e1", "5e3", ".5", "-0.50"].map(decimals);
        assert_eq!(counted, [1, 2, 0, 4, 3, 1, 0, 1, 2]);
    }

    #[test]
    fn what_a_definition_gives_has_no_sampling_error() {
        let ours = number(200, 200);
        let verdict = |ours| judge(Metric::AccuracyOnCorrect, &ours, printed("99.0"), None).verdict;
        assert_eq!(verdict(ours), Verdict::WithinSamplingError);
        assert_eq!(verdict(ours.by_definition()), Verdict::Different);
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
