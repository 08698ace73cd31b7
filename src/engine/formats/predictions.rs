//! Predictions: what a model said of each image of a set, in the order of the set.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{FormatError, f32s, i32_bytes, i32s, optional_i32s, read_metadata, tensor, write};

const ARTIFACT: &str = "predictions file";
const FORMAT: &str = "predictions/1";

/// What a model said of each image of a set; all of the same length, in the order of the set.
///
/// File: tensors `labels`, `predicted`, of a cue-conflict set `texture`, on request `label_rank` and `texture_rank`,
/// under several attacks `broken_by`, and at several radii `broken_at`, I32, and `probability` and `loss`, F32, all of
/// shape N; metadata `{"format": "predictions/1"}` and, under an attack, what [`UnderAttack`] says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// The true class.
    pub labels: Vec<i32>,
    /// In a cue-conflict set: the class whose texture the image wears.
    pub texture: Option<Vec<i32>>,
    /// The rank of the true class among the logits, from 1 for the largest; of equal logits the first class ranks
    /// first. Nothing where the evaluation was not asked for it.
    pub label_rank: Option<Vec<i32>>,
    /// The same of the texture's class.
    pub texture_rank: Option<Vec<i32>>,
    /// The class with the largest logit; the first of equals.
    pub predicted: Vec<i32>,
    /// Softmax probability of the true class, 0 to 1.
    pub probability: Vec<f32>,
    /// Cross-entropy of the true class, in nats.
    pub loss: Vec<f32>,
    /// The attack that the images were under; nothing for images as they are.
    pub attack: Option<UnderAttack>,
}

/// What was done to the images before they were predicted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnderAttack {
    /// The attack's parameters, in canonical form. Metadata `attack`.
    pub spec: Json,
    /// Which of the visited points was given back: `last`, `best_loss` or `worst_case`. Metadata `iterate`.
    pub iterate: String,
    /// What the gradients were that the attack began with; nothing for an attack without. Metadata `gradients`.
    pub gradients: Option<Gradients>,
    /// Where each attack saw only what the ones before it left. Metadata `attacks` and tensor `broken_by`.
    pub ensemble: Option<Ensemble>,
    /// Where the attack was run at several radii, of which this is the largest. Metadata `eps` and tensor `broken_at`.
    pub radii: Option<Radii>,
}

/// Images by the gradient that an attack began with. Zeros and what is not finite tell of masked gradients: robustness
/// that is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gradients {
    /// Images that a gradient was computed for while they were classified correctly: others there is nothing to do for.
    pub images: u64,
    /// Those whose gradient is zero at every pixel.
    pub zero: u64,
    /// Those whose gradient is infinite or not a number at some pixel; an attack takes it as large or as zero there.
    pub not_finite: u64,
}

/// Which of several attacks broke each image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ensemble {
    /// The names of the attacks, in their order.
    pub attacks: Vec<String>,
    /// For each image the index of the attack that found it misclassified first; −1 where none did, or where there was
    /// nothing to break.
    pub broken_by: Vec<i32>,
}

/// The smallest of several radii that broke each image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Radii {
    /// The radii, in pixel units of [0, 1], ascending.
    pub eps: Vec<f64>,
    /// For each image the index of the smallest radius at which it is misclassified; −1 where it withstands all.
    pub broken_at: Vec<i32>,
}

impl Radii {
    /// The smallest radius that breaks an image; nothing where none does.
    pub fn smallest(&self, index: usize) -> Option<f64> {
        self.eps.get(usize::try_from(self.broken_at[index]).ok()?).copied()
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attack: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iterate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gradients: Option<Gradients>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attacks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eps: Option<Vec<f64>>,
}

impl Predictions {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether the image at `index` is classified correctly.
    pub fn correct(&self, index: usize) -> bool {
        self.predicted[index] == self.labels[index]
    }

    /// The predictions as a file.
    ///
    /// # Errors
    /// [`FormatError::Safetensors`] if they are not equally long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let shape = || vec![self.labels.len()];
        let (labels, predicted) = (i32_bytes(&self.labels), i32_bytes(&self.predicted));
        let optional = [
            ("texture", self.texture.as_deref().map(i32_bytes)),
            ("label_rank", self.label_rank.as_deref().map(i32_bytes)),
            ("texture_rank", self.texture_rank.as_deref().map(i32_bytes)),
        ];
        let (probability, loss) = (floats(&self.probability), floats(&self.loss));
        let mut tensors = vec![
            ("labels", TensorView::new(Dtype::I32, shape(), &labels)?),
            ("predicted", TensorView::new(Dtype::I32, shape(), &predicted)?),
            ("probability", TensorView::new(Dtype::F32, shape(), &probability)?),
            ("loss", TensorView::new(Dtype::F32, shape(), &loss)?),
        ];
        for (name, values) in &optional {
            if let Some(values) = values {
                tensors.push((name, TensorView::new(Dtype::I32, shape(), values)?));
            }
        }
        let attack = self.attack.as_ref();
        let ensemble = attack.and_then(|attack| attack.ensemble.as_ref());
        let broken_by = ensemble.map(|ensemble| i32_bytes(&ensemble.broken_by));
        if let Some(broken_by) = &broken_by {
            tensors.push(("broken_by", TensorView::new(Dtype::I32, shape(), broken_by)?));
        }
        let radii = attack.and_then(|attack| attack.radii.as_ref());
        let broken_at = radii.map(|radii| i32_bytes(&radii.broken_at));
        if let Some(broken_at) = &broken_at {
            tensors.push(("broken_at", TensorView::new(Dtype::I32, shape(), broken_at)?));
        }
        let metadata = Metadata {
            format: FORMAT.to_owned(),
            attack: attack.map(|attack| attack.spec.clone()),
            iterate: attack.map(|attack| attack.iterate.clone()),
            gradients: attack.and_then(|attack| attack.gradients),
            attacks: ensemble.map(|ensemble| ensemble.attacks.clone()),
            eps: radii.map(|radii| radii.eps.clone()),
        };
        write(tensors, &metadata)
    }

