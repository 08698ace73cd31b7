//! Which images of a set a stage looks at: a parameter of saliency maps and of figures of images, and what it comes to
//! for a set of given labels. Knows no pixels.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::random;

/// Which images of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Images {
    /// These, by their index in the set, in this order.
    Listed(Vec<u32>),
    /// So many of them.
    Chosen(Chosen),
}

/// So many images of a set, or of one of its classes: the first ones, or some drawn at random.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chosen {
    /// The first so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub first: Option<u32>,
    /// So many, drawn without replacement and taken in the order of the set; the same ones whatever the stage's own
    /// seed is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<u32>,
    /// The seed of that draw; 0 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Only images of this class, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The first so many of every class, class by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub each_class: Option<u32>,
}

/// Why a choice comes to nothing in a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// The choice is none, whatever the set.
    #[error("{0}")]
    Wrong(&'static str),
    /// An index past the end.
    #[error("names image {index}, but the set has {images} images, counted from 0")]
    Index {
        /// What was asked for.
        index: u32,
        /// How many there are.
        images: usize,
    },
    /// A class without images, or none of the set's.
    #[error("asks for images of the class `{class}`, of which the set has none{}", near(.nearest))]
    Class {
        /// What was asked for.
        class: String,
        /// The class of the nearest name that has images.
        nearest: Option<String>,
    },
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; it has some of `{name}`")).unwrap_or_default()
}

impl Images {
    /// What is wrong with the choice whatever the set is.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            Images::Listed(list) if list.is_empty() => Some("must name at least one image"),
            Images::Listed(_) => None,
            Images::Chosen(chosen) => chosen.problem(),
        }
    }

    /// The indices of the images meant, where image i has the class `classes[labels[i]]`.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub fn among(&self, labels: &[i32], classes: &[String]) -> Result<Vec<usize>, ChoiceError> {
        if let Some(problem) = self.problem() {
            return Err(ChoiceError::Wrong(problem));
        }
        let chosen = match self {
            Images::Listed(list) => {
                let images = labels.len();
                return match list.iter().find(|&&index| index as usize >= images) {
                    Some(&index) => Err(ChoiceError::Index { index, images }),
                    None => Ok(list.iter().map(|&index| index as usize).collect()),
                };
            }
            Images::Chosen(chosen) => chosen,
        };
        if let Some(wanted) = chosen.each_class {
            return Ok(of_each_class(wanted as usize, labels));
        }
        let candidates: Vec<usize> = match &chosen.class {
            None => (0..labels.len()).collect(),
            Some(class) => of_class(class, labels, classes)?,
        };
        let Some(wanted) = chosen.count else {
            return Ok(candidates.into_iter().take(chosen.first.unwrap_or(0) as usize).collect());
        };
        let order = random::permutation(chosen.seed.unwrap_or(0), "saliency images", &[], candidates.len());
        let mut drawn: Vec<usize> = order.into_iter().take(wanted as usize).map(|at| candidates[at]).collect();
        drawn.sort_unstable();
        Ok(drawn)
    }
}

impl Chosen {
    fn problem(&self) -> Option<&'static str> {
        match (self.first, self.count, self.each_class) {
            (Some(0), ..) | (_, Some(0), _) | (.., Some(0)) => Some("must be at least one image"),
            (Some(_), None, None) if self.seed.is_none() => None,
            (None, Some(_), None) => None,
            (None, None, Some(_)) if self.seed.is_none() && self.class.is_none() => None,
            _ => Some(
                "must be a list of indices, `{first: N}`, `{count: N, seed: S}`, or `{each_class: N}`; the former two \
                 may name a `class`",
            ),
        }
    }
}

/// The first so many images of each class, in the order of the classes.
fn of_each_class(wanted: usize, labels: &[i32]) -> Vec<usize> {
    let mut by_class: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, &label) in labels.iter().enumerate() {
        let of_class = by_class.entry(label).or_default();
        if of_class.len() < wanted {
            of_class.push(at);
        }
    }
    by_class.into_values().flatten().collect()
}

fn of_class(class: &str, labels: &[i32], classes: &[String]) -> Result<Vec<usize>, ChoiceError> {
    let name = |label: i32| usize::try_from(label).ok().and_then(|label| classes.get(label));
    let found: Vec<usize> =
        (0..labels.len()).filter(|&at| name(labels[at]).is_some_and(|name| name == class)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let near = |name: &&String| strsim::jaro_winkler(name, class);
    let nearest = labels.iter().filter_map(|&label| name(label)).max_by(|a, b| near(a).total_cmp(&near(b))).cloned();
    Err(ChoiceError::Class { class: class.to_owned(), nearest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(yaml: &str) -> Result<Vec<usize>, String> {
        let images: Images = serde_yaml::from_str(yaml).unwrap();
        let classes = ["056.dog", "026.cake", "257.clutter"].map(str::to_owned);
        images.among(&[0, 0, 1, 1, 0, 1, 1], &classes).map_err(|error| error.to_string())
    }

    #[test]
    fn images_are_listed_counted_or_drawn_of_all_or_of_a_class() {
        assert_eq!(among("[5, 0]").unwrap(), [5, 0]);
        assert_eq!(among("{first: 3}").unwrap(), [0, 1, 2]);
        assert_eq!(among("{first: 2, class: 026.cake}").unwrap(), [2, 3]);
        assert_eq!(among("{first: 9, class: 026.cake}").unwrap(), [2, 3, 5, 6]);
        let drawn = among("{count: 2, seed: 3, class: 026.cake}").unwrap();
        assert!(drawn.len() == 2 && drawn.iter().all(|index| [2, 3, 5, 6].contains(index)), "{drawn:?}");
        assert_eq!(among("{count: 2, seed: 3, class: 026.cake}").unwrap(), drawn);
        assert_eq!(among("{count: 9}").unwrap(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(among("{each_class: 1}").unwrap(), [0, 2]);
        assert_eq!(among("{each_class: 4}").unwrap(), [0, 1, 4, 2, 3, 5, 6], "class by class, as many as there are");
    }

    #[test]
    fn choices_that_come_to_nothing_say_why() {
        assert_eq!(among("[7]").unwrap_err(), "names image 7, but the set has 7 images, counted from 0");
        let error = among("{first: 1, class: cake}").unwrap_err();
        assert!(error.contains("has none; it has some of `026.cake`"), "{error}");
        assert!(among("{first: 1, class: 257.clutter}").is_err(), "a class without images");
        for wrong in [
            "[]",
            "{first: 0}",
            "{each_class: 0}",
            "{class: 026.cake}",
            "{first: 1, count: 1}",
            "{first: 1, seed: 1}",
            "{each_class: 1, class: 026.cake}",
            "{each_class: 1, first: 1}",
        ] {
            assert!(among(wrong).unwrap_err().starts_with("must"), "{wrong}");
        }
    }
}
