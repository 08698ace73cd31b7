//! The numbers of a training by epoch: its output `metrics`, JSON. `docs/artifact-formats.md` describes it.

use serde::{Deserialize, Deserializer, Serialize};

use super::FormatError;

/// The output `metrics`. Nothing in it depends on time or place: the same training gives the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingMetrics {
    /// The finished epochs, in order.
    pub epochs: Vec<EpochMetrics>,
    /// With an overfitting check: the first epoch of catastrophic overfitting, or null.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub catastrophic_overfitting: Option<Option<u32>>,
    /// With held-out images: the epoch whose weights the checkpoint has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_epoch: Option<u32>,
}

/// Metrics of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 1.
    pub epoch: u32,
    /// The learning rate of its last step.
    pub lr: f64,
    /// Mean loss of the training images as trained on, before each step.
    pub train_loss: f64,
    /// Share of these images classified correctly, 0 to 1.
    pub train_accuracy: f64,
    /// Cross-entropy and accuracy of the perturbed images alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<AdversarialMetrics>,
    /// Share of the clean validation images classified correctly after the epoch, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Share of the images of `overfitting_check` classified correctly under its attack after the epoch, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_accuracy: Option<f64>,
    /// Share of held-out images classified correctly under the attack of `holdout` after the epoch, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_accuracy: Option<f64>,
}

/// Metrics of an epoch's perturbed images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdversarialMetrics {
    /// How many there were.
    pub images: u64,
    /// Their mean loss.
    pub loss: f64,
    /// Share of them classified correctly, 0 to 1.
    pub accuracy: f64,
}

impl TrainingMetrics {
    /// Returns the file: indented JSON with a line feed at its end.
    ///
    /// # Errors
    /// [`FormatError::Json`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| unreadable(&error))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`FormatError::Json`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        serde_json::from_slice(bytes).map_err(|error| unreadable(&error))
    }

    /// Returns the epoch whose weights the checkpoint has; `None` if no epoch ended.
    pub fn checkpoint_epoch(&self) -> Option<u32> {
        self.kept_epoch.or(self.epochs.last().map(|last| last.epoch))
    }
}

fn unreadable(error: &serde_json::Error) -> FormatError {
    FormatError::Json { artifact: "metrics of a training", reason: error.to_string() }
}

/// Tells a null from a key that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_as_it_was() {
        for text in [
            r#"{"epochs":[{"epoch":1,"lr":0.1,"train_loss":0.5,"train_accuracy":0.75}]}"#,
            r#"{"epochs":[],"catastrophic_overfitting":null,"kept_epoch":2}"#,
            r#"{"epochs":[],"catastrophic_overfitting":3}"#,
        ] {
            let metrics = TrainingMetrics::from_bytes(text.as_bytes()).unwrap();
            assert_eq!(serde_json::to_string(&metrics).unwrap(), text);
            assert_eq!(TrainingMetrics::from_bytes(&metrics.to_bytes().unwrap()).unwrap(), metrics);
        }
        let error = TrainingMetrics::from_bytes(b"{}").unwrap_err();
        assert!(error.to_string().contains("metrics of a training"), "{error}");
    }
}
