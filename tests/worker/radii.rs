//! Evaluations at several radii, through the real binary: what must hold between one radius and the next.

use atflow::formats::Predictions;
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use serde_json::{Value, json};

use crate::support::{Engine, pgd, shapes, training};

const RADII: [f64; 4] = [0.0, 0.02, 0.05, 0.1];
const OUTPUTS: [&str; 4] = ["eps_0", "eps_0p02", "eps_0p05", "predictions"];
const IMAGES: usize = 45;

/// A worker with a robust model and the images to attack it on.
fn scene(epochs: u32) -> (Engine, [Input; 2]) {
    let mut engine = Engine::ready();
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let params = training(json!({"adversary": pgd(0.03, 3, "zero"), "epochs": epochs}));
    let ([checkpoint, _], _) = engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]);
    let inputs = [engine.input("model", &checkpoint), engine.input("set", &shapes(IMAGES, 1, 2).to_bytes().unwrap())];
    (engine, inputs)
}

fn at_radii(engine: &mut Engine, inputs: &[Input; 2], attack: &Value, batch_size: u32) -> [Predictions; 4] {
    let params = json!({"attack": attack, "eps": RADII, "batch_size": batch_size});
    let (files, summary) = engine.run(StageKind::Evaluate, params, inputs.to_vec(), OUTPUTS);
    assert!(summary.contains(" at eps 0.1 (n = 45)"), "{summary}");
    files.map(|bytes| Predictions::from_bytes(&bytes).unwrap())
}

fn right(predictions: &Predictions) -> Vec<bool> {
    (0..predictions.len()).map(|index| predictions.correct(index)).collect()
}

fn count(predictions: &Predictions) -> usize {
    right(predictions).into_iter().filter(|right| *right).count()
}

#[test]
fn what_breaks_at_a_radius_is_broken_at_all_larger_ones() {
    let (mut engine, inputs) = scene(3);
    let ([clean], _) = engine.run(StageKind::Evaluate, json!({}), inputs.to_vec(), ["predictions"]);
    let clean = Predictions::from_bytes(&clean).unwrap();
    let attacks = [
        json!({"attack": "fgsm", "eps": 0.1}),
        json!({"attack": "pgd", "eps": 0.1, "step": 0.025, "steps": 5, "start": "random"}),
        json!({"attack": "pgd", "eps": 0.1, "step": 0.1, "steps": 2, "iterate": "best_loss"}),
        json!({"attack": "pgd", "norm": "l2", "eps": 0.1, "step": 0.05, "steps": 4, "direction": "gradient"}),
        json!({"attack": "pgd", "eps": 0.1, "step": 0.02, "steps": 4, "start": "random", "restarts": 2}),
        json!({"attack": "apgd", "eps": 0.1, "steps": 8}),
        json!({"attack": "fab", "eps": 0.1, "steps": 5, "targets": 2}),
        json!({"attack": "square", "eps": 0.1, "queries": 30}),
        json!({"attack": "autoattack", "eps": 0.1, "steps": 6, "queries": 20, "targets": 2, "attacks": ["apgd_ce", "fab_t"]}),
    ];
    for attack in attacks {
        let found = at_radii(&mut engine, &inputs, &attack, 60);
        let [untouched, .., largest] = &found;
        assert_eq!((untouched, &untouched.attack), (&clean, &None), "{attack}");
        let radii = largest.attack.as_ref().unwrap().radii.as_ref().unwrap();
        assert_eq!(radii.eps, RADII);
        for index in 0..IMAGES {
            let rights: Vec<bool> = found.iter().map(|predictions| predictions.correct(index)).collect();
            let first = rights.iter().position(|right| !right);
            // Right up to some radius, and wrong from there on: accuracy never rises.
            assert!(rights[first.unwrap_or(4)..].iter().all(|right| !right), "{attack}, image {index}: {rights:?}");
            assert_eq!(usize::try_from(radii.broken_at[index]).ok(), first, "{attack}, image {index}");
            for pair in found.windows(2).filter(|pair| pair[0].correct(index) && pair[1].correct(index)) {
                assert!(pair[1].loss[index] >= pair[0].loss[index], "{attack}, image {index}");
            }
            // A point that broke an image is its point at all larger radii.
            for pair in found.windows(2).filter(|pair| !pair[0].correct(index)) {
                assert_eq!(pair[1].loss[index], pair[0].loss[index], "{attack}, image {index}");
            }
        }
        let told = |predictions: &Predictions| predictions.attack.clone().unwrap().spec["eps"].clone();
        assert_eq!(found[1..].iter().map(told).collect::<Vec<_>>(), [json!(0.02), json!(0.05), json!(0.1)]);
        assert_eq!(largest.attack.as_ref().unwrap().spec, attack);
        let robust: Vec<usize> = found.iter().map(count).collect();
        // So small a ball in L2 breaks nothing.
        assert!(robust[0] > robust[3] || attack["norm"] == "l2", "{attack}, {robust:?}");
    }
}

#[test]
fn batches_change_nothing() {
    let (mut engine, inputs) = scene(3);
    let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.025, "steps": 5, "start": "random"});
    let whole = at_radii(&mut engine, &inputs, &attack, 45);
    let parts = at_radii(&mut engine, &inputs, &attack, 7);
    for (whole, parts) in whole.iter().zip(&parts) {
        assert_eq!(whole.predicted, parts.predicted);
        for (a, b) in whole.loss.iter().zip(&parts.loss) {
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} and {b}");
        }
    }
}

#[test]
fn a_search_goes_on_from_the_smaller_ball() {
    let (mut engine, inputs) = scene(3);
    // Steps that reach a fifth of the ball: from the image they cannot get far, from the ball before they can.
    let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.01, "steps": 2});
    let ([alone], _) = engine.run(StageKind::Evaluate, json!({"attack": attack}), inputs.to_vec(), ["predictions"]);
    let alone = Predictions::from_bytes(&alone).unwrap();
    let [.., warm] = at_radii(&mut engine, &inputs, &attack, 45);
    let survivors = || (0..IMAGES).filter(|&index| warm.correct(index) && alone.correct(index));
    let further = survivors().filter(|&index| warm.loss[index] > alone.loss[index]).count();
    assert!(survivors().count() > 0 && further == survivors().count(), "{further} of {}", survivors().count());
    assert!(count(&warm) <= count(&alone));

    // The first radius has no ball before it: it is the attack alone, but for images that are wrong already.
    let params = json!({"attack": attack, "eps": [0.1]});
    let ([first], _) = engine.run(StageKind::Evaluate, params, inputs.to_vec(), ["predictions"]);
    let first = Predictions::from_bytes(&first).unwrap();
    let ([clean], _) = engine.run(StageKind::Evaluate, json!({}), inputs.to_vec(), ["predictions"]);
    let clean = Predictions::from_bytes(&clean).unwrap();
    for index in (0..IMAGES).filter(|&index| clean.correct(index)) {
        assert_eq!(first.predicted[index], alone.predicted[index]);
    }
}

#[test]
fn a_list_that_does_not_end_with_the_radius_of_the_attack_is_refused() {
    let (mut engine, inputs) = scene(1);
    let params = json!({"attack": {"attack": "fgsm", "eps": 0.1}, "eps": [0.0, 0.05]});
    let failure = engine.fail(StageKind::Evaluate, params, inputs.to_vec());
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.message.contains("`eps` must end with the `eps` of the attack"), "{failure:?}");
}
