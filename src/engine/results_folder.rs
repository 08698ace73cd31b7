//! The folder of results that people look at (tables, figures, pictures), and its manifest: what each file is, from
//! which run, and with which parameters.
//!
//! A run with a profile or overrides has a folder of its own. So numbers of different parameters never lie side by
//! side.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::action::ActionKey;
use crate::address::masked;
use crate::cache::{Cache, CacheError, Manifest, RunId, RunRecord};
use crate::digest::Digest;
use crate::fsio;
use crate::parameters::ParameterChanges;
use crate::spec::{Instance, Overrides};
use crate::stage_kinds::RESERVED_RESULTS;

/// Name of the manifest in its folder.
pub const MANIFEST_FILE: &str = RESERVED_RESULTS[0];

/// Value of `format` that this version writes and reads.
const FORMAT: &str = "results/1";

/// Longest name of a folder, in bytes. File systems take 255.
const LONGEST_NAME: usize = 120;

/// A manifest of a folder is never longer, in bytes.
const MAX_MANIFEST: u64 = 64 << 20;

/// Manifest of a folder of results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FolderManifest {
    format: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// The pipeline file, as given.
    pub file: PathBuf,
    /// The files, by name.
    pub files: BTreeMap<String, ResultFile>,
}

/// What a file of a results folder is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// Pipeline of that instance; empty for that of the folder.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pipeline: String,
    /// Instance that made it.
    pub stage: String,
    /// Name of the output.
    pub output: String,
    /// Key of the instance.
    pub key: ActionKey,
    /// Digest of the file.
    pub digest: Digest,
    /// Run that laid it out; absent if the cache could not record the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// When the stage made it, RFC 3339 in UTC.
    pub made: String,
    /// Commit of the repository with the pipeline file when the stage made it, with `-dirty` if it had changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The profile of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Parameters of the run that differ from the pipeline file's.
    #[serde(default, skip_serializing_if = "ParameterChanges::is_empty")]
    pub parameters: ParameterChanges,
    /// Why the file is no longer what the pipeline gives; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated: Option<String>,
}

/// What is the same for all files that one run lays out.
#[derive(Debug, Clone, Default)]
pub struct LaidOutBy {
    /// The run.
    pub run: Option<RunId>,
    /// Its profile.
    pub profile: Option<String>,
    /// Its parameters that differ from the pipeline file's.
    pub parameters: ParameterChanges,
}

/// A folder of results that a run writes into.
#[derive(Debug)]
pub struct ResultsFolder {
    /// The folder.
    pub path: PathBuf,
    /// What its files are.
    pub manifest: FolderManifest,
    /// The manifest as it is on the disk.
    stored: Option<FolderManifest>,
}

/// Returns the path of a pipeline's results folder, relative to where atflow runs: `results/quickstart`.
pub fn default_folder(pipeline: &str, overrides: &Overrides) -> PathBuf {
    Path::new("results").join(folder_name(pipeline, overrides))
}

/// Returns the results folder of a run.
pub fn folder_of_run(run: &RunRecord) -> PathBuf {
    let overrides = || Overrides { profile: run.profile.clone(), set: run.set.clone() };
    run.results.clone().unwrap_or_else(|| default_folder(&run.pipeline, &overrides()))
}

/// Returns the name of a pipeline's results folder: `quickstart`, or with a profile and overrides
/// `quickstart@smoke,eps=4_255`; with a sweep `quickstart@eps=2_255+4_255`.
///
/// Different values have different names: where characters are replaced and the name would not tell, a digest follows.
pub fn folder_name(pipeline: &str, overrides: &Overrides) -> String {
    // The last value of a parameter counts, and the order of parameters does not. A password is no part of a name.
    let set: BTreeMap<&str, String> =
        overrides.set.iter().map(|(key, value)| (key.as_str(), masked(value.trim()))).collect();
    let parts: Vec<(String, bool)> = overrides
        .profile
        .iter()
        .map(|profile| plain_name(profile))
        .chain(set.iter().map(|(key, value)| {
            let ((key, key_is_exact), (value, value_is_exact)) = (plain_name(key), plain_name(value));
            (format!("{key}={value}"), key_is_exact && value_is_exact)
        }))
        .collect();
    if parts.is_empty() {
        return pipeline.to_owned();
    }
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let name = format!("{pipeline}@{}", names.join(","));
    if name.len() <= LONGEST_NAME && parts.iter().all(|(_, is_exact)| *is_exact) {
        return name;
    }
    let written = serde_json::to_string(&(&overrides.profile, &set)).unwrap_or_default();
    let digest = &Digest::of(written.as_bytes()).to_string()[..8];
    let start: String = name.chars().take(LONGEST_NAME - 9).collect();
    format!("{start}-{digest}")
}

