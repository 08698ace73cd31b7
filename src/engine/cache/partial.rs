//! The progress of trainings: a folder for each key whose training is under way. What is in it is the worker's; here it
//! is only placed and removed. Nothing here is ever taken for a result: results are blobs that a manifest names.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::Cache;
use crate::action::{Action, ActionKey};

impl Cache {
    /// Where a training of a key keeps its progress. The folder need not be there.
    pub fn partial_path(&self, key: ActionKey) -> PathBuf {
        self.root.join("partial").join(key.to_string())
    }

    /// Drops the progress of a training whose result is recorded.
    pub fn drop_partial(&self, key: ActionKey) {
        // One that cannot be removed is left for `clear_abandoned`; it does no harm.
        _ = std::fs::remove_dir_all(self.partial_path(key));
    }

    /// Drops progress that a killed run had no time to drop after it had recorded the result.
    pub(super) fn clear_finished_partials(&self) {
        for entry in std::fs::read_dir(self.root.join("partial")).into_iter().flatten().flatten() {
            let key = entry.file_name().to_string_lossy().parse().map(ActionKey);
            // The state that a finished training leaves for longer ones lies under a key without a manifest, and stays.
            if key.is_ok_and(|key| self.action_path(key).exists() && !self.is_leased(key)) {
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Action {
    /// The key under which a training leaves its final state for one that is the same but longer; nothing where the way
    /// to an epoch depends on how many there are. It is the record's without `epochs`, which no real record is.
    pub fn onward_key(&self) -> Option<ActionKey> {
        if self.kind != crate::stage_kinds::StageKind::Train {
            return None;
        }
        let params = crate::stage_kinds::TrainParams::deserialize(&*self.params).ok()?;
        if params.schedule.depends_on_epochs() {
            return None;
        }
        let mut record = self.clone();
        Arc::make_mut(&mut record.params).as_object_mut()?.remove("epochs");
        Some(record.key())
    }
}
