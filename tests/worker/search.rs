//! Attacks that search in 16 bits: what they find is judged in 32, through the real binary.

use atflow::formats::{ImageSet, Predictions};
use atflow::protocol::{FailureCode, Input};
use atflow::stage_kinds::{Attack, StageKind};
use atflow_worker::attacks::{self, AttackedModel, Batch};
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::networks::Frozen;
use atflow_worker::rng::Rng;
use serde_json::{Value, json};
use tch::{Device, Kind, TchError, Tensor};

use crate::support::{Engine, pgd, shapes, training};

const COUNT: u64 = 60;

fn model(engine: &mut Engine, more: Value) -> Vec<u8> {
    let data = engine.input("data", &shapes(COUNT as usize, 1, 1).to_bytes().unwrap());
    engine.run(StageKind::Train, training(more), vec![data], ["checkpoint", "metrics"]).0[0].clone()
}

fn evaluate(engine: &mut Engine, inputs: &[Input], params: Value) -> Predictions {
    let ([bytes], _) = engine.run(StageKind::Evaluate, params, inputs.to_vec(), ["predictions"]);
    Predictions::from_bytes(&bytes).unwrap()
}

fn images(set: &ImageSet) -> (Tensor, Tensor) {
    let shape = set.shape.map(|side| side as i64);
    let images = Tensor::from_slice(&set.pixels).view(&shape[..]).to_kind(Kind::Float) / 255.0;
    (images, Tensor::from_slice(&set.labels).to_kind(Kind::Int64))
}

#[test]
fn what_a_search_in_16_bits_finds_is_judged_in_32() {
    let mut engine = Engine::ready();
    let set = shapes(COUNT as usize, 1, 2);
    let checkpoint = model(&mut engine, json!({"adversary": pgd(0.03, 3, "zero")}));
    let inputs = [engine.input("model", &checkpoint), engine.input("set", &set.to_bytes().unwrap())];
    // Next to nothing is searched here: the verdict is that of the images themselves, computed in 32 bits.
    let nearby = json!({"attack": "pgd", "eps": 1e-6, "step": 1e-6, "steps": 1});
    let verdict = evaluate(&mut engine, &inputs, json!({"attack": nearby, "search": "bf16"}));
    let clean = evaluate(&mut engine, &inputs, json!({}));
    let apart = |losses: &[f32]| losses.iter().zip(&clean.loss).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&verdict.loss) < 1e-4, "{}", apart(&verdict.loss));
    let network = Checkpoint::from_bytes(&checkpoint, Device::Cpu).unwrap().network;
    let (images, labels) = images(&set);
    let logits = network.freeze_as(Kind::BFloat16).unwrap().forward(&images).unwrap();
    let losses = -logits.log_softmax(1, Kind::Float).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
    let halved = Vec::<f32>::try_from(losses).unwrap();
    assert!(apart(&halved) > 1e-3, "in 16 bits it would be another one: {}", apart(&halved));

    let attack = json!({"attack": "pgd", "eps": 0.1, "step": 0.02, "steps": 10});
    let found = evaluate(&mut engine, &inputs, json!({"attack": attack, "search": "bf16"}));
    // It is another search than that in 32 bits, and finds about as much.
    let exact = evaluate(&mut engine, &inputs, json!({"attack": attack}));
    assert_ne!(found.loss, exact.loss);
    let broken = |predictions: &Predictions| (0..COUNT as usize).filter(|&index| !predictions.correct(index)).count();
    assert!(
        broken(&exact) > 0 && broken(&found).abs_diff(broken(&exact)) <= 2,
        "{} {}",
        broken(&found),
        broken(&exact)
    );
}

/// Images leave an ensemble when the network in 32 bits is wrong.
#[test]
fn an_ensemble_that_searches_in_16_bits_says_who_broke_what() {
    let mut engine = Engine::ready();
    let checkpoint = model(&mut engine, json!({}));
    let set = engine.input("set", &shapes(COUNT as usize, 1, 2).to_bytes().unwrap());
    let inputs = [engine.input("model", &checkpoint), set];
    let attack = json!({"attack": "autoattack", "eps": 0.1, "attacks": ["apgd_ce", "fab_t"], "steps": 10});
    let found = evaluate(&mut engine, &inputs, json!({"attack": attack, "search": "bf16"}));
    let clean = evaluate(&mut engine, &inputs, json!({}));
    let ensemble = found.attack.as_ref().unwrap().ensemble.as_ref().unwrap();
    for index in 0..COUNT as usize {
        let is_broken = ensemble.broken_by[index] >= 0;
        assert_eq!(is_broken, clean.correct(index) && !found.correct(index), "image {index}");
    }
    assert!(ensemble.broken_by.iter().any(|by| *by >= 0));
}

#[test]
fn a_training_whose_adversary_searches_in_16_bits_trains_in_32() {
    let mut engine = Engine::ready();
    let set = engine.input("set", &shapes(COUNT as usize, 1, 2).to_bytes().unwrap());
    let mut trained = |more: Value| model(&mut engine, more);
    let adversary = pgd(0.03, 3, "random");
    let exact = trained(json!({"adversary": adversary}));
    let searched = trained(json!({"adversary": adversary, "search": "bf16"}));
    let halved = trained(json!({"adversary": adversary, "precision": "bf16"}));
    assert!(searched != exact && searched != halved);
    // All of a training in 16 bits is in 16 bits, its search too.
    assert!(halved == trained(json!({"adversary": adversary, "precision": "bf16", "search": "bf16"})));
    // Without an adversary there is no search.
    assert!(trained(json!({})) == trained(json!({"search": "bf16"})));
    let input = engine.input("model", &searched);
    let clean = evaluate(&mut engine, &[input, set], json!({}));
    let right = (0..COUNT as usize).filter(|&index| clean.correct(index)).count();
    assert!(right >= 35, "{right} of {COUNT}");
}

