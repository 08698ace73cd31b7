//! Headings that an author gives to sets in a picture, by their labels or by patterns over them. Knows no pictures.

use std::collections::BTreeMap;

use globset::Glob;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Headings by label; a `*` in a key stands for any text (`*-stylized`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Headings(BTreeMap<String, String>);

impl Headings {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The heading of a set: that of its label, else that of the first pattern that fits, else its label.
    pub fn of<'a>(&'a self, label: &'a str) -> &'a str {
        let by_pattern = || self.0.iter().find(|(key, _)| fits(key, label)).map(|(_, heading)| heading);
        self.0.get(label).or_else(by_pattern).map_or(label, String::as_str)
    }

    /// The keys that fit none of these labels.
    pub fn idle<'a>(&'a self, labels: &[&str]) -> Vec<&'a str> {
        let is_idle = |key: &&str| !labels.iter().any(|label| key == label || fits(key, label));
        self.0.keys().map(String::as_str).filter(is_idle).collect()
    }
}

fn fits(key: &str, label: &str) -> bool {
    key.contains('*') && Glob::new(key).is_ok_and(|glob| glob.compile_matcher().is_match(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_wins_over_patterns_and_what_fits_nothing_is_found() {
        let headings: Headings =
            serde_yaml::from_str("{'*.test': original, '*-1024': flat, fish-1024: two grey levels}").unwrap();
        assert_eq!(headings.of("cats.test"), "original");
        assert_eq!((headings.of("fish-1024"), headings.of("cats-1024")), ("two grey levels", "flat"));
        assert_eq!(headings.of("cats-4"), "cats-4");
        assert_eq!(headings.idle(&["cats.test", "cats-1024"]), ["fish-1024"]);
        assert_eq!(headings.idle(&["cats.test", "fish-1024"]), [""; 0]);
    }
}
