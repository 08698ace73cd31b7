//! Trainings that were interrupted: the epoch after which a run would go on.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::cache::Cache;
use crate::formats::finished_epochs;
use crate::stage_kinds::{StageKind, TrainParams};

/// Progress of a training that has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resumption {
    /// Number of finished epochs, at least 1.
    pub epoch: u32,
    /// Number of epochs of the training.
    pub epochs: u32,
}

impl Resumption {
    /// Returns the progress that the cache keeps for a training. `None` without any, and for other stages.
    ///
    /// `is_rerun` tells that the training is asked for again: then it does not go on from the end of a shorter one.
    ///
    /// The worker has the last word. It begins anew if a setting outside the key differs, such as the device or the
    /// number of threads, and says so in the log.
    pub fn of(cache: &Cache, action: &Action, is_rerun: bool) -> Option<Self> {
        if action.kind != StageKind::Train {
            return None;
        }
        let epochs = TrainParams::deserialize(&*action.params).ok()?.epochs;
        let onward = if is_rerun { None } else { action.onward_key() };
        let keys = std::iter::once(action.key()).chain(onward);
        let kept = keys.filter_map(|key| finished_epochs(&cache.partial_path(key)));
        let epoch = kept.filter(|epoch| (1..=epochs).contains(epoch)).max()?;
        Some(Resumption { epoch, epochs })
    }

    /// Returns the words for people: `goes on after epoch 9 of 30`.
    pub fn words(self) -> String {
        format!("goes on after epoch {} of {}", self.epoch, self.epochs)
    }

    /// Returns the share of the epochs that is left, 0 to 1.
    pub(super) fn share_left(self) -> f64 {
        f64::from(self.epochs - self.epoch) / f64::from(self.epochs)
    }
}
