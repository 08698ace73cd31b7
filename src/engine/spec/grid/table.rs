//! The cells of a table: its rows, its columns, and the seeds that it averages over.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::names;
use super::super::problem::Problem;
use super::super::published;
use super::super::source::YamlPath;
use super::cells::{ByLabels, Grid, axis, told};
use crate::stage_kinds::{Column, ColumnSpec, ColumnsSpec, Compare, Metric, TableParams, TableSpec, Text};

/// Takes one input per cell; returns the table's parameters with all labels spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &TableSpec) -> Result<TableParams, Vec<Problem>> {
    let table = Table::read(grid, spec)?;
    let mut wrong = table.fill(grid);
    let columns = table.resolved_columns();
    let along = match &spec.columns {
        ColumnsSpec::Coordinate(coordinate) => Some(axis(coordinate)),
        ColumnsSpec::Each(_) => None,
    };
    let published = told(&mut wrong, published::resolve(grid.table, spec, &table.rows, &columns, along));
    let labels: Vec<String> = table.rows.iter().chain(columns.iter().map(|column| &column.label)).cloned().collect();
    let names = told(&mut wrong, names::resolve(grid.expander, grid.table, &spec.names, &labels));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(TableParams {
        title: spec.title.clone(),
        corner: axis(&spec.rows).to_owned(),
        rows: table.rows,
        columns,
        over: table.over,
        compare: spec.compare.clone(),
        published,
        names,
        maps: std::mem::take(&mut grid.maps),
        tex: spec.tex.clone(),
        mockup: grid.expander.spec.is_mockup,
    })
}

/// The labels along the sides of a table.
struct Table<'s> {
    spec: &'s TableSpec,
    /// The path to the table's parameters.
    with: YamlPath,
    rows: Vec<String>,
    columns: Vec<ColumnSpec>,
    /// The coordinate to average over.
    average: Option<String>,
    /// Its labels; empty without one.
    over: Vec<String>,
}

impl<'s> Table<'s> {
    /// Reads the labels from the results and checks the table's options.
    fn read(grid: &Grid, spec: &'s TableSpec) -> Result<Self, Vec<Problem>> {
        let with = grid.table.path.key("with");
        let mut wrong = Vec::new();
        let rows = told(&mut wrong, grid.labels(&spec.rows, &with.key("rows")));
        let columns = columns(grid, &spec.columns, &with.key("columns"), &mut wrong);
        let average = spec.over.clone().or_else(|| grid.seeds());
        let over = match &average {
            None => Vec::new(),
            Some(coordinate) => told(&mut wrong, grid.labels(coordinate, &with.key("over"))),
        };
        let table = Table { spec, with, rows, columns, average, over };
        wrong.extend(table.check_options(grid));
        if wrong.is_empty() { Ok(table) } else { Err(wrong) }
    }

    fn metric(&self, column: &ColumnSpec) -> Metric {
        column.cell.unwrap_or(self.spec.cell)
    }

    /// Checks the options beyond the schema.
    fn check_options(&self, grid: &Grid) -> Vec<Problem> {
        let metrics: Vec<Metric> = self.columns.iter().map(|column| self.metric(column)).collect();
        let mut wrong = Vec::new();
        if self.spec.batch_mean.is_some() && !metrics.is_empty() && !metrics.contains(&Metric::AccuracyOnCorrect) {
            let message = "`batch_mean` is a way to compute `accuracy_on_correct`, which no column of this table has";
            wrong.push(grid.problem(self.with.key("batch_mean"), message).help("remove it"));
        }
        if let Some(compare) = &self.spec.compare {
            wrong.extend(self.check_compare(grid, compare, &metrics));
        }
        wrong
    }

    /// Checks that the models of the table can be compared, and that it has the row to compare them with.
    fn check_compare(&self, grid: &Grid, compare: &Compare, metrics: &[Metric]) -> Vec<Problem> {
        let path = self.with.key("compare");
        let mut wrong = Vec::new();
        if !self.rows.is_empty() && !self.rows.contains(&compare.to) {
            let message = format!("the table has no row `{}` to compare the others with", compare.to);
            let problem = grid.problem(path.key("to"), message);
            wrong.push(problem.suggest(&compare.to, self.rows.iter().map(String::as_str)));
        }
        if let Some(metric) = metrics.iter().find(|metric| !metric.is_accuracy()) {
            let message = format!(
                "models are compared image by image by whether they are right; `{}` does not say that",
                metric.name()
            );
            let help = "compare in a table of `accuracy` or `accuracy_on_correct`";
            wrong.push(grid.problem(path.clone(), message).help(help));
        }
        wrong
    }

