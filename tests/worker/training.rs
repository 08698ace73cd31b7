//! Trainings beyond the plain one, through the real binary: other methods, 16 bits, weights of others, tables of rates,
//! the check for overfitting.

use std::collections::BTreeMap;

use atflow::formats::Predictions;
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Engine, pgd, shapes, training};

const OUTPUTS: [&str; 2] = ["checkpoint", "metrics"];

fn data(engine: &Engine) -> Input {
    engine.input("data", &shapes(90, 1, 1).to_bytes().unwrap())
}

fn train(engine: &mut Engine, params: Value, more: Vec<Input>) -> ([Vec<u8>; 2], Value) {
    let inputs = [vec![data(engine)], more].concat();
    let (outputs, _) = engine.run(StageKind::Train, params, inputs, OUTPUTS);
    let metrics = serde_json::from_slice(&outputs[1]).unwrap();
    (outputs, metrics)
}

fn tensors(checkpoint: &[u8]) -> BTreeMap<String, Vec<f32>> {
    let file = SafeTensors::deserialize(checkpoint).unwrap();
    let numbers =
        |bytes: &[u8]| bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    file.iter().map(|(name, view)| (name.to_owned(), numbers(view.data()))).collect()
}

fn is_statistic(name: &str) -> bool {
    name.contains("running_")
}

fn last<'a>(metrics: &'a Value, name: &str) -> &'a Value {
    &metrics["epochs"].as_array().unwrap().last().unwrap()[name]
}

#[test]
fn free_training_without_room_to_move_is_plain_training_and_with_it_learns_what_it_attacks() {
    let mut engine = Engine::ready();
    let free = |replays, eps: f64| training(json!({"method": {"name": "free", "replays": replays, "eps": eps}}));
    let plain = train(&mut engine, training(json!({})), vec![]).0;
    let (idle, metrics) = train(&mut engine, free(1, 0.0), vec![]);
    assert_eq!(tensors(&plain[0]), tensors(&idle[0]), "a perturbation of nothing, one step for each batch");
    assert_eq!(last(&metrics, "adversarial")["images"], 90);

    let mut params = free(4, 0.03);
    params["schedule"] = json!({"shape": "constant"});
    let (outputs, metrics) = train(&mut engine, params.clone(), vec![]);
    assert!(last(&metrics, "train_accuracy").as_f64().unwrap() > 0.8, "{metrics}");
    assert_eq!(outputs, train(&mut engine, params, vec![]).0, "a second time");
}

#[test]
fn trades_without_weight_moves_the_weights_as_plain_training_and_with_it_trades() {
    let mut engine = Engine::ready();
    let trades = |beta: f64| {
        let method = json!({"name": "trades", "beta": beta, "eps": 0.06, "step": 0.02, "steps": 3});
        training(json!({"method": method}))
    };
    let plain = tensors(&train(&mut engine, training(json!({})), vec![]).0[0]);
    let weightless = tensors(&train(&mut engine, trades(0.0), vec![]).0[0]);
    for (name, values) in &plain {
        // Batch norms see the perturbed images, too: their statistics differ.
        assert_eq!(*values == weightless[name], !is_statistic(name), "{name}");
    }
    let robust = |beta: f64, engine: &mut Engine| {
        let (_, metrics) = train(engine, trades(beta), vec![]);
        last(&metrics, "adversarial")["accuracy"].as_f64().unwrap()
    };
    let (without, with) = (robust(0.0, &mut engine), robust(6.0, &mut engine));
    assert!(with > without - 0.05 && with > 0.5, "{without} {with}");
}

#[test]
fn sixteen_bits_learn_as_well_and_leave_a_checkpoint_of_thirty_two() {
    let mut engine = Engine::ready();
    let params = |precision| training(json!({"precision": precision, "adversary": pgd(0.02, 2, "zero"), "epochs": 3}));
    let (full, full_metrics) = train(&mut engine, params("fp32"), vec![]);
    let (half, half_metrics) = train(&mut engine, params("bf16"), vec![]);
    let (full, half) = (tensors(&full[0]), tensors(&half[0]));
    assert!(full.keys().eq(half.keys()) && full != half);
    let accuracy = |metrics: &Value| last(metrics, "train_accuracy").as_f64().unwrap();
    assert!((accuracy(&full_metrics) - accuracy(&half_metrics)).abs() < 0.15, "{full_metrics} {half_metrics}");
    // A weight of 32 bits has more than the eight bits of mantissa of a bf16.
    let fine = half["conv1.weight"].iter().filter(|value| value.to_bits() & 0xffff != 0).count();
    assert!(fine > half["conv1.weight"].len() / 2, "the weights were rounded");
}

