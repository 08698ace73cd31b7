//! Differences between two actions: why a stage is stale.
//!
//! Compares the hashed action with the nearest earlier one of the same name, so it cannot disagree with the key.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use crate::action::Action;
use crate::numerics::Numerics;

/// One difference between two actions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// The version of the kind's code changed.
    Code {
        /// Earlier version.
        old: u32,
        /// Current version.
        new: u32,
    },
    /// The stage kind changed.
    Kind,
    /// The seed changed.
    Seed {
        /// Earlier seed.
        old: Option<u64>,
        /// Current seed.
        new: Option<u64>,
    },
    /// The numerics mode changed; `None` where none was set.
    Numerics {
        /// Earlier mode.
        old: Option<Numerics>,
        /// Current mode.
        new: Option<Numerics>,
    },
    /// A parameter changed; `None` where it was not set.
    Param {
        /// Path of the parameter, such as `adversary.eps`.
        path: String,
        /// Earlier value.
        old: Option<String>,
        /// Current value.
        new: Option<String>,
    },
    /// The bytes of an input changed.
    Input {
        /// Name of the input.
        name: String,
    },
    /// An input is new.
    InputAdded {
        /// Name of the input.
        name: String,
    },
    /// An input is gone.
    InputRemoved {
        /// Name of the input.
        name: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        match self {
            Change::Code { old, new } => write!(f, "the code of its kind has version {new}, was {old}"),
            Change::Kind => write!(f, "it is of another kind"),
            Change::Seed { old, new } => {
                let shown = |seed: &Option<u64>| seed.map_or_else(|| "not set".to_owned(), |seed| seed.to_string());
                write!(f, "seed: {} → {}", shown(old), shown(new))
            }
            Change::Numerics { old, new } => {
                let shown = |numerics: &Option<Numerics>| numerics.map_or("not set", Numerics::name);
                write!(f, "numerics: {} → {}", shown(old), shown(new))
            }
            Change::Param { path, old, new } => write!(f, "{path}: {} → {}", shown(old), shown(new)),
            Change::Input { name } => write!(f, "input {name} changed"),
            Change::InputAdded { name } => write!(f, "input {name} is new"),
            Change::InputRemoved { name } => write!(f, "input {name} is gone"),
        }
    }
}

/// Returns all differences: kind or version, parameters, seed, numerics, inputs. Equal actions have none.
pub fn changes(old: &Action, new: &Action) -> Vec<Change> {
    let mut out = Vec::new();
    if old.kind != new.kind {
        out.push(Change::Kind);
    } else if old.version != new.version {
        out.push(Change::Code { old: old.version, new: new.version });
    }
    params(&old.params, &new.params, "", &mut out);
    if old.seed != new.seed {
        out.push(Change::Seed { old: old.seed, new: new.seed });
    }
    if old.numerics != new.numerics {
        out.push(Change::Numerics { old: old.numerics, new: new.numerics });
    }
    for (name, digest) in &new.inputs {
        match old.inputs.get(name) {
            None => out.push(Change::InputAdded { name: name.clone() }),
            Some(before) if before != digest => out.push(Change::Input { name: name.clone() }),
            Some(_) => {}
        }
    }
    let removed = old.inputs.keys().filter(|name| !new.inputs.contains_key(*name));
    out.extend(removed.map(|name| Change::InputRemoved { name: name.clone() }));
    out
}

/// Maximum number of changed items that are listed one by one. Beyond it, the whole list is shown.
const MOST_ITEMS: usize = 8;

fn params(old: &Json, new: &Json, path: &str, out: &mut Vec<Change>) {
    if let (Json::Array(old), Json::Array(new)) = (old, new)
        && items(old, new, path, out)
    {
        return;
    }
    if let (Json::Object(old), Json::Object(new)) = (old, new) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) => params(old, new, &path, out),
                (old, new) => out.push(Change::Param { path, old: old.map(shown), new: new.map(shown) }),
            }
        }
    } else if old != new {
        out.push(Change::Param { path: path.to_owned(), old: Some(shown(old)), new: Some(shown(new)) });
    }
}

