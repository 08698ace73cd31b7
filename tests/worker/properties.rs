//! What must hold whatever the numbers are: repeatability, independence of batches, and the bounds of attacks.

use atflow::formats::{ImageSet, Predictions};
use atflow::protocol::Event;
use atflow::stage_kinds::{Attack, Net, StageKind};
use atflow_worker::attacks::{self, Batch};
use atflow_worker::data::DeviceSet;
use atflow_worker::networks;
use atflow_worker::rng::Rng;
use serde_json::{Value, json};
use tch::Device;

use crate::support::{Engine, pgd, shapes, training};

#[test]
fn training_twice_gives_the_same_bytes_whatever_was_done_before() {
    let set = shapes(50, 2, 1).to_bytes().unwrap();
    let params = training(json!({
        "adversary": pgd(0.05, 2, "random"), "adversarial_batches": "alternate",
        "augmentation": {"flip": true, "pad_crop": 1},
    }));
    let train = |engine: &mut Engine, seed_job: bool| {
        let data = engine.input("data", &set);
        if seed_job {
            engine.run(StageKind::Train, training(json!({"epochs": 1})), vec![data.clone()], ["checkpoint", "metrics"]);
        }
        engine.run(StageKind::Train, params.clone(), vec![data], ["checkpoint", "metrics"])
    };
    let first = train(&mut Engine::ready(), false);
    let mut engine = Engine::ready();
    assert!(first == train(&mut engine, true), "another worker, after another job");
    assert!(first == train(&mut engine, false), "the same worker again");
    let other = {
        let data = engine.input("data", &set);
        engine.run(StageKind::Train, training(json!({})), vec![data], ["checkpoint", "metrics"])
    };
    assert!(first != other, "the parameters matter");
}

