//! What a table or figure may show: the predictions of an instance, and those at each radius of an evaluation at
//! several.

use std::borrow::Cow;

use super::coordinates::Coordinates;
use super::instance::{Instance, InstanceId, Need};
use crate::stage_kinds::{Radius, StageKind};

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
}

impl<'a> ShownResult<'a> {
    /// Returns the results that a need means. An evaluation at several radii means all of them, unless one is named.
    pub(super) fn of(need: &Need, instance: &'a Instance) -> Vec<Self> {
        let (id, output) = (need.from, &need.output);
        let coordinates = Cow::Borrowed(&instance.coordinates);
        let plain = ShownResult { id, instance, output: output.clone(), coordinates, radius: None };
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

    /// Returns whether the images were not attacked.
    pub(super) fn is_clean(&self) -> bool {
        let attack = self.instance.params.pointer("/attack/attack").and_then(serde_json::Value::as_str);
        attack == Some("none") || self.radius.as_ref().is_some_and(|radius| radius.eps == 0.0)
    }

    /// The name for messages: that of the instance, with the radius if it has several.
    pub(super) fn name(&self) -> String {
        match &self.radius {
            Some(radius) => format!("{}.{}", self.instance.name, radius.output),
            None => self.instance.name.clone(),
        }
    }
}
