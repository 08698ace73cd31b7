//! Which result tells what a model makes of the images before they were transformed: the same model, the set that a
//! result's set was made from, no attack.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value as Json;

use super::expand::Expander;
use super::instance::{InstanceId, Need};
use crate::stage_kinds::StageKind;

/// Results without attack, by model and set; looked through when the first is asked for.
pub(super) struct Untransformed<'a> {
    expander: &'a Expander<'a>,
    results: &'a [InstanceId],
    index: OnceCell<HashMap<BaselineKey<'a>, InstanceId>>,
}

/// What a result without attack is found by.
#[derive(PartialEq, Eq, Hash)]
struct BaselineKey<'a> {
    model: (InstanceId, &'a str),
    set: (InstanceId, &'a str),
    limit: Option<&'a Json>,
}

impl<'a> Untransformed<'a> {
    /// Those among some results.
    pub(super) fn new(expander: &'a Expander<'a>, results: &'a [InstanceId]) -> Self {
        Untransformed { expander, results, index: OnceCell::new() }
    }

    /// The result of the same model on the set that this result's set was made from, without attack.
    pub(super) fn of(&self, result: InstanceId) -> Option<InstanceId> {
        let of = self.expander.instance(result);
        let model = of.need("model")?;
        let set = self.origin(result)?;
        let wanted = BaselineKey {
            model: (model.from, &model.output),
            set: (set.from, &set.output),
            limit: of.params.get("limit"),
        };
        self.index.get_or_init(|| self.index()).get(&wanted).copied()
    }

    /// The set that this result's set was made from, as a need names it.
    pub(super) fn set_of(&self, result: InstanceId) -> Option<String> {
        let set = self.origin(result)?;
        let of = self.expander.instance(set.from);
        let output = if of.outputs.len() > 1 { format!(".{}", set.output) } else { String::new() };
        Some(format!("`{}{output}`", of.name))
    }

    /// Whether the parameters of a result and of the sets that its set was made from are known.
    pub(super) fn is_certain(&self, result: InstanceId) -> bool {
        let mut next = Some(result);
        while let Some(id) = next {
            let instance = self.expander.instance(id);
            if !instance.knows_params {
                return false;
            }
            next = instance.need("set").or_else(|| instance.need("data")).map(|need| need.from);
        }
        true
    }

    /// Whether the images of a result may wear the textures of others: those of a cue-conflict set do, and of a command
    /// nobody knows.
    pub(super) fn may_wear_textures(&self, result: InstanceId) -> bool {
        let mut next = self.expander.instance(result).need("set");
        while let Some(need) = next {
            let made = self.expander.instance(need.from);
            match made.kind {
                StageKind::Transform if made.params.get("op").and_then(Json::as_str) == Some("cue_conflict") => {
                    return true;
                }
                StageKind::Transform => next = made.need("data"),
                kind => return kind != StageKind::Dataset,
            }
        }
        true
    }

    /// A transformed set has the images of the set that it is made of, in its order; a sample has others, so that it is
    /// where the way back ends.
    fn origin(&self, result: InstanceId) -> Option<&'a Need> {
        let of = |id: InstanceId| self.expander.instance(id);
        let mut set = of(result).need("set")?;
        let is_changed = |id: InstanceId| {
            let made = of(id);
            made.kind == StageKind::Transform && made.params.get("op").and_then(Json::as_str) != Some("sample")
        };
        while is_changed(set.from) {
            set = of(set.from).need("data")?;
        }
        Some(set)
    }

    fn index(&self) -> HashMap<BaselineKey<'a>, InstanceId> {
        let mut index = HashMap::new();
        for id in self.results {
            let instance = self.expander.instance(*id);
            let attack = instance.params.pointer("/attack/attack").and_then(Json::as_str);
            if let (Some("none"), Some(model), Some(set)) = (attack, instance.need("model"), instance.need("set")) {
                let key = BaselineKey {
                    model: (model.from, &model.output),
                    set: (set.from, &set.output),
                    limit: instance.params.get("limit"),
                };
                // The first of equals.
                index.entry(key).or_insert(*id);
            }
        }
        index
    }
}
