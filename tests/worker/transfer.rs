//! Evaluations under an attack that is made on another network, through the real binary.

use atflow::formats::{ImageSet, Predictions};
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::{Attack, StageKind};
use atflow_worker::attacks::{self, Batch};
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::networks::Frozen;
use atflow_worker::rng::Rng;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::support::{Engine, pgd, shapes, training};

fn model(engine: &mut Engine, adversary: Value) -> Vec<u8> {
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let params = training(json!({"adversary": adversary}));
    engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]).0[0].clone()
}

fn evaluate(engine: &mut Engine, inputs: &[&Input], attack: &Value) -> Predictions {
    let inputs = inputs.iter().map(|input| (*input).clone()).collect();
    let ([bytes], _) = engine.run(StageKind::Evaluate, json!({"attack": attack}), inputs, ["predictions"]);
    Predictions::from_bytes(&bytes).unwrap()
}

fn network(checkpoint: &[u8]) -> Box<dyn Frozen> {
    Checkpoint::from_bytes(checkpoint, Device::Cpu).unwrap().network.freeze().unwrap()
}

/// The images of a set in [0, 1], and their labels.
fn images(set: &ImageSet) -> (Tensor, Tensor) {
    let shape = set.shape.map(|side| side as i64);
    let images = Tensor::from_slice(&set.pixels).view(&shape[..]).to_kind(Kind::Float) / 255.0;
    (images, Tensor::from_slice(&set.labels).to_kind(Kind::Int64))
}

#[test]
fn the_attack_is_made_on_the_source_and_judged_by_the_model() {
    let mut engine = Engine::ready();
    let set = shapes(60, 1, 2);
    let (source, judge) = (model(&mut engine, json!({"attack": "none"})), model(&mut engine, pgd(0.03, 3, "zero")));
    let input = engine.input("set", &set.to_bytes().unwrap());
    let [of_source, of_judge] = [&source, &judge].map(|bytes| engine.input("model", bytes));
    let on_source = engine.input("source", &source);
    let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.02, "steps": 10});

    let transferred = evaluate(&mut engine, &[&of_judge, &on_source, &input], &attack);
    let (images, labels) = images(&set);
    let indices: Vec<u64> = (0..60).collect();
    let batch = Batch { images: &images, labels: &labels, indices: &indices, epoch: 0 };
    let parsed: Attack = serde_json::from_value(attack.clone()).unwrap();
    let points = attacks::perturb(&parsed, &*network(&source), &batch, Rng::new(1), &mut || Ok(())).unwrap();
    let expected = network(&judge).forward(&points).unwrap().argmax(1, false).to_kind(Kind::Int);
    assert_eq!(transferred.predicted, Vec::<i32>::try_from(expected).unwrap());
    assert_eq!(transferred.attack.as_ref().unwrap().spec, attack);

    let right = |predictions: &Predictions| (0..60).filter(|&index| predictions.correct(index)).count();
    let own = evaluate(&mut engine, &[&of_judge, &input], &attack);
    assert!(right(&own) < right(&transferred), "an attack on the network itself is the stronger one");
    // A network that is its own source is attacked as without one.
    let itself = evaluate(&mut engine, &[&of_source, &on_source, &input], &attack);
    assert_eq!(itself, evaluate(&mut engine, &[&of_source, &input], &attack));
}

/// Several attacks in turn leave an image alone when the source is wrong, whatever the model says of it.
#[test]
fn an_ensemble_on_a_source_does_not_say_who_broke_what() {
    let mut engine = Engine::ready();
    let input = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
    let source = model(&mut engine, json!({"attack": "none"}));
    let (of_source, on_source) = (engine.input("model", &source), engine.input("source", &source));
    let attack = json!({"attack": "autoattack", "eps": 0.1, "attacks": ["apgd_ce", "fab_t"], "steps": 10});
    let (own, same) = (
        evaluate(&mut engine, &[&of_source, &input], &attack),
        evaluate(&mut engine, &[&of_source, &on_source, &input], &attack),
    );
    assert!(own.attack.unwrap().ensemble.is_some() && same.attack.unwrap().ensemble.is_none());
    assert_eq!(own.predicted, same.predicted);
}

#[test]
fn a_source_needs_an_attack_that_fits_it() {
    let mut engine = Engine::ready();
    let input = engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap());
    let source = model(&mut engine, json!({"attack": "none"}));
    let inputs = vec![engine.input("model", &source), engine.input("source", &source), input];
    let mut fail = |attack: Value| engine.fail(StageKind::Evaluate, json!({"attack": attack}), inputs.clone());
    let failure = fail(json!({"attack": "none"}));
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.message.contains("`attack` must be an attack"), "{failure:?}");
    let failure = fail(json!({"attack": "malt", "eps": 0.1}));
    assert!(failure.message.contains("needs 4 classes, and the model has 3"), "{failure:?}");
}
