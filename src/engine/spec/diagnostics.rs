//! Diagnostics of reading a pipeline: problems without duplicates, and unreadable parts.
//!
//! The unreadable parts suppress follow-up errors.

use std::collections::HashSet;

use super::problem::Problem;
use super::source::{Place, YamlPath};

/// Maximum number of problems reported per pipeline.
pub(super) const MAX_PROBLEMS: usize = 50;

/// Diagnostics of expanding a stage.
#[derive(Debug, Default)]
pub(super) struct Diagnostics {
    /// Stages that must be expanded first, and where each is named.
    ///
    /// If there are any, nothing else counts: the stage is expanded again.
    pub missing: Vec<(String, YamlPath)>,
    pub problems: Vec<Problem>,
}

impl Diagnostics {
    /// Adds a problem unless it is already there: instances of one stage share their mistakes.
    pub(super) fn tell(&mut self, problem: Problem) {
        if self.problems.len() <= MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Builds a problem from its parts and adds it.
    pub(super) fn tell_at(&mut self, place: Place, message: impl Into<String>, label: &str, help: Option<String>) {
        let mut problem = Problem::at(place, message, label);
        problem.help = help;
        self.tell(problem);
    }

    /// Returns whether the limit on reported problems is exceeded.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() > MAX_PROBLEMS
    }
}

/// Names of parameters and stages that exist in the files but could not be read.
///
/// References to them are not reported as errors.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Whether an unread part may contain arbitrary names.
    pub anything: bool,
    pub names: HashSet<String>,
}

impl Lost {
    /// Returns whether a name may be among the unread parts.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.anything || self.names.contains(name)
    }
}
