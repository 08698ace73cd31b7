//! Maps a table's rows and columns to those of published numbers, checked against the file before anything runs.
//!
//! A file that cannot be read is reported later, by the check of all sources, at its place.

use super::instance::Instance;
use super::problem::{Problem, suggestion};
use super::slots::{ANOMALIES, NUMBERS};
use super::source::{Place, YamlPath};
use crate::fsio;
use crate::results::PublishedTable;
use crate::stage_kinds::{Column, PublishedDetails, PublishedParams, PublishedSpec, TableSpec};

/// Maximum size of a file of published numbers. A paper's tables have a few kilobytes; larger files are skipped here.
const MAX_BYTES: u64 = 16 << 20;

/// Finds the published row of each row and the published column of each column.
///
/// `axis` is the columns' axis, if the columns are values of a coordinate.
pub(super) fn resolve(
    table: &Instance,
    spec: &TableSpec,
    rows: &[String],
    columns: &[Column],
    axis: Option<&str>,
) -> Result<Option<PublishedParams>, Vec<Problem>> {
    let path = table.path.key("with");
    let Some(published) = &spec.published else {
        return match spec.tolerance {
            None => Ok(None),
            Some(_) => {
                let place = Place::value(&table.file, path.key("tolerance"));
                let problem =
                    Problem::at(place, "`tolerance` is that to published numbers, and there are none", "here");
                Err(vec![problem.help("add `published: FILE.csv`, or remove it")])
            }
        };
    };
    let labels: Vec<String> = columns.iter().map(|column| column.label.clone()).collect();
    let fitted = fit(table, published, rows, &labels, axis)?;
    Ok(Some(PublishedParams { tolerance: spec.tolerance.map(|tolerance| tolerance.absolute.get()), ..fitted }))
}

/// Finds the published row of each row and the published column of each column of a table, or of each curve of a figure
/// and each place along its axis.
pub(super) fn fit(
    table: &Instance,
    published: &PublishedSpec,
    rows: &[String],
    labels: &[String],
    axis: Option<&str>,
) -> Result<PublishedParams, Vec<Problem>> {
    let path = table.path.key("with");
    let none = PublishedDetails { file: String::new(), anomalies: None, rows: [].into(), columns: [].into() };
    let details = match published {
        PublishedSpec::File(_) => &none,
        PublishedSpec::Detailed(details) => details,
    };
    let finder =
        Finder { table, path: path.key("published"), file: published.file(), numbers: read(table, published)? };
    let mut problems = Vec::new();
    let row_names = finder.find("row", "rows", rows, &details.rows, &|_| None, &mut problems);
    let by_axis = |label: &str| axis.map(|axis| format!("{axis}={label}"));
    let column_names = finder.find("column", "columns", labels, &details.columns, &by_axis, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let name = published.file().rsplit('/').next().unwrap_or_default();
    Ok(PublishedParams {
        table: name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned(),
        rows: row_names,
        columns: column_names,
        tolerance: None,
    })
}

/// Reads the published numbers; returns `None` if their file cannot be read.
fn read(table: &Instance, published: &PublishedSpec) -> Result<Option<PublishedTable>, Vec<Problem>> {
    let bytes_of = |slot: &str| {
        let source = table.sources.iter().find(|source| source.slot == slot)?;
        Some((source, fsio::read_regular(&table.source_file(source)?, MAX_BYTES).ok()?))
    };
    let Some((source, bytes)) = bytes_of(NUMBERS) else { return Ok(None) };
    let wrong = |source, file: &str, error: &dyn std::fmt::Display| {
        let message = format!("`{file}` does not hold published numbers: {error}");
        vec![Problem::at(table.source_place(source, None), message, "here")]
    };
    let mut numbers = PublishedTable::parse(&bytes).map_err(|error| wrong(source, published.file(), &error))?;
    if let Some((source, bytes)) = bytes_of(ANOMALIES) {
        let name = published.file().rsplit('/').next().unwrap_or_default();
        let name = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let file = published.anomalies().unwrap_or_default();
        numbers.mark(name, &bytes).map_err(|error| {
            let message = format!("`{file}` does not fit `{}`: {error}", published.file());
            vec![Problem::at(table.source_place(source, None), message, "here")]
        })?;
    }
    Ok(Some(numbers))
}

struct Finder<'a> {
    table: &'a Instance,
    path: YamlPath,
    file: &'a str,
    numbers: Option<PublishedTable>,
}

impl Finder<'_> {
    /// Finds the published label of each label: the author's choice, the same label, or `other`.
    fn find(
        &self,
        what: &str,
        key: &str,
        labels: &[String],
        said: &std::collections::BTreeMap<String, Option<String>>,
        other: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Option<String>> {
        let there: Option<&[String]> = self.numbers.as_ref().map(|numbers| match key {
            "rows" => numbers.rows.as_slice(),
            _ => numbers.columns.as_slice(),
        });
        let has = |label: &String| there.is_none_or(|there| there.contains(label));
        if let Some(label) = said.keys().find(|label| !labels.contains(label)) {
            let place = Place::key(&self.table.file, self.path.key(key).key(label));
            let problem = Problem::at(place, format!("the table has no {what} `{label}`"), "here");
            problems.push(problem.suggest(label, labels.iter().map(String::as_str)));
        }
        let mut lacking = Vec::new();
        let find = |label: &String| match said.get(label) {
            Some(None) => None,
            Some(Some(name)) => {
                if !has(name) {
                    let place = Place::value(&self.table.file, self.path.key(key).key(label));
                    let problem = Problem::at(place, format!("`{}` has no {what} `{name}`", self.file), "here");
                    problems.push(problem.suggest(name, there.unwrap_or_default().iter().map(String::as_str)));
                }
                Some(name.clone())
            }
            None => {
                let found = [Some(label.clone()), other(label)].into_iter().flatten().find(&has);
                if found.is_none() {
                    lacking.push(label.clone());
                }
                found
            }
        };
        let found = labels.iter().map(find).collect();
        if let [first, ..] = lacking.as_slice() {
            let names: Vec<String> = lacking.iter().map(|label| format!("`{label}`")).collect();
            let place = Place::value(&self.table.file, self.path.clone());
            let message = format!("`{}` has no {what} {}", self.file, names.join(", "));
            let known = suggestion(first, there.unwrap_or_default().iter().map(String::as_str));
            let known = known.map_or(String::new(), |known| format!(" ({known})"));
            let help = format!(
                "under `published: {{file: {}, {key}: {{…}}}}` say `\"{first}\": null` if it was not published, or its label in the file{known}",
                self.file
            );
            problems.push(Problem::at(place, message, "here").help(help));
        }
        found
    }
}
