//! Progress of trainings in a bucket. What one machine began, another continues, although they share no folder.
//!
//! One object for each training, `partial/KEY/training.safetensors`, as in the cache of a machine. It is replaced as a
//! whole. Knows nothing of what is in it. Whoever resumes a training checks that.

use std::path::Path;

use super::{Place, Remote, RemoteError};
use crate::action::ActionKey;
use crate::digest::Digest;
use crate::fetch::{Expected, Progress};
use crate::formats::TRAINING_PROGRESS_FILE;
use crate::fsio::Context;

/// Longest progress that is fetched: that of a network with a billion weights has half of it.
const LONGEST: u64 = 16 << 30;

impl Remote {
    /// Fetches the progress of a training to `to`; `false` if the remote has none.
    ///
    /// # Errors
    /// [`RemoteError`]; then there is no file at `to`.
    pub(crate) fn training(&self, key: ActionKey, to: &Path, progress: &mut Progress<'_>) -> Result<bool, RemoteError> {
        let Place::Bucket(bucket) = &self.place else { return Ok(false) };
        let got = bucket.get_up_to(LONGEST, &training_path(key), &Expected::default(), to, progress);
        Ok(self.there(got)?.unwrap_or(false))
    }

    /// Sends the progress of a training, and replaces what was sent before. `from` must not change meanwhile.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub(crate) fn put_training(&self, key: ActionKey, from: &Path) -> Result<(), RemoteError> {
        let Place::Bucket(bucket) = &self.place else { return Ok(()) };
        let digest = Digest::of_file(from).on("read", from)?;
        bucket.send(&training_path(key), from, digest)
    }

    /// Removes the progress of a training, if there is any.
    pub(crate) fn drop_training(&self, key: ActionKey) {
        if let Place::Bucket(bucket) = &self.place {
            // What is left costs room, and does no harm.
            _ = bucket.remove(&training_path(key));
        }
    }
}

fn training_path(key: ActionKey) -> String {
    format!("partial/{key}/{TRAINING_PROGRESS_FILE}")
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn progress_is_replaced_fetched_and_removed() {
        let (remote, dir) = (Remote::in_memory(), tempfile::tempdir().unwrap());
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let (key, other) = (ActionKey(Digest::of(b"a")), ActionKey(Digest::of(b"b")));
        let fetch = |key| remote.training(key, &to, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert!(!fetch(key));
        for text in ["epoch 1", "epoch 2"] {
            std::fs::write(&from, text).unwrap();
            remote.put_training(key, &from).unwrap();
            assert!(fetch(key) && !fetch(other));
            assert_eq!(std::fs::read_to_string(&to).unwrap(), text);
        }
        remote.drop_training(key);
        remote.drop_training(key);
        assert!(!fetch(key));
    }
}
