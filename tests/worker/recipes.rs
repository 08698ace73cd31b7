//! Trainings as they are done today: other optimisers and schedules, averaged weights, perturbed weights, MART, N-FGSM.
//! That single steps are those of PyTorch and of the methods' authors, tests beside the code show.

use atflow::formats::Predictions;
use atflow::stage_kinds::StageKind;
use atflow_worker::networks::Statistics;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::resume::{broken_off, undisturbed};
use crate::support::{Engine, shapes, training};

/// Every recipe, as changes of the usual training.
fn recipes() -> Vec<(&'static str, Value)> {
    let adversary = json!({"attack": "pgd", "eps": 0.03, "step": 0.015, "steps": 2, "start": "random"});
    let method = |name: &str| json!({"name": name, "beta": 5, "eps": 0.03, "step": 0.015, "steps": 2});
    let cosine = json!({"shape": "cosine", "warmup": 0.1});
    vec![
        ("adamw", json!({"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}, "schedule": cosine})),
        ("nesterov", json!({"optimizer": {"lr": 0.1, "nesterov": true}, "label_smoothing": 0.1})),
        ("ema", json!({"average": {"name": "ema", "decay": 0.9}, "adversary": adversary})),
        ("swa", json!({"average": {"name": "swa", "from": 2}, "adversary": adversary})),
        ("awp", json!({"weight_perturbation": {"gamma": 0.01, "from": 2}, "adversary": adversary})),
        ("mart", json!({"method": method("mart")})),
        ("trades-awp", json!({"method": method("trades"), "weight_perturbation": {"gamma": 0.01}})),
        ("n-fgsm", json!({"adversary": {"attack": "fgsm", "eps": 0.03, "noise": 2}})),
    ]
}

#[test]
fn every_recipe_learns_and_goes_on_with_the_same_bytes_after_a_break() {
    for (name, recipe) in recipes() {
        let params = training(recipe);
        let expected = undisturbed(params.clone());
        let metrics: Value = serde_json::from_slice(&expected[1]).unwrap();
        let last = metrics["epochs"].as_array().unwrap().last().unwrap();
        assert!(last["validation_accuracy"].as_f64().unwrap() > 0.5, "{name}: {last}");
        assert_eq!(broken_off(params, 2), expected, "{name}");
    }
}

/// What is validated is what is kept: the average, not the weights of the last step.
#[test]
fn the_checkpoint_is_the_average_that_was_validated() {
    for (name, recipe) in recipes().into_iter().filter(|(name, _)| ["ema", "swa"].contains(name)) {
        let mut plain = recipe.clone();
        plain.as_object_mut().unwrap().remove("average");
        let [checkpoint, metrics] = undisturbed(training(recipe));
        let metrics: Value = serde_json::from_slice(&metrics).unwrap();
        let told = metrics["epochs"].as_array().unwrap().last().unwrap()["validation_accuracy"].as_f64().unwrap();
        let mut engine = Engine::ready();
        let inputs =
            vec![engine.input("model", &checkpoint), engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap())];
        let ([bytes], _) = engine.run(StageKind::Evaluate, json!({}), inputs, ["predictions"]);
        let predictions = Predictions::from_bytes(&bytes).unwrap();
        let right = (0..30).filter(|&index| predictions.correct(index)).count();
        assert!((right as f64 / 30.0 - told).abs() < 1e-9, "{name}: {right} of 30, told {told}");
        assert_ne!(undisturbed(training(plain))[0], checkpoint, "{name}");
    }
}

/// `fixtures/make_statistics.py` made the numbers.
#[test]
fn measured_statistics_are_those_of_update_bn() {
    let model = crate::parity::model();
    let images = model.network.normalise(&crate::parity::fixture("images")).unwrap();
    let mut statistics = Statistics::new(&*model.network).unwrap();
    for (start, count) in [(0, 4), (4, 2)] {
        statistics.add(&*model.network, &images.narrow(0, start, count)).unwrap();
    }
    statistics.finish().unwrap();
    let file = SafeTensors::deserialize(include_bytes!("fixtures/statistics.safetensors")).unwrap();
    let entries = model.network.state().entries().iter().filter(|entry| entry.name.contains("running"));
    let mut count = 0;
    for entry in entries {
        let view = file.tensor(&entry.name).unwrap();
        let expected = Tensor::from_data_size(view.data(), &[view.shape()[0] as i64], Kind::Float);
        let worst = (&entry.tensor - &expected).abs().max().double_value(&[]);
        assert!(worst < 1e-5, "{} is off by {worst}", entry.name);
        count += 1;
    }
    assert_eq!(count, file.len());
}

/// The default measures statistics; `averaged` is what it was before, and another network.
#[test]
fn statistics_of_averaged_weights_are_measured_unless_they_are_to_be_averaged() {
    let swa = |more: Value| {
        let mut average = json!({"name": "swa", "from": 2});
        average.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let [checkpoint, _] = undisturbed(training(json!({"average": average})));
        let file = SafeTensors::deserialize(&checkpoint).unwrap();
        let tensor = |name: &str| file.tensor(name).unwrap().data().to_vec();
        [tensor("conv1.weight"), tensor("bn1.running_var")]
    };
    let (measured, averaged) = (swa(json!({})), swa(json!({"statistics": "averaged"})));
    assert_eq!(swa(json!({"statistics": "measured"})), measured);
    assert_eq!(measured[0], averaged[0], "the weights are the same");
    assert_ne!(measured[1], averaged[1]);
}
