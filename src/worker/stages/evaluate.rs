//! Predicts every image of a set with a model, under an attack or none.

use atflow::formats::Predictions;
use atflow::kinds::EvaluateParams;
use tch::{Kind, TchError, Tensor};

use super::{check_fit, grouped, limited, percent};
use crate::attacks::{self, Batch};
use crate::context::Context;
use crate::error::StageError;

/// Runs an `evaluate` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: EvaluateParams = context.params()?;
    if params.batch_size == 0 {
        return Err(StageError::setting("batch_size", "must be at least 1"));
    }
    attacks::check(&params.attack, "attack")?;
    let (model, set) = (context.input("model")?, context.input("set")?);
    let (model, set) = (context.checkpoint(model)?, context.set(set)?);
    check_fit(&model, &set)?;
    let count = limited(set.len(), params.limit)?;
    let network = model.network.freeze()?;
    let mut result = Predictions {
        labels: set.host_labels[..count].to_vec(),
        texture: set.texture.as_ref().map(|texture| texture[..count].to_vec()),
        predicted: Vec::with_capacity(count),
        probability: Vec::with_capacity(count),
        loss: Vec::with_capacity(count),
    };
    let mut correct = 0;
    let indices: Vec<u64> = (0..count as u64).collect();
    for indices in indices.chunks(params.batch_size as usize) {
        let (images, labels) = set.batch(indices)?;
        let batch = Batch { images: &images, labels: &labels, indices, epoch: 0 };
        let reporter = &mut context.reporter;
        let images = attacks::perturb(&params.attack, &*network, &batch, context.rng, &mut || reporter.pulse())?;
        let [predicted, probability, loss] = predict(&network.forward(&images)?, &labels)?;
        let start = result.predicted.len();
        result.predicted.extend(Vec::<i32>::try_from(predicted)?);
        result.probability.extend(Vec::<f32>::try_from(probability)?);
        result.loss.extend(Vec::<f32>::try_from(loss)?);
        if let Some(at) = result.loss[start..].iter().position(|loss| !loss.is_finite()) {
            return Err(StageError::NotFinite { index: start + at });
        }
        let done = result.predicted.len();
        correct += (start..done).filter(|&index| result.correct(index)).count() as u64;
        reporter.progress(done as u64, count as u64, || {
            let (done, count) = (done as u64, count as u64);
            format!("image {}/{}  accuracy {}", grouped(done), grouped(count), percent(correct, done))
        })?;
    }
    let bytes =
        result.to_bytes().map_err(|error| StageError::Encode { output: "predictions", source: error.into() })?;
    context.write("predictions", &bytes)?;
    if count == 0 {
        return Ok("no images".to_owned());
    }
    Ok(format!("accuracy {} (n = {})", percent(correct, count as u64), grouped(count as u64)))
}

/// Of logits (N × classes) and true classes: the predicted class (I32), the softmax probability and the cross-entropy of the true class
/// (F32), each of shape N and in ordinary memory.
fn predict(logits: &Tensor, labels: &Tensor) -> Result<[Tensor; 3], TchError> {
    let logs = logits.f_log_softmax(1, Kind::Float)?;
    let truth = logs.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    // Of equal logits argmax takes the first.
    let predicted = logits.f_argmax(1, false)?.f_to_kind(Kind::Int)?;
    let host = |tensor: Tensor| tensor.f_to_device(tch::Device::Cpu);
    Ok([host(predicted)?, host(truth.f_exp()?)?, host(truth.f_neg()?)?])
}
