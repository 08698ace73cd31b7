//! Parameters that all stages of a kind in a file have unless they say otherwise, laid under a stage's own. Knows no
//! stage and checks no type.

use serde_yaml::{Mapping, Value};

use super::params;
use super::source::{Part, Place, SourceFile, Step, YamlPath};
use super::stage::LostParts;
use crate::stage_kinds::StageKind;
use std::sync::Arc;

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
            Part::ActionKey => Place::key(self.file, self.path(trail)),
            Part::Value => Place::value(self.file, self.path(trail)),
        }
    }
}

fn has(value: &Value, trail: &[Step]) -> bool {
    let mut value = value;
    for step in trail {
        let next = match step {
            Step::ActionKey(key) => value.get(key.as_str()),
            Step::Index(index) => value.get(*index),
        };
        let Some(next) = next else { return false };
        value = next;
    }
    true
}

/// Lays defaults under a stage's parameters: mappings are joined, anything else of the stage replaces its default. A
/// mapping that names another variant (`attack: none` over `attack: pgd`) replaces its default whole, because the
/// variants' parameters differ.
pub(super) fn merge(kind: StageKind, defaults: &Value, own: &Value) -> Value {
    match (defaults, own) {
        (Value::Mapping(defaults), Value::Mapping(own)) => {
            let differs = |tag: &str| matches!((defaults.get(tag), own.get(tag)), (Some(a), Some(b)) if a != b);
            if params::tags(kind).iter().any(|tag| differs(tag)) {
                return Value::Mapping(own.clone());
            }
            let mut merged = Mapping::with_capacity(defaults.len() + own.len());
            for (key, value) in own {
                let value = defaults.get(key).map_or_else(|| value.clone(), |default| merge(kind, default, value));
                merged.insert(key.clone(), value);
            }
            for (key, value) in defaults {
                if !merged.contains_key(key) {
                    merged.insert(key.clone(), value.clone());
                }
            }
            Value::Mapping(merged)
        }
        _ => own.clone(),
    }
}
