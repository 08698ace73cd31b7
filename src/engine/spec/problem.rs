//! Problems of a pipeline, as facts with a place in the file. The command line decides how to display them.

use super::source::Place;
use crate::stage_kinds::{Metric, StageKind};

/// One problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is wrong: a sentence without a full stop.
    pub message: String,
    /// The place; `None` where no file is to blame (a wrong `--set`).
    pub place: Option<Place>,
    /// A few words displayed at the place.
    pub label: String,
    /// How to fix it.
    pub help: Option<String>,
    /// Whether the cause lies elsewhere and surfaces at several places, of which one suffices.
    pub(super) is_shared: bool,
}

impl Problem {
    /// Creates a problem at a place.
    pub fn at(place: Place, message: impl Into<String>, label: impl Into<String>) -> Self {
        Problem { message: message.into(), place: Some(place), label: label.into(), help: None, is_shared: false }
    }

    /// Creates a problem without a place in a file.
    pub fn anywhere(message: impl Into<String>) -> Self {
        Problem { message: message.into(), place: None, label: String::new(), help: None, is_shared: false }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Suggests the valid name nearest to `wrong`, or all of them if none is near.
    #[must_use]
    pub fn suggest<'a>(mut self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        self.help = suggestion(wrong, valid);
        self
    }
}

/// Returns the valid name nearest to `wrong`, if one is near enough.
pub(super) fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_near = |(distance, name): &(usize, &str)| {
        let longer = wrong.chars().count().max(name.chars().count());
        // Two words without a common letter are not near, however short they are.
        *distance <= 1 + longer / 3 && *distance < longer
    };
    let distances = valid.into_iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name));
    distances.filter(is_near).min().map(|(_, name)| name)
}

/// How many valid names are listed: as many as there are metrics, and kinds of stage. Longer lists help nobody.
const LISTED: usize = if StageKind::ALL.len() > Metric::ALL.len() { StageKind::ALL.len() } else { Metric::ALL.len() };

/// Returns advice on the intended spelling of `wrong`.
pub fn suggestion<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    match (nearest(wrong, valid.iter().copied()), valid.as_slice()) {
        (Some(name), _) => Some(format!("did you mean `{name}`?")),
        (None, []) => None,
        (None, [only]) => Some(format!("the only valid name is `{only}`")),
        (None, names) if names.len() <= LISTED => {
            Some(format!("valid: {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    }
}

/// All problems of a pipeline; never empty.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; "))]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Problems(vec![problem])
    }
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn the_nearest_name_is_suggested_and_far_ones_are_listed() {
        let kinds = ["train", "table", "transform"];
        assert_eq!(suggestion("trian", kinds).unwrap(), "did you mean `train`?");
        assert_eq!(suggestion("xyz", kinds).unwrap(), "valid: `train`, `table`, `transform`");
        assert_eq!(suggestion("xyz", []), None);
    }
}
