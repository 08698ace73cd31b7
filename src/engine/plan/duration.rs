//! How long an instance may take, by how long the like of it took: the earlier duration times how many times as much
//! work it is now. What a parameter means for the work its kind knows ([`stage_kinds::work`]). Where no run is near, no
//! duration is known.

use serde_json::Value as Json;

use super::{History, Standing};
use crate::action::Action;
use crate::cache::Manifest;
use crate::graph::Graph;
use crate::spec::{InstanceId, Need};
use crate::stage_kinds::{self, StageKind, Work};

/// A run of more than so many times the work, or less than that part of it, is not near: what does not grow with the
/// work, such as reading the inputs, would count too much or too little.
const NEAR: f64 = 10.0;

/// Numbers in a command that differ by no more than this factor make work of about the same length.
const ALIKE: f64 = 2.0;

/// What an instance makes beside what its like made before.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    /// How many times as many images.
    images: f64,
    /// How many times as many pixels an image.
    pixels: f64,
    /// How many times as much work a pass of the network.
    pass: f64,
}

impl Scale {
    const UNIT: Scale = Scale { images: 1.0, pixels: 1.0, pass: 1.0 };

    /// How many times as much all of it is.
    fn all(self) -> f64 {
        self.images * self.pixels * self.pass
    }
}

/// How long an instance may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub seconds: f64,
    /// Whether it is the duration of work that is not as much, made longer or shorter.
    pub is_scaled: bool,
}

/// What instances make beside what they made before, while a graph is walked from producers to consumers.
pub(super) struct Durations<'a, 'h> {
    graph: &'a Graph,
    standings: &'a [Option<Standing>],
    history: &'a History<'h>,
    /// By id; nothing where it is not known.
    scales: Vec<Option<Scale>>,
}

/// An instance that is not fresh, as it would run.
pub(super) struct WorkRequest<'a> {
    pub id: InstanceId,
    /// What it would be made of.
    pub record: &'a Action,
    /// Whether all its inputs are known.
    pub is_whole: bool,
    /// The nearest that it was made of.
    pub before: Option<&'a Manifest>,
}

impl<'a, 'h> Durations<'a, 'h> {
    pub(super) fn new(graph: &'a Graph, standings: &'a [Option<Standing>], history: &'a History<'h>) -> Self {
        Durations { graph, standings, history, scales: vec![Some(Scale::UNIT); graph.len()] }
    }

    /// How long an instance may take. Its producers must have been asked about before it.
    pub(super) fn of(&mut self, asked: &WorkRequest) -> Option<Estimate> {
        let Some(before) = asked.before else {
            // What reads it has not run either, or read another one in its place.
            let is_unit = |producer: InstanceId| self.scales[producer.0] == Some(Scale::UNIT);
            self.scales[asked.id.0] = self.graph.producers(asked.id).all(is_unit).then_some(Scale::UNIT);
            return None;
        };
        let kind = self.graph.instance(asked.id).kind;
        // Tables and figures take about as long whatever the numbers are.
        if matches!(kind, StageKind::Table | StageKind::Figure) {
            return Some(Estimate { seconds: before.made.seconds, is_scaled: false });
        }
        let scaled = self.scaled(asked, &before.record);
        self.scales[asked.id.0] = scaled.map(|(_, made)| made);
        let (factor, _) = scaled?;
        let is_near = (1.0 / NEAR..=NEAR).contains(&factor);
        let is_scaled = (factor - 1.0).abs() > 1e-9;
        is_near.then_some(Estimate { seconds: before.made.seconds * factor, is_scaled })
    }

    /// How many times as much work it is, and what it makes.
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
            return (are_alike && alike(&before.params, &asked.record.params)).then_some((1.0, Scale::UNIT));
        }
        if asked.is_whole && !same_files(self.graph, asked.id, before, asked.record) {
            return None;
        }
        let is_set = |(need, _): &&(&Need, Scale)| ["data", "set"].contains(&need.slot.as_str());
        let is_model = |(need, _): &&(&Need, Scale)| ["model", "models"].contains(&need.slot.as_str());
        let set = inputs.iter().find(is_set).map_or(Scale::UNIT, |(_, scale)| *scale);
        let pass = inputs.iter().filter(is_model).map(|(_, scale)| scale.pass).reduce(f64::max).unwrap_or(1.0);
        if before.params == asked.record.params {
            let factor = set.images * set.pixels * pass;
            return is_countable(kind, &asked.record.params, set).then_some((factor, set));
        }
        let (then, now) = (stage_kinds::work(kind, &before.params)?, stage_kinds::work(kind, &asked.record.params)?);
        beside(kind, &then, &now, set, pass)
    }

    /// What an input holds beside what it held before.
    fn input(&self, need: &Need, before: Option<&String>) -> Option<Scale> {
        let Some(Standing::Fresh(_, manifest)) = &self.standings[need.from.0] else { return self.scales[need.from.0] };
        let blob = manifest.outputs.get(&need.output)?;
        if before.is_none_or(|before| *before == format!("blake3:{}", blob.digest)) {
            return Some(Scale::UNIT);
        }
        // It is another one than was read then. How many times as large it is says the rest, as long as the other is
        // there.
        let bytes = before.and_then(|before| self.history.blob_bytes(before)).filter(|bytes| *bytes > 0)?;
        let ratio = blob.size as f64 / bytes as f64;
        // All but the size of its header is alike.
        let ratio = if (ratio - 1.0).abs() < 0.02 { 1.0 } else { ratio };
        Some(match need.slot.as_str() {
            "model" | "models" => Scale { pass: ratio, ..Scale::UNIT },
            _ => Scale { images: ratio, ..Scale::UNIT },
        })
    }
}

/// Whether the images that a stage looks at are known beside those before: not if it looks at a part of a set that has
/// another size.
fn is_countable(kind: StageKind, params: &Json, set: Scale) -> bool {
    let is_limited = || stage_kinds::work(kind, params).is_some_and(|work| work.images.is_some());
    set.images == 1.0 || !is_limited()
}

/// How many times as much work one is beside another, and what it makes; nothing where they are not alike.
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
    // A data set is decoded as its archive has it, whatever size its images are given.
    let seen = if kind == StageKind::Dataset { 1.0 } else { pixels };
    Some((now.per_image / then.per_image * images * seen * pass, made))
}

fn same_files(graph: &Graph, id: InstanceId, before: &Action, now: &Action) -> bool {
    graph.instance(id).sources.iter().all(|need| before.inputs.get(&need.slot) == now.inputs.get(&need.slot))
}

/// Whether two commands make work of about the same length, as far as their words tell.
fn alike(before: &Json, now: &Json) -> bool {
    match (before, now) {
        (Json::Object(before), Json::Object(now)) => {
            before.len() == now.len()
                && before.iter().all(|(key, value)| now.get(key).is_some_and(|other| alike(value, other)))
        }
        (Json::Array(before), Json::Array(now)) => {
            before.len() == now.len() && before.iter().zip(now).all(|(before, now)| alike(before, now))
        }
        // Nobody knows what another word in a command means; it mostly means little. Its counts may be epochs or
        // images.
        (Json::String(before), Json::String(now)) => {
            let (before, now) = (counts(before), counts(now));
            before.len() != now.len() || before.iter().zip(now).all(|(before, now)| alike_numbers(*before, now))
        }
        _ => before == now,
    }
}

fn alike_numbers(before: f64, now: f64) -> bool {
    before == now || (now <= before * ALIKE && before <= now * ALIKE)
}

/// The whole numbers in a text, without signs, in their order. Fractions and numbers with a point count nothing: they
/// are rates and radii.
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
