//! Parts of a frozen plan: its instances, their outputs and sources, and lists of what many of them share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::address::masked;
use crate::cache::Blob;
use crate::digest::Digest;
use crate::external_inputs::CheckedSource;
use crate::numerics::Numerics;
use crate::spec::OutputSpec;
use crate::stage_kinds::{Source, StageKind};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FrozenInstance {
    pub(super) name: String,
    pub(super) stage: String,
    pub(super) kind: StageKind,
    /// Position in `params`.
    pub(super) params: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) seed: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_seeded: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) numerics: Numerics,
    pub(super) threads: usize,
    pub(super) gpu: f64,
    /// Time limit in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) time_limit: Option<f64>,
    /// Slot, label, position of the producer, and its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) needs: Vec<(String, String, usize, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sources: Vec<FrozenSource>,
    /// Position in `outputs`.
    pub(super) outputs: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sweep: Vec<(String, String)>,
    /// Position in `classes`.
    pub(super) class: usize,
    /// Seconds that it takes, by earlier runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    /// Whether no target needs it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_unwanted: bool,
    /// Whether its outputs must exist at the end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_needed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct FrozenOutput {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<String>,
}

/// Input from outside the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FrozenSource {
    pub(super) slot: String,
    #[serde(flatten)]
    pub(super) place: Place,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// File at an absolute path.
    File { path: PathBuf, digest: Digest },
    /// Folder at an absolute path.
    Folder { path: PathBuf, digest: Digest },
    /// File to fetch.
    Address(Source),
    /// File of the machine that submits agents, whose bytes are in the bucket that agents share.
    Kept { path: PathBuf, identity: String, blob: Blob },
    /// Folder of that machine, whose files are in the bucket; `list` names them.
    KeptFolder { path: PathBuf, digest: Digest, list: Blob },
    /// File that a person has to fetch.
    ByHand { path: PathBuf, source: Source, digest: Option<Digest> },
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Returns the location of a checked source, as an instance has it.
pub(super) fn located(checked: &CheckedSource) -> Source {
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    match checked {
        CheckedSource::Local { path, .. } => Source { path: text(path), ..Source::default() },
        CheckedSource::Folder { path, .. } | CheckedSource::KeptFolder { path, .. } => {
            Source { path: text(path), is_folder: true, ..Source::default() }
        }
        CheckedSource::Kept { path, .. } => Source { path: text(path), ..Source::default() },
        CheckedSource::Remote { source } => source.clone(),
        CheckedSource::ByHand { path, source, .. } => Source { path: text(path), ..source.clone() },
    }
}

impl Place {
    pub(super) fn of(checked: &CheckedSource) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match checked {
            CheckedSource::Local { path, digest } => Place::File { path: absolute(path), digest: *digest },
            CheckedSource::Folder { path, digest } => Place::Folder { path: absolute(path), digest: *digest },
            CheckedSource::Remote { source } => Place::Address(without_secrets(source)),
            CheckedSource::Kept { path, identity, blob } => {
                Place::Kept { path: path.clone(), identity: identity.clone(), blob: *blob }
            }
            CheckedSource::KeptFolder { path, digest, list } => {
                Place::KeptFolder { path: path.clone(), digest: *digest, list: *list }
            }
            CheckedSource::ByHand { path, source, digest } => {
                Place::ByHand { path: absolute(path), source: without_secrets(source), digest: *digest }
            }
        }
    }
}

fn without_secrets(source: &Source) -> Source {
    let mut source = source.clone();
    source.url = source.url.map(|url| masked(&url));
    source.mirrors.iter_mut().for_each(|url| *url = masked(url));
    source
}

impl From<Place> for CheckedSource {
    fn from(place: Place) -> Self {
        match place {
            Place::File { path, digest } => CheckedSource::Local { path, digest },
            Place::Folder { path, digest } => CheckedSource::Folder { path, digest },
            Place::Address(source) => CheckedSource::Remote { source },
            Place::Kept { path, identity, blob } => CheckedSource::Kept { path, identity, blob },
            Place::KeptFolder { path, digest, list } => CheckedSource::KeptFolder { path, digest, list },
            Place::ByHand { path, source, digest } => CheckedSource::ByHand { path, source, digest },
        }
    }
}

impl From<OutputSpec> for FrozenOutput {
    fn from(OutputSpec { name, result }: OutputSpec) -> Self {
        FrozenOutput { name, result }
    }
}

impl From<FrozenOutput> for OutputSpec {
    fn from(FrozenOutput { name, result }: FrozenOutput) -> Self {
        OutputSpec { name, result }
    }
}

/// Values that many instances share, each once.
#[derive(Default)]
pub(super) struct Pools {
    pub(super) params: Pool<Arc<Json>>,
    pub(super) outputs: Pool<Vec<FrozenOutput>>,
    pub(super) classes: Pool<String>,
}

pub(super) struct Pool<T> {
    pub(super) values: Vec<T>,
    pub(super) positions: HashMap<T, usize>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { values: Vec::new(), positions: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Pool<T> {
    /// Returns the position of a value, and adds it if it is new.
    pub(super) fn position(&mut self, value: T) -> usize {
        *self.positions.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() - 1
        })
    }
}
