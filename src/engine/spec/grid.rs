//! Assigns results to the cells of a table or the points of a figure, by coordinates. The numbers are not known here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use globset::{Glob, GlobMatcher};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::baseline::Baselines;
use super::coordinates::Coordinates;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::headings;
use super::instance::{Instance, InstanceId, Need};
use super::problem::{Problem, suggestion};
use super::published;
use super::source::{Place, YamlPath};
use crate::number::Real;
use crate::stage_kinds::{
    Column, ColumnSpec, ColumnsSpec, CurvesSpec, FigureParams, FigureSpec, Metric, SamplesParams, SamplesSpec,
    SamplesTag, Scale, StageKind, TableParams, TableSpec, Text,
};

/// Replaces the results that a table or figure needs by one input per cell, and its parameters by the resolved ones.
pub(super) fn resolve(expander: &Expander, instance: &mut Instance, notes: &mut Diagnostics) {
    match resolved(expander, instance) {
        Ok((params, needs)) => (instance.params, instance.needs) = (Arc::new(params), needs),
        Err(problems) => {
            instance.knows_params = false;
            problems.into_iter().for_each(|problem| notes.tell(problem));
        }
    }
}

fn resolved(expander: &Expander, instance: &Instance) -> Result<(Json, Vec<Need>), Vec<Problem>> {
    let results: Vec<InstanceId> =
        instance.needs.iter().filter(|need| need.slot == "results").map(|need| need.from).collect();
    let untransformed = Baselines::new(expander, &results);
    let is_certain = results.iter().all(|id| untransformed.is_certain(*id));
    let mut grid = Grid { expander, table: instance, results: &results, is_certain, needs: Vec::new(), untransformed };
    let params = match instance.kind {
        StageKind::Table => {
            let spec: TableSpec = grid.read_spec()?;
            let params = grid_table(&mut grid, &spec)?;
            grid.canonical(&params)?
        }
        _ => match grid.read_spec()? {
            FigureSpec::Curves(spec) => {
                grid.takes("results", "sets", "curves")?;
                let params = grid_figure(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
            FigureSpec::Samples(spec) => {
                let without = if spec.probabilities.is_some() { "" } else { "results" };
                grid.takes("sets", without, "images")?;
                let params = grid_samples(&mut grid, &spec)?;
                grid.canonical(&params)?
            }
        },
    };
    Ok((params, grid.needs))
}

struct Grid<'a> {
    expander: &'a Expander<'a>,
    table: &'a Instance,
    results: &'a [InstanceId],
    /// Whether the parameters of all inputs of the results are known, so a missing result is certainly missing.
    is_certain: bool,
    needs: Vec<Need>,
    untransformed: Baselines<'a>,
}

fn grid_table(grid: &mut Grid, spec: &TableSpec) -> Result<TableParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    let rows = told(&mut wrong, grid.labels(&spec.rows, &with.key("rows")));
    let columns: Vec<ColumnSpec> = match &spec.columns {
        ColumnsSpec::Coordinate(coordinate) => {
            let labels = told(&mut wrong, grid.labels(coordinate, &with.key("columns")));
            let filter = |label: &String| BTreeMap::from([(coordinate.clone(), Text(label.clone()))]);
            labels.into_iter().map(|label| ColumnSpec { filter: filter(&label), label, cell: None }).collect()
        }
        ColumnsSpec::Each(columns) => {
            let mut seen = HashSet::new();
            for (index, column) in columns.iter().enumerate() {
                let path = with.key("columns").index(index);
                if !seen.insert(&column.label) {
                    let message = format!("two columns have the label `{}`", column.label);
                    wrong.push(grid.problem(path.key("label"), message));
                }
                for coordinate in column.filter.keys() {
                    told(&mut wrong, grid.labels(coordinate, &path.key("where").key(coordinate)));
                }
            }
            columns.clone()
        }
    };
    let over = match &spec.over {
        None => Vec::new(),
        Some(coordinate) => told(&mut wrong, grid.labels(coordinate, &with.key("over"))),
    };
    let metric = |column: &ColumnSpec| column.cell.unwrap_or(spec.cell);
    wrong.extend(grid.check_options(spec, &rows, &columns.iter().map(metric).collect::<Vec<_>>()));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut coordinates: Vec<&str> = Vec::new();
    let mut fitting: HashMap<Vec<&str>, Vec<InstanceId>> = HashMap::new();
    for (index, column) in columns.iter().enumerate() {
        let path = match &spec.columns {
            ColumnsSpec::Coordinate(_) => with.key("columns"),
            ColumnsSpec::Each(_) => with.key("columns").index(index),
        };
        let (before, mut is_told) = (grid.needs.len(), false);
        let names: Vec<&str> = [spec.rows.as_str()]
            .into_iter()
            .chain(column.filter.keys().map(String::as_str))
            .chain(spec.over.as_deref())
            .collect();
        if names != coordinates {
            fitting = grid.by_labels(&names);
            coordinates = names;
        }
        let labels: Vec<String> = column.filter.values().map(|label| label.replace('/', "_")).collect();
        for row in &rows {
            let here = [row.as_str()].into_iter().chain(labels.iter().map(String::as_str));
            let seeds: Vec<Option<&String>> =
                if over.is_empty() { vec![None] } else { over.iter().map(Some).collect() };
            for seed in seeds {
                let wanted: Vec<&str> = here.clone().chain(seed.map(String::as_str)).collect();
                let found = fitting.get(&wanted).map_or(&[][..], Vec::as_slice);
                let end = seed.map_or(String::new(), |seed| format!("/{seed}"));
                let cell = grid.cell(found, &format!("{row}/{}{end}", column.label), metric(column), &path);
                is_told |= cell.is_err();
                told(&mut wrong, cell);
            }
        }
        // Problems of this column's results are already reported, here or by another column at the same place.
        if grid.needs.len() == before && !is_told {
            let help = "compare the labels under `where` with the names that `atflow plan PIPELINE --all` lists";
            wrong.push(grid.problem(path, format!("no result fits column `{}`", column.label)).help(help));
        }
    }
    let batch_mean = |metric: Metric| spec.batch_mean.filter(|_| metric == Metric::AccuracyOnCorrect);
    let column = |column: ColumnSpec| Column {
        metric: metric(&column),
        batch_mean: batch_mean(metric(&column)),
        label: column.label,
    };
    let columns: Vec<Column> = columns.iter().cloned().map(column).collect();
    let along = match &spec.columns {
        ColumnsSpec::Coordinate(coordinate) => Some(axis(coordinate)),
        ColumnsSpec::Each(_) => None,
    };
    let published = told(&mut wrong, published::resolve(grid.table, spec, &rows, &columns, along));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(TableParams {
        title: spec.title.clone(),
        corner: axis(&spec.rows).to_owned(),
        rows,
        columns,
        over,
        compare: spec.compare.clone(),
        published,
    })
}

