//! Carlini and Wagner's attack against foolbox and torchattacks. `fixtures/make_cw.py` made the numbers.

use atflow_worker::attacks::adam::Adam;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::attacks::{Subjects, tensor_of};

static FIXTURES: &[u8] = include_bytes!("fixtures/cw.safetensors");

fn fixture(name: &str) -> Tensor {
    tensor_of(&SafeTensors::deserialize(FIXTURES).unwrap(), name)
}

fn cw(more: Value) -> Value {
    let mut attack = json!({"attack": "cw", "eps": 100, "steps": 60, "lr": 0.02});
    attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    attack
}

fn norms(change: &Tensor) -> Vec<f64> {
    Vec::try_from(change.norm_scalaropt_dim(2.0, [1i64, 2, 3].as_slice(), false).to_kind(Kind::Double)).unwrap()
}

/// Every image is changed as far as by the library, to 1 in 1,000: sixty steps amplify rounding a little.
#[test]
fn changes_are_as_small_as_those_of_foolbox_and_torchattacks() {
    let subjects = Subjects::new();
    let cases = [
        ("cw/foolbox/0", cw(json!({"c": 0.1, "search_steps": 4}))),
        ("cw/foolbox/0.5", cw(json!({"c": 0.1, "search_steps": 4, "confidence": 0.5}))),
        ("cw/torchattacks", cw(json!({"c": 1, "search_steps": 1}))),
    ];
    for (name, attack) in cases {
        let (found, expected) = (subjects.attack(attack), fixture(name));
        assert_eq!(subjects.right(&found), subjects.right(&expected), "{name}");
        let pairs = norms(&(&found - &subjects.images)).into_iter().zip(norms(&(&expected - &subjects.images)));
        for (at, (ours, theirs)) in pairs.enumerate() {
            assert!((ours - theirs).abs() <= 1e-3 * theirs, "{name}, image {at}: {ours}, expected {theirs}");
        }
        let off = (&found - &expected).abs().max().double_value(&[]);
        assert!(off < 2e-3, "{name}: a coordinate is off by {off}");
    }
}

#[test]
fn a_change_counts_within_its_ball_and_whatever_the_batch() {
    let subjects = Subjects::new();
    let search = json!({"c": 0.1, "search_steps": 4});
    let all = subjects.attack(cw(search.clone()));
    let lengths = norms(&(&all - &subjects.images));
    let middle = 0.37;
    let mut attack = cw(search);
    attack["eps"] = json!(middle);
    let within = norms(&(subjects.attack(attack.clone()) - &subjects.images));
    for (length, within) in lengths.iter().zip(&within) {
        let expected = if *length <= middle { *length } else { 0.0 };
        assert!((within - expected).abs() < 1e-6, "{within}, expected {expected}");
    }
    assert!(within.contains(&0.0) && within.iter().any(|&length| length > 0.0));
    // Alone, an image is changed as it is among others.
    let alone = subjects.attack_some(attack, &[3, 5]);
    let same = subjects.attack(cw(json!({"c": 0.1, "search_steps": 4, "eps": middle})));
    let off = (alone - same.index_select(0, &Tensor::from_slice(&[3i64, 5]))).abs().max().double_value(&[]);
    assert!(off < 1e-6, "{off}");
}

/// The steps of `torch.optim.Adam` with the same gradients.
#[test]
fn adam_is_that_of_pytorch() {
    let (gradients, steps) = (fixture("adam/gradients"), fixture("adam/steps"));
    let mut adam = Adam::new(0.1);
    let mut point = Tensor::from_slice(&[0.5f32, -1.0, 2.0]).to_device(Device::Cpu);
    for at in 0..3 {
        point = adam.step(&point, &gradients.get(at)).unwrap();
        let off = (&point - steps.get(at)).abs().max().double_value(&[]);
        assert!(off < 1e-6, "step {at}: {off}");
    }
}