#[test]
fn rates_come_from_the_table_and_go_on_past_it() {
    let mut engine = Engine::ready();
    let rates = json!([{"epochs": 2, "lr": 0.1}, {"epochs": 1, "lr": 0.01}]);
    let (_, metrics) = train(&mut engine, training(json!({"schedule": {"shape": "table", "rates": rates}})), vec![]);
    let found: Vec<f64> =
        metrics["epochs"].as_array().unwrap().iter().map(|epoch| epoch["lr"].as_f64().unwrap()).collect();
    assert_eq!(found, [0.1, 0.1, 0.01, 0.01]);
}

#[test]
fn the_check_for_overfitting_is_told_after_its_epochs_and_changes_nothing_else() {
    let mut engine = Engine::ready();
    let plain = train(&mut engine, training(json!({})), vec![]).0;
    let check = json!({"every": 2, "images": 30, "attack": pgd(0.05, 3, "random")});
    let (outputs, metrics) = train(&mut engine, training(json!({"overfitting_check": check})), vec![]);
    assert_eq!(tensors(&plain[0]), tensors(&outputs[0]));
    assert!(metrics["catastrophic_overfitting"].is_null() && metrics.get("catastrophic_overfitting").is_some());
    let checked: Vec<bool> =
        metrics["epochs"].as_array().unwrap().iter().map(|epoch| epoch.get("checked_accuracy").is_some()).collect();
    assert_eq!(checked, [false, true, false, true]);
    assert!(last(&metrics, "checked_accuracy").as_f64().unwrap() <= last(&metrics, "train_accuracy").as_f64().unwrap());
}

#[test]
fn a_training_starts_from_the_weights_of_another_with_its_own_head_or_a_new_one() {
    let mut engine = Engine::ready();
    let source = train(&mut engine, training(json!({})), vec![]).0;
    let before = tensors(&source[0]);
    let weights = |engine: &Engine| vec![engine.input("weights", &source[0])];
    // So small a rate leaves the parameters where they were, up to its own size.
    let still = |more: Value| {
        let mut params = training(json!({"epochs": 1, "optimizer": {"lr": 1e-9}}));
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let inputs = weights(&engine);
    let kept = tensors(&train(&mut engine, still(json!({})), inputs).0[0]);
    assert!(kept.iter().all(|(name, values)| is_statistic(name) || near(values, &before[name])));
    let inputs = weights(&engine);
    let replaced = tensors(&train(&mut engine, still(json!({"pretrained": {"head": "replace"}})), inputs).0[0]);
    for (name, values) in replaced.iter().filter(|(name, _)| !is_statistic(name)) {
        assert_eq!(near(values, &before[name]), !name.starts_with("linear."), "{name}");
    }

    let wrong = |engine: &mut Engine, params: Value, weights: &[u8]| {
        let inputs = vec![data(engine), engine.input("weights", weights)];
        engine.fail(StageKind::Train, params, inputs)
    };
    let other = training(json!({"net": {"arch": "resnet", "width": 5, "blocks": [1, 1]}}));
    let failure = wrong(&mut engine, other, &source[0]);
    assert!(
        failure.code == FailureCode::Invalid && failure.message.contains("does not fit the network"),
        "{failure:?}"
    );
    assert!(failure.causes[0].contains("`conv1.weight` is [4, 1, 3, 3] in the file and [5, 1, 3, 3]"), "{failure:?}");
    let failure = wrong(&mut engine, training(json!({})), include_bytes!("fixtures/weights/hostile.pth"));
    assert!(failure.code == FailureCode::Invalid && failure.causes[0].contains("`posix.system`"), "{failure:?}");
    let failure = wrong(&mut engine, training(json!({})), b"no weights at all");
    assert!(failure.causes[0].contains("no file of weights"), "{failure:?}");
    let inputs = vec![data(&engine)];
    let failure = engine.fail(StageKind::Train, training(json!({"pretrained": {"head": "keep"}})), inputs);
    assert!(failure.message.contains("`pretrained` needs a `weights` input"), "{failure:?}");
}

/// Weights that were trained on more classes may keep all their logits: the surplus is never right, and attacks and
/// maps use it as any other class.
#[test]
fn a_head_that_is_kept_has_more_logits_than_the_data_have_classes() {
    let mut engine = Engine::ready();
    let wide = json!({"arch": "resnet18", "stem": "cifar", "width": 4, "classes": 12});
    let params = training(json!({"net": wide, "epochs": 8}));
    let source = train(&mut engine, params.clone(), vec![]).0;
    let weights = vec![engine.input("weights", &source[0])];
    let mut further = params;
    further["pretrained"] = json!({"head": "keep"});
    further["adversary"] = pgd(0.05, 2, "zero");
    let (outputs, _) = train(&mut engine, further, weights);
    assert_eq!(tensors(&outputs[0])["linear.bias"].len(), 12);

    let model = engine.input("model", &outputs[0]);
    let set = engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap());
    // Targets are taken among all logits: three classes alone would be too few for `apgd_t`.
    let attack = json!({"attack": "autoattack", "eps": 0.2, "steps": 3, "queries": 20, "targets": 9});
    let mut evaluate = |attack: Value| {
        let inputs = vec![model.clone(), set.clone()];
        let [bytes] = engine.run(StageKind::Evaluate, json!({"attack": attack}), inputs, ["predictions"]).0;
        Predictions::from_bytes(&bytes).unwrap()
    };
    let (clean, attacked) = (evaluate(json!({"attack": "none"})), evaluate(attack));
    let right = |of: &Predictions| (0..of.len()).filter(|&at| of.correct(at)).count();
    assert!(right(&clean) > 20 && right(&attacked) < 20, "{} {}", right(&clean), right(&attacked));
    assert!(clean.predicted.iter().chain(&attacked.predicted).all(|class| (0..12).contains(class)));

    let models = vec![Input { label: "wide".to_owned(), slot: "models".to_owned(), ..model.clone() }, set.clone()];
    let params = json!({"method": {"name": "grad"}, "images": [0]});
    engine.run(StageKind::Saliency, params, models, ["maps", "grid", "numbers", "csv", "markdown"]);
}

