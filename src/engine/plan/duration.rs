//! Estimates durations: the earlier duration times the ratio of work.
//!
//! The stage kind knows how a parameter affects the work ([`stage_kinds::work`]). Without a comparable run, the
//! duration is unknown.

use serde_json::Value as Json;

use super::history::History;
use super::state::{CacheStatus, CacheStatuses};
use crate::action::Action;
use crate::cache::Manifest;
use crate::graph::Graph;
use crate::spec::{InstanceId, Need, PerInstance};
use crate::stage_kinds::{self, StageKind, Work};

/// Largest ratio of work, up or down, at which two runs are comparable. Beyond it, fixed costs such as reading inputs
/// distort the estimate.
const MAX_WORK_RATIO: f64 = 10.0;

/// Largest ratio of two numbers in a command at which the work counts as equally long.
const MAX_COUNT_RATIO: f64 = 2.0;

/// Ratio of an instance's output to the output of a comparable earlier run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    /// Ratio of the number of images.
    images: f64,
    /// Ratio of the pixels per image.
    pixels: f64,
    /// Ratio of the work per forward pass of the network.
    pass: f64,
}

impl Scale {
    const UNIT: Scale = Scale { images: 1.0, pixels: 1.0, pass: 1.0 };

    /// Returns the product of all ratios.
    fn all(self) -> f64 {
        self.images * self.pixels * self.pass
    }
}

/// Estimated duration of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub seconds: f64,
    /// Whether it is scaled from a run with another amount of work.
    pub is_scaled: bool,
}

/// Output ratios of instances, filled in while a graph is walked from producers to consumers.
pub(super) struct Durations<'a, 'h> {
    graph: &'a Graph,
    status_of: &'a CacheStatuses,
    history: &'a History<'h>,
    /// `None` if the ratio is unknown.
    scales: PerInstance<Option<Scale>>,
}

/// Instance that is not fresh, as it would run.
pub(super) struct WorkRequest<'a> {
    pub id: InstanceId,
    /// Action that it would run.
    pub action: &'a Action,
    /// Whether all its inputs are known.
    pub is_whole: bool,
    /// Nearest earlier manifest.
    pub before: Option<&'a Manifest>,
}

impl<'a, 'h> Durations<'a, 'h> {
    pub(super) fn new(graph: &'a Graph, status_of: &'a CacheStatuses, history: &'a History<'h>) -> Self {
        Durations { graph, status_of, history, scales: graph.per_instance(Some(Scale::UNIT)) }
    }

    /// Estimates the duration of an instance. The caller must ask about its producers first.
    pub(super) fn of(&mut self, asked: &WorkRequest) -> Option<Estimate> {
        let Some(before) = asked.before else {
            // Its consumers have not run either, or they read another instance in its place.
            let is_unit = |producer: InstanceId| self.scales[producer] == Some(Scale::UNIT);
            self.scales[asked.id] = self.graph.producers(asked.id).all(is_unit).then_some(Scale::UNIT);
            return None;
        };
        let kind = self.graph.instance(asked.id).kind;
        // Worst cases, tables and figures take about as long whatever the numbers are.
        if matches!(kind, StageKind::WorstCase | StageKind::Table | StageKind::Figure) {
            return Some(Estimate { seconds: before.made.seconds, is_scaled: false });
        }
        let scaled = self.scaled(asked, &before.record);
        self.scales[asked.id] = scaled.map(|(_, made)| made);
        let (factor, _) = scaled?;
        let is_near = (1.0 / MAX_WORK_RATIO..=MAX_WORK_RATIO).contains(&factor);
        let is_scaled = (factor - 1.0).abs() > 1e-9;
        is_near.then_some(Estimate { seconds: before.made.seconds * factor, is_scaled })
    }

    /// Returns the ratio of work and the ratio of the output.
    fn scaled(&self, asked: &WorkRequest, before: &Action) -> Option<(f64, Scale)> {
        let kind = self.graph.instance(asked.id).kind;
        let inputs: Option<Vec<(&Need, Scale)>> = self
            .graph
            .inputs(asked.id)
            .map(|(name, need)| Some((need, self.input(need, before.inputs.get(&name))?)))
            .collect();
        let inputs = inputs?;
        if kind == StageKind::Command {
            let are_alike = inputs.iter().all(|(_, scale)| alike_numbers(1.0, scale.all()));
            return (are_alike && alike(&before.params, &asked.action.params)).then_some((1.0, Scale::UNIT));
        }
        if asked.is_whole && !same_files(self.graph, asked.id, before, asked.action) {
            return None;
        }
        let is_set = |(need, _): &&(&Need, Scale)| ["data", "set"].contains(&need.slot.as_str());
        let is_model = |(need, _): &&(&Need, Scale)| ["model", "models", "source"].contains(&need.slot.as_str());
        let set = inputs.iter().find(is_set).map_or(Scale::UNIT, |(_, scale)| *scale);
        let pass = inputs.iter().filter(is_model).map(|(_, scale)| scale.pass).reduce(f64::max).unwrap_or(1.0);
        if before.params == asked.action.params {
            let factor = set.images * set.pixels * pass;
            return is_countable(kind, &asked.action.params, set).then_some((factor, set));
        }
        let (then, now) = (stage_kinds::work(kind, &before.params)?, stage_kinds::work(kind, &asked.action.params)?);
        beside(kind, &then, &now, set, pass)
    }

