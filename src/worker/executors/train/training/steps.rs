//! The step of each method of training on one batch.

use atflow::stage_kinds::{AdversarialBatches, Attack, Free, Trades, TrainingMethod, WeightPerturbation};
use tch::{Reduction, TchError, Tensor};

use super::super::methods::{Ascent, SharedPerturbation, ascend_from_noise, divergence, mart_loss};
use super::super::weight_perturbation;
use super::Training;
use crate::attacks::{self, Batch};
use crate::context::Context;
use crate::error::StageError;
use crate::networks::{Mode, Role};

/// A batch to train on.
pub(super) struct Step<'a> {
    pub(super) images: &'a Tensor,
    pub(super) labels: &'a Tensor,
    /// The images' indices in the set.
    pub(super) indices: &'a [u64],
    /// From 1.
    pub(super) epoch: u64,
    /// The learning rate of each step on the batch.
    pub(super) rates: &'a [f64],
}

/// Metrics of a step, from before it moves the weights.
pub(super) struct StepMetrics {
    pub(super) logits: Tensor,
    pub(super) loss: Tensor,
    /// The logits of the perturbed images, if any, and their cross-entropy.
    pub(super) attacked: Option<(Tensor, Tensor)>,
}

impl Training {
    /// Takes the step of the training's method on a batch, the `index`th of its epoch.
    pub(super) fn step(
        &mut self,
        context: &mut Context<'_>,
        index: usize,
        step: &Step<'_>,
    ) -> Result<StepMetrics, StageError> {
        match self.params.method.clone() {
            TrainingMethod::Standard => self.standard(context, index, step),
            TrainingMethod::Free(free) => self.free(context, &free, step),
            TrainingMethod::Trades(trades) => self.trades(context, &trades, step),
            TrainingMethod::Mart(mart) => self.mart(context, &mart, step),
        }
    }

    /// Computes logits in training mode, with batch statistics.
    fn logits(&self, images: &Tensor) -> Result<Tensor, TchError> {
        self.network.classify(&self.network.normalise(images)?.f_to_kind(self.kind())?, Mode::Train)
    }

    fn standard(
        &mut self,
        context: &mut Context<'_>,
        index: usize,
        step: &Step<'_>,
    ) -> Result<StepMetrics, StageError> {
        let is_attacked = !matches!(self.params.adversary, Attack::None(_))
            && match self.params.adversarial_batches {
                AdversarialBatches::All => true,
                AdversarialBatches::Alternate => index.is_multiple_of(2),
            };
        let images = if is_attacked {
            let frozen = self.frozen_for_attack()?;
            let reporter = &mut context.reporter;
            let batch = step.attacked();
            attacks::perturb(&self.params.adversary, &*frozen, &batch, context.rng, &mut || reporter.check_cancelled())?
        } else {
            step.images.shallow_clone()
        };
        let found = self.descend(step, |training| {
            let logits = training.logits(&images)?;
            let loss = training.cross_entropy(&logits, step.labels)?;
            Ok((loss, logits, None))
        })?;
        let attacked = is_attacked.then(|| (found.logits.shallow_clone(), found.loss.shallow_clone()));
        Ok(StepMetrics { attacked, ..found })
    }

    /// Takes one step down the gradient of an objective: a loss, the logits that it is of, and the logits of perturbed
    /// images, if those are others.
    fn descend(
        &mut self,
        step: &Step<'_>,
        objective: impl Fn(&Self) -> Result<(Tensor, Tensor, Option<Tensor>), TchError>,
    ) -> Result<StepMetrics, StageError> {
        let perturbation = self.params.weight_perturbation.clone();
        let moves = match perturbation.filter(|perturbation| u64::from(perturbation.from) <= step.epoch) {
            None => None,
            Some(perturbation) => Some(self.move_uphill(&perturbation, &objective)?),
        };
        let found = tch::with_grad(|| {
            let (loss, logits, perturbed) = objective(self)?;
            self.optimizer.step(&loss, step.rates[0])?;
            let (logits, loss) = (logits.f_detach()?, loss.f_detach()?);
            let attacked = match perturbed {
                None => None,
                Some(perturbed) => {
                    let perturbed = perturbed.f_detach()?;
                    let loss = cross_entropy(&perturbed, step.labels, 0.0)?;
                    Some((perturbed, loss))
                }
            };
            Ok::<_, TchError>(StepMetrics { logits, loss, attacked })
        })?;
        if let Some(moves) = moves {
            weight_perturbation::restore(self.optimizer.parameters(), &moves)?;
        }
        Ok(found)
    }

