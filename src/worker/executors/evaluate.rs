//! Classifies every image of a set with a model, with or without an attack.

use std::rc::Rc;

use atflow::formats::{Ensemble, Predictions, UnderAttack};
use atflow::protocol::ProgressMetrics;
use atflow::stage_kinds::{Attack, EvaluateParams, Iterate, Precision, Radius};
use serde_json::Value as Json;
use tch::{Device, Kind, TchError, Tensor};

use super::{check_fit, grouped, limited, percent, radii};
use crate::attacks::{self, AttackedModel, Batch, GradientStats};
use crate::attacks::{SubAttack, adversary};
use crate::checkpoint::Checkpoint;
use crate::context::{Context, Report, Reporter};
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::{Frozen, Network};
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
    let source = match context.inputs("source").first() {
        Some(source) => Some(attackable(context.checkpoint(source)?, &set, &params.attack)?),
        None => None,
    };
    let count = limited(set.len(), params.limit)?;
    let attacked = source.as_ref().unwrap_or(&model);
    let sub_attacks = adversary(&params.attack).sub_attacks(attacked.logits(), "attack")?;
    let network = model.network.freeze()?;
    let source = source.as_ref().map(|source| source.network.freeze()).transpose()?;
    let halved = match params.search {
        Precision::Fp32 => None,
        Precision::Bf16 => Some(searchable(attacked, &params.attack)?.freeze_as(Kind::BFloat16)?),
    };
    let attacked = source.as_deref().unwrap_or(&*network);
    let request = Request {
        attack: &params.attack,
        // What breaks the source may not break the model: images leave by the word of the source alone.
        sub_attacks: sub_attacks.filter(|_| source.is_none()),
        set: &set,
        count,
        batch_size: params.batch_size,
        ranks: params.ranks,
        network: &*network,
        attacked,
        halved: halved.as_deref(),
        rng: context.rng,
    };
    let mut results = if params.eps.is_empty() {
        vec![evaluate(&request, &mut context.reporter)?]
    } else {
        radii::evaluate(&params, &request, &mut context.reporter)?
    };
    let Some(result) = results.last_mut() else { return Err(StageError::setting("eps", "must not be empty")) };
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
    let correct = correct(result);
    let eps: Vec<f64> = params.eps.iter().map(|eps| eps.get()).collect();
    let radii = Radius::of(&eps);
    let outputs = radii.iter().map(|radius| radius.output.as_str()).chain(radii.is_empty().then_some("predictions"));
    for (output, predictions) in outputs.zip(&results) {
        let bytes = predictions
            .to_bytes()
            .map_err(|error| StageError::Encode { output: "predictions", source: error.into() })?;
        context.write(output, &bytes)?;
    }
    if count == 0 {
        return Ok("no images".to_owned());
    }
    let at = eps.last().map_or(String::new(), |eps| format!(" at eps {}", Radius::written(*eps)));
    Ok(format!("accuracy {}{at} (n = {})", percent(correct, count as u64), grouped(count as u64)))
}

/// Returns the checkpoint of `source` if an attack can be made on its network.
fn attackable(source: Rc<Checkpoint>, set: &DeviceSet, attack: &Attack) -> Result<Rc<Checkpoint>, StageError> {
    if matches!(attack, Attack::None(_)) {
        return Err(StageError::setting("attack", "must be an attack, because there is a `source` to make it on"));
    }
    check_fit(&source, set)?;
    Ok(source)
}

/// Returns the network of a checkpoint if an attack on it can search in 16 bits.
fn searchable<'a>(attacked: &'a Checkpoint, attack: &Attack) -> Result<&'a dyn Network, StageError> {
    let wrong = |problem| Err(StageError::setting("search", problem));
    if matches!(attack, Attack::None(_)) {
        return wrong("must be left out: there is no attack that could search");
    }
    if attacked.network.program().is_some() {
        return wrong("must be left out: a TorchScript network computes in 32-bit floats");
    }
    Ok(&*attacked.network)
}

fn correct(result: &Predictions) -> u64 {
    (0..result.len()).filter(|&index| result.correct(index)).count() as u64
}

