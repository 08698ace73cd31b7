//! Names of files in the results folder: whether one that the author of a command chooses can be a file's name, and
//! whether only one result has it.

use std::collections::HashMap;

use super::instance::{Instance, OutputSpec, PerInstance};
use super::problem::Problem;
use super::source::Place;
use crate::stage_kinds::{RESERVED_RESULTS, StageKind};

/// Longest name, in bytes. File systems take 255, and a copy under work has a longer name than the file.
const LONGEST: usize = 120;

/// Returns why a text cannot name a file of the results folder; reads on after a colon.
pub(super) fn problem_of(name: &str) -> Option<String> {
    let is_reserved = RESERVED_RESULTS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name));
    if name.is_empty() {
        Some("it is empty".to_owned())
    } else if name.contains(['/', '\\']) {
        Some(format!("`{name}` is a path, and every result lies in the folder itself"))
    } else if name.starts_with(['.', '-', ' ']) || name.ends_with(['.', ' ']) {
        Some(format!("`{name}` begins or ends with a character that hides a file or misleads programs"))
    } else if name.chars().any(char::is_control) {
        Some("it has a character that cannot be seen".to_owned())
    } else if name.len() > LONGEST {
        Some(format!("it is longer than {LONGEST} bytes"))
    } else {
        is_reserved.then(|| format!("atflow itself writes `{name}` there"))
    }
}

/// Reports every output whose copy would take the place of another result.
pub(super) fn clashes(instances: &PerInstance<Instance>) -> Vec<Problem> {
    let mut taken: HashMap<String, (&Instance, &OutputSpec)> = HashMap::new();
    let mut problems: Vec<Problem> = Vec::new();
    for (instance, output, name) in instances.values().flat_map(results) {
        // Some file systems do not tell `A.csv` from `a.csv`.
        let first = *taken.entry(name.to_lowercase()).or_insert((instance, output));
        if std::ptr::eq(first.1, output) {
            continue;
        }
        let problem = clash(name, first, (instance, output));
        if problems.iter().all(|known| known.place != problem.place) {
            problems.push(problem);
        }
    }
    problems
}

fn results(instance: &Instance) -> impl Iterator<Item = (&Instance, &OutputSpec, &str)> {
    instance.outputs.iter().filter_map(move |output| Some((instance, output, output.result.as_deref()?)))
}

/// The problem of two results with one name: at the one whose name an author chose, else at the later stage.
fn clash(name: &str, first: (&Instance, &OutputSpec), second: (&Instance, &OutputSpec)) -> Problem {
    let is_chosen = |result: &(&Instance, &OutputSpec)| result.0.kind == StageKind::Command;
    let (chosen, other) = if is_chosen(&second) { (second, first) } else { (first, second) };
    if !is_chosen(&chosen) {
        return clash_of_names(name, first.0, second.0);
    }
    let (instance, output) = chosen;
    let path = ["outputs", &output.name, "show"].iter().fold(instance.path.key("with"), |path, key| path.key(key));
    let of = |result: (&Instance, &OutputSpec)| format!("output `{}` of `{}`", result.1.name, result.0.name);
    let message = format!("{} and {} would both be `{name}` among the results", of(other), of(chosen));
    let problem = Problem::at(Place::value(&instance.file, path), message, "here");
    problem.help(if other.0.stage == instance.stage && other.0.name != instance.name {
        "put the axes of the matrix into the name, as in `show: plot-${AXIS}.png`"
    } else {
        "choose another name"
    })
}

/// The problem of two instances whose names differ in `/` and `-` or in small and capital letters only: their files are
/// named after them.
fn clash_of_names(name: &str, first: &Instance, second: &Instance) -> Problem {
    let message = format!("`{}` and `{}` would both write `{name}` among the results", first.name, second.name);
    if first.stage == second.stage {
        let place = Place::value(&second.file, second.path.key("matrix"));
        return Problem::at(place, message, "in this matrix").help("give their values other labels");
    }
    let place = |instance: &Instance| Place::key(&instance.file, (*instance.path).clone());
    let span = place(first).span();
    let (line, _) = first.file.line_column(span.start);
    let help = format!("rename this stage, or `{}` at {}:{line}", first.stage, first.file.name());
    Problem::at(place(second), message, "here").help(help)
}
