//! What an evaluation is of: its model, its set, and the attack.

use super::TidySource;
use super::cell::{Cell, Column, ColumnType};
use crate::number::Real;
use crate::spec::{At, Instance, Need, written};
use crate::stage_kinds::{Radius, StageKind};

/// What an evaluation is of, as far as it is of such.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subject {
    /// The instance that made the model; `model.last` for the last epoch of a training that keeps two.
    pub model: Option<String>,
    /// The seed of the model's training.
    pub model_seed: Option<u64>,
    /// The set, as `needs` spells it: `fashion.test`, or the stage alone if it makes one set.
    pub set: Option<String>,
    /// The name of the attack.
    pub attack: Option<String>,
    /// The instance that made the network which the attack was made on, if it is not the model.
    pub source: Option<String>,
    /// The radius of its ball.
    pub eps: Option<f64>,
    /// The radius as its author wrote it: `8/255`.
    pub eps_written: Option<String>,
}

impl Subject {
    /// What an instance is of. A worst case is of what its evaluations are of.
    pub fn of(source: TidySource<'_>, instance: &Instance) -> Self {
        if let Some(need) = instance.need("results").filter(|_| instance.kind == StageKind::WorstCase) {
            let attack = Some(StageKind::WorstCase.name().to_owned());
            let of = Subject::of(source, source.graph.instance(need.from));
            return Subject { attack, source: None, eps: None, eps_written: None, ..of };
        }
        let need = instance.need("model");
        let model = need.map(|need| source.graph.instance(need.from));
        // A training with two checkpoints is two models.
        let name = need.map(|need| match need.output.as_str() {
            "last" => format!("{}.{}", source.graph.instance(need.from).name, need.output),
            _ => source.graph.instance(need.from).name.clone(),
        });
        let eps = instance.params.pointer("/attack/eps").and_then(serde_json::Value::as_f64);
        let attack = instance.params.pointer("/attack/attack").and_then(serde_json::Value::as_str);
        Subject {
            model: name,
            model_seed: model.filter(|model| model.kind == StageKind::Train).map(|model| model.seed),
            set: instance.need("set").map(|need| set_name(source, need)),
            attack: attack.map(str::to_owned),
            source: instance.need("source").map(|need| source.graph.instance(need.from).name.clone()),
            eps,
            eps_written: eps.map(|eps| as_written(source, instance, "attack.eps", eps)),
        }
    }
}

/// The columns.
pub(super) fn columns() -> Vec<Column> {
    use ColumnType::{Real, Seed, Text};
    [
        ("model", Text),
        ("model_seed", Seed),
        ("set", Text),
        ("attack", Text),
        ("source", Text),
        ("eps", Real),
        ("eps_written", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// The cells of an instance, one for each column; at one radius of an evaluation at several, if one is given. At 0
/// there is no attack.
pub(super) fn cells(source: TidySource<'_>, instance: &Instance, radius: Option<&Radius>) -> Vec<Cell> {
    let Subject { model, model_seed, set, mut attack, source: made_on, mut eps, mut eps_written } =
        Subject::of(source, instance);
    if let Some(radius) = radius {
        (eps, eps_written) = (Some(radius.eps), Some(Radius::written(radius.eps)));
        attack = if radius.eps > 0.0 { attack } else { Some("none".to_owned()) };
    }
    vec![
        model.into(),
        model_seed.map(Cell::Seed).unwrap_or_default(),
        set.into(),
        attack.into(),
        made_on.into(),
        eps.into(),
        eps_written.into(),
    ]
}

/// The name of a set, as `needs` spells it: `fashion.test`, or the stage alone if it makes one set.
fn set_name(source: TidySource<'_>, need: &Need) -> String {
    let of = source.graph.instance(need.from);
    if of.outputs.len() > 1 { format!("{}.{}", of.name, need.output) } else { of.name.clone() }
}

/// A number as its author wrote it: `8/255`. What cannot be found is written as a decimal number.
fn as_written(source: TidySource<'_>, instance: &Instance, path: &str, number: f64) -> String {
    let places = written(source.spec, source.overrides, instance, path, None);
    let text = places.last().and_then(|place| match &place.at {
        At::File(place) => place.file.text.get(place.span()).map(str::to_owned),
        At::Set(key) => source.overrides.set.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone()),
    });
    let text = text.map(|text| text.trim().trim_matches(['"', '\'']).to_owned());
    // Of an axis that is a list in a parameter, the place is the whole list.
    let axes = || instance.written_axes().map(|(_, text)| text);
    let is_it = |text: &String| Real::parse(text).is_some_and(|value| value.get() == number);
    text.into_iter().chain(axes()).find(is_it).unwrap_or_else(|| number.to_string())
}
