//! The pipeline of an earlier run as it is now, checked against the record of the run; and the run as an RO-Crate.

use std::collections::BTreeMap;
use std::path::Path;

use atflow::action::ActionKey;
use atflow::cache::{Access, RunOutcome, RunRecord};
use atflow::fsio::{self, Context, FileError};
use atflow::plan::CacheStatus;
use atflow::redact::Redaction;
use atflow::report::RunResults;
use atflow::ro_crate::{self, Contents, ExtraFile, Files, Layout, License, METADATA_FILE};
use atflow::spec::Overrides;

use super::Loaded;
use crate::again;
use crate::args::{CacheArgs, ChangeArgs};
use crate::report::{CliError, eprint};
use crate::ui;

/// Reads the pipeline of a run with its profile and parameters. `file` is where it lies now, if not where it lay.
///
/// A pipeline that gives other results by now would be told as the source of results that it did not make. That is an
/// error.
pub(super) fn of_run(results: &RunResults, file: Option<&Path>, cache: &CacheArgs) -> Result<Loaded, CliError> {
    let run = &results.run;
    let file = file.unwrap_or(&run.file);
    let overrides = Overrides { profile: run.profile.clone(), set: run.set.clone() };
    let command = again::run_command(file, &run.targets, &overrides, &cache.cache);
    let again = format!("`{command}` makes them, and a run to describe");
    if !results.lost.is_empty() {
        let message = format!(
            "of run {}, {} gone from the cache: {}",
            run.id.short(),
            ui::count(results.lost.len(), "result"),
            ui::some(&results.lost)
        );
        return Err(CliError::environment(message).help(again));
    }
    if results.stages.is_empty() {
        return Err(CliError::environment(format!("run {} has no results", run.id.short())).help(again));
    }
    let changes = ChangeArgs::plain(overrides, cache.clone());
    let loaded = Loaded::open(file, &run.targets, &changes, Access::Read)?;
    let changed = changed(&loaded, run)?;
    if changed.is_empty() {
        return Ok(loaded);
    }
    let message = format!(
        "{} is not as run {} had it: {} of its instances have other results now: {}",
        file.display(),
        run.id.short(),
        changed.len(),
        ui::some(&changed)
    );
    let commit = match &run.commit {
        Some(commit) => format!(", or check out commit {}", commit.trim_end_matches("-dirty")),
        None => String::new(),
    };
    Err(CliError::environment(message).help(format!("run the pipeline again, `{command}`{commit}")))
}

/// Returns the instances that a run and the pipeline do not have in common.
fn changed(loaded: &Loaded, run: &RunRecord) -> Result<Vec<String>, CliError> {
    let status_of = loaded.survey()?;
    let mut now = BTreeMap::new();
    for (id, status) in status_of.iter() {
        let key = match status {
            None => continue,
            Some(CacheStatus::Fresh(key, _)) => Some(*key),
            Some(_) => None,
        };
        now.insert(loaded.graph.instance(id).name.as_str(), key);
    }
    let is_other = |(name, key): &(&String, &ActionKey)| now.get(name.as_str()).copied().flatten() != Some(**key);
    let mut changed: Vec<String> = run.keys.iter().filter(is_other).map(|(name, _)| name.clone()).collect();
    // A run that did not come to its end may lack instances.
    if run.outcome == Some(RunOutcome::Done) {
        let is_new = |name: &&&str| !run.keys.contains_key(**name);
        changed.extend(now.keys().filter(is_new).map(|name| (*name).to_owned()));
    }
    Ok(changed)
}

/// What a crate has beside the results of its run.
pub(super) struct Beside {
    /// Where the pipeline's files lie in it.
    pub layout: Layout,
    /// Its licence, as the user named it.
    pub license: Option<String>,
    /// Further files.
    pub extra: Vec<ExtraFile>,
    /// The path in it of the manifest of a key.
    pub manifest_path: fn(ActionKey) -> String,
    /// Paths in it of blobs and sources that travel along.
    pub blobs: BTreeMap<atflow::digest::Digest, String>,
    pub sources: BTreeMap<String, String>,
}

/// Returns the files of a crate of a run.
pub(super) fn crate_files(results: &RunResults, loaded: &Loaded, beside: Beside) -> Result<Files, CliError> {
    let redaction = Redaction::of_environment();
    for file in &loaded.spec.files {
        if redaction.shown(&file.text) != file.text {
            eprint(&format!("warning: the copy of {} has *** or ~ for what is private in it\n", file.name()));
        }
    }
    let license = match &beside.license {
        Some(name) => License::Named(name.clone()),
        None => License::Unstated,
    };
    let contents = Contents {
        results,
        spec: &loaded.spec,
        graph: &loaded.graph,
        cache: &loaded.cache,
        layout: &beside.layout,
        license: &license,
        redaction: &redaction,
        extra: beside.extra,
        manifest_path: beside.manifest_path,
        blobs: beside.blobs,
        sources: beside.sources,
    };
    Ok(ro_crate::pack(&contents)?)
}

/// Lays out the files of a pipeline.
pub(super) fn layout<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Layout, CliError> {
    Layout::of(files).map_err(|error| CliError::environment(error.to_string()).help("rename the file"))
}

/// Checks that a folder for a crate is new or empty: nothing of anybody's is overwritten.
pub(super) fn check_new_folder(folder: &Path) -> Result<(), CliError> {
    let is_free = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if is_free {
        return Ok(());
    }
    let message = format!("{} is there already, and a crate needs a new folder", folder.display());
    Err(CliError::environment(message).help("name another one with --crate, or remove it"))
}

/// Writes the files of a crate into a new folder.
pub(super) fn write_crate(folder: &Path, files: &Files) -> Result<(), CliError> {
    write_files(folder, files).map_err(|error| {
        let causes = atflow::external_inputs::causes(&error).join(": ");
        CliError::environment(format!("the crate cannot be written: {causes}")).help("name another folder with --crate")
    })
}

/// Writes files into a folder; the one that describes the others comes last.
pub(super) fn write_files(folder: &Path, files: &Files) -> Result<(), FileError> {
    let mut names: Vec<&String> = files.keys().collect();
    names.sort_by_key(|name| name.as_str() == METADATA_FILE);
    names.into_iter().try_for_each(|name| write(&folder.join(name), &files[name]))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fsio::create_dir(fsio::folder_of(path))?;
    std::fs::write(path, bytes).on("write", path)
}
