//! A table of numbers as it is stored: [`TableDocument`], the JSON that every rendering starts from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Comparison, Number, PublishedComparison, SeedStatistics, Verdict};
use crate::stage_kinds::{Column, Compare, TableParams, TexLayout};

/// The value of `format` in a document that this version writes and reads.
const FORMAT: &str = "table/3";

/// The format before it, which is read as well: all that it says means the same here.
const OLDER: &str = "table/2";

/// A table with its numbers. `docs/artifact-formats.md` tells its JSON to other programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDocument {
    format: String,
    /// A caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Heading of the column of row labels.
    pub corner: String,
    /// Row labels, in order.
    pub rows: Vec<String>,
    /// Columns, in order: a label, and the metric of its cells.
    pub columns: Vec<Column>,
    /// What is averaged over; empty where nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
    /// How rows are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// What the published numbers are, and how many cells have each verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Judgement>,
    /// What is shown instead of a label, in every rendering but this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// How the table looks in LaTeX.
    #[serde(default, skip_serializing_if = "TexLayout::is_plain")]
    pub tex: TexLayout,
    /// Whether it is of a mock-up, whose numbers mean nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mockup: bool,
    /// For each row a cell for each column; `null` where the pipeline has no result and none was published.
    pub cells: Vec<Vec<Option<Cell>>>,
}

/// One number with all that is known of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The number.
    #[serde(flatten)]
    pub number: Number,
    /// Whether it is as the pipeline has it now.
    #[serde(default, skip_serializing_if = "State::is_made")]
    pub state: State,
    /// The seeds that it is the mean of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<SeedStatistics>,
    /// The comparison with another row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
    /// The published number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedComparison>,
}

impl Cell {
    /// Whether something of it is stale or missing.
    pub fn is_not_as_it_is_now(&self) -> bool {
        !self.state.is_made()
    }
}

impl From<Number> for Cell {
    fn from(number: Number) -> Self {
        Cell { number, ..Cell::default() }
    }
}

/// Whether a number is as the pipeline has it now. In a table that a stage made all are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is.
    #[default]
    Made,
    /// Some of the seeds are not there.
    Incomplete,
    /// It is that of an earlier result: what it is made from has changed since.
    Stale,
    /// There is no result yet.
    Missing,
}

impl State {
    /// Whether nothing is to be said of it.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub fn is_made(&self) -> bool {
        *self == State::Made
    }

    /// The state in a word.
    pub const fn name(self) -> &'static str {
        match self {
            State::Made => "made",
            State::Incomplete => "incomplete",
            State::Stale => "stale",
            State::Missing => "missing",
        }
    }
}

/// What the published numbers of a table are, and how its cells compare with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The name of the published table.
    pub table: String,
    /// In percentage points; for a loss, in nats.
    pub tolerance: Option<f64>,
    /// How many cells have each verdict.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// How many of those that differ do so where the published number is known to be wrong.
    pub different_at_anomalies: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Why some bytes or counts are no table.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not the JSON of a table.
    #[error("not a table: {0}")]
    Json(#[from] serde_json::Error),
    /// A table of another version.
    #[error("the table's format is `{found}`, this version reads `{FORMAT}`")]
    Format {
        /// What the document says of itself.
        found: String,
    },
    /// The cells do not fill rows and columns.
    #[error("a table of {rows} rows and {columns} columns has other cells than that")]
    Shape {
        /// Row labels.
        rows: usize,
        /// Columns.
        columns: usize,
    },
}

impl TableDocument {
    /// A table of cells: for each row of `params` one for each column, `None` where there is no result.
    ///
    /// # Errors
    /// [`DocumentError::Shape`] if there are more or fewer.
    pub fn new(params: &TableParams, cells: Vec<Vec<Option<Cell>>>) -> Result<Self, DocumentError> {
        TableDocument {
            format: FORMAT.to_owned(),
            title: params.title.clone(),
            corner: params.corner.clone(),
            rows: params.rows.clone(),
            columns: params.columns.clone(),
            over: params.over.clone(),
            compare: params.compare.clone(),
            published: None,
            names: params.names.clone(),
            tex: params.tex.clone(),
            mockup: params.mockup,
            cells,
        }
        .checked()
    }

