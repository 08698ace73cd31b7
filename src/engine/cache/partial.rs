//! Progress of trainings: a folder of checkpoints for each key in training.
//!
//! The worker owns the content; this module only places and removes the folders. Progress is never a result: results
//! are blobs that a manifest names.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::Cache;
use crate::action::{Action, ActionKey};

impl Cache {
    /// Returns the folder for the progress of a training. It need not exist.
    pub fn partial_path(&self, key: ActionKey) -> PathBuf {
        self.root.join("partial").join(key.to_string())
    }

    /// Removes the progress of a training whose result is recorded.
    pub fn drop_partial(&self, key: ActionKey) {
        // If this fails, `clear_abandoned` removes it later; it does no harm.
        _ = std::fs::remove_dir_all(self.partial_path(key));
    }

    /// Removes progress of recorded trainings that a killed run left behind.
    pub(super) fn clear_finished_partials(&self) {
        for entry in std::fs::read_dir(self.root.join("partial")).into_iter().flatten().flatten() {
            let key = entry.file_name().to_string_lossy().parse().map(ActionKey);
            // Finished trainings leave a state for longer ones under a key without a manifest; it stays.
            if key.is_ok_and(|key| self.action_path(key).exists() && !self.is_leased(key)) {
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Action {
    /// Returns the key under which a training leaves its final state for a longer training with equal parameters.
    ///
    /// `None` if the path to an epoch depends on the total number of epochs. The key is that of the action without
    /// `epochs`; no real action has this key.
    pub fn onward_key(&self) -> Option<ActionKey> {
        if self.kind != crate::stage_kinds::StageKind::Train {
            return None;
        }
        let params = crate::stage_kinds::TrainParams::deserialize(&*self.params).ok()?;
        if params.schedule.depends_on_epochs() {
            return None;
        }
        let mut action = self.clone();
        Arc::make_mut(&mut action.params).as_object_mut()?.remove("epochs");
        Some(action.key())
    }
}
