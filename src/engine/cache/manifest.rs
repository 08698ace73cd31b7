//! Manifests: what a stage made, from what, where and how. One file for each key; written last, so a stage without one
//! is not done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Cache, CacheError, Origin};
use crate::action::{Action, ActionKey};
use crate::digest::Digest;
use crate::fsio;
use crate::numerics::Arithmetic;
use crate::stage_kinds::StageKind;

/// Version of a manifest. An older one that cannot be read counts as not there; so does a newer one.
pub const MANIFEST_FORMAT: u32 = 1;

/// What a stage made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// What was hashed into the key.
    pub record: Action,
    /// The outputs by name.
    pub outputs: BTreeMap<String, Blob>,
    /// Where and how it was made; never part of a key.
    pub made: Made,
    /// Where it came from, if it was not made here; never part of a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Origin>,
}

/// A blob that is an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Where and how something was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The instance's name then.
    pub stage: String,
    /// The pipeline's name then.
    pub pipeline: String,
    /// When it was finished, RFC 3339 in UTC.
    pub at: String,
    /// How long it took, in seconds; of a training that was resumed, with the time of the runs that it went on from, as
    /// far as their epochs count.
    pub seconds: f64,
    /// The machine's name.
    pub host: String,
    /// Where it was computed: `cpu`, `cuda:0`; `engine` for what needs no tensors.
    pub device: String,
    /// The device's name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_name: String,
    /// CPU threads.
    pub threads: usize,
    /// Version of atflow.
    pub atflow: String,
    /// Version of libtorch, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libtorch: Option<String>,
    /// What its bytes may depend on beyond its record, where a worker made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Arithmetic>,
    /// The commit of the repository that holds the pipeline file, with `-dirty` if it had changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Peak memory of the worker, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// A line on what came out.
    pub summary: String,
    /// The stage's log.
    pub log: Blob,
}

impl Cache {
    /// The manifest of a key. One that is broken or of another version counts as not there: the stage runs again and
    /// replaces it.
    pub fn lookup(&self, key: ActionKey) -> Option<Manifest> {
        self.read_manifest(key).filter(|manifest| manifest.record.key() == key)
    }

    /// The same for a record at hand whose key is `key`: records are compared, and nothing is hashed.
    pub fn lookup_record(&self, record: &Action, key: ActionKey) -> Option<Manifest> {
        let manifest = self.read_file(key).filter(|manifest| manifest.record == *record)?;
        match self.doubt(&manifest) {
            None => Some(manifest),
            Some(doubt) => {
                self.pass_over(key, doubt);
                None
            }
        }
    }

    /// What the file of a key holds, if it counts; whether its record gives that key is not looked at.
    pub(crate) fn read_manifest(&self, key: ActionKey) -> Option<Manifest> {
        self.read_file(key).filter(|manifest| self.doubt(manifest).is_none())
    }

    fn read_file(&self, key: ActionKey) -> Option<Manifest> {
        let bytes = fsio::read_regular(&self.action_path(key), u64::MAX).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        (manifest.format == MANIFEST_FORMAT).then_some(manifest)
    }

    /// The manifests of all results of a kind that are here, in no particular order. Reads every manifest: for when
    /// keys are not known.
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

    /// An output of a result by its name. Manifests come from elsewhere, too: what their kind has is not certain to be
    /// there.
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

    /// Records a finished stage. Its blobs are in the cache already.
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

/// How long the manifest of a record may be, in bytes. It holds the record once more, indented, and some lines on what
/// came out: the longest that the pipelines of this repository make has 100 KB, most of it its record.
pub(crate) fn longest_manifest(record: &Action) -> u64 {
    let record = serde_json::to_vec(record).map_or(0, |bytes| bytes.len() as u64);
    (1 << 20) + 16 * record
}
