//! How long an instance may take, by how long the like of it took. A duration at another size tells nothing: where parameters or files changed by more than
//! a little, here or further up, no duration is known.

use serde_json::Value as Json;

use crate::cache::Manifest;
use crate::graph::Graph;
use crate::kinds::Kind;
use crate::record::Record;
use crate::spec::InstanceId;

/// Numbers that differ by no more than this factor make work of about the same length.
const ALIKE: f64 = 2.0;

/// Which instances are as large as before, while a graph is walked from producers to consumers.
pub(super) struct Durations<'a> {
    graph: &'a Graph,
    /// By id. What reads something of another size has another size itself.
    is_alike: Vec<bool>,
}

impl<'a> Durations<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        Durations { graph, is_alike: vec![true; graph.len()] }
    }

    /// Seconds that an instance which is not fresh took when it last ran as it would now, or nearly so. `record` is what it would be made of, `is_whole`
    /// whether its inputs are known, `before` the nearest that it was made of. Its producers must have been asked about before it.
    pub(super) fn of(
        &mut self,
        id: InstanceId,
        record: &Record,
        is_whole: bool,
        before: Option<&Manifest>,
    ) -> Option<f64> {
        let kind = self.graph.instance(id).kind;
        let producers_alike = self.graph.producers(id).all(|producer| self.is_alike[producer.0]);
        let Some(before) = before else {
            self.is_alike[id.0] = producers_alike;
            return None;
        };
        let own = is_drawn(kind) || {
            // What is edited in a command is mostly its program, which takes about as long as before.
            let are_files_alike =
                kind == Kind::Command || !is_whole || same_files(self.graph, id, &before.record, record);
            are_files_alike && alike(&before.record.params, &record.params)
        };
        self.is_alike[id.0] = own && producers_alike;
        (own && (producers_alike || is_drawn(kind))).then_some(before.made.seconds)
    }
}

/// Tables and figures take about as long whatever the numbers are.
fn is_drawn(kind: Kind) -> bool {
    matches!(kind, Kind::Table | Kind::Figure)
}

fn same_files(graph: &Graph, id: InstanceId, before: &Record, now: &Record) -> bool {
    graph.instance(id).sources.iter().all(|need| before.inputs.get(&need.slot) == now.inputs.get(&need.slot))
}

/// Whether two sets of parameters make work of about the same length, as far as their values tell.
fn alike(before: &Json, now: &Json) -> bool {
    match (before, now) {
        (Json::Object(before), Json::Object(now)) => {
            before.len() == now.len()
                && before
                    .iter()
                    .all(|(key, value)| now.get(key).is_some_and(|other| key == "seed" || alike(value, other)))
        }
        (Json::Array(before), Json::Array(now)) => {
            before.len() == now.len() && before.iter().zip(now).all(|(before, now)| alike(before, now))
        }
        (Json::Number(before), Json::Number(now)) => match (before.as_f64(), now.as_f64()) {
            (Some(before), Some(now)) => alike_numbers(before, now),
            _ => false,
        },
        // Nobody knows what another word in a command means; it mostly means little. Its numbers may be epochs or images.
        (Json::String(before), Json::String(now)) => {
            let (before, now) = (numbers(before), numbers(now));
            before.len() != now.len() || before.iter().zip(now).all(|(before, now)| alike_numbers(*before, now))
        }
        _ => before == now,
    }
}

fn alike_numbers(before: f64, now: f64) -> bool {
    before == now || (now <= before * ALIKE && before <= now * ALIKE)
}

/// The numbers in a text, without signs, in their order.
fn numbers(text: &str) -> Vec<f64> {
    let digits = |letter: char| !(letter.is_ascii_digit() || letter == '.');
    text.split(digits).filter_map(|number| number.trim_end_matches('.').parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_another_size_make_work_of_another_length() {
        let params = json!({"net": {"arch": "resnet18"}, "epochs": 10, "eps": 0.03, "rates": [1, 2]});
        let with = |path: &str, value: Json| {
            let mut other = params.clone();
            *other.pointer_mut(path).unwrap() = value;
            other
        };
        assert!(alike(&params, &params));
        assert!(alike(&params, &with("/eps", json!(0.02))));
        assert!(!alike(&params, &with("/epochs", json!(105))));
        assert!(!alike(&params, &with("/rates", json!([1, 2, 3]))));
        assert!(!alike(&params, &with("/eps", Json::Null)));
        let run = |text: &str| json!({"run": text, "seed": text.len()});
        assert!(!alike(&run("train.py --epochs 2"), &run("train.py --epochs 105")));
        assert!(alike(&run("train.py --lr 0.1."), &run("train.py  --lr 0.15.")));
        assert!(alike(&run("train.py"), &run("train2.py")), "another program");
    }
}
