//! Finds the baseline of a transformed result: the same model, the set before transformation, no attack.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value as Json;

use super::expand::Expander;
use super::instance::{InstanceId, Need};
use super::shown_result::ShownResult;
use crate::stage_kinds::StageKind;

/// Attack-free results, indexed by model and set; the index is built on first use.
pub(super) struct Baselines<'a> {
    expander: &'a Expander<'a>,
    results: &'a [ShownResult<'a>],
    index: OnceCell<HashMap<BaselineKey<'a>, &'a ShownResult<'a>>>,
}

/// Lookup key of an attack-free result.
#[derive(PartialEq, Eq, Hash)]
struct BaselineKey<'a> {
    model: (InstanceId, &'a str),
    set: (InstanceId, &'a str),
    limit: Option<&'a Json>,
}

impl<'a> Baselines<'a> {
    /// Creates a lookup over `results`.
    pub(super) fn new(expander: &'a Expander<'a>, results: &'a [ShownResult<'a>]) -> Self {
        Baselines { expander, results, index: OnceCell::new() }
    }

    /// Returns the attack-free result of the same model on the untransformed source set.
    pub(super) fn of(&self, result: InstanceId) -> Option<&'a ShownResult<'a>> {
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

    /// Returns the name of the untransformed source set, as `needs` would spell it.
    pub(super) fn set_of(&self, result: InstanceId) -> Option<String> {
        let set = self.origin(result)?;
        let of = self.expander.instance(set.from);
        let output = if of.outputs.len() > 1 { format!(".{}", set.output) } else { String::new() };
        Some(format!("`{}{output}`", of.name))
    }

    /// Returns whether the parameters of a result and of every set upstream are known.
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

    /// Returns whether a result's images may carry the textures of other images.
    ///
    /// True for cue-conflict sets, and for commands, whose effect is unknown.
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

    /// Walks back to the set that a transformed set derives from.
    ///
    /// A transform keeps the images and their order. A sample does not, so the walk stops there.
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

    fn index(&self) -> HashMap<BaselineKey<'a>, &'a ShownResult<'a>> {
        let mut index = HashMap::new();
        for result in self.results.iter().filter(|result| result.is_clean()) {
            let instance = result.instance;
            if let (Some(model), Some(set)) = (instance.need("model"), instance.need("set")) {
                let key = BaselineKey {
                    model: (model.from, &model.output),
                    set: (set.from, &set.output),
                    limit: instance.params.get("limit"),
                };
                // On equal keys, the first result wins.
                index.entry(key).or_insert(result);
            }
        }
        index
    }
}
