//! Where the parameters of a stage stand, and what of a stage could not be read.

use std::sync::Arc;

use serde_yaml::Value;

use super::source::{Part, Place, SourceFile, Step, YamlPath};

/// A stage's parameters and where each stands: in the stage, or in the defaults of its kind.
pub(super) struct Origin<'a> {
    pub file: &'a Arc<SourceFile>,
    /// The stage's own parameters, substituted, and the way to them.
    pub own: &'a Value,
    pub path: &'a dyn Fn() -> YamlPath,
    /// The defaults, substituted, and the way to them.
    pub defaults: Option<(&'a Value, YamlPath)>,
    /// What of the stage could not be read.
    pub lost: &'a LostParts,
}

impl Origin<'_> {
    /// The way to a parameter.
    pub(super) fn path(&self, trail: &[Step]) -> YamlPath {
        let mut path = match &self.defaults {
            Some((defaults, path)) if !has(self.own, trail) && has(defaults, trail) => path.clone(),
            _ => (self.path)(),
        };
        path.0.extend_from_slice(trail);
        path
    }

    /// The place of a parameter.
    pub(super) fn place(&self, trail: &[Step], part: Part) -> Place {
        match part {
            Part::Key => Place::key(self.file, self.path(trail)),
            Part::Value => Place::value(self.file, self.path(trail)),
        }
    }
}

fn has(value: &Value, trail: &[Step]) -> bool {
    let mut value = value;
    for step in trail {
        let next = match step {
            Step::Key(key) => value.get(key.as_str()),
            Step::Index(index) => value.get(*index),
        };
        let Some(next) = next else { return false };
        value = next;
    }
    true
}

/// Parts of a stage that could not be read, which is told: what would follow from that is not told as well.
#[derive(Debug, Default)]
pub(super) struct LostParts {
    pub matrix: bool,
    pub needs: bool,
    pub with: bool,
    /// Keys that stand among those of the stage and belong elsewhere.
    pub misplaced: Vec<String>,
}

impl LostParts {
    /// Whether there may be parameters that were not read.
    pub(super) fn has_parameters(&self) -> bool {
        self.with || !self.misplaced.is_empty()
    }

    /// Whether a parameter that is not there may have been written.
    pub(super) fn may_hold(&self, parameter: &str) -> bool {
        self.with || self.misplaced.iter().any(|key| key == parameter)
    }
}