/// Returns a text with only such characters as are harmless in names of files, and whether it still tells the text
/// from every other: `8/255` becomes `8_255`, which no other fraction does. The values of a sweep have a `+` between.
fn plain_name(text: &str) -> (String, bool) {
    // A list, a mapping and a text in quotes are one value.
    if text.starts_with(['[', '{', '"', '\'']) {
        return plain_value(text);
    }
    let values: Vec<&str> = text.split(',').map(str::trim).collect();
    let names: Vec<(String, bool)> = values.iter().map(|value| plain_value(value)).collect();
    // A `+` is between two values, or in one number: `1e+3`.
    let is_exponent = |value: &str| value.ends_with(['e', 'E']);
    let has_sum = |value: &&str| value.split('+').rev().skip(1).any(|before| !is_exponent(before));
    let is_clear = values.iter().rev().skip(1).all(|value| !is_exponent(value)) && !values.iter().any(has_sum);
    let is_exact = is_clear && names.iter().all(|(_, is_exact)| *is_exact);
    (names.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join("+"), is_exact)
}

fn plain_value(text: &str) -> (String, bool) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let name: String = text.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_fraction = text.split_once('/').is_some_and(|(over, under)| is_number(over) && is_number(under));
    // A name with `_` is as it is, unless it could stand for a fraction.
    let could_be_fraction = text.split_once('_').is_some_and(|(over, under)| is_number(over) && is_number(under));
    let is_word = text.chars().all(|c| is_plain(c) || c == '_') && !could_be_fraction;
    (name, is_fraction || is_word)
}

impl FolderManifest {
    /// Reads the manifest of a folder; nothing if it has none that this version can read.
    pub fn read(folder: &Path) -> Option<Self> {
        let bytes = fsio::read_regular(&folder.join(MANIFEST_FILE), MAX_MANIFEST).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|manifest: &FolderManifest| manifest.format == FORMAT)
    }

    /// Returns the name of the file with an output of an instance, if the folder has it from the result of this key.
    pub fn file_of(&self, pipeline: &str, stage: &str, output: &str, key: ActionKey) -> Option<&str> {
        let is_it = |file: &ResultFile| {
            let of = if file.pipeline.is_empty() { &self.pipeline } else { &file.pipeline };
            (of.as_str(), file.stage.as_str(), file.output.as_str(), file.key) == (pipeline, stage, output, key)
        };
        self.files.iter().find(|(_, file)| is_it(file)).map(|(name, _)| name.as_str())
    }
}

impl ResultsFolder {
    /// Opens a folder, which need not exist yet.
    pub fn open(path: PathBuf, pipeline: &str, file: &Path) -> Self {
        let stored = FolderManifest::read(&path);
        let mut files = stored.as_ref().map(|stored| stored.files.clone()).unwrap_or_default();
        // What another pipeline left there stays the other pipeline's.
        for file in files.values_mut() {
            let of = stored.as_ref().map_or(pipeline, |stored| &stored.pipeline);
            let of = if file.pipeline.is_empty() { of.to_owned() } else { std::mem::take(&mut file.pipeline) };
            file.pipeline = if of == pipeline { String::new() } else { of };
        }
        let manifest =
            FolderManifest { format: FORMAT.to_owned(), pipeline: pipeline.to_owned(), file: file.to_owned(), files };
        ResultsFolder { path, manifest, stored }
    }