#[test]
fn images_held_out_choose_the_epoch_whose_weights_are_kept() {
    let mut engine = Engine::ready();
    // A rate that wanders, and few images: the last epoch is not the best one.
    let params = |keep: &str, epochs: u32| {
        training(json!({
            "epochs": epochs, "schedule": {"shape": "constant"}, "optimizer": {"lr": 0.3},
            "holdout": {"share": 0.2, "attack": pgd(0.1, 3, "zero"), "keep": keep},
        }))
    };
    let (best, metrics) = train(&mut engine, params("best", 5), vec![]);
    let held: Vec<f64> =
        metrics["epochs"].as_array().unwrap().iter().map(|epoch| epoch["holdout_accuracy"].as_f64().unwrap()).collect();
    let highest = held.iter().copied().fold(0.0, f64::max);
    let first = held.iter().position(|accuracy| *accuracy == highest).unwrap() as u32 + 1;
    assert_eq!(metrics["kept_epoch"], first, "{held:?}");
    // 18 of 90 images: every accuracy is a multiple of their share.
    assert!(held.iter().all(|accuracy| (accuracy * 18.0 - (accuracy * 18.0).round()).abs() < 1e-9), "{held:?}");
    // A training that ends with that epoch has the same weights.
    let (ended, metrics) = train(&mut engine, params("last", first), vec![]);
    assert_eq!(metrics["kept_epoch"], first);
    assert_eq!(tensors(&best[0]), tensors(&ended[0]));
    assert!(first < 5, "the test shows something: {held:?}");
    // One training gives both.
    let (last, _) = train(&mut engine, params("last", 5), vec![]);
    let inputs = vec![data(&engine)];
    let ([checkpoint, at_end, metrics], _) =
        engine.run(StageKind::Train, params("both", 5), inputs, ["checkpoint", "last", "metrics"]);
    assert_eq!((tensors(&checkpoint), tensors(&at_end)), (tensors(&best[0]), tensors(&last[0])));
    assert_eq!(serde_json::from_slice::<Value>(&metrics).unwrap()["kept_epoch"], first);
}

#[test]
fn settings_of_methods_that_cannot_be_are_told_by_name() {
    let mut engine = Engine::ready();
    let trades = |name: &str, value: Value| {
        let mut method = json!({"name": "trades", "beta": 1, "eps": 0.1, "step": 0.1, "steps": 1});
        method[name] = value;
        json!({"method": method})
    };
    for (more, problem) in [
        (json!({"method": {"name": "free", "replays": 0, "eps": 0.1}}), "`method.replays` must be at least 1"),
        (json!({"method": {"name": "free", "replays": 1, "eps": 2}}), "`method.eps` must be between 0 and 1"),
        (trades("beta", json!(-1)), "`method.beta` must be at least 0"),
        (trades("step", json!(0)), "`method.step` must be above 0"),
        (trades("steps", json!(0)), "`method.steps` must be at least 1"),
        (
            json!({"method": {"name": "free", "replays": 1, "eps": 0.1}, "adversary": pgd(0.1, 1, "zero")}),
            "`adversary` must be left out",
        ),
        (json!({"overfitting_check": {"every": 0, "attack": pgd(0.1, 1, "zero")}}), "`overfitting_check.every`"),
        (json!({"overfitting_check": {"attack": pgd(0.1, 0, "zero")}}), "`overfitting_check.attack.steps`"),
        (json!({"holdout": {"share": 1}}), "`holdout.share` must be above 0 and below 1"),
        (json!({"holdout": {"share": 0.99}, "limit": 2}), "`holdout.share` leaves none of 2 images"),
        (json!({"schedule": {"shape": "table", "rates": []}}), "`schedule.rates` must have at least one entry"),
        (json!({"schedule": {"shape": "table", "rates": [{"epochs": 1, "lr": 0}]}}), "`schedule.rates`"),
    ] {
        let inputs = vec![data(&engine)];
        let failure = engine.fail(StageKind::Train, training(more), inputs);
        assert!(failure.message.contains(problem), "{failure:?}");
    }
}
