//! MALT against its targets in PyTorch and APGD-T of torchattacks. `fixtures/make_malt.py` made the numbers.

use atflow::number::Real;
use atflow::stage_kinds::{Malt, Norm};
use atflow_worker::attacks::{AttackedModel, malt};
use atflow_worker::rng::Rng;
use safetensors::SafeTensors;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::attacks::{Subjects, tensor_of};

static FIXTURES: &[u8] = include_bytes!("fixtures/malt.safetensors");

fn fixture(name: &str) -> Tensor {
    tensor_of(&SafeTensors::deserialize(FIXTURES).unwrap(), name)
}

/// The radii of the fixtures.
const BALLS: [(Norm, &str, &str); 2] = [(Norm::Inf, "inf", "11/255"), (Norm::L2, "l2", "0.36")];

fn params(norm: Norm, eps: &str, targets: u32, candidates: u32) -> Malt {
    Malt { norm, eps: Real::parse(eps).unwrap(), steps: 30, targets, candidates }
}

#[test]
fn targets_are_ordered_by_their_linear_distance() {
    let subjects = Subjects::new();
    let mut check_cancelled = || Ok(());
    let mut model = AttackedModel::new(subjects.network(), Rng::new(0), &mut check_cancelled);
    for (norm, name, eps) in BALLS {
        let mut targets =
            |count, candidates| malt::targets(&mut model, &subjects.batch(), &params(norm, eps, count, candidates));
        let all = fixture(&format!("{name}/targets"));
        assert_eq!(targets(4, 4).unwrap(), all);
        assert_eq!(targets(9, 100).unwrap(), all, "no more than all wrong classes");
        assert_eq!(targets(1, 4).unwrap(), all.narrow(1, 0, 1));
        assert_eq!(targets(2, 2).unwrap(), fixture(&format!("{name}/targets of 2")));
    }
}

/// The whole attack from given starts: each image is broken by the same target, and what is left has the same points.
#[test]
fn malt_breaks_what_apgd_of_torchattacks_breaks_towards_its_targets() {
    let subjects = Subjects::new();
    let mut check_cancelled = || Ok(());
    for (norm, name, eps) in BALLS {
        let (starts, left) = (fixture(&format!("{name}/starts")), fixture(&format!("{name}/left")));
        let broken = Vec::<i64>::try_from(fixture(&format!("{name}/broken"))).unwrap();
        let mut model = AttackedModel::new(subjects.network(), Rng::new(0), &mut check_cancelled);
        for targets in 1..=4 {
            let start = |batch: &atflow_worker::attacks::Batch<'_>, rank: u32| {
                let rows: Vec<i64> = batch.indices.iter().map(|&index| index as i64).collect();
                starts.get(i64::from(rank)).f_index_select(0, &Tensor::from_slice(&rows))
            };
            let malt = params(norm, eps, targets, 4);
            let found = malt::climb_in_turn(&mut model, &subjects.batch(), &malt, &start).unwrap();
            let expected: Vec<bool> = broken.iter().map(|&rank| rank < 0 || rank >= i64::from(targets)).collect();
            assert_eq!(subjects.right(&found), expected, "{name}, {targets} targets");
            if targets == 4 {
                let robust: Vec<i64> = (0..12).filter(|&at| broken[at as usize] < 0).collect();
                assert!(!robust.is_empty() && robust.len() < 12, "{name}");
                let robust = Tensor::from_slice(&robust);
                let off = (found.index_select(0, &robust) - left.index_select(0, &robust)).abs().gt(1e-5);
                let off = off.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
                assert!(off <= 0.03, "{name}: {off} of the coordinates are off");
            }
        }
    }
}

/// As a member of an ensemble it is the attack by itself.
#[test]
fn malt_is_a_member_of_ensembles() {
    let subjects = Subjects::new();
    let alone = subjects.attack(json!({"attack": "malt", "eps": "11/255", "steps": 10, "targets": 2}));
    let member = json!({"attack": "autoattack", "eps": "11/255", "steps": 10, "targets": 2, "attacks": ["malt"]});
    assert_eq!(subjects.attack(member), alone);
    assert!(subjects.right(&alone).contains(&false));
}