    /// Copies the results of an instance into the folder. Leaves a file with the same bytes alone. Returns the files'
    /// paths.
    ///
    /// # Errors
    /// [`CacheError`] if a blob cannot be read or has other bytes than its digest says, or if the folder cannot be
    /// written.
    pub fn lay_out(
        &mut self,
        cache: &Cache,
        instance: &Instance,
        manifest: &Manifest,
        by: &LaidOutBy,
    ) -> Result<Vec<PathBuf>, CacheError> {
        let mut paths = Vec::new();
        let key = manifest.record.key();
        for output in &instance.outputs {
            let (Some(name), Some(blob)) = (&output.result, manifest.outputs.get(&output.name)) else { continue };
            let path = self.path.join(name);
            let bytes = cache.read(blob.digest)?;
            if !fs::read(&path).is_ok_and(|there| there == bytes) {
                fsio::create_dir(&self.path)?;
                fsio::write_atomic(&path, &self.path, &bytes)?;
            }
            let file = ResultFile {
                pipeline: String::new(),
                stage: instance.name.clone(),
                output: output.name.clone(),
                key,
                digest: blob.digest,
                run: by.run.clone(),
                made: manifest.made.at.clone(),
                commit: manifest.made.commit.clone(),
                profile: by.profile.clone(),
                parameters: by.parameters.clone(),
                outdated: None,
            };
            self.manifest.files.insert(name.clone(), file);
            paths.push(path);
        }
        Ok(paths)
    }

    /// Marks the files of this pipeline that are not as it has them now: `reason` says why, from name, stage and key.
    /// Returns their names and reasons.
    pub fn mark_outdated(&mut self, reason: impl Fn(&str, &ResultFile) -> Option<String>) -> Vec<(String, String)> {
        // What somebody removed is no file any more.
        self.manifest.files.retain(|name, _| self.path.join(name).exists());
        let mut outdated = Vec::new();
        let own = self.manifest.files.iter_mut().filter(|(_, file)| file.pipeline.is_empty());
        for (name, file) in own {
            file.outdated = reason(name, file);
            outdated.extend(file.outdated.clone().map(|reason| (name.clone(), reason)));
        }
        outdated
    }

    /// Writes the manifest, if it differs from what is there.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn save(&self) -> Result<(), CacheError> {
        let is_stored = self.stored.as_ref().is_some_and(|stored| *stored == self.manifest);
        if is_stored || (self.stored.is_none() && self.manifest.files.is_empty()) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&self.manifest).unwrap_or_default() + "\n";
        Ok(fsio::write_atomic(&self.path.join(MANIFEST_FILE), &self.path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(profile: Option<&str>, set: &[(&str, &str)]) -> String {
        let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        folder_name("p", &Overrides { profile: profile.map(str::to_owned), set })
    }

    #[test]
    fn a_folder_is_named_by_what_was_changed() {
        assert_eq!(name(None, &[]), "p");
        assert_eq!(name(Some("smoke"), &[]), "p@smoke");
        assert_eq!(name(None, &[("eps", "4/255")]), "p@eps=4_255");
        assert_eq!(name(Some("smoke"), &[("b", "2"), ("a", "1")]), "p@smoke,a=1,b=2");
        assert_eq!(name(None, &[("a", "1"), ("a", "2")]), "p@a=2", "the last one counts");
        assert_eq!(name(None, &[("net.width", "1e-3")]), "p@net.width=1e-3");
        assert_eq!(name(None, &[("eps", "1/255, 2/255,1e+3")]), "p@eps=1_255+2_255+1e+3");
    }

    #[test]
    fn different_changes_never_share_a_folder() {
        let all = [
            name(None, &[("eps", "4/255")]),
            name(None, &[("eps", "4_255")]),
            name(None, &[("eps", "4 255")]),
            name(None, &[("eps", "[4, 255]")]),
            name(None, &[("a", "1,b=2")]),
            name(None, &[("a", "1,2")]),
            name(None, &[("a", "1+2")]),
            name(None, &[("a", "1e,2")]),
            name(None, &[("a", "1e+2")]),
            name(None, &[("a", "1/255,2/255")]),
            name(None, &[("a", "1_255,2_255")]),
            name(None, &[("a", "1"), ("b", "2")]),
            name(Some("a=1"), &[]),
            name(None, &[("a", "1")]),
            name(None, &[("a", "ä")]),
            name(None, &[("a", "ö")]),
            name(None, &[("a", &"x".repeat(300))]),
            name(None, &[("a", &format!("{}y", "x".repeat(299)))]),
            name(None, &[("a", "https://user:secret@host/x")]),
        ];
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        assert!(all.iter().all(|name| !name.contains("secret")), "{all:?}");
        assert!(all.iter().all(|name| name.len() <= LONGEST_NAME && !name.contains('/')), "{all:?}");
    }
}
