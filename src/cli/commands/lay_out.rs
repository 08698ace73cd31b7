//! Writes results to their folder at the end of a run, and finds outdated files there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use atflow::action::ActionKey;
use atflow::cache::{CacheError, Manifest, StatMemo};
use atflow::event::RunSummary;
use atflow::external_inputs::ExternalInputs;
use atflow::plan::{CacheStatus, Goals, PlanContext, survey};
use atflow::results::TableDocument;
use atflow::results_folder::{LaidOutBy, MANIFEST_FILE, ResultFile, ResultsFolder, default_folder};
use atflow::spec::{Instance, InstanceId, OutputSpec};
use atflow::stage_kinds::StageKind;
use serde_json::json;

use super::{Loaded, result_list};
use crate::report::CliError;

/// What lies in the results folder at the end of a run.
pub(super) struct LaidOut {
    /// The folder.
    pub(super) folder: PathBuf,
    /// Files of this run, each with its stage.
    files: Vec<(String, PathBuf)>,
    /// Files that are not as the pipeline has them now, with the reason.
    outdated: Vec<(String, String)>,
    /// The report, if one was written.
    pub(super) report: Option<PathBuf>,
    /// The tables among the results as text, if they are to be shown.
    pub(super) tables: String,
    /// Paths that were read to find all this: files of the folder and of the cache.
    pub(super) looked_at: Vec<PathBuf>,
}

/// Lays out what the run made or found, and renders its tables if they are to be shown. A result that cannot be laid
/// out does not stop the others; returns the first error.
pub(super) fn lay_out(
    loaded: &Loaded,
    summary: &RunSummary,
    out: Option<&Path>,
    shows_tables: bool,
) -> (LaidOut, Option<CliError>) {
    let default = || default_folder(loaded.name(), &loaded.overrides);
    let path = out.map_or_else(default, Path::to_owned);
    let mut folder = ResultsFolder::open(path, loaded.name(), &loaded.file);
    let by = LaidOutBy {
        run: summary.run.clone(),
        profile: loaded.overrides.profile.clone(),
        parameters: loaded.spec.overridden(),
    };
    let (mut files, mut tables, mut first) = (Vec::new(), String::new(), None);
    let mut looked_at = vec![folder.path.join(MANIFEST_FILE)];
    looked_at.extend(folder.manifest.files.keys().map(|name| folder.path.join(name)));
    for id in loaded.goals.wanted.marked() {
        let instance = loaded.graph.instance(id);
        if instance.outputs.iter().all(|output| output.result.is_none()) {
            continue;
        }
        let Some(manifest) = summary.keys.get(&instance.name).and_then(|key| loaded.cache.lookup(*key)) else {
            continue;
        };
        let laid_out = folder.lay_out(&loaded.cache, instance, &manifest, &by).map_err(cannot_lay_out);
        looked_at.extend(manifest.outputs.values().map(|blob| loaded.cache.object_path(blob.digest)));
        let laid_out = laid_out.and_then(|paths| {
            files.extend(paths.into_iter().map(|path| (instance.stage.clone(), path)));
            if shows_tables && instance.kind == StageKind::Table {
                tables.push_str(&table_text(loaded, instance, &manifest)?);
            }
            Ok(())
        });
        first = first.or(laid_out.err());
    }
    let outdated = mark_outdated(&mut folder, loaded, summary);
    first = first.or(folder.save().map_err(cannot_lay_out).err());
    looked_at.extend(files.iter().map(|(_, path)| path.clone()));
    (LaidOut { folder: folder.path, files, outdated, report: None, tables, looked_at }, first)
}

impl LaidOut {
    /// Returns the closing lines of a run about its results.
    pub(super) fn words(&self) -> String {
        let mut words = String::new();
        if !self.files.is_empty() {
            let head = format!("results in {}/:", self.folder.display());
            let named = self.files.iter().filter_map(|(stage, file)| Some((&**stage, file.file_name()?.to_str()?)));
            words.push_str(&result_list::list(&head, named));
        }
        if let Some(report) = &self.report {
            words.push_str(&format!("report in {}\n", report.display()));
        }
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, reason) in &self.outdated {
            by_reason.entry(reason).or_default().push(name);
        }
        for (reason, names) in by_reason {
            let named = names.iter().map(|name| (result_list::split(name).0, *name));
            let listed = result_list::list(&format!("OUTDATED in {}/:", self.folder.display()), named);
            words.push_str(&format!("{} ({reason})\n", listed.trim_end()));
        }
        words
    }

    /// Returns the same for programs.
    pub(super) fn json(&self) -> serde_json::Value {
        let outdated: BTreeMap<&String, &String> = self.outdated.iter().map(|(name, reason)| (name, reason)).collect();
        let files: Vec<&PathBuf> = self.files.iter().map(|(_, path)| path).collect();
        let mut json = json!({ "folder": self.folder, "files": files, "outdated": outdated });
        if let Some(report) = &self.report {
            json["report"] = json!(report);
        }
        json
    }
}