/// An evaluation request.
pub(super) struct Request<'a> {
    pub(super) attack: &'a Attack,
    /// The attacks that it consists of, each run in turn; `None` runs it as a whole.
    pub(super) sub_attacks: Option<Vec<SubAttack>>,
    pub(super) set: &'a DeviceSet,
    /// The number of images; the first ones of the set are used.
    pub(super) count: usize,
    /// Images computed at once.
    pub(super) batch_size: u32,
    /// Whether to keep the ranks of the true class and of the texture's.
    pub(super) ranks: bool,
    pub(super) network: &'a dyn Frozen,
    /// The network that the attack is made on: the network that judges, or another one.
    pub(super) attacked: &'a dyn Frozen,
    /// The attacked network in 16 bits, if the search computes in these.
    pub(super) halved: Option<&'a dyn Frozen>,
    pub(super) rng: Rng,
}

/// Classifies images under an attack. The caller records the attack's parameters.
///
/// # Errors
/// [`StageError::NotFinite`], [`StageError::Torch`], or the error that cancels the stage.
pub(super) fn evaluate(request: &Request<'_>, reporter: &mut Reporter<'_>) -> Result<Predictions, StageError> {
    let result = request.empty();
    let mut evaluation = Evaluation { request, reporter, gradient_stats: GradientStats::default(), result };
    let ensemble = match &request.sub_attacks {
        None => evaluation.at_once()?,
        Some(sub_attacks) => Some(evaluation.in_turn(sub_attacks)?),
    };
    let gradients = evaluation.gradient_stats.gradients();
    let under = |iterate: Iterate| UnderAttack {
        iterate: iterate.name().to_owned(),
        gradients,
        ensemble,
        ..UnderAttack::default()
    };
    Ok(Predictions { attack: request.attack.iterate().map(under), ..evaluation.result })
}

impl Request<'_> {
    /// Computes the ranks of the true class and of the texture's, as far as they are asked for.
    fn ranks(&self, logits: &Tensor, labels: &Tensor, indices: &[u64]) -> Result<[Option<Vec<i32>>; 2], StageError> {
        let &Request { set, ranks, .. } = self;
        if !ranks {
            return Ok([None, None]);
        }
        let textures = set.texture.as_ref().map(|texture| {
            let classes: Vec<i64> = indices.iter().map(|&index| i64::from(texture[index as usize])).collect();
            Tensor::f_from_slice(&classes)?.f_to_device(logits.device())
        });
        let ranks = |classes: &Tensor| Ok::<_, StageError>(Vec::<i32>::try_from(rank(logits, classes)?)?);
        Ok([Some(ranks(labels)?), textures.transpose()?.as_ref().map(ranks).transpose()?])
    }

    /// Returns the network that the attack is made on, with what the attack needs; see [`AttackedModel::new`].
    pub(super) fn victim<'b>(
        &'b self,
        check_cancelled: &'b mut dyn FnMut() -> Result<(), StageError>,
        stats: &'b mut GradientStats,
    ) -> AttackedModel<'b> {
        let network = self.halved.unwrap_or(self.attacked);
        AttackedModel::new(network, self.rng, check_cancelled)
            .counted(stats)
            .settled_by(self.halved.map(|_| self.attacked))
    }

    /// Returns predictions without any yet.
    pub(super) fn empty(&self) -> Predictions {
        let &Request { set, count, .. } = self;
        Predictions {
            labels: set.host_labels[..count].to_vec(),
            texture: set.texture.as_ref().map(|texture| texture[..count].to_vec()),
            label_rank: self.ranks.then(|| vec![0; count]),
            texture_rank: set.texture.as_ref().filter(|_| self.ranks).map(|_| vec![0; count]),
            predicted: vec![-1; count],
            probability: vec![0.0; count],
            loss: vec![0.0; count],
            attack: None,
        }
    }
}

/// An evaluation in progress.
struct Evaluation<'a, 'r> {
    request: &'a Request<'a>,
    reporter: &'a mut Reporter<'r>,
    gradient_stats: GradientStats,
    result: Predictions,
}

