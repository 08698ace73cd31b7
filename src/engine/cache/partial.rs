//! Progress of trainings: a folder of checkpoints for each key in training.
//!
//! The worker owns the content. This module places and removes the folders. It takes the file in them to and from the
//! bucket through which machines share work. Progress is never a result: results are blobs that a manifest names.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use tempfile::TempDir;

use super::{Cache, CacheError};
use crate::action::{Action, ActionKey};
use crate::fetch::Progress;
use crate::formats::{TRAINING_PROGRESS_FILE, TrainingProgress};
use crate::fsio::{self, Context};

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

    /// Fetches the progress of a training from the bucket through which runs share work, if it is further there than
    /// here. Returns the number of finished epochs that the bucket has.
    ///
    /// Takes nothing where only signed results count: progress has no signature.
    ///
    /// # Errors
    /// [`CacheError`]; what is here stays.
    pub(crate) fn fetch_partial(&self, key: ActionKey, progress: &mut Progress<'_>) -> Result<u32, CacheError> {
        let Some((folder, there)) = self.sent_partial(key, progress)? else { return Ok(0) };
        let here = self.partial_path(key);
        let is_better = match TrainingProgress::read(&here) {
            None => true,
            // Of another path, one of them is of no use, and only the worker knows which.
            Some(here) => here.of == there.of && here.epochs < there.epochs,
        };
        if is_better && !self.is_trusting() {
            fsio::rename(&folder.path().join(TRAINING_PROGRESS_FILE), &here.join(TRAINING_PROGRESS_FILE))?;
        }
        Ok(there.epochs)
    }

    /// Returns the number of finished epochs that the bucket has of a training.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn sent_epochs(&self, key: ActionKey) -> Result<u32, CacheError> {
        let sent = self.sent_partial(key, &mut |_, _| ControlFlow::Continue(()))?;
        Ok(sent.map_or(0, |(_, there)| there.epochs))
    }

    /// Fetches what was sent into a folder of its own. `None` without any, and if it cannot be read.
    fn sent_partial(
        &self,
        key: ActionKey,
        progress: &mut Progress<'_>,
    ) -> Result<Option<(TempDir, TrainingProgress)>, CacheError> {
        let Some(remote) = self.shared() else { return Ok(None) };
        let folder = self.scratch()?;
        if !remote.training(key, &folder.path().join(TRAINING_PROGRESS_FILE), progress)? {
            return Ok(None);
        }
        Ok(TrainingProgress::read(folder.path()).map(|there| (folder, there)))
    }

    /// Sends the progress of a training to the bucket through which runs share work. Does nothing if there is none, or
    /// no bucket.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn send_partial(&self, key: ActionKey) -> Result<(), CacheError> {
        let Some(remote) = self.shared() else { return Ok(()) };
        let file = self.partial_path(key).join(TRAINING_PROGRESS_FILE);
        let folder = self.scratch()?;
        // The worker replaces the file when the next epoch ends; a second name keeps this one.
        let kept = folder.path().join(TRAINING_PROGRESS_FILE);
        match std::fs::hard_link(&file, &kept) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_) => _ = std::fs::copy(&file, &kept).on("copy", &file)?,
            Ok(()) => {}
        }
        Ok(remote.put_training(key, &kept)?)
    }

    /// Removes the progress of a training from the bucket through which runs share work.
    pub(crate) fn drop_sent_partial(&self, key: ActionKey) {
        if let Some(remote) = self.shared() {
            remote.drop_training(key);
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::cache::remote::Remote;
    use crate::digest::Digest;
    use crate::signing::PublicKey;

    /// Writes progress of so many epochs, of a training with so many threads.
    fn keep(folder: &Path, epochs: usize, threads: u32) {
        let metadata = json!({"format": "training/1", "of": {"threads": threads}, "epochs": vec![json!({}); epochs]});
        let none: [(&str, safetensors::tensor::TensorView<'_>); 0] = [];
        std::fs::create_dir_all(folder).unwrap();
        let bytes = crate::formats::write(none, &metadata).unwrap();
        std::fs::write(folder.join(TRAINING_PROGRESS_FILE), bytes).unwrap();
    }

    #[test]
    fn only_what_is_further_on_the_same_path_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let remote = Arc::new(Remote::in_memory());
        let cache = |name: &str| {
            let cache = Cache::open(&dir.path().join(name)).unwrap();
            Cache { remote: Some(Arc::clone(&remote)), shares_work: true, ..cache }
        };
        let (one, other) = (cache("one"), cache("other"));
        let key = ActionKey(Digest::of(b"training"));
        let fetch = || other.fetch_partial(key, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let here = || TrainingProgress::read(&other.partial_path(key)).map(|here| here.epochs);
        one.send_partial(key).unwrap();
        assert_eq!((fetch(), here()), (0, None), "there was nothing to send");
        keep(&one.partial_path(key), 3, 1);
        one.send_partial(key).unwrap();
        assert_eq!((fetch(), here()), (3, Some(3)));
        for (epochs, threads) in [(5, 1), (1, 2)] {
            keep(&other.partial_path(key), epochs, threads);
            assert_eq!((fetch(), here()), (3, Some(epochs as u32)), "what is here stays");
        }
        keep(&other.partial_path(key), 2, 1);
        let (_, public) = crate::signing::new_keys(None).unwrap();
        let public = PublicKey::named(public.lines().last().unwrap()).unwrap();
        let trusting = other.clone().trusting(vec![public]);
        assert_eq!(trusting.fetch_partial(key, &mut |_, _| ControlFlow::Continue(())).unwrap(), 3);
        assert_eq!((here(), other.sent_epochs(key).unwrap()), (Some(2), 3));
        std::fs::write(one.partial_path(key).join(TRAINING_PROGRESS_FILE), "rotten").unwrap();
        one.send_partial(key).unwrap();
        assert_eq!((fetch(), here()), (0, Some(2)));
        one.drop_sent_partial(key);
        assert_eq!(fetch(), 0);
    }
}
