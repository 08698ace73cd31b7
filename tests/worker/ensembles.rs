//! Evaluations under several attacks, and checks for masked gradients, through the real binary.

use atflow::formats::{self, Predictions};
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::StageKind;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Engine, pgd, shapes, training};

/// A model trained on shapes, with or without an adversary.
fn model(engine: &mut Engine, adversary: Value) -> Vec<u8> {
    let data = engine.input("data", &shapes(60, 1, 1).to_bytes().unwrap());
    let params = training(json!({"adversary": adversary}));
    engine.run(StageKind::Train, params, vec![data], ["checkpoint", "metrics"]).0[0].clone()
}

/// The same model with logits so large that their softmax is 0 and 1 in 32 bits: predictions stay, gradients are zero.
fn masked(checkpoint: &[u8]) -> Vec<u8> {
    scaled(checkpoint, 1e6)
}

/// The same model with logits times a factor.
fn scaled(checkpoint: &[u8], factor: f32) -> Vec<u8> {
    let file = SafeTensors::deserialize(checkpoint).unwrap();
    let metadata: Value = formats::read_metadata("checkpoint", checkpoint).unwrap();
    let scaled: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .map(|(name, view)| {
            let factor = if name.starts_with("linear") { factor } else { 1.0 };
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) * factor);
            (name.to_owned(), view.shape().to_vec(), values.flat_map(f32::to_le_bytes).collect())
        })
        .collect();
    let views = scaled.iter().map(|(name, shape, bytes)| {
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    formats::write(views, &metadata).unwrap()
}

fn evaluate(engine: &mut Engine, inputs: &[Input], params: Value) -> (Predictions, String) {
    let ([bytes], summary) = engine.run(StageKind::Evaluate, params, inputs.to_vec(), ["predictions"]);
    (Predictions::from_bytes(&bytes).unwrap(), summary)
}

#[test]
fn an_ensemble_says_who_broke_what_and_breaks_what_pgd_breaks() {
    let mut engine = Engine::ready();
    let set = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
    for adversary in [json!({"attack": "none"}), pgd(0.03, 3, "zero"), json!({"attack": "fgsm", "eps": 0.05})] {
        let model = model(&mut engine, adversary.clone());
        let inputs = [engine.input("model", &model), set.clone()];
        let (clean, _) = evaluate(&mut engine, &inputs, json!({}));
        assert_eq!(clean.attack, None);
        let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.02, "steps": 40});
        let (pgd, _) = evaluate(&mut engine, &inputs, json!({"attack": attack}));
        let under = pgd.attack.as_ref().unwrap();
        assert_eq!((under.iterate.as_str(), &under.spec["steps"], &under.ensemble), ("last", &json!(40), &None));
        let correct = (0..60).filter(|&index| clean.correct(index)).count() as u64;
        assert_eq!(under.gradients.unwrap().images, correct, "what is wrong already is not counted");

        let ensemble = json!({
            "attack": "autoattack", "eps": 0.1, "attacks": ["apgd_ce", "apgd_dlr", "fab_t", "square"], "steps": 30, "queries": 100,
        });
        let (strong, summary) = evaluate(&mut engine, &inputs, json!({"attack": ensemble, "batch_size": 60}));
        let under = strong.attack.as_ref().unwrap();
        let broken = under.ensemble.as_ref().unwrap();
        assert_eq!(broken.attacks, ["apgd_ce", "apgd_dlr", "fab_t", "square"]);
        let mut robust = 0;
        for index in 0..60 {
            // What was right and is not any more was broken by somebody, and by nobody else was anything.
            assert_eq!(broken.broken_by[index] >= 0, clean.correct(index) && !strong.correct(index), "{index}");
            assert!(!strong.correct(index) || pgd.correct(index), "{index}: PGD breaks what the ensemble does not");
            assert!(strong.loss[index] >= clean.loss[index] - 1e-5);
            robust += usize::from(strong.correct(index));
        }
        assert_eq!(under.iterate, "worst_case");
        assert_eq!(summary, format!("accuracy {:.1} % (n = 60)", 100.0 * robust as f64 / 60.0));
        // Only what is right is attacked, and what is wrong at the random start already has left.
        assert!((correct / 2..=correct).contains(&under.gradients.unwrap().images), "{:?}", under.gradients);
        // Other batches, and so other images beside each other in each run.
        let (parts, _) = evaluate(&mut engine, &inputs, json!({"attack": ensemble, "batch_size": 7}));
        assert_eq!(parts.predicted, strong.predicted);
        // Begun with the attack of another evaluation, the ensemble breaks all that it breaks.
        let mut begun = ensemble.clone();
        begun["pgd"] = json!({"eps": 0.1, "step": 0.02, "steps": 40});
        let (begun, _) = evaluate(&mut engine, &inputs, json!({"attack": begun}));
        let ensemble = begun.attack.unwrap().ensemble.unwrap();
        assert_eq!(ensemble.attacks[0], "pgd");
        for index in 0..60 {
            assert_eq!(ensemble.broken_by[index] == 0, clean.correct(index) && !pgd.correct(index), "{index}");
        }
    }
}

