//! The tables of a report: each number with its interval, the published number, and the results behind it.

use atflow::cache::Cache;
use atflow::report::RunResults;
use atflow::results::{
    Cell, TableDocument, Verdict, cell_number, compared_words, interval, published_words, table_notes,
};
use atflow::stage_kinds::StageKind;
use serde_json::{Value as Json, json};

/// A table of the run.
pub(super) struct ReportTable {
    /// Index of its result.
    pub stage: usize,
    /// Name of its instance.
    pub name: String,
    /// The numbers.
    pub table: TableDocument,
    /// Its renderings, for the buttons that copy them: format and text.
    pub renderings: Vec<(&'static str, String)>,
}

/// A table as the page shows it.
pub(super) struct TableView {
    pub title: String,
    pub corner: String,
    pub columns: Vec<String>,
    pub rows: Vec<RowView>,
    pub notes: Vec<String>,
}

pub(super) struct RowView {
    pub label: String,
    pub cells: Vec<CellView>,
}

/// A cell as the page shows it.
#[derive(Default)]
pub(super) struct CellView {
    /// Position in the page's data: table, row, column; empty for a cell without a number.
    pub place: String,
    pub value: String,
    pub interval: String,
    pub published: String,
    /// Class and words of the verdict.
    pub verdict: (&'static str, &'static str),
    pub compared: String,
}

/// Reads the tables of a run.
pub(super) fn read(cache: &Cache, results: &RunResults) -> Vec<ReportTable> {
    let stages = results.stages.iter().enumerate();
    let tables = stages.filter(|(_, stage)| stage.manifest.record.kind == StageKind::Table);
    tables
        .filter_map(|(index, stage)| {
            let read = |output: &str| {
                let blob = stage.manifest.outputs.get(output)?;
                Some(String::from_utf8_lossy(&cache.read(blob.digest).ok()?).into_owned())
            };
            let table = TableDocument::from_json(read("json")?.as_bytes()).ok()?;
            let renderings = [("Markdown", "markdown"), ("CSV", "csv"), ("LaTeX", "tex")];
            let renderings = renderings.into_iter().filter_map(|(name, output)| Some((name, read(output)?))).collect();
            Some(ReportTable { stage: index, name: stage.name.clone(), table, renderings })
        })
        .collect()
}

impl ReportTable {
    /// Returns what the page shows; `number` is the table's index on it.
    pub(super) fn view(&self, number: usize) -> TableView {
        let table = &self.table.shown();
        let row = |(index, (label, cells)): (usize, (&String, &Vec<Option<Cell>>))| RowView {
            label: label.clone(),
            cells: cells
                .iter()
                .enumerate()
                .map(|(column, cell)| {
                    cell.as_ref().map_or_else(CellView::default, |cell| {
                        let metric = table.columns[column].metric;
                        CellView {
                            place: format!("{number}-{index}-{column}"),
                            value: cell_number(metric, cell),
                            interval: interval(metric, &cell.number).unwrap_or_default(),
                            published: cell.published.as_ref().map(|_| published_words(cell)).unwrap_or_default(),
                            verdict: cell.published.as_ref().map_or(("", ""), |beside| verdict(beside.verdict)),
                            compared: cell.compared.as_ref().map(compared_words).unwrap_or_default(),
                        }
                    })
                })
                .collect(),
        };
        TableView {
            title: table.title.clone().unwrap_or_else(|| self.name.clone()),
            corner: table.corner.clone(),
            columns: table.columns.iter().map(|column| column.label.clone()).collect(),
            rows: table.rows.iter().zip(&table.cells).enumerate().map(row).collect(),
            notes: table_notes(table, true),
        }
    }

    /// Returns for the page's scripts which results are behind each cell: one a seed.
    pub(super) fn json(&self, results: &RunResults) -> Json {
        let producers = &results.stages[self.stage].producers;
        let of = |slot: &str, row: &str, column: &str| -> Vec<usize> {
            let seeds = self.table.over.iter().map(|seed| format!("{slot}/{row}/{column}/{seed}"));
            let names = seeds.chain([format!("{slot}/{row}/{column}")]);
            names.filter_map(|name| producers.get(&name).copied()).collect()
        };
        let cells: Vec<Vec<Json>> = self
            .table
            .rows
            .iter()
            .zip(&self.table.cells)
            .map(|(row, cells)| {
                let cell = |(column, cell): (&atflow::stage_kinds::Column, &Option<Cell>)| match cell {
                    None => Json::Null,
                    Some(cell) => json!({
                        "v": of("value", row, &column.label), "f": of("reference", row, &column.label),
                        "n": cell.number.n, "hits": cell.number.hits,
                    }),
                };
                self.table.columns.iter().zip(cells).map(cell).collect()
            })
            .collect();
        let metric = |column: &atflow::stage_kinds::Column| column.metric.title();
        let metrics: Vec<_> = self.table.columns.iter().map(metric).collect();
        let shown = self.table.shown();
        json!({
            "stage": self.stage, "rows": shown.rows, "cells": cells, "metrics": metrics,
            "columns": shown.columns.iter().map(|column| &column.label).collect::<Vec<_>>(),
            "over": self.table.over,
            "copy": self.renderings.iter().map(|(name, text)| json!([name, text])).collect::<Vec<_>>(),
        })
    }
}

/// Returns class and words of a verdict; the sign stands in the published number.
const fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Same => ("good", "same as published"),
        Verdict::WithinTolerance => ("good", "within tolerance"),
        Verdict::WithinSamplingError => ("good", "within sampling error"),
        Verdict::Different => ("bad", "different from published"),
        Verdict::Missing => ("warn", "published, not made here"),
        Verdict::NotCompared | Verdict::NotPublished => ("", ""),
    }
}