/// Adds the items of a list that changed, came or went (`rates[2].lr`).
///
/// Returns `false` if that would be less clear than the two lists.
fn items(old: &[Json], new: &[Json], path: &str, out: &mut Vec<Change>) -> bool {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (before, now) = (&old[start..], &new[start..]);
    let end = before.iter().rev().zip(now.iter().rev()).take_while(|(old, new)| old == new).count();
    let (before, now) = (&before[..before.len() - end], &now[..now.len() - end]);
    let is_edit = before.len() == now.len() || before.is_empty() || now.is_empty();
    if !is_edit || before.len().max(now.len()) > MOST_ITEMS {
        return false;
    }
    for at in 0..before.len().max(now.len()) {
        let path = format!("{path}[{}]", start + at);
        match (before.get(at), now.get(at)) {
            (Some(old), Some(new)) => params(old, new, &path, out),
            (old, new) => out.push(Change::Param { path, old: old.map(shown), new: new.map(shown) }),
        }
    }
    true
}

/// Formats a value for people. Pixel distances near a multiple of 1/255 are shown as fractions.
fn shown(value: &Json) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => {
            let steps = number * 255.0;
            let whole = steps.round();
            let is_fraction =
                (1.0..=254.0).contains(&whole) && (steps - whole).abs() < 1e-9 && number.to_string().len() > 6;
            if is_fraction { format!("{whole}/255") } else { number.to_string() }
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::stage_kinds::StageKind;

    fn action(params: Json, inputs: &[(&str, &str)]) -> Action {
        let inputs: BTreeMap<String, String> = inputs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        Action {
            format: 1,
            kind: StageKind::Train,
            version: 1,
            numerics: None,
            params: params.into(),
            seed: Some(0),
            inputs,
        }
    }

    fn told(old: &Action, new: &Action) -> Vec<String> {
        changes(old, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_are_told_with_their_values() {
        let old = action(json!({"epochs": 4, "adversary": {"attack": "pgd", "eps": 8.0 / 255.0}}), &[("data", "a")]);
        let new = action(
            json!({"epochs": 4, "adversary": {"attack": "pgd", "eps": 4.0 / 255.0}, "limit": 5}),
            &[("data", "b")],
        );
        assert_eq!(told(&old, &new), ["adversary.eps: 8/255 → 4/255", "limit: not set → 5", "input data changed"]);
        assert!(told(&old, &old).is_empty());
    }

    #[test]
    fn of_a_list_the_items_are_told_that_changed() {
        let list = |items: Json| action(json!({"rates": items}), &[]);
        let old = list(json!([{"at": 1, "lr": 0.5}, {"at": 2, "lr": 0.25}, 3]));
        let changes = |items| told(&old, &list(items));
        assert_eq!(
            changes(json!([{"at": 1, "lr": 0.5}, {"at": 2, "lr": 0.125}, 4])),
            ["rates[1].lr: 0.25 → 0.125", "rates[2]: 3 → 4"]
        );
        assert_eq!(changes(json!([{"at": 1, "lr": 0.5}, 3])), [r#"rates[1]: {"at":2,"lr":0.25} → not set"#]);
        assert_eq!(changes(json!([0, {"at": 1, "lr": 0.5}, {"at": 2, "lr": 0.25}, 3])), ["rates[0]: not set → 0"]);
        assert_eq!(changes(json!([1, 2])), [r#"rates: [{"at":1,"lr":0.5},{"at":2,"lr":0.25},3] → [1,2]"#]);
        let (old, new) = (list(json!([0, 0, 0, 0, 0, 0, 0, 0, 0])), list(json!([1, 1, 1, 1, 1, 1, 1, 1, 1])));
        assert_eq!(told(&old, &new), ["rates: [0,0,0,0,0,0,0,0,0] → [1,1,1,1,1,1,1,1,1]"]);
    }

    #[test]
    fn inputs_that_come_and_go_are_told() {
        let old = action(json!({}), &[("model", "a")]);
        let new = action(json!({}), &[("set", "a")]);
        assert_eq!(told(&old, &new), ["input set is new", "input model is gone"]);
    }
}
