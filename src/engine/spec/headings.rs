//! Checks a picture's headings against its sets.

use serde::Deserialize;

use super::instance::Instance;
use super::problem::Problem;
use super::source::Place;
use crate::stage_kinds::Headings;

/// Checks the headings of a stage with canonical parameters; its sets are in the slot `set`.
pub(super) fn check_canonical(stage: &Instance) -> Vec<Problem> {
    let Some(headings) = stage.params.get("headings").and_then(|headings| Headings::deserialize(headings).ok()) else {
        return Vec::new();
    };
    let sets = stage.needs.iter().filter(|need| need.slot == "set");
    check(stage, &headings, &sets.map(|need| need.label.clone()).collect::<Vec<_>>())
}

/// Checks that every heading of a picture refers to a set that it shows.
pub(super) fn check(stage: &Instance, headings: &Headings, labels: &[String]) -> Vec<Problem> {
    check_at("headings", "no set", stage, headings, labels)
}

/// Checks that every key of the parameter `key` is or fits one of these labels; `nothing` says what else lacks it.
pub(super) fn check_at(
    key: &str,
    nothing: &str,
    stage: &Instance,
    headings: &Headings,
    labels: &[String],
) -> Vec<Problem> {
    let known: Vec<&str> = labels.iter().map(String::as_str).collect();
    let problem = |label: &str| {
        let place = Place::key(&stage.file, stage.path.key("with").key(key).key(label));
        let problem = Problem::at(place, format!("{nothing} has the label `{label}`"), "here");
        problem.suggest(label, known.iter().copied())
    };
    headings.idle(&known).into_iter().map(problem).collect()
}
