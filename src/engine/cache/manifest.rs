//! Manifests: what a stage made, from what, where and how.
//!
//! Each key has one file. It is written last, so a stage without a manifest is not done.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cache, CacheError, Origin};
use crate::action::{Action, ActionKey};
use crate::digest::Digest;
use crate::fsio;
use crate::numerics::Arithmetic;
use crate::stage_kinds::StageKind;

/// Version of the manifest format. A manifest of another version counts as absent.
pub const MANIFEST_FORMAT: u32 = 1;

/// Number of manifests from which it pays to see which of their 256 folders are there. In a new cache, none is.
const FEWEST_LISTED: usize = 64;

/// Operations that it takes to list a folder, at least; a file that is not there takes one.
const LISTING: usize = 4;

/// Result of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// Action whose digest is the key.
    pub record: Action,
    /// Outputs by name.
    pub outputs: BTreeMap<String, Blob>,
    /// Where and how it was made; never part of a key.
    pub made: Made,
    /// Remote cache that it came from, if it was not made here; never part of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// Blob of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// Where and how a result was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Name of the instance at that time.
    pub stage: String,
    /// Name of the pipeline at that time.
    pub pipeline: String,
    /// End time, RFC 3339 in UTC.
    pub at: String,
    /// Duration in seconds. A resumed training includes the time of the earlier runs, as far as their epochs count.
    pub seconds: f64,
    /// Name of the machine.
    pub host: String,
    /// Device: `cpu`, `cuda:0`, or `engine` for stages without tensors.
    pub device: String,
    /// Name of the device, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_name: String,
    /// Number of CPU threads.
    pub threads: usize,
    /// Version of atflow.
    pub atflow: String,
    /// Version of libtorch, if a worker made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
    /// What its bytes may depend on beyond the action, if a worker made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
    /// Commit of the repository with the pipeline file, with `-dirty` if it had changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Peak memory of the worker, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// One-line summary of the result.
    pub summary: String,
    /// Log of the stage.
    pub log: Log,
}

/// Log of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Its bytes.
    #[serde(flatten)]
    pub blob: Blob,
    /// Its bytes, if it is short: then no file in `objects/` holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Log {
    /// Maximum length of a log that stands in its manifest, in bytes. Runs read the manifests of all their stages.
    const LONGEST_TEXT: usize = 1 << 10;

    /// Returns a log that stands in its manifest; `None` for one that is too long.
    pub fn short(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= Self::LONGEST_TEXT)?;
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        Some(Log { blob, text: Some(text.to_owned()) })
    }

    /// Returns the blob that holds it, if one does.
    pub fn stored(&self) -> Option<&Blob> {
        self.text.is_none().then_some(&self.blob)
    }
}

impl From<Blob> for Log {
    fn from(blob: Blob) -> Self {
        Log { blob, text: None }
    }
}

impl Cache {
    /// Returns the manifest of a key.
    ///
    /// A broken manifest, or one of another version, counts as absent: the stage runs again and replaces it.
    pub fn lookup(&self, key: ActionKey) -> Option<Manifest> {
        self.read_manifest(key).filter(|manifest| manifest.record.key() == key)
    }

    /// Like [`Cache::lookup`], for an action whose key is `key`: compares the actions and hashes nothing.
    pub fn lookup_action(&self, record: &Action, key: ActionKey) -> Option<Manifest> {
        let manifest = self.read_file(key).filter(|manifest| manifest.record == *record)?;
        match self.doubt(&manifest) {
            None => Some(manifest),
            Some(doubt) => {
                self.pass_over(key, doubt);
                None
            }
        }
    }

    /// Reads the manifest of a key, if it is trusted. Does not check that its action gives the key.
    pub(crate) fn read_manifest(&self, key: ActionKey) -> Option<Manifest> {
        self.read_file(key).filter(|manifest| self.doubt(manifest).is_none())
    }