/// Adds a problem unless one is known for its place: all cells of a column lack the same result.
fn tell(wrong: &mut Vec<Problem>, problem: Problem) {
    if wrong.iter().all(|known| known.place != problem.place) {
        wrong.push(problem);
    }
}

/// Returns the value; on failure, adds the problems and returns the type's default.
fn told<T: Default>(wrong: &mut Vec<Problem>, result: Result<T, Vec<Problem>>) -> T {
    result.unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| tell(wrong, problem));
        T::default()
    })
}

fn grid_figure(grid: &mut Grid, spec: &CurvesSpec) -> Result<FigureParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    if !spec.cell.is_share() {
        let message = format!("curves are drawn in percent, and `{}` is no share", spec.cell.name());
        wrong.push(grid.problem(with.key("cell"), message));
    }
    let series = told(&mut wrong, grid.labels(&spec.series, &with.key("series")));
    let mut points = Vec::new();
    for label in told(&mut wrong, grid.labels(&spec.x, &with.key("x"))) {
        // A label has `_` where its value has the slash of a fraction.
        match Real::parse(&label.replace('_', "/")) {
            None => {
                let message =
                    format!("the values of `{}` must be numbers to be drawn along an axis; `{label}` is none", spec.x);
                tell(&mut wrong, grid.problem(with.key("x"), message));
            }
            Some(value) if spec.scale == Scale::Log2 && value.get() <= 0.0 => {
                let message = format!("a logarithmic axis needs values above 0; `{}` has {label}", spec.x);
                tell(&mut wrong, grid.problem(with.key("scale"), message));
            }
            Some(value) => points.push((value, label)),
        }
    }
    if let Some(original) = spec.original {
        if let Some((_, label)) = points.iter().find(|(value, _)| *value == original) {
            let message =
                format!("the untransformed set cannot stand at {original}: a result of `{}` has {label}", spec.x);
            wrong.push(grid.problem(with.key("original"), message).help("choose another place, or remove it"));
        }
        points.push((original, original.to_string()));
    }
    points.sort_by(|a, b| a.0.get().total_cmp(&b.0.get()));
    let fitting = grid.by_labels(&[&spec.series, &spec.x]);
    for curve in &series {
        let mut originals: Vec<InstanceId> = Vec::new();
        for (_, label) in points.iter().filter(|(value, _)| Some(*value) != spec.original) {
            let found = fitting.get(&[curve.as_str(), label.as_str()][..]).map_or(&[][..], Vec::as_slice);
            told(&mut wrong, grid.cell(found, &format!("{curve}/{label}"), spec.cell, &with.key("x")));
            originals.extend(found.iter().filter_map(|id| grid.untransformed.of(*id)));
        }
        let Some(original) = spec.original.filter(|_| grid.is_certain) else { continue };
        originals.sort_unstable();
        originals.dedup();
        let cell = if originals.is_empty() {
            let message = format!("no result of `{curve}` is of the untransformed set, without attack");
            let help = "add the stage that makes them to the needs of this one, or remove `original`";
            Err(vec![grid.problem(with.key("original"), message).help(help)])
        } else {
            grid.cell(&originals, &format!("{curve}/{original}"), spec.cell, &with.key("original"))
        };
        told(&mut wrong, cell);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(FigureParams {
        title: spec.title.clone(),
        x_name: spec.x_title.clone().unwrap_or_else(|| axis(&spec.x).to_owned()),
        x_values: points.iter().map(|(value, _)| *value).collect(),
        x_labels: points.into_iter().map(|(_, label)| label).collect(),
        scale: spec.scale,
        series,
        metric: spec.cell,
    })
}

