//! Headings of a picture's sets, held against the sets that it has.

use serde::Deserialize;

use super::instance::Instance;
use super::problem::Problem;
use super::source::Place;
use crate::stage_kinds::Headings;

/// The same for a stage whose parameters are as they are hashed; its sets are in the slot `set`.
pub(super) fn check_canonical(stage: &Instance) -> Vec<Problem> {
    let Some(headings) = stage.params.get("headings").and_then(|headings| Headings::deserialize(headings).ok()) else {
        return Vec::new();
    };
    let sets = stage.needs.iter().filter(|need| need.slot == "set");
    check(stage, &headings, &sets.map(|need| need.label.clone()).collect::<Vec<_>>())
}

/// Headings of a picture are for sets that it shows.
pub(super) fn check(stage: &Instance, headings: &Headings, labels: &[String]) -> Vec<Problem> {
    let known: Vec<&str> = labels.iter().map(String::as_str).collect();
    let problem = |label: &str| {
        let place = Place::key(&stage.file, stage.path.key("with").key("headings").key(label));
        let problem = Problem::at(place, format!("no set has the label `{label}`"), "here");
        problem.suggest(label, known.iter().copied())
    };
    headings.idle(&known).into_iter().map(problem).collect()
}
