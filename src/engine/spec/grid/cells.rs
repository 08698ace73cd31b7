//! What tables and figures share: the labels of their results, and the input of a cell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use globset::{Glob, GlobMatcher};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::super::baseline::Baselines;
use super::super::coordinates::Coordinates;
use super::super::expand::Expander;
use super::super::instance::{Instance, Need};
use super::super::problem::{Problem, suggestion};
use super::super::shown_result::ShownResult;
use super::super::source::{Place, YamlPath};
use super::MEASURES;
use crate::stage_kinds::{Metric, OfMaps, StageKind};

/// Results by their labels along some coordinates.
pub(super) type ByLabels<'a> = HashMap<Vec<&'a str>, Vec<&'a ShownResult<'a>>>;

/// A table or figure whose cells are being filled.
pub(super) struct Grid<'a> {
    pub(super) expander: &'a Expander<'a>,
    /// The stage that makes the table or figure.
    pub(super) table: &'a Instance,
    pub(super) results: &'a [ShownResult<'a>],
    /// Whether the parameters of all inputs of the results are known, so a missing result is certainly missing.
    pub(super) is_certain: bool,
    /// One input per filled cell, so far.
    pub(super) needs: Vec<Need>,
    /// Whose maps the inputs of measures are of, by label.
    pub(super) maps: BTreeMap<String, OfMaps>,
    pub(super) untransformed: Baselines<'a>,
}

/// Adds a problem unless one is known for its place: all cells of a column lack the same result.
pub(super) fn tell(wrong: &mut Vec<Problem>, problem: Problem) {
    if wrong.iter().all(|known| known.place != problem.place) {
        wrong.push(problem);
    }
}

/// Returns the value; on failure, adds the problems and returns the type's default.
pub(super) fn told<T: Default>(wrong: &mut Vec<Problem>, result: Result<T, Vec<Problem>>) -> T {
    result.unwrap_or_else(|problems| {
        problems.into_iter().for_each(|problem| tell(wrong, problem));
        T::default()
    })
}

