//! What a training measures after an epoch: accuracies on validation, checked and held-out images.

use atflow::protocol::ProgressMetrics;
use atflow::stage_kinds::Attack;
use tch::{Kind, Tensor};

use super::Training;
use crate::attacks::{self, Batch};
use crate::context::{Context, Report};
use crate::error::StageError;
use crate::executors::grouped;

/// Images computed at once.
const VALIDATION_BATCH: usize = 256;

impl Training {
    /// Returns the accuracy on the images of `overfitting_check` under its attack, or `None` in epochs without a check.
    pub(super) fn check(&self, context: &mut Context<'_>, epoch: u32) -> Result<Option<f64>, StageError> {
        let Some(check) = self.params.overfitting_check.as_ref().filter(|check| epoch.is_multiple_of(check.every))
        else {
            return Ok(None);
        };
        self.accuracy(context, &self.checked, &check.attack).map(Some)
    }

    /// Returns the accuracy on the held-out images under the attack of `holdout`.
    pub(super) fn hold_out(&self, context: &mut Context<'_>) -> Result<Option<f64>, StageError> {
        let Some(holdout) = &self.params.holdout else { return Ok(None) };
        self.accuracy(context, &self.held_out, &holdout.attack).map(Some)
    }

    /// Returns the accuracy on some training images, without augmentation, under an attack.
    fn accuracy(&self, context: &mut Context<'_>, of: &[u64], attack: &Attack) -> Result<f64, StageError> {
        let network = self.network.freeze()?;
        let mut right = 0;
        for indices in of.chunks(VALIDATION_BATCH) {
            let (images, labels) = self.data.batch(indices)?;
            // No training epoch has this number, so the draws are the same after every epoch and unlike any epoch's.
            let batch = Batch { images: &images, labels: &labels, indices, epoch: 0 };
            let reporter = &mut context.reporter;
            let images = attacks::perturb(attack, &*network, &batch, context.rng, &mut || reporter.check_cancelled())?;
            let correct = network.forward(&images)?.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
            right += correct.f_int64_value(&[])?;
            context.reporter.count_images(indices.len());
        }
        Ok(right as f64 / of.len() as f64)
    }

    /// Returns the accuracy on the clean validation images.
    pub(super) fn validate(&self, context: &mut Context<'_>, epoch: u32) -> Result<Option<f64>, StageError> {
        let Some(set) = &self.validation else { return Ok(None) };
        let (steps, done) = (self.batches * u64::from(self.params.epochs), self.batches * u64::from(epoch));
        let epochs = self.params.epochs;
        let network = self.network.freeze()?;
        let mut correct = Tensor::f_zeros([0i64; 0].as_slice(), (Kind::Int64, context.device))?;
        let indices: Vec<u64> = (0..set.len() as u64).collect();
        for (index, indices) in indices.chunks(VALIDATION_BATCH).enumerate() {
            let (images, labels) = set.batch(indices)?;
            let right = network.forward(&images)?.f_argmax(1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?;
            let _ = correct.f_add_(&right)?;
            context.reporter.count_images(indices.len());
            context.reporter.progress(done, steps, || {
                let (at, of) = (grouped((index * VALIDATION_BATCH) as u64), grouped(set.len() as u64));
                let message = format!("epoch {epoch}/{epochs}  validation image {at}/{of}");
                let metrics =
                    ProgressMetrics { epoch: Some(epoch), epochs: Some(epochs), ..ProgressMetrics::default() };
                Report { message, metrics }
            })?;
        }
        Ok(Some(correct.f_int64_value(&[])? as f64 / set.len() as f64))
    }
}