fn grid_samples(grid: &mut Grid, spec: &SamplesSpec) -> Result<SamplesParams, Vec<Problem>> {
    let with = grid.table.path.key("with");
    let mut wrong = Vec::new();
    if let Some(problem) = spec.images.problem() {
        wrong.push(grid.problem(with.key("images"), format!("`images` {problem}")));
    }
    let sets: Vec<Need> = grid.table.needs.iter().filter(|need| need.slot == "sets").cloned().collect();
    let labels: Vec<String> = sets.iter().map(|need| need.label.clone()).collect();
    wrong.extend(headings::check(grid.table, &spec.headings, &labels));
    let rows = match &spec.probabilities {
        None => Vec::new(),
        Some(coordinate) => told(&mut wrong, grid.labels(coordinate, &with.key("probabilities"))),
    };
    if let Some(coordinate) = &spec.probabilities {
        let fitting = grid.by_labels(&[coordinate]);
        for row in &rows {
            let of_row = fitting.get(&[row.as_str()][..]).map_or(&[][..], Vec::as_slice);
            for set in &sets {
                let is_of = |id: &&InstanceId| {
                    let need = grid.expander.instance(**id).need("set");
                    need.is_some_and(|need| need.from == set.from && need.output == set.output)
                };
                let found: Vec<InstanceId> = of_row.iter().filter(is_of).copied().collect();
                let label = format!("{row}/{}", set.label);
                let cell = grid.cell(&found, &label, Metric::ProbabilityOfTrueClass, &with.key("probabilities"));
                told(&mut wrong, cell);
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let headings = labels.iter().map(|label| spec.headings.of(label).to_owned()).collect();
    grid.needs.extend(sets.into_iter().map(|set| Need { slot: "set".to_owned(), ..set }));
    Ok(SamplesParams {
        draw: SamplesTag::Samples,
        title: spec.title.clone(),
        columns: labels,
        headings,
        images: spec.images.clone(),
        rows,
        scale: spec.scale,
    })
}

/// The axis of a coordinate: `p` of `saturated.p`.
fn axis(coordinate: &str) -> &str {
    coordinate.rsplit_once('.').map_or(coordinate, |(_, axis)| axis)
}

/// A coordinate as the author names it: a name, or a pattern that joins axes of several stages (`*-model.variant`).
struct Coordinate<'a> {
    name: &'a str,
    pattern: Option<GlobMatcher>,
}

impl<'a> Coordinate<'a> {
    fn new(name: &'a str) -> Self {
        let pattern = name.contains('*').then(|| Glob::new(name).ok().map(|glob| glob.compile_matcher())).flatten();
        Coordinate { name, pattern }
    }

    /// Returns the label of a result; `None` if it has none, or if axes that match the pattern disagree.
    fn label<'b>(&self, of: &'b Coordinates) -> Option<&'b str> {
        let Some(pattern) = &self.pattern else { return of.get(self.name) };
        let mut labels = of.iter().filter(|(name, _)| pattern.is_match(name)).map(|(_, label)| label);
        let first = labels.next()?;
        labels.all(|label| label == first).then_some(first)
    }
}

