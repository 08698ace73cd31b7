//! What is wrong with a pipeline, as facts with their place in the file. How it is shown is up to the command line.

use super::source::Place;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is wrong: a sentence without its full stop.
    pub message: String,
    /// Where; `None` where no file is to blame (a wrong `--set`).
    pub place: Option<Place>,
    /// A few words shown at the place.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether what is wrong lies elsewhere and is met at several places, of which one is enough.
    pub(super) is_shared: bool,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: Place, message: impl Into<String>, label: impl Into<String>) -> Self {
        Problem { message: message.into(), place: Some(place), label: label.into(), help: None, is_shared: false }
    }

    /// A problem with no place in a file.
    pub fn anywhere(message: impl Into<String>) -> Self {
        Problem { message: message.into(), place: None, label: String::new(), help: None, is_shared: false }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with the valid name nearest to `wrong`, or all of them where none is near.
    #[must_use]
    pub fn suggest<'a>(mut self, wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Self {
        self.help = suggestion(wrong, valid);
        self
    }
}

/// The valid name that `wrong` may have been meant to be, if one is near.
pub(super) fn nearest<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_near = |(distance, name): &(usize, &str)| {
        let longer = wrong.chars().count().max(name.chars().count());
        // Two words without a letter in common are not near, however short they are.
        *distance <= 1 + longer / 3 && *distance < longer
    };
    let distances = valid.into_iter().map(|name| (strsim::damerau_levenshtein(wrong, name), name));
    distances.filter(is_near).min().map(|(_, name)| name)
}

/// Advice on what `wrong` may have been meant to be.
pub fn suggestion<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let valid: Vec<&str> = valid.into_iter().collect();
    match (nearest(wrong, valid.iter().copied()), valid.as_slice()) {
        (Some(name), _) => Some(format!("did you mean `{name}`?")),
        (None, []) => None,
        (None, [only]) => Some(format!("the only valid name is `{only}`")),
        (None, names) if names.len() <= 12 => {
            Some(format!("valid: {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    }
}

/// Everything that is wrong with a pipeline; never empty.
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
