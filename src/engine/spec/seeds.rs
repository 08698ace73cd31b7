//! The seeds that a pipeline is run with: `seeds: 3`, or a list. They are a sweep over the parameter `seed`, whose
//! values tables and curves average over.

use std::collections::HashSet;

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::poison::is_unknown;
use super::problem::Problem;
use super::reader::Reader;
use super::source::{Place, YamlPath};

/// The key, at the top of a file and in a profile, and what `--set` calls it.
pub(super) const KEY: &str = "seeds";

/// The parameter that is varied.
pub(super) const PARAM: &str = "seed";

/// Maximum number of seeds; more is a mistake.
const MOST: u64 = 100;

/// Seeds as a file asks for them.
#[derive(Debug, Clone)]
pub(super) struct Seeds {
    /// At least one, all different.
    pub values: Vec<u64>,
    /// Where they are written; `None` on the command line.
    pub place: Option<Place>,
}

impl Reader<'_> {
    /// Returns the seeds under a mapping's key; `path` leads to the mapping.
    pub(super) fn seeds(&mut self, map: &Mapping, path: &YamlPath) -> Option<Seeds> {
        let value = map.get(KEY).filter(|value| !value.is_null() && !is_unknown(value))?;
        let place = Place::value(self.file, path.key(KEY));
        match values(value) {
            Ok(values) => Some(Seeds { values, place: Some(place) }),
            Err(message) => {
                self.problems.push(Problem::at(place, message, "expected seeds").help(HELP));
                None
            }
        }
    }
}

const HELP: &str = "write how many, as in `seeds: 3`, which are 0, 1 and 2; or list them, as in `seeds: [0, 7, 8]`";

/// Reads seeds from the command line.
///
/// # Errors
/// Returns the problem.
pub(super) fn from_command_line(value: &Value) -> Result<Seeds, Problem> {
    let values = values(value).map_err(|message| Problem::anywhere(format!("--set {KEY}: {message}")).help(HELP))?;
    Ok(Seeds { values, place: None })
}

/// Returns the seeds that a value means, or what is wrong with it.
fn values(value: &Value) -> Result<Vec<u64>, String> {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(count @ 1..=MOST) => Ok((0..count).collect()),
            _ => Err(format!("`{KEY}` is a number of seeds from 1 to {MOST}; this is {number}")),
        },
        Value::Sequence(items) if !items.is_empty() => {
            let mut seen = HashSet::new();
            items
                .iter()
                .map(|item| {
                    let seed =
                        item.as_u64().ok_or_else(|| format!("a seed is a whole number; this is {}", describe(item)))?;
                    if seen.insert(seed) { Ok(seed) } else { Err(format!("`{KEY}` has {seed} twice")) }
                })
                .collect()
        }
        other => Err(format!("`{KEY}` is a number of seeds, or a list of them; this is {}", describe(other))),
    }
}