impl<'a> Grid<'a> {
    fn read_spec<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        T::deserialize(&*self.table.params)
            .map_err(|error| vec![self.problem(self.table.path.key("with"), error.to_string())])
    }

    fn canonical(&self, params: &impl Serialize) -> Result<Json, Vec<Problem>> {
        serde_json::to_value(params).map_err(|error| vec![self.problem(self.table.path.key("with"), error.to_string())])
    }

    fn problem(&self, path: YamlPath, message: impl Into<String>) -> Problem {
        Problem::at(Place::value(&self.table.file, path), message, "here")
    }

    /// Checks that a figure of `what` has the need that it draws and lacks the one that it ignores.
    fn takes(&self, needed: &str, useless: &str, what: &str) -> Result<(), Vec<Problem>> {
        let needs = &self.table.needs;
        let path = self.table.path.key("needs");
        if needs.iter().any(|need| need.slot == useless) {
            let place = Place::key(&self.table.file, path.key(useless));
            let message = format!("a figure of {what} has no use for `{useless}`");
            let help = match what {
                "curves" => "add `draw: samples` to draw images, or remove it",
                _ => "name the coordinate of its models under `probabilities`, or remove it",
            };
            return Err(vec![Problem::at(place, message, "here").help(help)]);
        }
        if needs.iter().any(|need| need.slot == needed) {
            return Ok(());
        }
        let message = format!("stage `{}`, a figure of {what}, needs `{needed}`", self.table.stage);
        let problem = Problem::at(self.table.place(), message, format!("needs `{needed}`"));
        Err(vec![problem.help(format!("add `needs: {{{needed}: STAGE}}`"))])
    }

    /// Checks a table's options beyond the schema.
    fn check_options(&self, spec: &TableSpec, rows: &[String], metrics: &[Metric]) -> Vec<Problem> {
        let with = self.table.path.key("with");
        let mut wrong = Vec::new();
        if spec.batch_mean.is_some() && !metrics.is_empty() && !metrics.contains(&Metric::AccuracyOnCorrect) {
            let message = "`batch_mean` is a way to compute `accuracy_on_correct`, which no column of this table has";
            wrong.push(self.problem(with.key("batch_mean"), message).help("remove it"));
        }
        let Some(compare) = &spec.compare else { return wrong };
        let path = with.key("compare");
        if !rows.is_empty() && !rows.contains(&compare.to) {
            let message = format!("the table has no row `{}` to compare the others with", compare.to);
            let problem = self.problem(path.key("to"), message);
            wrong.push(problem.suggest(&compare.to, rows.iter().map(String::as_str)));
        }
        if let Some(metric) = metrics.iter().find(|metric| !metric.is_accuracy()) {
            let message = format!(
                "models are compared image by image by whether they are right; `{}` does not say that",
                metric.name()
            );
            let help = "compare in a table of `accuracy` or `accuracy_on_correct`";
            wrong.push(self.problem(path.clone(), message).help(help));
        }
        if spec.over.is_some() {
            let message = "`compare` is of single models on the same images, `over` averages over several";
            wrong.push(self.problem(path, message).help("remove one of the two, or make two tables"));
        }
        wrong
    }

    /// Returns the distinct values of a coordinate among the results, in the order of the results.
    fn labels(&self, coordinate: &str, path: &YamlPath) -> Result<Vec<String>, Vec<Problem>> {
        let pattern = Coordinate::new(coordinate);
        let mut labels: Vec<String> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for id in self.results {
            if let Some(label) = pattern.label(&self.expander.instance(*id).coordinates)
                && seen.insert(label)
            {
                labels.push(label.to_owned());
            }
        }
        if labels.is_empty() {
            let mut known: BTreeSet<&str> = BTreeSet::new();
            for id in self.results {
                known.extend(self.expander.instance(*id).coordinates.iter().map(|(name, _)| name));
            }
            let mut problem = self.problem(
                path.clone(),
                format!("no result of `{}` has the coordinate `{coordinate}`", self.table.stage),
            );
            problem.help = suggestion(coordinate, known);
            return Err(vec![problem]);
        }
        Ok(labels)
    }

    /// Groups the results by their labels of some coordinates; skips results that lack one of them.
    fn by_labels(&self, coordinates: &[&str]) -> HashMap<Vec<&'a str>, Vec<InstanceId>> {
        let mut found: HashMap<Vec<&str>, Vec<InstanceId>> = HashMap::new();
        let expander = self.expander;
        let patterns: Vec<Coordinate> = coordinates.iter().map(|name| Coordinate::new(name)).collect();
        for id in self.results {
            let of = &expander.instance(*id).coordinates;
            let labels: Option<Vec<&str>> = patterns.iter().map(|pattern| pattern.label(of)).collect();
            if let Some(labels) = labels {
                found.entry(labels).or_default().push(*id);
            }
        }
        found
    }

    /// Takes the result that fits a cell; a cell without one stays empty.
    fn cell(
        &mut self,
        fitting: &[InstanceId],
        label: &str,
        metric: Metric,
        path: &YamlPath,
    ) -> Result<(), Vec<Problem>> {
        let result = match fitting {
            [] => return Ok(()),
            [one] => *one,
            several => {
                let names: Vec<String> =
                    several.iter().take(3).map(|id| format!("`{}`", self.expander.instance(*id).name)).collect();
                let message = format!("{} results fit the cell `{label}`: {}", several.len(), names.join(", "));
                return Err(vec![self.problem(path.clone(), message).help(self.apart(several))]);
            }
        };
        if metric.needs_texture() && self.is_certain && !self.untransformed.may_wear_textures(result) {
            let (metric, name) = (metric.name(), &self.expander.instance(result).name);
            let message = format!("`{metric}` is of cue-conflict sets, and that of `{name}` is none");
            let help = "need results of a set that a transform with `op: cue_conflict` makes, or choose another `cell`";
            return Err(vec![self.problem(path.clone(), message).help(help)]);
        }
        self.push("value", label, result);
        if metric.needs_reference() && self.is_certain {
            let reference = self.untransformed.of(result).ok_or_else(|| {
                let name = &self.expander.instance(result).name;
                let set = self.untransformed.set_of(result).unwrap_or_else(|| "the untransformed set".to_owned());
                let message = format!(
                    "`accuracy_on_correct` of `{name}` needs the same model's predictions of {set}, without attack"
                );
                let help = "add the stage that makes them to the needs of this one";
                vec![self.problem(self.table.path.key("needs"), message).help(help)]
            })?;
            self.push("reference", label, reference);
        }
        Ok(())
    }

    /// Describes how to distinguish several results that fit one cell.
    fn apart(&self, several: &[InstanceId]) -> String {
        let of = |id: &InstanceId| &self.expander.instance(*id).coordinates;
        let Some((first, rest)) = several.split_first() else { return String::new() };
        let differ = |name: &&str| rest.iter().any(|id| of(id).get(name) != of(first).get(name));
        let names = of(first).iter().map(|(name, _)| name);
        let names: Vec<String> = names.filter(differ).map(|name| format!("`{name}`")).collect();
        match (names.as_slice(), self.table.kind) {
            ([], _) => "need fewer results".to_owned(),
            ([only], StageKind::Table) => {
                format!(
                    "they differ in {only}: choose one with `where`, or average over it with `over: {}`",
                    only.trim_matches('`')
                )
            }
            _ => format!("they differ in {}: tell them apart with `where`, or need fewer results", names.join(", ")),
        }
    }

    fn push(&mut self, slot: &str, label: &str, from: InstanceId) {
        self.needs.push(Need { slot: slot.into(), label: label.into(), from, output: "predictions".into() });
    }
}