    /// Lists the keys that have a manifest, if that takes fewer operations than to look for `count` of them one by one.
    pub(crate) fn list_keys(&self, count: usize) -> Option<HashSet<ActionKey>> {
        if count < FEWEST_LISTED {
            return None;
        }
        let names = |folder: &Path| -> io::Result<Vec<String>> {
            fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let root = self.root.join("actions");
        let mut folders = match names(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.ok()?,
        };
        folders.retain(|name| name.len() == 2);
        if folders.len() * LISTING > count {
            return None;
        }
        let mut keys = HashSet::new();
        for folder in folders {
            let key = |name: String| name.strip_suffix(".json")?.parse().ok().map(ActionKey);
            keys.extend(names(&root.join(&folder)).ok()?.into_iter().filter_map(key));
        }
        Some(keys)
    }

    fn read_file(&self, key: ActionKey) -> Option<Manifest> {
        let (bytes, _) = fsio::read_own(&self.action_path(key), u64::MAX).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        (manifest.format == MANIFEST_FORMAT).then_some(manifest)
    }

    /// Returns the manifests of all local results of a kind, in no particular order.
    ///
    /// Reads every manifest, for callers that know no keys.
    ///
    /// # Errors
    /// [`CacheError`] if their folder cannot be listed.
    pub fn results_of(&self, kind: StageKind) -> Result<Vec<Manifest>, CacheError> {
        let files = self.files("actions")?;
        let read = |(path, _): &(PathBuf, u64)| {
            let manifest: Manifest = serde_json::from_slice(&fsio::read_regular(path, u64::MAX).ok()?).ok()?;
            (manifest.format == MANIFEST_FORMAT && manifest.record.kind == kind).then_some(manifest)
        };
        Ok(files.par_iter().filter_map(read).collect())
    }

    /// Returns the local results with an output of this digest, each with the output's name.
    ///
    /// Reads every manifest, for callers that know no keys.
    ///
    /// # Errors
    /// [`CacheError`] if their folder cannot be listed.
    pub fn results_with(&self, digest: Digest) -> Result<Vec<(Manifest, String)>, CacheError> {
        let files = self.files("actions")?;
        let read = |(path, _): &(PathBuf, u64)| {
            let manifest: Manifest = serde_json::from_slice(&fsio::read_regular(path, u64::MAX).ok()?).ok()?;
            let name = manifest.outputs.iter().find(|(_, blob)| blob.digest == digest)?.0.clone();
            (manifest.format == MANIFEST_FORMAT).then_some((manifest, name))
        };
        Ok(files.par_iter().filter_map(read).collect())
    }

    /// Returns an output of a result by its name.
    ///
    /// Manifests may come from a remote cache, so an output of their kind may be missing.
    ///
    /// # Errors
    /// [`CacheError::NoOutput`].
    pub fn output(&self, manifest: &Manifest, name: &str) -> Result<Blob, CacheError> {
        let no_output = || CacheError::NoOutput {
            path: self.action_path(manifest.record.key()),
            stage: manifest.made.stage.clone(),
            output: name.to_owned(),
        };
        manifest.outputs.get(name).copied().ok_or_else(no_output)
    }

    /// Opens the log of a stage. A file is not checked.
    ///
    /// # Errors
    /// Whatever opening its file gives.
    pub fn open_log(&self, log: &Log) -> io::Result<Box<dyn Read>> {
        match &log.text {
            Some(text) => Ok(Box::new(io::Cursor::new(text.clone().into_bytes()))),
            None => Ok(Box::new(File::open(self.object_path(log.blob.digest))?)),
        }
    }

    /// Commits a finished stage. Its blobs must be in the cache already.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn commit(&self, manifest: &Manifest) -> Result<ActionKey, CacheError> {
        let key = manifest.record.key();
        let text = serde_json::to_string_pretty(manifest).unwrap_or_default() + "\n";
        fsio::write_atomic(&self.action_path(key), &self.tmp(), text.as_bytes())?;
        Ok(key)
    }
}

/// Returns the maximum length of an action's manifest, in bytes.
///
/// A manifest repeats the action, indented, with some lines about the result. The longest that the pipelines of this
/// repository make has 100 KB, most of it its action.
pub(crate) fn longest_manifest(record: &Action) -> u64 {
    let record = serde_json::to_vec(record).map_or(0, |bytes| bytes.len() as u64);
    (1 << 20) + 16 * record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_only_if_that_takes_fewer_operations_than_to_look_for_each() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.list_keys(FEWEST_LISTED - 1), None);
        assert_eq!(cache.list_keys(FEWEST_LISTED), Some(HashSet::new()), "nothing is there, so nothing is opened");
        let mut keys = HashSet::new();
        let mut folders = HashSet::new();
        for number in 0_u32.. {
            let key = ActionKey(Digest::of(&number.to_le_bytes()));
            let path = cache.action_path(key);
            folders.insert(path.parent().unwrap().to_owned());
            if folders.len() * LISTING > FEWEST_LISTED {
                fs::create_dir(path.parent().unwrap()).unwrap();
                break;
            }
            fsio::create_dir(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            keys.insert(key);
            assert_eq!(cache.list_keys(FEWEST_LISTED).as_ref(), Some(&keys));
        }
        assert_eq!(cache.list_keys(FEWEST_LISTED), None, "one folder more");
        assert_eq!(cache.list_keys(FEWEST_LISTED + LISTING), Some(keys));
    }
}
