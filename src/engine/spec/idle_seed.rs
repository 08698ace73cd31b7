//! Refuses a seed at a stage that is certain to draw nothing. Where a value of `--set` or of a profile may change that,
//! `lint` warns.

use serde_yaml::Value;

use super::allow::{Lint, advised};
use super::instance::Instance;
use super::pipeline::PipelineSpec;
use super::problem::Problem;
use super::source::Place;
use super::stage::{AxisValues, StageSpec};
use super::template::{Token, tokens};
use crate::stage_kinds::draws;

/// A parameter that draws by being there, whatever its number is.
const DRAWS: &str = "noise";

/// Returns the problem of a stage whose seed is of no use; `instances` are all of it.
pub(super) fn check<'i>(
    spec: &PipelineSpec,
    stage: &StageSpec,
    instances: impl Iterator<Item = &'i Instance>,
) -> Option<Problem> {
    stage.seed.as_ref()?;
    let mut found = false;
    for instance in instances {
        if !instance.knows_params || !instance.kind.takes_seed() || draws(instance.kind, &instance.params) {
            return None;
        }
        found = true;
    }
    let place = Place::key(&stage.file, stage.path.key("seed"));
    let is_allowed = spec.allows(Lint::IdleSeed, Some(&place), std::slice::from_ref(&stage.name));
    if !found || is_allowed || !is_certain(spec, stage) {
        return None;
    }
    Some(problem(&stage.name, place, ""))
}

/// Tells that a stage's seed is of no use, as an error here or as a warning of `lint`; `when` limits that.
pub(super) fn problem(stage: &str, place: Place, when: &str) -> Problem {
    let message = format!("`{stage}` draws nothing at random{when}: its seed changes its key, and no result");
    let help = "remove `seed`: stages that differ only in it repeat the same work";
    advised(Problem::at(place, message, "of no use"), help, Lint::IdleSeed)
}

/// Whether no value of a parameter of the pipeline can make the stage draw: it reads none but numbers.
fn is_certain(spec: &PipelineSpec, stage: &StageSpec) -> bool {
    let is_fixed = |value: &Value| is_fixed(spec, stage, value);
    let of_axis = |values: &AxisValues| match values {
        AxisValues::Listed(listed) => listed.iter().all(|(_, value)| is_fixed(value)),
        AxisValues::Each(_) => true,
        AxisValues::Substituted(_) | AxisValues::Unknown => false,
    };
    is_fixed(&stage.with)
        && stage.defaults.as_deref().is_none_or(is_fixed)
        && stage.include.iter().all(is_fixed)
        && stage.matrix.iter().all(|axis| of_axis(&axis.values))
}

/// Whether a value has no reference but to numbers of the pipeline, and to axes with values of their own.
fn is_fixed(spec: &PipelineSpec, stage: &StageSpec, value: &Value) -> bool {
    let names = |text: &str| -> Vec<String> {
        let names = tokens(text).filter_map(|token| match token {
            Token::Reference { name, .. } => Some(name.to_owned()),
            Token::Text(_) | Token::Open(_) => None,
        });
        names.collect()
    };
    match value {
        Value::String(text) => names(text).iter().all(|name| {
            let parts: Vec<&str> = name.split('.').collect();
            match stage.matrix.iter().find(|axis| axis.name == parts[0]) {
                Some(axis) => matches!(axis.values, AxisValues::Listed(_)),
                None => {
                    let value = spec.params.get(parts[0]);
                    let value = parts[1..].iter().try_fold(value, |value, part| Some(value?.get(*part)));
                    value.flatten().is_some_and(is_number)
                }
            }
        }),
        Value::Sequence(items) => items.iter().all(|item| is_fixed(spec, stage, item)),
        Value::Mapping(map) => map.iter().all(|(key, value)| {
            let draws_by_being_there = key.as_str() == Some(DRAWS);
            is_fixed(spec, stage, value)
                && (!draws_by_being_there || value.as_str().is_none_or(|text| names(text).is_empty()))
        }),
        _ => true,
    }
}

/// Whether a value is a number, a fraction such as `8/255` included.
fn is_number(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| crate::number::Real::parse(text).is_some())
}
