//! The options that a stage of any kind may have beside its parameters: seed, numerics, threads, GPU and time limit.
//!
//! A value that cannot be used is reported, and the default takes its place.

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::diagnostics::Diagnostics;
use super::expand::Expander;
use super::poison::is_unknown;
use super::problem::Problem;
use super::schema_check::beyond_whole_numbers;
use super::source::Place;
use super::stage::{StageSpec, duration};
use crate::number::Real;
use crate::numerics::Numerics;

/// Upper limit of `threads`; no machine has more.
const MOST_THREADS: u64 = 1024;

impl Expander<'_> {
    /// Returns the whole number under a key of a stage, or the default.
    pub(super) fn whole_number(
        &self,
        stage: &StageSpec,
        key: &str,
        value: Option<&Value>,
        axes: &Mapping,
        default: u64,
        notes: &mut Diagnostics,
    ) -> u64 {
        let Some(value) = value else { return default };
        let path = || stage.path.key(key);
        let value = self.substitute(stage, value, axes, &path, &[], notes);
        if beyond_whole_numbers(&value) {
            let message = format!("`{key}` is too large: at most {}", u64::MAX);
            notes.tell_at(Place::value(&stage.file, path()), message, "too large", None);
        } else if value.as_u64().is_none() && !is_unknown(&value) {
            let message = format!("`{key}` must be a whole number, 0 or more; this is {}", describe(&value));
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a whole number", None);
        }
        value.as_u64().unwrap_or(default)
    }

    /// Returns the stage's own numerics, else the file's, else the default.
    pub(super) fn numerics(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> Numerics {
        let Some((value, path)) = &stage.numerics else { return Numerics::default() };
        let value = self.substitute(stage, value, axes, &|| path.clone(), &[], notes);
        let numerics = value.as_str().and_then(Numerics::from_name);
        if numerics.is_none() && !is_unknown(&value) {
            let names = Numerics::ALL.map(Numerics::name);
            let message = format!("`numerics` is one of {}; this is {}", names.join(" and "), describe(&value));
            let place = Place::value(&stage.file, path.clone());
            let problem = Problem::at(place, message, "unknown numerics");
            notes.tell(match value.as_str() {
                Some(word) => problem.suggest(word, names),
                None => problem,
            });
        }
        numerics.unwrap_or_default()
    }

    /// Returns the number of processor threads, at least 1.
    pub(super) fn threads(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> usize {
        let threads = self.whole_number(stage, "threads", stage.threads.as_ref(), axes, 1, notes);
        if !(1..=MOST_THREADS).contains(&threads) {
            let message = format!("`threads` is {threads}; it must be from 1 to {MOST_THREADS}");
            let place = Place::value(&stage.file, stage.path.key("threads"));
            notes.tell_at(place, message, "no such number of threads", None);
        }
        threads.clamp(1, MOST_THREADS) as usize
    }

    /// Returns the share of a GPU that a stage takes, above 0 and at most 1.
    pub(super) fn gpu(&self, stage: &StageSpec, axes: &Mapping, notes: &mut Diagnostics) -> f64 {
        let Some(value) = &stage.gpu else { return 1.0 };
        let path = || stage.path.key("gpu");
        let value = self.substitute(stage, value, axes, &path, &[], notes);
        // Read like a parameter: numbers may be fractions.
        let share = serde_yaml::from_value(value.clone().into_owned()).map(Real::get);
        let share = share.ok().filter(|&share| share > 0.0 && share <= 1.0);
        if share.is_none() && !is_unknown(&value) {
            let message = format!("`gpu` must be above 0 and at most 1; this is {}", describe(&value));
            let help = Some("`gpu: 1/4` lets four such stages share a GPU".to_owned());
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a share of a GPU", help);
        }
        share.unwrap_or(1.0)
    }

    /// Returns the time after which a stage is stopped, if there is a limit.
    pub(super) fn time_limit(
        &self,
        stage: &StageSpec,
        axes: &Mapping,
        notes: &mut Diagnostics,
    ) -> Option<std::time::Duration> {
        let path = || stage.path.key("time_limit");
        let value = self.substitute(stage, stage.time_limit.as_ref()?, axes, &path, &[], notes);
        if value.is_null() || is_unknown(&value) {
            return None;
        }
        let limit = value.as_str().and_then(duration);
        if limit.is_none() {
            let message = format!("`time_limit` must be a number above 0 and its unit; this is {}", describe(&value));
            let help = Some("write it as `90 s`, `10 min`, `2 h` or `1 d`".to_owned());
            notes.tell_at(Place::value(&stage.file, path()), message, "expected a time", help);
        }
        limit
    }
}