#[test]
fn training_learns_and_tells_of_every_epoch() {
    let mut engine = Engine::ready();
    let inputs = |engine: &Engine| {
        vec![
            engine.input("data", &shapes(90, 1, 1).to_bytes().unwrap()),
            engine.input("validation", &shapes(60, 1, 2).to_bytes().unwrap()),
        ]
    };
    let given = inputs(&engine);
    let params = training(json!({"adversary": pgd(0.02, 2, "zero"), "adversarial_batches": "alternate", "limit": 80}));
    let ([_, metrics], _) = engine.run(StageKind::Train, params, given, ["checkpoint", "metrics"]);
    let metrics: Value = serde_json::from_slice(&metrics).unwrap();
    let epochs = metrics["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 4);
    let last = &epochs[3];
    assert_eq!(last["epoch"], 4);
    assert!(last["validation_accuracy"].as_f64().unwrap() > 0.9, "{last}");
    assert!(last["train_loss"].as_f64().unwrap() < epochs[0]["train_loss"].as_f64().unwrap());
    // Five batches of 16: the first, third and fifth are attacked.
    assert_eq!(last["adversarial"]["images"], 48);

    let given = inputs(&engine);
    let params = training(json!({"epochs": 40, "stop_at_accuracy": 0.6}));
    let ([_, metrics], _) = engine.run(StageKind::Train, params, given, ["checkpoint", "metrics"]);
    let metrics: Value = serde_json::from_slice(&metrics).unwrap();
    let reached = |epoch: &Value| epoch["validation_accuracy"].as_f64().unwrap() >= 0.6;
    let (last, before) = metrics["epochs"].as_array().unwrap().split_last().unwrap();
    assert!(reached(last) && !before.iter().any(reached), "{metrics}");

    // A threshold that shortens nothing makes the network that there is without it, which is told.
    for (epochs, target, told) in [(2, 1.0, Some("is never reached")), (1, 1.0, None), (2, 0.0, None)] {
        let given = inputs(&engine);
        let params = training(json!({"epochs": epochs, "stop_at_accuracy": target, "limit": 16}));
        let id = engine.send(StageKind::Train, params, given, &["checkpoint", "metrics"]);
        let (outcome, heard) = engine.finish(id);
        outcome.unwrap();
        let warning = heard.into_iter().find_map(|event| match event {
            Event::Warning { message, .. } => Some(message),
            _ => None,
        });
        assert_eq!(warning.is_some(), told.is_some(), "{epochs} {target}: {warning:?}");
        if let Some((told, warning)) = told.zip(warning) {
            assert!(warning.contains(told) && warning.contains("`stop_at_accuracy` 1"), "{warning}");
        }
    }
}

#[test]
fn batches_change_predictions_by_rounding_only_and_an_attack_of_nothing_changes_none() {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let ([model, _], _) = engine.run(StageKind::Train, training(json!({})), vec![data], ["checkpoint", "metrics"]);
    let set = shapes(45, 1, 2);
    let (model, input) = (engine.input("model", &model), engine.input("set", &set.to_bytes().unwrap()));
    let mut evaluate = |params: Value| {
        let given = vec![model.clone(), input.clone()];
        let ([bytes], summary) = engine.run(StageKind::Evaluate, params, given, ["predictions"]);
        (Predictions::from_bytes(&bytes).unwrap(), summary)
    };
    let (clean, summary) = evaluate(json!({}));
    assert_eq!(clean.labels, set.labels);
    let correct = (0..45).filter(|&index| clean.correct(index)).count();
    assert_eq!(summary, format!("accuracy {:.1} % (n = 45)", 100.0 * correct as f64 / 45.0));
    for (probability, loss) in clean.probability.iter().zip(&clean.loss) {
        assert!((probability.ln() + loss).abs() < 1e-3, "{probability} {loss}");
    }
    for attack in [json!({"attack": "fgsm", "eps": 0}), pgd(0.0, 3, "random")] {
        let same = Predictions { attack: None, ..evaluate(json!({"attack": attack})).0 };
        assert_eq!(same, clean);
    }

    let attack = pgd(0.1, 5, "random");
    let (whole, _) = evaluate(json!({"attack": attack, "batch_size": 45}));
    let (parts, _) = evaluate(json!({"attack": attack, "batch_size": 7}));
    assert_ne!(whole, clean);
    assert_eq!(whole.predicted, parts.predicted);
    let differences = whole.loss.iter().zip(&parts.loss).map(|(a, b)| (a - b).abs());
    assert!(differences.fold(0.0, f32::max) < 1e-3);
    let (some, _) = evaluate(json!({"attack": attack, "batch_size": 7, "limit": 20}));
    assert_eq!(some.predicted, parts.predicted[..20]);
    let total = |predictions: &Predictions| predictions.loss.iter().sum::<f32>();
    let (attacked, _) = evaluate(json!({"attack": pgd(0.1, 12, "zero")}));
    assert!(total(&attacked) > 1.2 * total(&clean), "{} against {}", total(&attacked), total(&clean));
}

#[test]
fn attacks_stay_in_their_ball_and_in_range() {
    let net = Net::Resnet { width: 4, blocks: vec![1, 1], mean: vec![], std: vec![], standardise: false, smooth: None };
    let network = networks::build(&net, 1, 3, Rng::new(2), Device::Cpu).unwrap().freeze().unwrap();
    let mut set = shapes(10, 1, 3);
    // Black and white, so that [0, 1] cuts the ball.
    set.pixels.iter_mut().step_by(3).for_each(|pixel| *pixel = if *pixel > 100 { 255 } else { 0 });
    let indices: Vec<u64> = (0..10).collect();
    let (images, labels) = DeviceSet::new(set, Device::Cpu).unwrap().batch(&indices).unwrap();
    let batch = Batch { images: &images, labels: &labels, indices: &indices, epoch: 0 };
    for eps in [0.0, 1.0 / 255.0, 8.0 / 255.0, 0.5, 1.0] {
        for attack in [json!({"attack": "fgsm", "eps": eps}), pgd(eps, 6, "zero"), pgd(eps, 6, "random")] {
            let parsed: Attack = serde_json::from_value(attack.clone()).unwrap();
            let found = attacks::perturb(&parsed, &*network, &batch, Rng::new(1), &mut || Ok(())).unwrap();
            let reach = (&found - &images).abs().max().double_value(&[]);
            assert!(reach <= eps + 1e-7, "{attack}: {reach}");
            assert!(found.min().double_value(&[]) >= 0.0 && found.max().double_value(&[]) <= 1.0, "{attack}");
            if eps == 0.0 {
                assert_eq!(found, images, "{attack}");
            } else {
                assert!(reach > 0.9 * eps.min(6.0 * 2.0 / 255.0), "{attack} uses its ball: {reach}");
            }
        }
    }
}

#[test]
fn shuffled_and_saturated_sets_keep_what_they_should() {
    let mut engine = Engine::ready();
    let set = shapes(12, 2, 1);
    let data = engine.input("data", &set.to_bytes().unwrap());
    let mut transform = |params: Value| {
        let ([bytes], _) = engine.run(StageKind::Transform, params, vec![data.clone()], ["images"]);
        ImageSet::from_bytes(&bytes).unwrap()
    };
    assert_eq!(transform(json!({"op": "saturate", "level": 2})), set);
    assert_ne!(transform(json!({"op": "saturate", "level": 8})), set);
    assert_eq!(transform(json!({"op": "patch_shuffle", "k": 1})), set);
    let shuffled = transform(json!({"op": "patch_shuffle", "k": 4}));
    assert_eq!(shuffled, transform(json!({"op": "patch_shuffle", "k": 4})));
    assert_eq!((&shuffled.labels, &shuffled.classes), (&set.labels, &set.classes));
    for (before, after) in set.pixels.chunks(64).zip(shuffled.pixels.chunks(64)) {
        let sorted = |plane: &[u8]| {
            let mut plane = plane.to_vec();
            plane.sort_unstable();
            plane
        };
        assert_eq!(sorted(before), sorted(after));
        assert_ne!(before, after);
    }
}
