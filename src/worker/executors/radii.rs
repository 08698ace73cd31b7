//! Classifies every image of a set under one attack at several radii, from the smallest to the largest.
//!
//! An image that is broken at a radius is broken at all larger ones, because its point lies in their balls, too. The
//! other images go on from the points that the radius before left. So accuracy never rises with the radius.

use atflow::formats::{Predictions, Radii, UnderAttack};
use atflow::stage_kinds::{Attack, EvaluateParams, Radius};
use serde_json::Value as Json;
use tch::Tensor;

use super::evaluate::{Output, Request, outputs_of, report};
use super::{grouped, percent};
use crate::attacks::{self, Batch, GradientStats};
use crate::context::Reporter;
use crate::error::StageError;

/// The attack at one radius; none at 0.
struct Step {
    eps: f64,
    attack: Option<Attack>,
}

/// Predictions at each radius, ascending, in the order of [`EvaluateParams::eps`]. The last ones tell at which radius
/// each image broke. The caller records the attack's parameters.
///
/// # Errors
/// As [`super::evaluate::evaluate`].
pub(super) fn evaluate(
    params: &EvaluateParams,
    request: &Request<'_>,
    reporter: &mut Reporter<'_>,
) -> Result<Vec<Predictions>, StageError> {
    params.check_radii().map_err(|wrong| StageError::setting("eps", wrong.problem))?;
    let at = |eps: f64| params.attack.within(atflow::number::Real::new(eps));
    let radii: Vec<f64> = params.eps.iter().map(|eps| eps.get()).collect();
    let steps: Vec<Step> =
        radii.iter().map(|&eps| Step { eps, attack: if eps > 0.0 { at(eps) } else { None } }).collect();
    let clean = request.empty();
    let count = clean.len();
    let mut found: Vec<Predictions> = vec![clean; steps.len()];
    let mut broken_at = vec![-1; count];
    let mut stats = GradientStats::default();
    let indices: Vec<u64> = (0..count as u64).collect();
    for indices in indices.chunks(request.batch_size as usize) {
        let mut batch = Climb::begin(request, indices, reporter)?;
        for (at, (step, found)) in steps.iter().zip(&mut found).enumerate() {
            if let Some(attack) = &step.attack {
                batch.attack(request, attack, &mut stats, reporter)?;
            }
            for output in &batch.outputs {
                let is_right = output.record(found);
                if !is_right && broken_at[output.index] < 0 {
                    broken_at[output.index] = i32::try_from(at).unwrap_or(i32::MAX);
                }
            }
            batch.has_moved |= step.attack.is_some();
        }
        let done = indices[indices.len() - 1] + 1;
        reporter.progress(done, count as u64, || {
            let correct = correct(&found[found.len() - 1], done as usize);
            let (eps, accuracy) = (Radius::written(steps[steps.len() - 1].eps), percent(correct, done));
            let message = format!("image {}/{}  accuracy {accuracy} at {eps}", grouped(done), grouped(count as u64));
            report(message, correct as f64 / done as f64)
        })?;
    }
    for (step, predictions) in steps.iter().zip(&found).filter(|_| count > 0) {
        let accuracy = percent(correct(predictions, count), count as u64);
        reporter.log(format!("accuracy {accuracy} at eps {}", Radius::written(step.eps)));
    }
    let gradients = stats.gradients();
    for (at, (step, predictions)) in steps.iter().zip(&mut found).enumerate() {
        let Some(iterate) = step.attack.as_ref().and_then(Attack::iterate) else { continue };
        let radii = (at + 1 == steps.len()).then(|| Radii { eps: radii.clone(), broken_at: broken_at.clone() });
        let spec = serde_json::to_value(&step.attack).unwrap_or(Json::Null);
        let iterate = iterate.name().to_owned();
        predictions.attack = Some(UnderAttack { spec, iterate, gradients, radii, ensemble: None });
    }
    Ok(found)
}

/// The number of the first images that are classified correctly.
fn correct(predictions: &Predictions, first: usize) -> u64 {
    (0..first).filter(|&index| predictions.correct(index)).count() as u64
}

/// A batch on its way from radius to radius.
struct Climb<'a> {
    indices: &'a [u64],
    images: Tensor,
    labels: Tensor,
    /// The worst point of each image so far: a misclassified one, else that of the largest loss.
    points: Tensor,
    /// What the model makes of these.
    outputs: Vec<Output>,
    /// Whether an attack made the points.
    has_moved: bool,
}

impl<'a> Climb<'a> {
    fn begin(request: &Request<'_>, indices: &'a [u64], reporter: &mut Reporter<'_>) -> Result<Self, StageError> {
        let (images, labels) = request.set.batch(indices)?;
        reporter.check_cancelled()?;
        let outputs = outputs_of(request, &images, &labels, indices)?;
        reporter.count_images(indices.len());
        Ok(Climb { indices, points: images.shallow_clone(), images, labels, outputs, has_moved: false })
    }

    /// Attacks the images that are still right, and keeps what is worse for them.
    fn attack(
        &mut self,
        request: &Request<'_>,
        attack: &Attack,
        stats: &mut GradientStats,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), StageError> {
        let is_right = |output: &Output| output.predicted == request.set.host_labels[output.index];
        let right: Vec<usize> = (0..self.outputs.len()).filter(|&at| is_right(&self.outputs[at])).collect();
        if right.is_empty() {
            return Ok(());
        }
        let rows = Tensor::f_from_slice(&right.iter().map(|&at| at as i64).collect::<Vec<_>>())?;
        let rows = rows.f_to_device(self.images.device())?;
        let [images, labels] = [&self.images, &self.labels].map(|tensor| tensor.f_index_select(0, &rows));
        let (images, labels) = (images?, labels?);
        let indices: Vec<u64> = right.iter().map(|&at| self.indices[at]).collect();
        let batch = Batch { images: &images, labels: &labels, indices: &indices, epoch: 0 };
        let mut check_cancelled = || reporter.check_cancelled();
        let mut victim = request.victim(&mut check_cancelled, stats);
        if self.has_moved {
            victim = victim.starting_at(&indices, self.points.f_index_select(0, &rows)?);
        }
        let found = attacks::perturb_model(attack, &mut victim, &batch)?;
        let outputs = outputs_of(request, &found, &labels, &indices)?;
        reporter.count_images(indices.len());
        let (mut worse, mut places): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        for (row, (output, at)) in outputs.into_iter().zip(right).enumerate() {
            if !is_right(&output) || output.loss > self.outputs[at].loss {
                self.outputs[at] = output;
                worse.push(row as i64);
                places.push(at as i64);
            }
        }
        if !worse.is_empty() {
            let on_device = |rows: &[i64]| Tensor::f_from_slice(rows)?.f_to_device(self.images.device());
            let found = found.f_index_select(0, &on_device(&worse)?)?;
            self.points = self.points.f_index_copy(0, &on_device(&places)?, &found)?;
        }
        Ok(())
    }
}