/// The model's output for one image.
pub(super) struct Output {
    pub(super) index: usize,
    pub(super) predicted: i32,
    probability: f32,
    pub(super) loss: f32,
    /// The ranks of the true class and of the texture's, as far as they are asked for.
    ranks: [Option<i32>; 2],
}

impl Output {
    /// Records it; returns whether it is correct.
    pub(super) fn record(&self, result: &mut Predictions) -> bool {
        result.predicted[self.index] = self.predicted;
        result.probability[self.index] = self.probability;
        result.loss[self.index] = self.loss;
        let Predictions { label_rank, texture_rank, .. } = &mut *result;
        for (ranks, rank) in [label_rank, texture_rank].into_iter().zip(self.ranks) {
            if let (Some(ranks), Some(rank)) = (ranks, rank) {
                ranks[self.index] = rank;
            }
        }
        result.correct(self.index)
    }
}

impl Evaluation<'_, '_> {
    /// Evaluates every image under the whole attack.
    fn at_once(&mut self) -> Result<Option<Ensemble>, StageError> {
        let attack = self.request.attack;
        let (count, mut correct) = (self.result.len() as u64, 0);
        let indices: Vec<u64> = (0..count).collect();
        for indices in indices.chunks(self.request.batch_size as usize) {
            for output in self.outputs(indices, |victim, batch| attacks::perturb_model(attack, victim, batch))? {
                correct += u64::from(self.record(&output));
            }
            let done = indices[indices.len() - 1] + 1;
            self.reporter.progress(done, count, || {
                let (at, of, accuracy) = (grouped(done), grouped(count), percent(correct, done));
                report(format!("image {at}/{of}  accuracy {accuracy}"), correct as f64 / done as f64)
            })?;
        }
        Ok(None)
    }

    /// Evaluates every clean image, then runs each attack in turn on the images still correct, in full batches.
    fn in_turn(&mut self, sub_attacks: &[SubAttack]) -> Result<Ensemble, StageError> {
        let count = self.result.len() as u64;
        let mut broken_by = vec![-1; self.result.len()];
        let mut right: Vec<u64> = Vec::new();
        for indices in (0..count).collect::<Vec<_>>().chunks(self.request.batch_size as usize) {
            let outputs = self.outputs(indices, |_, batch| Ok(batch.images.shallow_clone()))?;
            right.extend(outputs.iter().filter(|output| self.record(output)).map(|output| output.index as u64));
        }
        let runs: u64 = sub_attacks.iter().map(|sub_attack| u64::from(sub_attack.runs)).sum();
        let mut before = 0;
        for (sub_attack, broken) in sub_attacks.iter().zip(0..) {
            for run in 0..sub_attack.runs {
                let mut left = Vec::with_capacity(right.len());
                for (at, indices) in right.chunks(self.request.batch_size as usize).enumerate() {
                    for output in
                        self.outputs(indices, |victim, batch| adversary(&sub_attack.attack).run(victim, batch, run))?
                    {
                        let is_right = output.predicted == self.result.labels[output.index];
                        if !is_right {
                            broken_by[output.index] = broken;
                        } else {
                            left.push(output.index as u64);
                        }
                        if !is_right || output.loss > self.result.loss[output.index] {
                            self.record(&output);
                        }
                    }
                    let looked_at = (at * self.request.batch_size as usize + indices.len()) as u64;
                    let robust = right.len() as u64 - (looked_at - left.len() as u64);
                    let done = before + looked_at * count / right.len() as u64;
                    self.reporter.progress(done, runs * count, || {
                        let (name, run, runs, robust) =
                            (sub_attack.name, run + 1, sub_attack.runs, percent(robust, count));
                        let (at, of) = (grouped(looked_at), grouped(right.len() as u64));
                        let message = format!("{name} {run}/{runs}  image {at}/{of}  accuracy {robust}");
                        report(message, (right.len() + left.len() - looked_at as usize) as f64 / count as f64)
                    })?;
                }
                right = left;
                before += count;
            }
            if count > 0 {
                let (right, of) = (right.len() as u64, grouped(count));
                self.reporter.log(format!("accuracy {} of {of} after {}", percent(right, count), sub_attack.name));
            }
        }
        Ok(Ensemble { attacks: sub_attacks.iter().map(|sub_attack| sub_attack.name.to_owned()).collect(), broken_by })
    }