    /// The same table with what is shown in place of its labels.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        let compared = shown.compare.as_mut().map(|compare| &mut compare.to);
        let columns = shown.columns.iter_mut().map(|column| &mut column.label);
        for label in shown.rows.iter_mut().chain(columns).chain(compared) {
            if let Some(name) = self.names.get(label) {
                label.clone_from(name);
            }
        }
        shown
    }

    /// Counts the verdicts of the cells, once they have theirs.
    pub fn sum_up(&mut self, table: &str, tolerance: Option<f64>) {
        let mut verdicts = BTreeMap::new();
        let mut different_at_anomalies = 0;
        for beside in self.cells.iter().flatten().flatten().filter_map(|cell| cell.published.as_ref()) {
            *verdicts.entry(beside.verdict).or_default() += 1;
            different_at_anomalies += usize::from(beside.verdict == Verdict::Different && !beside.fails());
        }
        self.published = Some(Judgement { table: table.to_owned(), tolerance, verdicts, different_at_anomalies });
    }

    /// The cells that differ from what was published, by row and column; those where the published number is known to
    /// be wrong are left out.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str, &Cell)> {
        self.places().filter(|(.., cell)| cell.published.as_ref().is_some_and(PublishedComparison::fails))
    }

    /// Every cell that is there, with the labels of its row and column.
    pub fn places(&self) -> impl Iterator<Item = (&str, &str, &Cell)> {
        self.rows.iter().zip(&self.cells).flat_map(|(row, cells)| {
            let columns = self.columns.iter().map(|column| column.label.as_str());
            columns.zip(cells).filter_map(move |(column, cell)| Some((row.as_str(), column, cell.as_ref()?)))
        })
    }

    /// Reads a stored table.
    ///
    /// # Errors
    /// Any [`DocumentError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: String,
        }
        // The version first: a newer document may have other fields than this one.
        let Versioned { format: found } = serde_json::from_slice(bytes)?;
        if ![FORMAT, OLDER].contains(&found.as_str()) {
            return Err(DocumentError::Format { found });
        }
        serde_json::from_slice::<Self>(bytes)?.checked()
    }

    /// The table as it is stored: indented JSON with a line end at its end, the same bytes for the same numbers.
    ///
    /// # Errors
    /// [`DocumentError::Json`] if a number is not finite, which predictions of finite numbers never give.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    fn checked(self) -> Result<Self, DocumentError> {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let fits = self.cells.len() == rows && self.cells.iter().all(|row| row.len() == columns);
        if fits { Ok(self) } else { Err(DocumentError::Shape { rows, columns }) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::results::Counts;
    use crate::stage_kinds::Metric;

    /// Two models on two sets; one result is missing, and one model got nothing right to compare with.
    pub(in crate::results) fn example() -> TableDocument {
        let column = |label: &str, metric| Column { label: label.to_owned(), metric, batch_mean: None };
        let params = TableParams {
            title: Some("Accuracy under saturation".into()),
            corner: "model.variant".into(),
            rows: vec!["standard".into(), "pgd-inf-8".into(), "a|b, \"c\"".into()],
            columns: vec![column("clean", Metric::Accuracy), column("p = 64", Metric::AccuracyOnCorrect)],
            over: vec![],
            compare: None,
            published: None,
            names: BTreeMap::new(),
            maps: BTreeMap::new(),
            tex: TexLayout::default(),
            mockup: false,
        };
        let cell = |hits, n| Some(Cell::from(Number::from(Counts::new(hits, n).unwrap())));
        let cells = vec![
            vec![cell(1834, 2000), cell(402, 1834)],
            vec![cell(1702, 2000), None],
            vec![cell(0, 2000), cell(0, 0)],
        ];
        TableDocument::new(&params, cells).unwrap()
    }

    /// The same compared with the first row, beside published numbers, over seeds, and with a stale and a missing cell.
    pub(in crate::results) fn everything() -> TableDocument {
        let mut table = example();
        table.rows[2] = "l2_12 & co".into();
        table.over = vec!["0".into(), "1".into()];
        table.compare = Some(Compare { to: "standard".into(), ..Compare::default() });
        let compared = |difference: f64, p| Comparison {
            difference: Some(difference),
            low: Some(difference - 0.01),
            high: Some(difference + 0.02),
            p: Some(p),
            p_holm: Some(2.0 * p),
            family: 2,
            only_this: 10,
            only_other: 40,
            n: 2000,
            seeds: 0,
            fixed: false,
        };
        let beside = |value, difference, verdict| {
            Some(PublishedComparison {
                value: Some(value),
                decimals: 2,
                difference: Some(difference),
                verdict,
                anomaly: None,
            })
        };
        let set = |table: &mut TableDocument, row: usize, column: usize, change: &dyn Fn(&mut Cell)| {
            change(table.cells[row][column].get_or_insert_default());
        };
        set(&mut table, 0, 0, &|cell| cell.published = beside(91.7, 0.0, Verdict::Same));
        set(&mut table, 0, 1, &|cell| cell.published = beside(23.45, -1.53, Verdict::WithinTolerance));
        set(&mut table, 1, 0, &|cell| {
            cell.compared = Some(compared(-0.066, 2.2e-5));
            cell.spread = Some(SeedStatistics { values: vec![0.846, 0.856], deviation: Some(0.00707), same: vec![] });
            cell.published = beside(80.0, 5.1, Verdict::Different);
            cell.published.as_mut().unwrap().anomaly = Some("50 % too low, see table_2".into());
        });
        set(&mut table, 1, 1, &|cell| {
            cell.state = State::Missing;
            cell.published = Some(PublishedComparison {
                value: Some(53.76),
                decimals: 2,
                difference: None,
                verdict: Verdict::Missing,
                anomaly: None,
            });
        });
        set(&mut table, 2, 0, &|cell| {
            cell.state = State::Stale;
            cell.published = Some(PublishedComparison {
                value: Some(1.0),
                decimals: 2,
                difference: None,
                verdict: Verdict::NotCompared,
                anomaly: None,
            });
        });
        table.sum_up("table4", Some(1.55));
        table
    }

    #[test]
    fn a_table_survives_a_round_trip() {
        let json = everything().to_json().unwrap();
        assert_eq!(TableDocument::from_json(json.as_bytes()).unwrap(), everything());
        let json = example().to_json().unwrap();
        assert_eq!(TableDocument::from_json(json.as_bytes()).unwrap(), example());
    }

    #[test]
    fn the_json_is_as_documented() {
        let mut one = example();
        one.rows.truncate(1);
        one.cells = vec![vec![one.cells[0][0].clone(), None]];
        insta::assert_snapshot!(one.to_json().unwrap(), @r#"
        {
          "format": "table/3",
          "title": "Accuracy under saturation",
          "corner": "model.variant",
          "rows": [
            "standard"
          ],
          "columns": [
            {
              "label": "clean",
              "metric": "accuracy"
            },
            {
              "label": "p = 64",
              "metric": "accuracy_on_correct"
            }
          ],
          "cells": [
            [
              {
                "value": 0.917,
                "low": 0.904094913280437,
                "high": 0.9283062692869981,
                "hits": 1834,
                "n": 2000
              },
              null
            ]
          ]
        }
        "#);
    }

    #[test]
    fn a_table_of_the_format_before_can_be_read() {
        let mut older = everything();
        for compared in older.cells.iter_mut().flatten().flatten().filter_map(|cell| cell.compared.as_mut()) {
            (compared.p_holm, compared.family) = (None, 0);
        }
        let json = older.to_json().unwrap().replace("table/3", "table/2");
        let json = json.replace("\"p_holm\": null,", "").replace("\"family\": 0,", "");
        let mut read = TableDocument::from_json(json.as_bytes()).unwrap();
        read.format = FORMAT.to_owned();
        assert_eq!(read, older);
    }

    #[test]
    fn names_are_shown_and_labels_are_kept() {
        let mut table = everything();
        table.names = [("standard", "Standard"), ("p = 64", "p = 8/255")].map(|(a, b)| (a.into(), b.into())).into();
        let shown = table.shown();
        assert_eq!(shown.rows[0], "Standard");
        assert_eq!((shown.columns[1].label.as_str(), shown.compare.unwrap().to.as_str()), ("p = 8/255", "Standard"));
        assert_eq!(TableDocument::from_json(table.to_json().unwrap().as_bytes()).unwrap().rows[0], "standard");
    }

    #[test]
    fn other_documents_are_refused() {
        let json = example().to_json().unwrap();
        let extended = json.replace("\"corner\"", "\"new\": 1, \"corner\"");
        assert_eq!(TableDocument::from_json(extended.as_bytes()).unwrap(), example(), "new keys need no new version");
        let newer = json.replace("table/3", "table/4");
        assert!(
            matches!(TableDocument::from_json(newer.as_bytes()), Err(DocumentError::Format { found }) if found == "table/4")
        );
        assert!(matches!(TableDocument::from_json(b"[]"), Err(DocumentError::Json(_))));
        let mut cut = example();
        cut.cells[1].pop();
        let cut = cut.to_json().unwrap();
        assert!(matches!(TableDocument::from_json(cut.as_bytes()), Err(DocumentError::Shape { rows: 3, columns: 2 })));
    }
}
