//! The names of warnings, and which of them a file or a stage allows.

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::poison::is_unknown;
use super::problem::Problem;
use super::reader::Reader;
use super::source::{Place, YamlPath};

/// Something that is most likely a mistake, and never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lint {
    /// A parameter that nothing uses.
    UnusedParam,
    /// Training and attack have different radii, of which one does not follow the parameter.
    EpsDiffers,
    /// Training and attack have one radius in two norms.
    NormDiffers,
    /// A training stops by its accuracy on the images that it is tested on.
    TestSelects,
    /// The first images of a set whose images come class by class.
    SortedLimit,
    /// A seed where nothing is drawn.
    IdleSeed,
    /// A search in 16 bits where these are emulated.
    SlowSearch,
}

impl Lint {
    /// All of them.
    pub const ALL: [Lint; 7] = [
        Lint::UnusedParam,
        Lint::EpsDiffers,
        Lint::NormDiffers,
        Lint::TestSelects,
        Lint::SortedLimit,
        Lint::IdleSeed,
        Lint::SlowSearch,
    ];

    /// Returns its name in `allow`.
    pub fn name(self) -> &'static str {
        match self {
            Lint::UnusedParam => "unused-param",
            Lint::EpsDiffers => "eps-differs",
            Lint::NormDiffers => "norm-differs",
            Lint::TestSelects => "test-selects",
            Lint::SortedLimit => "sorted-limit",
            Lint::IdleSeed => "idle-seed",
            Lint::SlowSearch => "slow-search",
        }
    }
}

impl Reader<'_> {
    /// Returns the warnings that `allow` lists; `path` leads to the mapping with the key.
    pub(super) fn allow(&mut self, map: &Mapping, path: &YamlPath) -> Vec<Lint> {
        let path = path.key("allow");
        match map.get("allow") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(items)) => {
                items.iter().enumerate().filter_map(|(at, item)| self.lint(item, path.index(at))).collect()
            }
            Some(other) if is_unknown(other) => Vec::new(),
            Some(other) => {
                let message = format!("`allow` is a list of warnings; this is {}", describe(other));
                let problem = Problem::at(Place::value(self.file, path), message, "expected a list");
                self.problems.push(problem.help(format!("write `allow: [{}]`", Lint::UnusedParam.name())));
                Vec::new()
            }
        }
    }

    fn lint(&mut self, item: &Value, path: YamlPath) -> Option<Lint> {
        let name = item.as_str().unwrap_or_default();
        let lint = Lint::ALL.into_iter().find(|lint| lint.name() == name);
        if lint.is_none() && !is_unknown(item) {
            let message = match item.as_str() {
                Some(name) => format!("there is no warning `{name}`"),
                None => format!("a warning has a name; this is {}", describe(item)),
            };
            let problem = Problem::at(Place::value(self.file, path), message, "unknown warning");
            self.problems.push(problem.suggest(name, Lint::ALL.map(Lint::name)));
        }
        lint
    }
}

/// Adds advice to a warning: what to do, and how to allow it.
pub(super) fn advised(problem: Problem, help: &str, lint: Lint) -> Problem {
    let at = if lint == Lint::UnusedParam { "at the top of the file" } else { "at the stage" };
    problem.help(format!("{help}; if it is meant, write `allow: [{}]` {at}", lint.name()))
}
