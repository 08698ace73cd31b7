//! What comes up while a pipeline is read: problems, each told once, and what could not be read, so that nothing is
//! told that only follows from it.

use std::collections::HashSet;

use super::problem::Problem;
use super::source::{Place, YamlPath};

/// Beyond so many problems of one pipeline nobody reads on.
pub(super) const MAX_PROBLEMS: usize = 50;

/// What comes up while a stage is expanded.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Names of stages that have to be expanded before, and where each is named. Where there are any, nothing else
    /// counts: the stage is expanded again.
    pub missing: Vec<(String, YamlPath)>,
    pub problems: Vec<Problem>,
}

impl Notes {
    /// Takes a problem down, unless it is there already: instances of one stage share their mistakes.
    pub(super) fn tell(&mut self, problem: Problem) {
        if self.problems.len() <= MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The same with a problem made of its parts.
    pub(super) fn tell_at(&mut self, place: Place, message: impl Into<String>, label: &str, help: Option<String>) {
        let mut problem = Problem::at(place, message, label);
        problem.help = help;
        self.tell(problem);
    }

    /// Whether nobody would read more of this stage.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() > MAX_PROBLEMS
    }
}

/// Names of parameters and stages that stand somewhere in the files but could not be read. That they are not found is
/// no mistake of those who name them.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Whether a part was not read that may have any name in it.
    pub anything: bool,
    pub names: HashSet<String>,
}

impl Lost {
    /// Whether a name may be among what was not read.
    pub(super) fn may_have(&self, name: &str) -> bool {
        self.anything || self.names.contains(name)
    }
}
