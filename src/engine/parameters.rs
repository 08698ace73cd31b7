//! The values of a pipeline's parameters, one by one, and what differs between two sets of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use crate::address::masked;

/// Values of parameters by name; `adversary.eps` is the entry `eps` of the mapping `adversary`. Passwords in addresses
/// are masked.
pub type Parameters = BTreeMap<String, Json>;

/// A parameter with two values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParameterChange {
    /// The value before; nothing if the parameter is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Json>,
    /// The value now; nothing if the parameter is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Json>,
}

/// Changed parameters by name.
pub type ParameterChanges = BTreeMap<String, ParameterChange>;

/// Returns the parameters that differ between two sets.
pub fn changes(from: &Parameters, to: &Parameters) -> ParameterChanges {
    let names = from.keys().chain(to.keys());
    let change = |name: &String| ParameterChange { from: from.get(name).cloned(), to: to.get(name).cloned() };
    names.map(|name| (name.clone(), change(name))).filter(|(_, change)| change.from != change.to).collect()
}

/// Returns a value as people write it: a text without quotes, the rest as JSON.
pub fn shown(value: Option<&Json>) -> String {
    match value {
        None => "—".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Returns the values of a pipeline's `params`.
pub fn parameters(params: &Mapping) -> Parameters {
    let mut all = Parameters::new();
    add(&mut all, "", params);
    all
}

fn add(all: &mut Parameters, prefix: &str, params: &Mapping) {
    for (key, value) in params {
        let Some(key) = key.as_str() else { continue };
        let name = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        match value {
            Value::Mapping(inner) if !inner.is_empty() => add(all, &name, inner),
            other => {
                all.insert(name, masked_json(serde_json::to_value(other).unwrap_or(Json::Null)));
            }
        }
    }
}

fn masked_json(value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(masked(&text)),
        Json::Array(items) => items.into_iter().map(masked_json).collect(),
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, masked_json(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Parameters {
        parameters(&serde_yaml::from_str(text).unwrap())
    }

    #[test]
    fn nested_parameters_have_dotted_names_and_keep_their_writing() {
        let all = of("{eps: 8/255, adversary: {steps: 3, sizes: [1, 2]}, none: {}}");
        let shown: Vec<String> = all.iter().map(|(name, value)| format!("{name}={}", shown(Some(value)))).collect();
        assert_eq!(shown, ["adversary.sizes=[1,2]", "adversary.steps=3", "eps=8/255", "none={}"]);
    }

    #[test]
    fn changes_have_both_values() {
        let changes = changes(&of("{eps: 8/255, old: 1, same: 2}"), &of("{eps: 4/255, same: 2, new: x}"));
        let shown = |(name, change): (&String, &ParameterChange)| {
            format!("{name}: {} -> {}", shown(change.from.as_ref()), shown(change.to.as_ref()))
        };
        let shown: Vec<String> = changes.iter().map(shown).collect();
        assert_eq!(shown, ["eps: 8/255 -> 4/255", "new: — -> x", "old: 1 -> —"]);
    }

    #[test]
    fn passwords_in_addresses_are_masked() {
        let all = of("{mirror: 'https://user:secret@host/x', list: ['https://u:secret@h/']}");
        assert!(!format!("{all:?}").contains("secret"), "{all:?}");
    }
}
