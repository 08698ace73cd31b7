//! Where the parameters of a stage are written, and which parts of the stage are unreadable.

use std::sync::Arc;

use serde_yaml::Value;

use super::source::{Part, Place, SourceFile, Step, YamlPath};

/// The parameters of a stage and their source: the stage itself or the defaults of its kind.
pub(super) struct Origin<'a> {
    pub file: &'a Arc<SourceFile>,
    /// The stage's own parameters, substituted, and the path to them.
    pub own: &'a Value,
    pub path: &'a dyn Fn() -> YamlPath,
    /// The defaults, substituted, and the path to them.
    pub defaults: Option<(&'a Value, YamlPath)>,
    /// The unreadable parts of the stage.
    pub lost: &'a LostParts,
}

impl Origin<'_> {
    /// Returns the path to a parameter.
    pub(super) fn path(&self, trail: &[Step]) -> YamlPath {
        let mut path = match &self.defaults {
            Some((defaults, path)) if !has(self.own, trail) && has(defaults, trail) => path.clone(),
            _ => (self.path)(),
        };
        path.0.extend_from_slice(trail);
        path
    }

    /// Returns the place of a parameter.
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

/// Unreadable parts of a stage, already reported; they suppress follow-up errors.
#[derive(Debug, Default)]
pub(super) struct LostParts {
    pub matrix: bool,
    pub needs: bool,
    pub with: bool,
    /// Keys at stage level that belong elsewhere.
    pub misplaced: Vec<String>,
}

impl LostParts {
    /// Returns whether there may be unread parameters.
    pub(super) fn has_parameters(&self) -> bool {
        self.with || !self.misplaced.is_empty()
    }

    /// Returns whether a missing parameter may have been written.
    pub(super) fn may_hold(&self, parameter: &str) -> bool {
        self.with || self.misplaced.iter().any(|key| key == parameter)
    }
}