    /// Reads predictions from a file's bytes.
    ///
    /// # Errors
    /// Any [`FormatError`]: other bytes, another version, tensors of different lengths.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let metadata: Metadata = read_metadata(ARTIFACT, bytes)?;
        if metadata.format != FORMAT {
            let reason = format!("its format is `{}`, this version reads `{FORMAT}`", metadata.format);
            return Err(FormatError::Metadata { artifact: ARTIFACT, reason });
        }
        let file = SafeTensors::deserialize(bytes)?;
        let column = |name, dtype| tensor(ARTIFACT, &file, name, dtype);
        let labels = i32s(column("labels", Dtype::I32)?.data());
        let predicted = i32s(column("predicted", Dtype::I32)?.data());
        let probability = f32s(column("probability", Dtype::F32)?.data());
        let loss = f32s(column("loss", Dtype::F32)?.data());
        for (name, len) in [("predicted", predicted.len()), ("probability", probability.len()), ("loss", loss.len())] {
            if len != labels.len() {
                return Err(FormatError::Tensor { artifact: ARTIFACT, tensor: name });
            }
        }
        let optional = |tensor: &'static str| {
            let values = optional_i32s(ARTIFACT, &file, tensor)?;
            let fits = values.as_ref().is_none_or(|values| values.len() == labels.len());
            if fits { Ok(values) } else { Err(FormatError::Tensor { artifact: ARTIFACT, tensor }) }
        };
        let (texture, broken_by, broken_at) = (optional("texture")?, optional("broken_by")?, optional("broken_at")?);
        let (label_rank, texture_rank) = (optional("label_rank")?, optional("texture_rank")?);
        let Metadata { attack, iterate, gradients, attacks, eps, .. } = metadata;
        let radii = eps.zip(broken_at).map(|(eps, broken_at)| Radii { eps, broken_at });
        let ensemble = attacks.zip(broken_by).map(|(attacks, broken_by)| Ensemble { attacks, broken_by });
        // Parameters that are `null` look as though there were none; what else is said of an attack tells.
        let is_attacked =
            attack.is_some() || iterate.is_some() || gradients.is_some() || ensemble.is_some() || radii.is_some();
        let (spec, iterate) = (attack.unwrap_or_default(), iterate.unwrap_or_default());
        let attack = is_attacked.then_some(UnderAttack { spec, iterate, gradients, ensemble, radii });
        Ok(Predictions { labels, texture, label_rank, texture_rank, predicted, probability, loss, attack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_survive_a_round_trip_and_other_files_are_refused() {
        let some = Predictions {
            labels: vec![0, 1, 2],
            texture: Some(vec![1, 0, 0]),
            label_rank: Some(vec![1, 3, 1]),
            texture_rank: Some(vec![2, 1, 3]),
            predicted: vec![0, 2, 2],
            probability: vec![0.9, 0.25, 0.5],
            loss: vec![0.1, 1.4, 0.7],
            attack: None,
        };
        let bytes = some.to_bytes().unwrap();
        assert_eq!(Predictions::from_bytes(&bytes).unwrap(), some);
        assert!(!some.correct(1) && some.correct(2));
        assert!(Predictions::from_bytes(&bytes[..bytes.len() - 2]).is_err());
        assert!(super::super::ImageSet::from_bytes(&bytes).is_err());
        let attacks = vec!["apgd_ce".to_owned(), "square".to_owned()];
        let attack = UnderAttack {
            spec: serde_json::json!({"attack": "autoattack", "eps": 0.5}),
            iterate: "worst_case".to_owned(),
            gradients: Some(Gradients { images: 2, zero: 1, not_finite: 0 }),
            ensemble: Some(Ensemble { attacks, broken_by: vec![-1, -1, 1] }),
            radii: Some(Radii { eps: vec![0.25, 0.5], broken_at: vec![-1, 0, 1] }),
        };
        let mut attacked = Predictions { attack: Some(attack), ..some };
        assert_eq!(Predictions::from_bytes(&attacked.to_bytes().unwrap()).unwrap(), attacked);
        let radii = attacked.attack.as_ref().unwrap().radii.as_ref().unwrap();
        assert_eq!([0, 1, 2].map(|index| radii.smallest(index)), [None, Some(0.25), Some(0.5)]);
        attacked.attack.as_mut().unwrap().spec = Json::Null;
        assert_eq!(Predictions::from_bytes(&attacked.to_bytes().unwrap()).unwrap(), attacked);
    }
}