#[test]
fn a_search_needs_an_attack() {
    let mut engine = Engine::ready();
    let checkpoint = model(&mut engine, json!({}));
    let set = engine.input("set", &shapes(30, 1, 2).to_bytes().unwrap());
    let inputs = vec![engine.input("model", &checkpoint), set];
    let failure = engine.fail(StageKind::Evaluate, json!({"search": "bf16"}), inputs);
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.message.contains("there is no attack that could search"), "{failure:?}");
}

/// Classifies an image of a few pixels by their mean: class 0 leads by 20 times what it exceeds `threshold` by. Class 2
/// and 3 are far behind.
struct Brightness {
    threshold: f64,
}

impl Frozen for Brightness {
    fn normalise(&self, images: &Tensor) -> Result<Tensor, TchError> {
        Ok(images.shallow_clone())
    }

    fn features(&self, normalised: &Tensor) -> Result<Tensor, TchError> {
        Ok(normalised.shallow_clone())
    }

    fn head(&self, features: &Tensor) -> Result<Tensor, TchError> {
        let lead =
            features.f_mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float)?.f_sub_scalar(self.threshold)? * 10.0;
        let behind = &lead * 0.1 - 10.0;
        Tensor::f_stack(&[&lead + 5.0, 5.0 - &lead, behind.shallow_clone(), behind], 1)
    }
}

/// The network in 16 bits sees a change of class too early. An image does not leave an attack there.
#[test]
fn images_leave_when_the_network_in_32_bits_is_wrong() {
    let (halved, exact) = (Brightness { threshold: 0.495 }, Brightness { threshold: 0.49 });
    let labels = Tensor::zeros([3], (Kind::Int64, Device::Cpu));
    let wrong = |network: &Brightness, points: &Tensor| {
        let wrong = network.forward(points).unwrap().argmax(1, false).ne_tensor(&labels);
        i64::try_from(wrong.sum(Kind::Int64)).unwrap()
    };
    let attacks = [
        json!({"attack": "pgd", "eps": 0.02, "step": 0.002, "steps": 20, "iterate": "worst_case"}),
        json!({"attack": "pgd", "eps": 0.02, "step": 0.008, "steps": 1, "start": "random", "restarts": 20}),
        json!({"attack": "apgd", "eps": 0.02, "loss": "ce", "steps": 40}),
        json!({"attack": "apgd", "norm": "l2", "eps": 0.04, "loss": "dlr", "steps": 40}),
        json!({"attack": "fab", "eps": 0.02, "steps": 20, "targets": 1}),
        json!({"attack": "malt", "eps": 0.02, "steps": 20, "targets": 1, "candidates": 3}),
        json!({"attack": "square", "eps": 0.046, "queries": 500, "p_init": 0.05}),
        json!({"attack": "autoattack", "eps": 0.02, "attacks": ["apgd_ce"], "steps": 20}),
        json!({"attack": "cw", "eps": 0.04, "steps": 40, "lr": 0.002}),
    ];
    // Images that the network in 16 bits alone gets wrong have another target than their own class.
    let open = [
        json!({"attack": "apgd", "eps": 0.02, "loss": "dlr_targeted", "targets": 1, "steps": 40}),
        json!({"attack": "fab", "eps": 0.02, "steps": 20, "targets": 1}),
        json!({"attack": "malt", "eps": 0.02, "steps": 20, "targets": 1, "candidates": 3}),
    ];
    let at = |brightness: f64| move |attack: Value| (brightness, attack);
    for (brightness, attack) in attacks.map(at(0.5)).into_iter().chain(open.map(at(0.4915))) {
        let parsed: Attack = serde_json::from_value(attack.clone()).unwrap();
        // Squares of one pixel have to be small in the image.
        let side = if matches!(parsed, Attack::Square(_)) { 4 } else { 2 };
        let images = Tensor::full([3, 1, side, side], brightness, (Kind::Float, Device::Cpu))
            + 0.001 * Tensor::arange(3, (Kind::Float, Device::Cpu)).view([3, 1, 1, 1]);
        let batch = Batch { images: &images, labels: &labels, indices: &[0, 1, 2], epoch: 0 };
        let found = |exact: Option<&Brightness>| {
            let mut check_cancelled = || Ok(());
            let exact = exact.map(|exact| exact as &dyn Frozen);
            let mut model = AttackedModel::new(&halved, Rng::new(0), &mut check_cancelled).settled_by(exact);
            attacks::perturb_model(&parsed, &mut model, &batch).unwrap()
        };
        let (hasty, settled) = (found(None), found(Some(&exact)));
        assert_eq!(wrong(&exact, &settled), 3, "{attack}");
        assert!(wrong(&exact, &hasty) < 3, "nothing was left open: {attack}");
    }
}