    /// Moves the weights up the gradient of the objective, without a trace in the statistics of batch norms.
    fn move_uphill(
        &mut self,
        perturbation: &WeightPerturbation,
        objective: &impl Fn(&Self) -> Result<(Tensor, Tensor, Option<Tensor>), TchError>,
    ) -> Result<Vec<Option<Tensor>>, StageError> {
        let state = self.network.state();
        let buffers: Vec<Tensor> = state
            .entries()
            .iter()
            .filter(|entry| entry.role == Role::Buffer)
            .map(|entry| entry.tensor.shallow_clone())
            .collect();
        let before = buffers.iter().map(Tensor::f_detach_copy).collect::<Result<Vec<_>, _>>()?;
        let gradients = tch::with_grad(|| self.optimizer.gradients(&objective(self)?.0))?;
        let _guard = tch::no_grad_guard();
        for (mut buffer, before) in buffers.into_iter().zip(&before) {
            buffer.f_copy_(before)?;
        }
        Ok(weight_perturbation::perturb(self.optimizer.parameters(), &gradients, perturbation.gamma.get())?)
    }

    /// Computes the cross-entropy that is trained on, the mean over images.
    fn cross_entropy(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        cross_entropy(logits, labels, self.params.label_smoothing.get())
    }

    fn free(&mut self, context: &mut Context<'_>, free: &Free, step: &Step<'_>) -> Result<StepMetrics, StageError> {
        let rows = self.perturbation.rows(step.images, i64::from(self.params.batch_size))?;
        let mut last = None;
        for &lr in step.rates {
            context.reporter.check_cancelled()?;
            let (logits, loss, gradient) = tch::with_grad(|| {
                let images = step.images.f_add(&rows)?.f_detach()?.f_set_requires_grad(true)?;
                let logits = self.logits(&images)?;
                let loss = self.cross_entropy(&logits, step.labels)?;
                let gradient = self.optimizer.step_and_ask(&loss, lr, &images)?;
                Ok::<_, TchError>((logits.f_detach()?, loss.f_detach()?, gradient))
            })?;
            SharedPerturbation::ascend(&rows, step.images, &gradient, free.eps.get())?;
            last = Some((logits, loss));
        }
        let (logits, loss) = last.ok_or_else(|| StageError::setting("method.replays", "must be at least 1"))?;
        let attacked = Some((logits.shallow_clone(), loss.shallow_clone()));
        Ok(StepMetrics { logits, loss, attacked })
    }

    fn trades(
        &mut self,
        context: &mut Context<'_>,
        trades: &Trades,
        step: &Step<'_>,
    ) -> Result<StepMetrics, StageError> {
        let images = self.ascended(context, trades, &Ascent::Divergence, step)?;
        self.descend(step, |training| {
            let (clean, perturbed) = (training.logits(step.images)?, training.logits(&images)?);
            let apart = divergence(&clean, &perturbed)?.f_mul_scalar(trades.beta.get())?;
            let loss = training.cross_entropy(&clean, step.labels)?.f_add(&apart)?;
            Ok((loss, clean, Some(perturbed)))
        })
    }

    fn mart(&mut self, context: &mut Context<'_>, mart: &Trades, step: &Step<'_>) -> Result<StepMetrics, StageError> {
        let images = self.ascended(context, mart, &Ascent::CrossEntropy, step)?;
        self.descend(step, |training| {
            let (clean, perturbed) = (training.logits(step.images)?, training.logits(&images)?);
            let entropy = training.cross_entropy(&perturbed, step.labels)?;
            let loss = mart_loss(&clean, &perturbed, step.labels, &entropy, mart.beta.get())?;
            Ok((loss, clean, Some(perturbed)))
        })
    }

    /// Returns the images of a step as the adversary of a method makes them.
    fn ascended(
        &self,
        context: &mut Context<'_>,
        trades: &Trades,
        ascent: &Ascent,
        step: &Step<'_>,
    ) -> Result<Tensor, StageError> {
        let frozen = self.frozen_for_attack()?;
        let reporter = &mut context.reporter;
        ascend_from_noise(trades, ascent, &*frozen, &step.attacked(), context.rng, &mut || reporter.check_cancelled())
    }
}

impl Step<'_> {
    /// Returns the batch in the form that attacks take.
    const fn attacked(&self) -> Batch<'_> {
        Batch { images: self.images, labels: self.labels, indices: self.indices, epoch: self.epoch }
    }
}

fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Mean, -100, smoothing)
}
