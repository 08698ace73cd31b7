//! Momentum and the losses that attacks raise, against torchattacks. `fixtures/make_losses.py` made the numbers.

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::attacks::{Subjects, tensor_of};

static FIXTURES: &[u8] = include_bytes!("fixtures/losses.safetensors");

fn fixture(name: &str) -> Tensor {
    tensor_of(&SafeTensors::deserialize(FIXTURES).unwrap(), name)
}

/// The attack of the fixtures: eight steps of 0.01 within 0.06.
fn pgd(more: Value) -> Value {
    let mut attack = json!({"attack": "pgd", "eps": 0.06, "step": 0.01, "steps": 8});
    attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    attack
}

/// All but 2 of 1,000 coordinates are within 1e-5: a gradient of zero up to rounding may have either sign.
fn assert_same(subjects: &Subjects, found: &Tensor, name: &str) {
    let expected = fixture(name);
    let off = (found - &expected).abs().gt(1e-5).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    assert!(off <= 0.002, "{name}: {off} of the coordinates differ");
    assert_eq!(subjects.right(found), subjects.right(&expected), "{name}");
}

#[test]
fn pgd_raises_the_loss_that_it_is_told_to() {
    let subjects = Subjects::new();
    for loss in ["ce", "margin", "dlr", "probability_margin"] {
        assert_same(&subjects, &subjects.attack(pgd(json!({"loss": loss}))), &format!("pgd/{loss}"));
    }
}

#[test]
fn momentum_makes_the_momentum_iterative_method() {
    let subjects = Subjects::new();
    assert_same(&subjects, &subjects.attack(pgd(json!({"momentum": 1}))), "mifgsm");
    assert_same(&subjects, &subjects.attack(pgd(json!({"momentum": 0.5}))), "mifgsm/0.5");
    // Images that leave early take their momentum along: the rest moves as it would alone.
    let early = pgd(json!({"momentum": 1, "iterate": "worst_case"}));
    let whole = subjects.attack(early.clone());
    let some = subjects.attack_some(early, &[2, 9]);
    let off = (some - whole.index_select(0, &Tensor::from_slice(&[2i64, 9]))).abs().max().double_value(&[]);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn apgd_climbs_the_margins_no_worse_than_cross_entropy() {
    let subjects = Subjects::new();
    let left = |attack: Value| subjects.right(&subjects.attack(attack)).into_iter().filter(|right| *right).count();
    let apgd = |loss: &str| left(json!({"attack": "apgd", "eps": 0.06, "steps": 20, "loss": loss}));
    let ce = apgd("ce");
    for loss in ["margin", "probability_margin"] {
        assert!(apgd(loss) <= ce, "{loss} leaves more than {ce}");
    }
    // As a member of an ensemble, too: an ensemble leaves no more than its members.
    let members = json!({"attack": "autoattack", "eps": 0.06, "steps": 20, "attacks": ["apgd_pm", "apgd_margin"]});
    assert!(left(members) <= apgd("probability_margin"));
}
