//! Merges a file's default parameters for a stage kind under a stage's own. Knows no stage and checks no type.

use serde_yaml::{Mapping, Value};

use super::params;
use crate::stage_kinds::StageKind;

/// Merges defaults under a stage's parameters: mappings are joined; any other value of the stage replaces its default.
///
/// A mapping that names another variant (`attack: none` over `attack: pgd`) replaces its default entirely, because the
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