/// Marks the files that this run did not lay out and that the pipeline now gives otherwise or not at all.
fn mark_outdated(folder: &mut ResultsFolder, loaded: &Loaded, summary: &RunSummary) -> Vec<(String, String)> {
    let ids: BTreeMap<&str, InstanceId> =
        loaded.graph.ids().map(|id| (loaded.graph.instance(id).name.as_str(), id)).collect();
    let others: Vec<InstanceId> = folder
        .manifest
        .files
        .values()
        .filter(|file| file.pipeline.is_empty())
        .filter_map(|file| ids.get(file.stage.as_str()))
        .copied()
        .filter(|id| !loaded.goals.wanted[*id])
        .collect();
    let current = if others.is_empty() { Some(BTreeMap::new()) } else { fresh_keys(loaded, &others) };
    folder.mark_outdated(|name: &str, file: &ResultFile| {
        let Some(id) = ids.get(file.stage.as_str()) else {
            return Some(format!("the pipeline has no stage {} now", file.stage));
        };
        let instance = loaded.graph.instance(*id);
        let is_it = |output: &OutputSpec| output.name == file.output && output.result.as_deref() == Some(name);
        if !instance.outputs.iter().any(is_it) {
            return Some(format!("{} does not make this file now", file.stage));
        }
        if loaded.goals.wanted[*id] {
            let is_current = summary.keys.get(&file.stage) == Some(&file.key);
            return (!is_current).then(|| "this run did not make them anew".to_owned());
        }
        match &current {
            Some(current) if current.get(id) == Some(&file.key) => None,
            Some(_) => Some("their stages are stale, and were no targets of this run".to_owned()),
            // Their sources cannot be read now: what was known of them stays.
            None => file.outdated.clone(),
        }
    })
}

/// Returns the keys of those instances that are fresh; nothing if their sources cannot be checked.
fn fresh_keys(loaded: &Loaded, ids: &[InstanceId]) -> Option<BTreeMap<InstanceId, ActionKey>> {
    let Loaded { graph, cache, .. } = loaded;
    let wanted = graph.reached_from(ids);
    let sources = ExternalInputs::check(graph, &wanted, &mut StatMemo::open(cache)).ok()?;
    let (forced, needed) = (graph.per_instance(None), graph.per_instance(false));
    let goals = Goals { wanted, forced, needed, rerun_from: None };
    let status_of = survey(PlanContext { graph, cache, sources: &sources }, &goals).ok()?;
    let fresh = |id: &InstanceId| match &status_of[*id] {
        Some(CacheStatus::Fresh(key, _)) => Some((*id, *key)),
        _ => None,
    };
    Some(ids.iter().filter_map(fresh).collect())
}

/// Returns a table as text; of a sweep, its name before it, as the tables of all values have one title.
fn table_text(loaded: &Loaded, instance: &Instance, manifest: &Manifest) -> Result<String, CliError> {
    let bytes = loaded.cache.read(loaded.cache.output(manifest, "json")?.digest);
    let bytes = bytes.map_err(|error| CliError::environment(error.to_string()))?;
    let table = TableDocument::from_json(&bytes).map_err(|error| CliError::environment(error.to_string()))?;
    let name = if instance.is_of_sweep() { format!("{}\n\n", instance.name) } else { String::new() };
    Ok(format!("{name}{}\n", atflow::results::markdown(&table)))
}

fn cannot_lay_out(error: CacheError) -> CliError {
    // What is only read is in the cache; what cannot be written is the folder.
    let is_folder = matches!(&error, CacheError::File(error) if error.source.kind() != ErrorKind::StorageFull);
    let error = CliError::from(error);
    if is_folder { error.help("check the folder and its permissions, or name another one with --out") } else { error }
}
