//! What tables and figures show instead of labels: what their author says, and fractions as they are written.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml::Value;

use super::expand::Expander;
use super::headings;
use super::instance::Instance;
use super::problem::Problem;
use super::stage::label_of;
use crate::number::Real;
use crate::stage_kinds::{Headings, Radius, StageKind};

/// Returns what is shown instead of each label that is not shown as it is.
pub(super) fn resolve(
    expander: &Expander,
    stage: &Instance,
    names: &Headings,
    labels: &[String],
) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let problems = headings::check_at("names", "nothing here", stage, names, labels);
    if !problems.is_empty() {
        return Err(problems);
    }
    let fractions = Fractions::of(expander, labels);
    let shown = |label: &String| match names.of(label) {
        same if same == label => fractions.written(label),
        named => named.to_owned(),
    };
    Ok(labels.iter().map(|label| (label.clone(), shown(label))).filter(|(label, shown)| label != shown).collect())
}

/// Fractions that are values of an axis somewhere: a label has `8_255` where its author wrote `8/255`.
pub(super) struct Fractions {
    by_label: BTreeMap<String, String>,
}

impl Fractions {
    /// The fractions that these labels may hold.
    pub(super) fn of(expander: &Expander, labels: &[String]) -> Self {
        let tokens: BTreeSet<&str> =
            labels.iter().flat_map(|label| tokens(label)).filter(|token| token.contains('_')).collect();
        let mut by_label = BTreeMap::new();
        // Most labels hold none, and a pipeline may have thousands of instances.
        if tokens.is_empty() {
            return Fractions { by_label };
        }
        let of_axes = expander.instances.values().flat_map(|instance| instance.axes.1.iter());
        let radii = expander.instances.values().flat_map(|instance| match instance.kind {
            StageKind::Evaluate => Radius::list(&instance.params),
            _ => Vec::new(),
        });
        by_label.extend(radii.map(|radius| (radius.label, Radius::written(radius.eps))));
        for value in of_axes.chain(expander.spec.sweep.values()) {
            let Value::String(text) = &**value else { continue };
            let label = label_of(value).filter(|label| tokens.contains(label.as_str()));
            if let Some(label) = label.filter(|_| text.contains('/') && Real::parse(text).is_some()) {
                by_label.insert(label, text.clone());
            }
        }
        Fractions { by_label }
    }

    /// A label with its fractions as they are written.
    pub(super) fn written(&self, label: &str) -> String {
        tokens(label).map(|token| self.by_label.get(token).map_or(token, String::as_str)).collect()
    }
}

/// The words and numbers of a label, and what stands between them.
fn tokens(label: &str) -> impl Iterator<Item = &str> {
    let is_of_token = |c: char| c.is_alphanumeric() || "._+".contains(c);
    let mut rest = label;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|c: char| is_of_token(c) != is_of_token(first)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        rest = after;
        Some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_stands_as_it_is_written_wherever_a_label_has_it() {
        let by_label = [("8_255", "8/255"), ("1_2", "1/2")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let fractions = Fractions { by_label: by_label.into() };
        let written = |label| fractions.written(label);
        assert_eq!(written("8_255"), "8/255");
        assert_eq!(written("pgd-8_255-1_2"), "pgd-8/255-1/2");
        for plain in ["18_255", "8_2551", "set_8_255", "a_b", "", "ε=3_255"] {
            assert_eq!(written(plain), plain);
        }
    }
}
