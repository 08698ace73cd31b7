//! Which stages draw random numbers, by their parameters.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{EvaluateParams, HeadWeights, PretrainedParams, SaliencyParams, StageKind, TransformParams};

/// Whether what a stage makes may depend on its seed. Parameters that cannot be read count as some that draw.
pub fn draws(kind: StageKind, params: &Json) -> bool {
    match kind {
        StageKind::Evaluate => read(params, |evaluate: EvaluateParams| evaluate.attack.params().draws()),
        StageKind::Saliency => {
            read(params, |saliency: SaliencyParams| saliency.method.draws() || saliency.stability.is_some())
        }
        StageKind::Transform => read(params, |transform: TransformParams| transform.draws()),
        StageKind::Pretrained => read(params, |taken: PretrainedParams| taken.head == HeadWeights::Replace),
        _ => kind.takes_seed(),
    }
}

fn read<P: DeserializeOwned>(params: &Json, draws: impl FnOnce(P) -> bool) -> bool {
    P::deserialize(params).map_or(true, draws)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attacks_draw_by_their_parameters() {
        let pgd = |start| json!({"attack": "pgd", "eps": 0.1, "step": 0.1, "steps": 1, "start": start});
        // The attack that an ensemble begins with is PGD, without its name.
        let inner = json!({"eps": 0.1, "step": 0.1, "steps": 1, "start": "random"});
        let cases = [
            (json!({"attack": "none"}), false),
            (json!({"attack": "fgsm", "eps": 0.1}), false),
            (json!({"attack": "fgsm", "eps": 0.1, "start": "random"}), true),
            (json!({"attack": "fgsm", "eps": 0.1, "noise": 2.0}), true),
            (pgd("zero"), false),
            (pgd("random"), true),
            (json!({"attack": "spatial"}), false),
            (json!({"attack": "apgd", "eps": 0.1}), true),
            (json!({"attack": "fab", "eps": 0.1}), false),
            (json!({"attack": "square", "eps": 0.1}), true),
            (json!({"attack": "cw", "eps": 0.1}), false),
            (json!({"attack": "autoattack", "eps": 0.1}), true),
            (json!({"attack": "autoattack", "eps": 0.1, "attacks": ["fab_t"]}), false),
            (json!({"attack": "autoattack", "eps": 0.1, "attacks": ["fab_t"], "pgd": inner}), true),
        ];
        for (attack, does) in cases {
            let params = json!({"attack": attack});
            serde_json::from_value::<EvaluateParams>(params.clone()).unwrap();
            assert_eq!(draws(StageKind::Evaluate, &params), does, "{params}");
        }
    }

    #[test]
    fn other_stages_draw_by_their_parameters() {
        use StageKind::{Pretrained, Saliency, Table, Train, Transform};
        let saliency = |name| json!({"method": {"name": name}, "images": [0]});
        let fourier = |filter| json!({"op": "fourier", "filter": filter, "radius": null});
        let cases = [
            (Transform, json!({"op": "saturate", "level": 64}), false),
            (Transform, json!({"op": "sample", "count": 3}), true),
            (Transform, fourier("low_pass"), false),
            (Transform, fourier("random"), true),
            (Transform, json!({"op": "corrupt", "kind": "shot_noise", "severity": 1}), true),
            (Transform, json!({"op": "corrupt", "kind": "contrast", "severity": 1}), false),
            (Saliency, saliency("smoothgrad"), true),
            (Saliency, saliency("integrated_gradients"), false),
            (Pretrained, json!({"net": {"arch": "resnet", "width": 8, "blocks": [1]}}), false),
            (Pretrained, json!({"net": {"arch": "resnet", "width": 8, "blocks": [1]}, "head": "replace"}), true),
            (Train, json!({}), true),
            (Table, json!({}), false),
        ];
        for (kind, params, does) in cases {
            assert_eq!(draws(kind, &params), does, "{kind} {params}");
        }
    }
}
