//! What a table or figure may show: the predictions of an instance, those at each radius of an evaluation at several,
//! and the measures of each model's saliency maps.

use std::borrow::Cow;

use super::coordinates::Coordinates;
use super::expand::Expander;
use super::instance::{Instance, InstanceId, Need};
use crate::stage_kinds::{OfMaps, Radius, StageKind};

/// One of the results that a table or figure needs.
#[derive(Debug, Clone)]
pub(super) struct ShownResult<'a> {
    pub id: InstanceId,
    pub instance: &'a Instance,
    /// The output with it.
    pub output: String,
    /// The coordinates of the instance, and its radius if it has several.
    pub coordinates: Cow<'a, Coordinates>,
    /// Its radius, if the instance has several.
    pub radius: Option<Radius>,
    /// Whose maps were measured, if it is of maps.
    pub maps: Option<OfMaps>,
}

impl<'a> ShownResult<'a> {
    /// Returns the results that a need means. An evaluation at several radii means all of them, unless one is named.
    /// The measures of a saliency stage mean those of each model on each set.
    pub(super) fn of(need: &Need, expander: &'a Expander) -> Vec<Self> {
        let (id, output) = (need.from, &need.output);
        let instance = expander.instance(id);
        let coordinates = Cow::Borrowed(&instance.coordinates);
        let plain = ShownResult { id, instance, output: output.clone(), coordinates, radius: None, maps: None };
        if instance.kind == StageKind::Saliency {
            return plain.of_maps(expander);
        }
        if instance.kind != StageKind::Evaluate {
            return vec![plain];
        }
        let mut radii = Radius::list(&instance.params);
        // The last output is that of any evaluation, and stands for the evaluation.
        if radii.last().is_some_and(|largest| largest.output != *output) {
            radii.retain(|radius| radius.output == *output);
        }
        if radii.is_empty() {
            return vec![plain];
        }
        let at = |radius: Radius| {
            let mut coordinates = instance.coordinates.clone();
            let name = format!("{}.{}", instance.stage, Radius::COORDINATE);
            coordinates.add(name.into(), radius.label.as_str().into());
            let (output, coordinates) = (radius.output.clone(), Cow::Owned(coordinates));
            ShownResult { output, coordinates, radius: Some(radius), ..plain.clone() }
        };
        radii.into_iter().map(at).collect()
    }

    /// Returns the measures of a saliency stage: of each model on each set. Their coordinates are those of the stage's
    /// own axes, of that model and of that set, and the labels of both as `STAGE.model` and `STAGE.set`.
    fn of_maps(&self, expander: &Expander) -> Vec<Self> {
        let of_slot = |slot: &str| -> Vec<&'a Need> {
            let all: &'a [Need] = &self.instance.needs;
            all.iter().filter(|need| need.slot == slot).collect()
        };
        let (models, sets) = (of_slot("models"), of_slot("set"));
        let first = models.first().map(|need| need.label.as_str());
        let own = format!("{}.", self.instance.stage);
        let mut found = Vec::new();
        for model in &models {
            for set in &sets {
                let mut coordinates = Coordinates::default();
                for (name, label) in [("model", &model.label), ("set", &set.label)] {
                    coordinates.add(format!("{own}{name}").into(), label.as_str().into());
                }
                let inputs = [model, set].map(|need| &expander.instance(need.from).coordinates);
                let is_of_all = |name: &str| name == "stage" || name.starts_with(&own);
                let of_stage = self.instance.coordinates.shared();
                let of_inputs = inputs.iter().flat_map(|input| input.shared());
                for (name, label) in of_stage.iter().filter(|(name, _)| is_of_all(name)).chain(of_inputs) {
                    coordinates.add(name.clone(), label.clone());
                }
                let first = first.filter(|first| *first != model.label).map(str::to_owned);
                let maps = OfMaps { model: model.label.to_string(), set: set.label.to_string(), first };
                found.push(ShownResult { coordinates: Cow::Owned(coordinates), maps: Some(maps), ..self.clone() });
            }
        }
        found
    }

    /// Returns whether the images were not attacked.
    pub(super) fn is_clean(&self) -> bool {
        let attack = self.instance.params.pointer("/attack/attack").and_then(serde_json::Value::as_str);
        attack == Some("none") || self.radius.as_ref().is_some_and(|radius| radius.eps == 0.0)
    }

    /// The name for messages: that of the instance, with the radius if it has several.
    pub(super) fn name(&self) -> String {
        match (&self.radius, &self.maps) {
            (Some(radius), _) => format!("{}.{}", self.instance.name, radius.output),
            (None, Some(maps)) => format!("{} of {} on {}", self.instance.name, maps.model, maps.set),
            (None, None) => self.instance.name.clone(),
        }
    }
}
