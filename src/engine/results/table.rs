//! A table of numbers as it is stored: [`TableDocument`], the JSON that every rendering starts from.

use serde::{Deserialize, Serialize};

use super::Counts;
use crate::kinds::{Column, TableParams};

/// The value of `format` in a document that this version writes and reads.
const FORMAT: &str = "table/1";

/// A table with its numbers. `docs/artifact-formats.md` tells its JSON to other programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// For each row a cell for each column; `null` where there is no result.
    pub cells: Vec<Vec<Option<Cell>>>,
}

/// One number with what it was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// `hits / n`, 0 to 1; `null` if n is 0.
    pub share: Option<f64>,
    /// Lower end of the 95 % Wilson interval, 0 to 1.
    pub low: f64,
    /// Upper end of the 95 % Wilson interval, 0 to 1.
    pub high: f64,
    /// Images that count as a success.
    pub hits: u64,
    /// Images counted.
    pub n: u64,
}

impl From<Counts> for Cell {
    fn from(counts: Counts) -> Self {
        let (low, high) = counts.interval();
        Cell { share: counts.share(), low, high, hits: counts.hits(), n: counts.n() }
    }
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
    /// A table of counts: for each row of `params` one for each column, `None` where there is no result.
    ///
    /// # Errors
    /// [`DocumentError::Shape`] if there are more or fewer.
    pub fn new(params: &TableParams, counts: Vec<Vec<Option<Counts>>>) -> Result<Self, DocumentError> {
        let row_of_cells = |row: Vec<Option<Counts>>| row.into_iter().map(|counts| counts.map(Cell::from)).collect();
        TableDocument {
            format: FORMAT.to_owned(),
            title: params.title.clone(),
            corner: params.corner.clone(),
            rows: params.rows.clone(),
            columns: params.columns.clone(),
            cells: counts.into_iter().map(row_of_cells).collect(),
        }
        .checked()
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
        // The version first: a newer document may have fields that this one does not know.
        let Versioned { format: found } = serde_json::from_slice(bytes)?;
        if found != FORMAT {
            return Err(DocumentError::Format { found });
        }
        serde_json::from_slice::<Self>(bytes)?.checked()
    }

    /// The table as it is stored: indented JSON with a line end at its end, the same bytes for the same numbers.
    ///
    /// # Errors
    /// [`DocumentError::Json`] if a number is not finite, which counts never give.
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
    use crate::kinds::Metric;

    /// Two models on two sets; one result is missing, and one model got nothing right to compare with.
    pub(in crate::results) fn example() -> TableDocument {
        let column = |label: &str, metric| Column { label: label.to_owned(), metric };
        let params = TableParams {
            title: Some("Accuracy under saturation".into()),
            corner: "model.variant".into(),
            rows: vec!["standard".into(), "pgd-inf-8".into(), "a|b, \"c\"".into()],
            columns: vec![column("clean", Metric::Accuracy), column("p = 64", Metric::AccuracyOnCorrect)],
        };
        let counts = vec![
            vec![Counts::new(1834, 2000), Counts::new(402, 1834)],
            vec![Counts::new(1702, 2000), None],
            vec![Counts::new(0, 2000), Counts::new(0, 0)],
        ];
        TableDocument::new(&params, counts).unwrap()
    }

    #[test]
    fn a_table_survives_a_round_trip() {
        let json = example().to_json().unwrap();
        assert_eq!(TableDocument::from_json(json.as_bytes()).unwrap(), example());
    }

    #[test]
    fn the_json_is_as_documented() {
        let mut one = example();
        one.rows.truncate(1);
        one.cells = vec![vec![one.cells[0][0], None]];
        insta::assert_snapshot!(one.to_json().unwrap(), @r#"
        {
          "format": "table/1",
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
                "share": 0.917,
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
    fn other_documents_are_refused() {
        let json = example().to_json().unwrap();
        let newer = json.replace("table/1", "table/2");
        assert!(
            matches!(TableDocument::from_json(newer.as_bytes()), Err(DocumentError::Format { found }) if found == "table/2")
        );
        assert!(matches!(TableDocument::from_json(b"[]"), Err(DocumentError::Json(_))));
        let mut cut = example();
        cut.cells[1].pop();
        let cut = cut.to_json().unwrap();
        assert!(matches!(TableDocument::from_json(cut.as_bytes()), Err(DocumentError::Shape { rows: 3, columns: 2 })));
    }
}