    /// Takes the results of every cell; returns the problems.
    fn fill(&self, grid: &mut Grid) -> Vec<Problem> {
        let mut wrong = Vec::new();
        let mut grouped: HashMap<Vec<&str>, ByLabels> = HashMap::new();
        for (index, column) in self.columns.iter().enumerate() {
            let path = match &self.spec.columns {
                ColumnsSpec::Coordinate(_) => self.with.key("columns"),
                ColumnsSpec::Each(_) => self.with.key("columns").index(index),
            };
            // Most columns select by the same coordinates.
            let coordinates = self.coordinates(column);
            let fitting = grouped.entry(coordinates).or_insert_with_key(|coordinates| grid.by_labels(coordinates));
            self.fill_column(grid, column, fitting, &path, &mut wrong);
        }
        wrong
    }

    /// Returns the coordinates that select the results of a column's cells: of the row, the filter, and `over`.
    fn coordinates<'c>(&'c self, column: &'c ColumnSpec) -> Vec<&'c str> {
        let filter = column.filter.keys().map(String::as_str);
        [self.spec.rows.as_str()].into_iter().chain(filter).chain(self.average.as_deref()).collect()
    }

    /// Takes the results of one column, which `fitting` has by the labels of the column's coordinates.
    fn fill_column(
        &self,
        grid: &mut Grid,
        column: &ColumnSpec,
        fitting: &ByLabels,
        path: &YamlPath,
        wrong: &mut Vec<Problem>,
    ) {
        let (before, mut is_told) = (grid.needs.len(), false);
        let filter: Vec<String> = column.filter.values().map(|label| label.replace('/', "_")).collect();
        let seeds: Vec<Option<&str>> = match self.over.as_slice() {
            [] => vec![None],
            over => over.iter().map(|seed| Some(seed.as_str())).collect(),
        };
        for row in &self.rows {
            for &seed in &seeds {
                let labels: Vec<&str> =
                    [row.as_str()].into_iter().chain(filter.iter().map(String::as_str)).chain(seed).collect();
                let found = fitting.get(&labels).map_or(&[][..], Vec::as_slice);
                let end = seed.map_or(String::new(), |seed| format!("/{seed}"));
                let cell = grid.cell(found, &format!("{row}/{}{end}", column.label), self.metric(column), path);
                is_told |= cell.is_err();
                told(wrong, cell);
            }
        }
        // Problems of this column's results are already reported, here or by another column at the same place.
        if grid.needs.len() == before && !is_told {
            let help = "compare the labels under `where` with the names that `atflow plan PIPELINE --all` lists";
            let message = format!("no result fits column `{}`", column.label);
            wrong.push(grid.problem(path.clone(), message).help(help));
        }
    }

    /// Returns the columns without the filters that selected their results.
    fn resolved_columns(&self) -> Vec<Column> {
        let resolved = |column: &ColumnSpec| {
            let metric = self.metric(column);
            let batch_mean = self.spec.batch_mean.filter(|_| metric == Metric::AccuracyOnCorrect);
            Column { metric, batch_mean, label: column.label.clone() }
        };
        self.columns.iter().map(resolved).collect()
    }
}

/// Returns the columns one by one; those of a coordinate have one for each of its labels. `path` leads to `columns`.
fn columns(grid: &Grid, columns: &ColumnsSpec, path: &YamlPath, wrong: &mut Vec<Problem>) -> Vec<ColumnSpec> {
    match columns {
        ColumnsSpec::Coordinate(coordinate) => {
            let labels = told(wrong, grid.labels(coordinate, path));
            let filter = |label: &String| BTreeMap::from([(coordinate.clone(), Text(label.clone()))]);
            labels.into_iter().map(|label| ColumnSpec { filter: filter(&label), label, cell: None }).collect()
        }
        ColumnsSpec::Each(columns) => {
            let mut seen = HashSet::new();
            for (index, column) in columns.iter().enumerate() {
                let path = path.index(index);
                if !seen.insert(&column.label) {
                    let message = format!("two columns have the label `{}`", column.label);
                    wrong.push(grid.problem(path.key("label"), message));
                }
                for coordinate in column.filter.keys() {
                    told(wrong, grid.labels(coordinate, &path.key("where").key(coordinate)));
                }
            }
            columns.clone()
        }
    }
}
