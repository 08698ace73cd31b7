//! Classifies every image of a set with a model, with or without an attack.

use atflow::formats::{Ensemble, Predictions, UnderAttack};
use atflow::stage_kinds::{Attack, EvaluateParams, Iterate};
use serde_json::Value as Json;
use tch::{Device, Kind, TchError, Tensor};

use super::{check_fit, grouped, limited, percent};
use crate::attacks::{self, AttackedModel, Batch, GradientStats};
use crate::attacks::{AttackRun, adversary};
use crate::context::{Context, Reporter};
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

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
    let parts = adversary(&params.attack).parts(model.logits(), "attack")?;
    let network = model.network.freeze()?;
    let question = Question {
        attack: &params.attack,
        parts,
        set: &set,
        count,
        batch_size: params.batch_size,
        network: &*network,
        rng: context.rng,
    };
    let mut result = evaluate(&question, &mut context.reporter)?;
    if let Some(attack) = &mut result.attack {
        attack.spec = context.job.params.get("attack").cloned().unwrap_or(Json::Null);
        if let Some(gradients) = attack.gradients {
            let [images, zero, not_finite] = [gradients.images, gradients.zero, gradients.not_finite].map(grouped);
            let line =
                format!("first gradients of {images} images that are right: {zero} zero, {not_finite} not finite");
            context.reporter.log(line);
            if gradients.zero == gradients.images {
                return Err(StageError::NoGradient { images: gradients.images });
            }
        }
    }
    let bytes =
        result.to_bytes().map_err(|error| StageError::Encode { output: "predictions", source: error.into() })?;
    context.write("predictions", &bytes)?;
    if count == 0 {
        return Ok("no images".to_owned());
    }
    let correct = correct(&result);
    Ok(format!("accuracy {} (n = {})", percent(correct, count as u64), grouped(count as u64)))
}

fn correct(result: &Predictions) -> u64 {
    (0..result.len()).filter(|&index| result.correct(index)).count() as u64
}

/// An evaluation request.
pub(super) struct Question<'a> {
    pub(super) attack: &'a Attack,
    /// The parts of the attack.
    pub(super) parts: Option<Vec<AttackRun>>,
    pub(super) set: &'a DeviceSet,
    /// The number of images; the first ones of the set are used.
    pub(super) count: usize,
    /// Images computed at once.
    pub(super) batch_size: u32,
    pub(super) network: &'a dyn Frozen,
    pub(super) rng: Rng,
}

/// Classifies images under an attack. The caller records the attack's parameters.
///
/// # Errors
/// [`StageError::NotFinite`], [`StageError::Torch`], or the error that cancels the stage.
pub(super) fn evaluate(question: &Question<'_>, reporter: &mut Reporter<'_>) -> Result<Predictions, StageError> {
    let &Question { set, count, .. } = question;
    let result = Predictions {
        labels: set.host_labels[..count].to_vec(),
        texture: set.texture.as_ref().map(|texture| texture[..count].to_vec()),
        predicted: vec![-1; count],
        probability: vec![0.0; count],
        loss: vec![0.0; count],
        attack: None,
    };
    let mut evaluation = Evaluation { question, reporter, tally: GradientStats::default(), result };
    let ensemble = match &question.parts {
        None => evaluation.at_once()?,
        Some(parts) => Some(evaluation.part_by_part(parts)?),
    };
    let gradients = evaluation.tally.gradients();
    let under =
        |iterate: Iterate| UnderAttack { spec: Json::Null, iterate: iterate.name().to_owned(), gradients, ensemble };
    Ok(Predictions { attack: question.attack.iterate().map(under), ..evaluation.result })
}

/// An evaluation in progress.
struct Evaluation<'a, 'r> {
    question: &'a Question<'a>,
    reporter: &'a mut Reporter<'r>,
    tally: GradientStats,
    result: Predictions,
}

/// The model's output for one image.
struct Row {
    index: usize,
    predicted: i32,
    probability: f32,
    loss: f32,
}

impl Evaluation<'_, '_> {
    /// Evaluates every image under the whole attack.
    fn at_once(&mut self) -> Result<Option<Ensemble>, StageError> {
        let attack = self.question.attack;
        let (count, mut correct) = (self.result.len() as u64, 0);
        let indices: Vec<u64> = (0..count).collect();
        for indices in indices.chunks(self.question.batch_size as usize) {
            for row in self.ask(indices, |victim, batch| attacks::perturb_model(attack, victim, batch))? {
                correct += u64::from(self.take(&row));
            }
            let done = indices[indices.len() - 1] + 1;
            self.reporter.progress(done, count, || {
                format!("image {}/{}  accuracy {}", grouped(done), grouped(count), percent(correct, done))
            })?;
        }
        Ok(None)
    }