    /// Records the model's output for an image; returns whether it is correct.
    fn record(&mut self, output: &Output) -> bool {
        output.record(&mut self.result)
    }

    /// Perturbs some images and classifies the results.
    fn outputs(
        &mut self,
        indices: &[u64],
        perturb: impl FnOnce(&mut AttackedModel<'_>, &Batch<'_>) -> Result<Tensor, StageError>,
    ) -> Result<Vec<Output>, StageError> {
        let &Request { set, .. } = self.request;
        let (images, labels) = set.batch(indices)?;
        let batch = Batch { images: &images, labels: &labels, indices, epoch: 0 };
        let reporter = &mut *self.reporter;
        let mut check_cancelled = || reporter.check_cancelled();
        let mut victim = self.request.victim(&mut check_cancelled, &mut self.gradient_stats);
        let points = perturb(&mut victim, &batch)?;
        let outputs = outputs_of(self.request, &points, &labels, indices)?;
        self.reporter.count_images(indices.len());
        Ok(outputs)
    }
}

/// Classifies points (N × C × H × W) with the network that judges; `indices` are those of their images in the set.
pub(super) fn outputs_of(
    request: &Request<'_>,
    points: &Tensor,
    labels: &Tensor,
    indices: &[u64],
) -> Result<Vec<Output>, StageError> {
    let logits = request.network.forward(points)?;
    let [predicted, probability, loss] = predict(&logits, labels)?;
    let (predicted, probability) = (Vec::<i32>::try_from(predicted)?, Vec::<f32>::try_from(probability)?);
    let losses = Vec::<f32>::try_from(loss)?;
    if let Some(at) = losses.iter().position(|loss| !loss.is_finite()) {
        return Err(StageError::NotFinite { index: indices[at] as usize });
    }
    let ranks = request.ranks(&logits, labels, indices)?;
    let outputs = indices.iter().zip(predicted).zip(probability).zip(losses).enumerate();
    let output = |(at, (((&index, predicted), probability), loss)): (usize, _)| {
        let ranks = ranks.each_ref().map(|ranks| ranks.as_ref().map(|ranks: &Vec<i32>| ranks[at]));
        Output { index: index as usize, predicted, probability, loss, ranks }
    };
    Ok(outputs.map(output).collect())
}

/// Returns a report whose only number is an accuracy, 0 to 1.
pub(super) fn report(message: String, accuracy: f64) -> Report {
    Report { message, metrics: ProgressMetrics { accuracy: Some(accuracy), ..ProgressMetrics::default() } }
}

/// Computes the rank of a class of each image among its logits (N × classes), 1 for the largest: I32, N, on the CPU.
///
/// Of equal logits the first class ranks first, as in `argmax`.
fn rank(logits: &Tensor, classes: &Tensor) -> Result<Tensor, TchError> {
    let classes = classes.f_unsqueeze(1)?;
    let own = logits.f_gather(1, &classes, false)?;
    let order = Tensor::f_arange(logits.size()[1], (Kind::Int64, logits.device()))?;
    let before = logits.f_eq_tensor(&own)?.f_logical_and(&order.f_lt_tensor(&classes)?)?;
    let count =
        logits.f_gt_tensor(&own)?.f_logical_or(&before)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Int)?;
    count.f_add_scalar(1)?.f_to_device(Device::Cpu)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_larger_logits_and_earlier_equals() {
        let logits = Tensor::from_slice2(&[[0.5_f32, 2.0, 0.5, -1.0], [1.0, 1.0, 1.0, 1.0]]);
        for (classes, expected) in [([1_i64, 0], [1, 1]), ([0, 1], [2, 2]), ([2, 2], [3, 3]), ([3, 3], [4, 4])] {
            let found = rank(&logits, &Tensor::from_slice(&classes)).unwrap();
            assert_eq!(Vec::<i32>::try_from(found).unwrap(), expected);
        }
    }
}
