//! Metrics of a training: the summary after each epoch, what is read off the epochs, and the sums that they come from.

use atflow::formats::EpochMetrics;
use tch::{Device, Kind, TchError, Tensor};

/// Drop in accuracy under the stronger attack that counts as catastrophic (the rule of Wong et al. 2020, in their
/// code).
const CATASTROPHIC: f64 = 0.2;
/// If the training's own accuracy drops by this much too, something else went wrong.
const STEADY: f64 = 0.1;

/// Returns the accuracy on the images that the training itself attacked, or on all training images.
fn own_accuracy(epoch: &EpochMetrics) -> f64 {
    epoch.adversarial.as_ref().map_or(epoch.train_accuracy, |adversarial| adversarial.accuracy)
}

/// Returns a summary line of one of so many epochs.
pub(super) fn describe(metrics: &EpochMetrics, epochs: u32) -> String {
    let mut text = format!(
        "epoch {}/{epochs}  loss {:.3}  accuracy {:.1} %",
        metrics.epoch,
        metrics.train_loss,
        100.0 * metrics.train_accuracy
    );
    let further = [
        ("attacked", metrics.adversarial.as_ref().map(|adversarial| adversarial.accuracy)),
        ("checked", metrics.checked_accuracy),
        ("held out", metrics.holdout_accuracy),
        ("validation", metrics.validation_accuracy),
    ];
    for (words, accuracy) in further {
        text += &accuracy.map_or_else(String::new, |accuracy| format!("  {words} {:.1} %", 100.0 * accuracy));
    }
    text
}

/// Returns the first epoch of catastrophic overfitting, if any.
///
/// From one check to the next, the accuracy under the stronger attack drops by more than 20 points. The training's own
/// accuracy does not drop with it.
pub(super) fn catastrophic_overfitting(epochs: &[EpochMetrics]) -> Option<u32> {
    let checked: Vec<(&EpochMetrics, f64)> =
        epochs.iter().filter_map(|epoch| Some((epoch, epoch.checked_accuracy?))).collect();
    let falls = |pair: &&[(&EpochMetrics, f64)]| {
        let ((before, was), (after, is)) = (pair[0], pair[1]);
        was - is > CATASTROPHIC && own_accuracy(before) - own_accuracy(after) < STEADY
    };
    checked.windows(2).find(falls).map(|pair| pair[1].0.epoch)
}

/// Returns the epoch with the highest held-out accuracy, the first among equals; `None` without held-out images.
pub(super) fn best_epoch(epochs: &[EpochMetrics]) -> Option<u32> {
    let mut best: Option<(f64, u32)> = None;
    for epoch in epochs {
        if let Some(accuracy) = epoch.holdout_accuracy
            && best.is_none_or(|(highest, _)| accuracy > highest)
        {
            best = Some((accuracy, epoch.epoch));
        }
    }
    best.map(|(_, epoch)| epoch)
}

/// Sums over the images so far, kept on the device to avoid synchronisation.
pub(super) struct Tally {
    pub(super) images: u64,
    loss: Tensor,
    correct: Tensor,
}

impl Tally {
    pub(super) fn new(device: Device) -> Result<Self, TchError> {
        let zero = |kind| Tensor::f_zeros([0i64; 0].as_slice(), (kind, device));
        Ok(Tally { images: 0, loss: zero(Kind::Double)?, correct: zero(Kind::Int64)? })
    }

    /// Adds a batch: its mean loss, and the number of images whose largest logit is at the label.
    pub(super) fn add(&mut self, images: u64, loss: &Tensor, correct: &Tensor) -> Result<(), TchError> {
        self.images += images;
        let _ = self.loss.f_add_(&loss.f_to_kind(Kind::Double)?.f_mul_scalar_(images as f64)?)?;
        let _ = self.correct.f_add_(correct)?;
        Ok(())
    }

    /// Returns the mean loss and the number of correct images; waits for the device.
    pub(super) fn read(&self) -> Result<(f64, u64), TchError> {
        Ok((self.loss.f_double_value(&[])? / self.images as f64, self.correct.f_int64_value(&[])? as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atflow::formats::AdversarialMetrics;

    #[test]
    fn a_training_that_only_looks_robust_is_noticed_at_the_epoch_where_it_turned() {
        let epochs = |numbers: &[(f64, Option<f64>)]| -> Vec<EpochMetrics> {
            let epoch = |(index, &(own, checked)): (usize, &(f64, Option<f64>))| EpochMetrics {
                epoch: index as u32 + 1,
                lr: 0.1,
                train_loss: 1.0,
                train_accuracy: 0.9,
                adversarial: Some(AdversarialMetrics { images: 10, loss: 1.0, accuracy: own }),
                validation_accuracy: None,
                checked_accuracy: checked,
                holdout_accuracy: checked,
            };
            numbers.iter().enumerate().map(epoch).collect()
        };
        let first = |numbers| catastrophic_overfitting(&epochs(numbers));
        assert_eq!(first(&[(0.3, Some(0.3)), (0.4, Some(0.38)), (0.7, Some(0.02)), (0.8, Some(0.0))]), Some(3));
        // Checked every other epoch.
        assert_eq!(first(&[(0.3, None), (0.4, Some(0.38)), (0.6, None), (0.8, Some(0.0))]), Some(4));
        // A drop within the rule, a training that collapses altogether, and a training checked only once.
        assert_eq!(first(&[(0.4, Some(0.4)), (0.5, Some(0.21))]), None);
        assert_eq!(first(&[(0.6, Some(0.5)), (0.1, Some(0.1))]), None);
        assert_eq!(first(&[(0.6, Some(0.5)), (0.9, None)]), None);
    }

    #[test]
    fn the_best_epoch_is_the_first_of_equals() {
        let epoch = |epoch, holdout_accuracy| EpochMetrics {
            epoch,
            lr: 0.1,
            train_loss: 1.0,
            train_accuracy: 0.9,
            adversarial: None,
            validation_accuracy: None,
            checked_accuracy: None,
            holdout_accuracy,
        };
        assert_eq!(best_epoch(&[epoch(1, Some(0.4)), epoch(2, Some(0.5)), epoch(3, Some(0.5))]), Some(2));
        assert_eq!(best_epoch(&[epoch(1, None)]), None);
    }
}