    /// Evaluates every clean image, then runs each attack in turn on the images still correct, in full batches.
    fn part_by_part(&mut self, parts: &[AttackRun]) -> Result<Ensemble, StageError> {
        let count = self.result.len() as u64;
        let mut broken_by = vec![-1; self.result.len()];
        let mut right: Vec<u64> = Vec::new();
        for indices in (0..count).collect::<Vec<_>>().chunks(self.question.batch_size as usize) {
            let rows = self.ask(indices, |_, batch| Ok(batch.images.shallow_clone()))?;
            right.extend(rows.iter().filter(|row| self.take(row)).map(|row| row.index as u64));
        }
        let runs: u64 = parts.iter().map(|part| u64::from(part.runs)).sum();
        let mut before = 0;
        for (part, broken) in parts.iter().zip(0..) {
            for run in 0..part.runs {
                let mut left = Vec::with_capacity(right.len());
                for (at, indices) in right.chunks(self.question.batch_size as usize).enumerate() {
                    for row in self.ask(indices, |victim, batch| adversary(&part.attack).run(victim, batch, run))? {
                        let is_right = row.predicted == self.result.labels[row.index];
                        if !is_right {
                            broken_by[row.index] = broken;
                        } else {
                            left.push(row.index as u64);
                        }
                        if !is_right || row.loss > self.result.loss[row.index] {
                            self.take(&row);
                        }
                    }
                    let looked_at = (at * self.question.batch_size as usize + indices.len()) as u64;
                    let robust = right.len() as u64 - (looked_at - left.len() as u64);
                    let done = before + looked_at * count / right.len() as u64;
                    self.reporter.progress(done, runs * count, || {
                        let (name, run, runs, robust) = (part.name, run + 1, part.runs, percent(robust, count));
                        let (at, of) = (grouped(looked_at), grouped(right.len() as u64));
                        format!("{name} {run}/{runs}  image {at}/{of}  accuracy {robust}")
                    })?;
                }
                right = left;
                before += count;
            }
            if count > 0 {
                let (right, of) = (right.len() as u64, grouped(count));
                self.reporter.log(format!("accuracy {} of {of} after {}", percent(right, count), part.name));
            }
        }
        Ok(Ensemble { attacks: parts.iter().map(|part| part.name.to_owned()).collect(), broken_by })
    }

    /// Records the model's output for an image; returns whether it is correct.
    fn take(&mut self, row: &Row) -> bool {
        self.result.predicted[row.index] = row.predicted;
        self.result.probability[row.index] = row.probability;
        self.result.loss[row.index] = row.loss;
        self.result.correct(row.index)
    }

    /// Perturbs some images and classifies the results.
    fn ask(
        &mut self,
        indices: &[u64],
        perturb: impl FnOnce(&mut AttackedModel<'_>, &Batch<'_>) -> Result<Tensor, StageError>,
    ) -> Result<Vec<Row>, StageError> {
        let &Question { set, network, rng, .. } = self.question;
        let (images, labels) = set.batch(indices)?;
        let batch = Batch { images: &images, labels: &labels, indices, epoch: 0 };
        let reporter = &mut *self.reporter;
        let mut check_cancelled = || reporter.check_cancelled();
        let mut victim = AttackedModel::new(network, rng, &mut check_cancelled).counted(&mut self.tally);
        let points = perturb(&mut victim, &batch)?;
        let [predicted, probability, loss] = predict(&network.forward(&points)?, &labels)?;
        let (predicted, probability) = (Vec::<i32>::try_from(predicted)?, Vec::<f32>::try_from(probability)?);
        let losses = Vec::<f32>::try_from(loss)?;
        if let Some(at) = losses.iter().position(|loss| !loss.is_finite()) {
            return Err(StageError::NotFinite { index: indices[at] as usize });
        }
        let rows = indices.iter().zip(predicted).zip(probability).zip(losses);
        let row =
            |(((&index, predicted), probability), loss)| Row { index: index as usize, predicted, probability, loss };
        Ok(rows.map(row).collect())
    }
}

/// Computes predictions from logits (N × classes) and true classes, as CPU tensors of shape N.
///
/// Returns the predicted class (I32), and the softmax probability and the cross-entropy of the true class (F32).
fn predict(logits: &Tensor, labels: &Tensor) -> Result<[Tensor; 3], TchError> {
    let logs = logits.f_log_softmax(1, Kind::Float)?;
    let truth = logs.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    // For equal logits argmax takes the first.
    let predicted = logits.f_argmax(1, false)?.f_to_kind(Kind::Int)?;
    let host = |tensor: Tensor| tensor.f_to_device(Device::Cpu);
    Ok([host(predicted)?, host(truth.f_exp()?)?, host(truth.f_neg()?)?])
}