/// The axis of a coordinate: `p` of `saturated.p`.
pub(super) fn axis(coordinate: &str) -> &str {
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
    pub(super) fn read_spec<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        T::deserialize(&*self.table.params)
            .map_err(|error| vec![self.problem(self.table.path.key("with"), error.to_string())])
    }

    pub(super) fn canonical(&self, params: &impl Serialize) -> Result<Json, Vec<Problem>> {
        serde_json::to_value(params).map_err(|error| vec![self.problem(self.table.path.key("with"), error.to_string())])
    }

    pub(super) fn problem(&self, path: YamlPath, message: impl Into<String>) -> Problem {
        Problem::at(Place::value(&self.table.file, path), message, "here")
    }

    /// Checks that a figure of `what` has the need that it draws and lacks those that it ignores.
    pub(super) fn takes(&self, needed: &str, without: &[&str], what: &str) -> Result<(), Vec<Problem>> {
        let needs = &self.table.needs;
        let path = self.table.path.key("needs");
        if let Some(useless) = without.iter().find(|name| needs.iter().any(|need| need.slot == **name)) {
            let place = Place::key(&self.table.file, path.key(useless));
            let message = format!("a figure of {what} has no use for `{useless}`");
            let help = match what {
                "curves" if *useless == "maps" => "add `draw: maps` to draw saliency maps, or remove it",
                "curves" if *useless == "trainings" => "add `draw: training` to draw learning curves, or remove it",
                "curves" => "add `draw: samples` to draw images, or remove it",
                _ if *useless != "results" => "remove it",
                "saliency maps" | "learning curves" => "remove it",
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

    /// Checks that a table has something to show.
    pub(super) fn takes_any(&self) -> Result<(), Vec<Problem>> {
        if self.table.needs.iter().any(|need| ["results", MEASURES].contains(&need.slot.as_str())) {
            return Ok(());
        }
        let message = format!("stage `{}`, a table, needs `results` or `{MEASURES}`", self.table.stage);
        let problem = Problem::at(self.table.place(), message, "needs `results`");
        Err(vec![problem.help("add `needs: {results: STAGE}`")])
    }

    /// Checks that what stands under `measures` has measures of maps.
    pub(super) fn check_measures(&self) -> Result<(), Vec<Problem>> {
        let measures = self.table.needs.iter().filter(|need| need.slot == MEASURES);
        let mut others = measures
            .filter(|need| self.expander.instance(need.from).kind != StageKind::Saliency || need.output != "numbers");
        let Some(other) = others.next() else { return Ok(()) };
        let name = &self.expander.instance(other.from).name;
        let message = format!("`{name}.{}` has no measures of saliency maps", other.output);
        let place = Place::value(&self.table.file, self.table.path.key("needs").key(MEASURES));
        Err(vec![Problem::at(place, message, "here").help("name a stage of kind `saliency`")])
    }

    /// Returns the distinct values of a coordinate among the results, in the order of the results.
    pub(super) fn labels(&self, coordinate: &str, path: &YamlPath) -> Result<Vec<String>, Vec<Problem>> {
        let pattern = Coordinate::new(coordinate);
        let mut labels: Vec<String> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for result in self.results {
            if let Some(label) = pattern.label(&result.coordinates)
                && seen.insert(label)
            {
                labels.push(label.to_owned());
            }
        }
        if labels.is_empty() {
            let mut known: BTreeSet<&str> = BTreeSet::new();
            for result in self.results {
                known.extend(result.coordinates.iter().map(|(name, _)| name));
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

    /// Returns the coordinate to average over where the table or figure names none: the seeds of the pipeline, if any
    /// result has them.
    pub(super) fn seeds(&self) -> Option<String> {
        let spec = self.expander.spec;
        let stage = &spec.stages[spec.stage(&self.table.stage)?];
        let seeds = spec.sweep.averaged_by(stage)?;
        let has_seeds = |result: &ShownResult| result.coordinates.get(seeds).is_some();
        self.results.iter().any(has_seeds).then(|| seeds.to_owned())
    }

    /// Groups the results by their labels of some coordinates; skips results that lack one of them.
    pub(super) fn by_labels(&self, coordinates: &[&str]) -> ByLabels<'a> {
        let mut found = ByLabels::new();
        let patterns: Vec<Coordinate> = coordinates.iter().map(|name| Coordinate::new(name)).collect();
        for result in self.results {
            let labels: Option<Vec<&str>> = patterns.iter().map(|pattern| pattern.label(&result.coordinates)).collect();
            if let Some(labels) = labels {
                found.entry(labels).or_default().push(result);
            }
        }
        found
    }

    /// Takes the result that fits a cell; a cell without one stays empty.
    pub(super) fn cell(
        &mut self,
        fitting: &[&ShownResult],
        label: &str,
        metric: Metric,
        path: &YamlPath,
    ) -> Result<(), Vec<Problem>> {
        let mut fitting = fitting.to_vec();
        fitting.retain(|result| result.maps.is_some() == metric.is_of_maps());
        if metric.needs_similarity() {
            // The maps of the first model are those that others are compared with.
            fitting.retain(|result| result.maps.as_ref().is_some_and(|maps| maps.first.is_some()));
        }
        if metric.needs_radii() {
            // The number is of all radii of an evaluation together, and stands with its largest.
            fitting.retain(|result| result.radius.as_ref().is_none_or(|radius| radius.output == "predictions"));
        }
        let result = match fitting.as_slice() {
            [] => return Ok(()),
            [one] => *one,
            several => {
                let names: Vec<String> = several.iter().take(3).map(|one| format!("`{}`", one.name())).collect();
                let message = format!("{} results fit the cell `{label}`: {}", several.len(), names.join(", "));
                return Err(vec![self.problem(path.clone(), message).help(self.apart(several))]);
            }
        };
        if metric.needs_texture() && self.is_certain && !self.untransformed.may_wear_textures(result.id) {
            let (metric, name) = (metric.name(), &result.instance.name);
            let message = format!("`{metric}` is of cue-conflict sets, and that of `{name}` is none");
            let help = "need results of a set that a transform with `op: cue_conflict` makes, or choose another `cell`";
            return Err(vec![self.problem(path.clone(), message).help(help)]);
        }
        if metric.needs_ranks() && self.is_certain && !self.keeps_ranks(result.instance) {
            let (metric, name) = (metric.name(), &result.instance.name);
            let message = format!("`{metric}` needs ranks, and `{name}` does not keep them");
            let help = "write `ranks: true` among the parameters of that evaluation";
            return Err(vec![self.problem(path.clone(), message).help(help)]);
        }
        let is_evaluation = result.instance.kind == StageKind::Evaluate;
        if metric.needs_radii() && self.is_certain && is_evaluation && result.radius.is_none() {
            let (metric, name) = (metric.name(), &result.instance.name);
            let message = format!("`{metric}` is of evaluations at several radii, and `{name}` has one");
            let help = "give the evaluation a list `eps`, or choose another `cell`";
            return Err(vec![self.problem(path.clone(), message).help(help)]);
        }
        if let Some(maps) = &result.maps {
            self.check_measured(result, metric, path)?;
            let first = maps.first.clone().filter(|_| metric.needs_similarity());
            self.maps.insert(label.to_owned(), OfMaps { first, ..maps.clone() });
        }
        self.push("value", label, result);
        if metric.needs_reference() && self.is_certain {
            let reference = self.untransformed.of(result.id).ok_or_else(|| {
                let name = &result.instance.name;
                let set = self.untransformed.set_of(result.id).unwrap_or_else(|| "the untransformed set".to_owned());
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

    /// Checks that a saliency stage measures what is asked for.
    fn check_measured(&self, result: &ShownResult, metric: Metric, path: &YamlPath) -> Result<(), Vec<Problem>> {
        let lacks = |name: &str| {
            let value = result.instance.params.get(name);
            result.instance.knows_params && value.is_none_or(|value| value.is_null() || *value == false)
        };
        let (name, written) = match metric {
            _ if metric.needs_similarity() => ("similarity", "similarity: true"),
            _ if metric.needs_stability() => ("stability", "stability: {}"),
            _ => return Ok(()),
        };
        if !lacks(name) {
            return Ok(());
        }
        let (metric, stage) = (metric.name(), &result.instance.name);
        let message = format!("`{metric}` needs `{name}`, and `{stage}` does not measure it");
        let help = format!("write `{written}` among the parameters of that stage");
        Err(vec![self.problem(path.clone(), message).help(help)])
    }

    /// Whether predictions may hold ranks: those of an evaluation that is asked for them, of a worst case of such, or
    /// of a command.
    fn keeps_ranks(&self, made: &Instance) -> bool {
        match made.kind {
            StageKind::Evaluate => made.params.get("ranks").and_then(serde_json::Value::as_bool).unwrap_or(false),
            StageKind::WorstCase => made.needs.iter().all(|need| self.keeps_ranks(self.expander.instance(need.from))),
            _ => true,
        }
    }

    /// Describes how to distinguish several results that fit one cell.
    fn apart(&self, several: &[&ShownResult]) -> String {
        fn of<'r>(result: &'r &ShownResult) -> &'r Coordinates {
            &result.coordinates
        }
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
            (_, StageKind::Table) => {
                format!("they differ in {}: tell them apart with `where`, or need fewer results", names.join(", "))
            }
            // A figure has no `where`.
            _ => {
                format!(
                    "they differ in {}: need those of one label only, as in `results: STAGE/LABEL`",
                    names.join(", ")
                )
            }
        }
    }

    fn push(&mut self, slot: &str, label: &str, result: &ShownResult) {
        let (from, output) = (result.id, result.output.clone());
        self.needs.push(Need { slot: slot.into(), label: label.into(), from, output });
    }
}
