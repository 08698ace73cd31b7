//! Evaluation as parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::train::Precision;
use crate::number::Real;

/// Predicts every image of a set with a model, under an attack or none, and keeps the prediction of each. Attacks that
/// consist of several are run one after the other, each on full batches of the images that are still right.
///
/// Needs: `model`, a checkpoint; `set`, an image set; `source`, another checkpoint (optional). Output: `predictions`;
/// with a list `eps`, also one for each smaller radius: `eps_2_255` for 2/255, `eps_0p5` for 0.5.
///
/// With `source` the attack is made on that network, and `model` only judges the images that it gives: transfer from
/// one network to another. All that an attack asks of a network it asks of `source`, and images are done when `source`
/// is wrong. So the predictions do not say which attack of several broke an image. `source` needs an attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateParams {
    /// The attack, against the true label of each image.
    #[serde(default)]
    pub attack: Attack,
    /// Radii that the attack is run at, in pixel units of [0, 1], ascending; the last one is the `eps` of the attack.
    /// An image that is broken at a radius is broken at all larger ones, and not attacked again. The search at a radius
    /// starts where that at the one before it ended (PGD, APGD). Steps of PGD and FGSM shrink with the radius. At 0
    /// there is no attack. Tables and figures have the radii as the coordinate `STAGE.eps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eps: Vec<Real>,
    /// Images computed at a time; changes results by rounding only, but for the attack `spatial`, which moves a batch
    /// as one.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1))]
    pub batch_size: u32,
    /// Only the first so many images of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
    /// What the attack computes in. With `bf16` it searches in 16 bits; the prediction of the image that it finds is
    /// always computed in 32. Of a built-in network, and with an attack.
    #[serde(default, skip_serializing_if = "Precision::is_fp32")]
    pub search: Precision,
    /// Also keeps the rank of the true class among all logits, and of a cue-conflict set that of the texture's class,
    /// for the metrics `shape_reciprocal_rank` and `texture_reciprocal_rank`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ranks: bool,
}

/// What is wrong with a list of radii.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadiiProblem {
    /// The place in the list; `None` for the list as a whole.
    pub at: Option<usize>,
    /// What is wrong; reads on after the parameter's name.
    pub problem: String,
}

impl EvaluateParams {
    /// Checks the list of radii against the attack.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_radii(&self) -> Result<(), RadiiProblem> {
        let wrong = |at, problem: String| Err(RadiiProblem { at, problem });
        let Some(largest) = self.eps.last() else { return Ok(()) };
        if let Some(at) = self.eps.iter().position(|eps| eps.get() < 0.0) {
            return wrong(Some(at), "must not have a radius below 0".to_owned());
        }
        if let Some(at) = self.eps.windows(2).position(|pair| pair[0] >= pair[1]) {
            return wrong(Some(at + 1), "must ascend, and have no radius twice".to_owned());
        }
        match self.attack.within(*largest) {
            None => wrong(
                None,
                "needs an attack that searches a ball: fgsm, pgd, apgd, malt, fab, square, autoattack".to_owned(),
            ),
            Some(_) if largest.get() <= 0.0 => wrong(None, "must have a radius above 0".to_owned()),
            Some(attack) if attack != self.attack => {
                wrong(Some(self.eps.len() - 1), "must end with the `eps` of the attack".to_owned())
            }
            Some(_) => Ok(()),
        }
    }
}

fn default_batch_size() -> u32 {
    256
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(attack: &Json, eps: &Json) -> EvaluateParams {
        serde_json::from_value(json!({"attack": attack, "eps": eps})).unwrap()
    }

    #[test]
    fn a_list_of_radii_ascends_to_that_of_the_attack() {
        let pgd = json!({"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": 3});
        assert_eq!(read(&pgd, &json!([0, "2/255", "8/255"])).check_radii(), Ok(()));
        assert_eq!(read(&pgd, &json!([])).check_radii(), Ok(()));
        let place = |attack: &Json, eps: Json| read(attack, &eps).check_radii().unwrap_err().at;
        assert_eq!(place(&pgd, json!([-0.1, "8/255"])), Some(0));
        assert_eq!(place(&pgd, json!([0, "4/255", "2/255", "8/255"])), Some(2));
        assert_eq!(place(&pgd, json!(["8/255", "8/255"])), Some(1));
        assert_eq!(place(&pgd, json!([0, "4/255"])), Some(1), "the attack has 8/255");
        assert_eq!(place(&json!({"attack": "none"}), json!([0])), None);
        assert_eq!(place(&json!({"attack": "cw", "eps": 1}), json!([0.5, 1])), None, "it looks for the nearest itself");
        assert_eq!(place(&json!({"attack": "fgsm", "eps": 0}), json!([0])), None);
    }

    #[test]
    fn a_smaller_ball_has_smaller_steps() {
        let within = |attack: Json| {
            let attack: Attack = serde_json::from_value(attack).unwrap();
            serde_json::to_value(attack.within(Real::new(0.25)).unwrap()).unwrap()
        };
        let pgd = within(json!({"attack": "pgd", "eps": 0.5, "step": 0.125, "steps": 3}));
        assert_eq!((&pgd["eps"], &pgd["step"]), (&json!(0.25), &json!(0.0625)));
        let fgsm = within(json!({"attack": "fgsm", "eps": 0.5}));
        assert_eq!((&fgsm["eps"], &fgsm["step"]), (&json!(0.25), &Json::Null));
        let more = json!({"attack": "autoattack", "eps": 0.5, "pgd": {"eps": 0.5, "step": 0.125, "steps": 3}});
        let more = within(more);
        assert_eq!(
            (&more["eps"], &more["pgd"]["eps"], &more["pgd"]["step"]),
            (&json!(0.25), &json!(0.25), &json!(0.0625))
        );
    }

    /// Results without a list keep their keys.
    #[test]
    fn without_radii_there_is_no_such_parameter() {
        let params: EvaluateParams = serde_json::from_value(json!({})).unwrap();
        let expected = json!({"attack": {"attack": "none"}, "batch_size": 256});
        assert_eq!(serde_json::to_value(params).unwrap(), expected);
    }
}