    /// Returns the ratio of an input to the earlier one.
    fn input(&self, need: &Need, before: Option<&String>) -> Option<Scale> {
        let Some(CacheStatus::Fresh(_, manifest)) = &self.status_of[need.from] else { return self.scales[need.from] };
        let blob = manifest.outputs.get(&need.output)?;
        if before.is_none_or(|before| *before == format!("blake3:{}", blob.digest)) {
            return Some(Scale::UNIT);
        }
        // It is another blob than before. The ratio of their sizes tells the rest, as long as the earlier blob exists.
        let bytes = before.and_then(|before| self.history.blob_bytes(before)).filter(|bytes| *bytes > 0)?;
        let ratio = blob.size as f64 / bytes as f64;
        // A difference below 2 % comes from the headers alone.
        let ratio = if (ratio - 1.0).abs() < 0.02 { 1.0 } else { ratio };
        Some(match need.slot.as_str() {
            "model" | "models" | "source" => Scale { pass: ratio, ..Scale::UNIT },
            _ => Scale { images: ratio, ..Scale::UNIT },
        })
    }
}

/// Whether the number of images that a stage reads is comparable with before.
///
/// It is not if the stage reads a part of a set whose size changed.
fn is_countable(kind: StageKind, params: &Json, set: Scale) -> bool {
    let is_limited = || stage_kinds::work(kind, params).is_some_and(|work| work.images.is_some());
    set.images == 1.0 || !is_limited()
}

/// Returns the ratio of work and the ratio of the output; `None` if the two are not comparable.
fn beside(kind: StageKind, then: &Work, now: &Work, set: Scale, pass: f64) -> Option<(f64, Scale)> {
    if then.like != now.like {
        return None;
    }
    let ratio = |then: Option<f64>, now: Option<f64>, otherwise: f64| match (then, now) {
        (Some(then), Some(now)) => Some(now / then),
        (None, None) => Some(otherwise),
        _ => None,
    };
    let images = ratio(then.images, now.images, set.images)?;
    let pixels = ratio(then.pixels, now.pixels, set.pixels)?;
    let made = Scale { images, pixels, pass: now.pass / then.pass };
    // Decoding reads a data set at the size of its archive, whatever the output size.
    let seen = if kind == StageKind::Dataset { 1.0 } else { pixels };
    Some((now.per_image / then.per_image * images * seen * pass, made))
}

fn same_files(graph: &Graph, id: InstanceId, before: &Action, now: &Action) -> bool {
    graph.instance(id).sources.iter().all(|need| before.inputs.get(&need.slot) == now.inputs.get(&need.slot))
}

/// Whether two commands do about the same amount of work, as far as their text shows.
fn alike(before: &Json, now: &Json) -> bool {
    match (before, now) {
        (Json::Object(before), Json::Object(now)) => {
            before.len() == now.len()
                && before.iter().all(|(key, value)| now.get(key).is_some_and(|other| alike(value, other)))
        }
        (Json::Array(before), Json::Array(now)) => {
            before.len() == now.len() && before.iter().zip(now).all(|(before, now)| alike(before, now))
        }
        // Other words in a command have unknown meaning and mostly little effect. Counts may be epochs or images.
        (Json::String(before), Json::String(now)) => {
            let (before, now) = (counts(before), counts(now));
            before.len() != now.len() || before.iter().zip(now).all(|(before, now)| alike_numbers(*before, now))
        }
        _ => before == now,
    }
}

fn alike_numbers(before: f64, now: f64) -> bool {
    before == now || (now <= before * MAX_COUNT_RATIO && before <= now * MAX_COUNT_RATIO)
}

/// Returns the whole numbers in a text, without signs, in order. Skips fractions and decimals: they are rates and
/// radii.
fn counts(text: &str) -> Vec<f64> {
    let of_number = |letter: char| letter.is_ascii_digit() || ['.', '/'].contains(&letter);
    let numbers = text.split(|letter| !of_number(letter)).map(|number| number.trim_matches('/').trim_end_matches('.'));
    // A path is no fraction: it has letters, and its numbers stand alone.
    numbers.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())).filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_alike_whose_counts_are() {
        let run = |text: &str| json!({"run": text});
        assert!(!alike(&run("train.py --epochs 2"), &run("train.py --epochs 105")));
        assert!(!alike(&run("seq 2"), &json!({"run": ["seq", "2"]})));
        assert!(alike(&run("train.py --lr 0.1."), &run("train.py  --lr 0.95.")), "a rate counts nothing");
        assert!(alike(&run("train.py --eps 8/255"), &run("train.py --eps 1/255")), "nor does a radius");
        assert!(alike(&run("train.py --epochs 10"), &run("train.py --epochs 15")));
        assert!(alike(&run("train.py"), &run("train2.py")), "another program");
        assert_eq!(counts("out/12/x.7 3/4 5. 6"), [12.0, 5.0, 6.0]);
    }

    #[test]
    fn work_is_scaled_by_what_is_read_and_made() {
        let work = |per_image: f64, images: Option<f64>| Work {
            like: "a".to_owned(),
            per_image,
            images,
            pixels: None,
            pass: 1.0,
        };
        let set = Scale { images: 3.0, pixels: 4.0, pass: 1.0 };
        let of = |then: &Work, now: &Work| beside(StageKind::Evaluate, then, now, set, 5.0);
        assert_eq!(of(&work(1.0, None), &work(2.0, None)), Some((2.0 * 3.0 * 4.0 * 5.0, set)));
        let made = Scale { images: 0.5, ..set };
        assert_eq!(of(&work(1.0, Some(20.0)), &work(1.0, Some(10.0))), Some((0.5 * 4.0 * 5.0, made)));
        assert_eq!(of(&work(1.0, None), &work(1.0, Some(10.0))), None, "how many images there were nobody knows");
        assert_eq!(of(&work(1.0, None), &Work { like: "b".to_owned(), ..work(1.0, None) }), None);
        let decoded = beside(StageKind::Dataset, &work(1.0, None), &work(1.0, None), set, 1.0);
        assert_eq!(decoded, Some((3.0, set)), "decoding takes as long for every size");
    }
}