#[test]
fn attacks_that_do_not_fit_a_model_say_why() {
    let mut engine = Engine::ready();
    let model = model(&mut engine, json!({"attack": "none"}));
    let set = engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap());
    let honest = [engine.input("model", &model), set.clone()];
    let failure =
        engine.fail(StageKind::Evaluate, json!({"attack": {"attack": "autoattack", "eps": 0.1}}), honest.to_vec());
    assert_eq!(failure.code, FailureCode::Invalid);
    let words = "`attack.attacks` has `apgd_t`, which needs 4 classes, and the model has 3";
    assert!(failure.message.contains(words), "{failure:?}");

    let masked = vec![engine.input("model", &masked(&model)), set];
    let failure = engine.fail(StageKind::Evaluate, json!({"attack": pgd(0.1, 3, "zero")}), masked.clone());
    assert!(failure.message.contains("zero for all of the 20 attacked images"), "{failure:?}");
    let (square, _) =
        evaluate(&mut engine, &masked, json!({"attack": {"attack": "square", "eps": 0.1, "queries": 20}}));
    assert_eq!(square.attack.unwrap().gradients, None);
}

/// Checks a model: the report, the names of the checks that warn, the report for people, and the summary.
fn look(engine: &mut Engine, model: &[u8]) -> (Value, Vec<String>, String, String) {
    let set = engine.input("set", &shapes(60, 1, 2).to_bytes().unwrap());
    let inputs = vec![engine.input("model", model), set];
    // So many steps that five times as many break no further image.
    let params = json!({"eps": 0.1, "steps": 60, "restarts": 2, "queries": 150});
    let ([json, markdown], summary) = engine.run(StageKind::Masking, params, inputs, ["json", "markdown"]);
    let report: Value = serde_json::from_slice(&json).unwrap();
    let warned: Vec<String> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["verdict"] == "warn")
        .map(|check| check["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(report["warnings"], warned.len());
    (report, warned, String::from_utf8(markdown).unwrap(), summary)
}

/// Logits times a thousand leave every decision as it is, and hide some images from PGD on cross-entropy.
#[test]
fn the_scale_of_logits_hides_no_image_from_the_checks() {
    let mut engine = Engine::ready();
    let honest = model(&mut engine, json!({"attack": "none"}));
    let (report, ..) = look(&mut engine, &honest);
    let (clean, found) = (report["clean"].clone(), report["pgd"].as_f64().unwrap());
    let mut hidden = 0;
    for factor in [10.0, 100.0, 1000.0, 10_000.0] {
        let (report, warned, markdown, _) = look(&mut engine, &scaled(&honest, factor));
        assert_eq!(report["clean"], clean, "{markdown}");
        let margin = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "scale of logits");
        let margin = margin.unwrap()["numbers"]["other"].as_f64().unwrap() / 100.0;
        assert!(margin <= found + 0.02, "times {factor}, the margin finds less: {markdown}");
        let hides = report["pgd"].as_f64().unwrap() - margin > 0.02;
        hidden += usize::from(hides);
        assert_eq!(warned.iter().any(|name| name == "scale of logits"), hides, "times {factor}: {markdown}");
    }
    assert!(hidden > 0, "no scale hides anything: the test shows nothing");
}

#[test]
fn masked_gradients_are_found_and_honest_ones_pass() {
    let mut engine = Engine::ready();
    let honest = model(&mut engine, pgd(0.03, 3, "zero"));
    let masked = masked(&honest);
    let (report, warned, markdown, summary) = look(&mut engine, &honest);
    assert!(warned.is_empty(), "{markdown}");
    assert_eq!(summary, "all 12 checks pass (n = 60)");
    assert!(report["pgd"].as_f64().unwrap() < report["clean"].as_f64().unwrap(), "{markdown}");

    let (report, warned, markdown, summary) = look(&mut engine, &masked);
    for name in ["gradients", "large radius", "black box", "scale of logits"] {
        assert!(warned.iter().any(|warned| warned == name), "{name}: {markdown}");
    }
    assert_eq!(report["pgd"], report["clean"], "PGD finds nothing");
    assert!(markdown.contains("| gradients | **warn** |") && summary.contains("checks warn"), "{markdown}");
}
