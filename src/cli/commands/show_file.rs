//! `atflow show FILE`: identifies a file of a results folder, or any file whose bytes are in the cache.

use std::path::Path;

use atflow::cache::{Cache, Manifest};
use atflow::digest::Digest;
use atflow::fsio;
use atflow::results_folder::{FolderManifest, ResultFile};
use serde_json::json;

use super::runs::change_words;
use super::show::Lines;
use crate::again;
use crate::report::CliError;
use crate::ui;

/// Returns whether a name that a user gave means a file and no instance.
pub(super) fn is_file(name: &str) -> bool {
    Path::new(name).is_file()
}

/// Shows a file: as its folder's manifest has it, else by its bytes.
pub(super) fn show(cache: &Cache, name: &str, is_json: bool) -> Result<(), CliError> {
    let path = Path::new(name);
    let digest = Digest::of_file(path)
        .map_err(|error| CliError::environment(format!("cannot read {}: {error}", path.display())))?;
    let folder = fsio::folder_of(path);
    let manifest = FolderManifest::read(folder);
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let listed = manifest.as_ref().and_then(|manifest| Some((manifest, manifest.files.get(&file_name)?)));
    let text = match listed {
        Some((manifest, file)) => of_folder(cache, name, digest, manifest, file, is_json),
        None => by_bytes(cache, name, digest, is_json)?,
    };
    ui::print_either(is_json, &text)
}

fn of_folder(
    cache: &Cache,
    name: &str,
    digest: Digest,
    manifest: &FolderManifest,
    file: &ResultFile,
    is_json: bool,
) -> String {
    let is_as_laid_out = digest == file.digest;
    let pipeline = if file.pipeline.is_empty() { &manifest.pipeline } else { &file.pipeline };
    let made = cache.lookup(file.key);
    if is_json {
        let mut json = json!(file);
        json["file"] = json!(name);
        json["pipeline"] = json!(pipeline);
        json["changed_since"] = json!(!is_as_laid_out);
        json["result"] = json!(made);
        return format!("{json}\n");
    }
    let mut lines = Lines::default();
    lines.add("file", name);
    lines.add("is", format!("output `{}` of {} in pipeline {pipeline}", file.output, file.stage));
    if !is_as_laid_out {
        lines.add("CHANGED", "the file has other bytes than the stage made");
    }
    if let Some(reason) = &file.outdated {
        lines.add("OUTDATED", reason);
    }
    if let Some(profile) = &file.profile {
        lines.add("profile", profile);
    }
    let changes: Vec<String> = file.parameters.iter().map(|(name, change)| change_words(name, change)).collect();
    let none = "as in the pipeline file".to_owned();
    lines.add("parameters", if changes.is_empty() { none } else { changes.join("\n") });
    if let Some(run) = &file.run {
        lines.add("run", run.short());
    }
    lines.add("made", ui::moment(&file.made));
    if let Some(commit) = &file.commit {
        lines.add("commit", commit);
    }
    lines.add("key", file.key.to_string());
    lines.add("digest", format!("blake3:{}", file.digest));
    let more = match made {
        Some(_) => {
            let command = again::with_cache(&["show", &file.stage, "--pipeline", pipeline], cache.root());
            format!("`{command}` tells from what it was made")
        }
        None => "its result is not in this cache".to_owned(),
    };
    format!("{}{more}\n", lines.text())
}

/// Looks through all results for one with these bytes.
fn by_bytes(cache: &Cache, name: &str, digest: Digest, is_json: bool) -> Result<String, CliError> {
    let mut found: Vec<(Manifest, String)> = cache.results_with(digest)?;
    found.sort_by(|(a, _), (b, _)| b.made.at.cmp(&a.made.at));
    let Some((manifest, output)) = found.first() else {
        let message = format!("{name} is no result that {} knows", cache.root().display());
        return Err(CliError::environment(message).help(
            "its folder's manifest does not list it, and no result has these bytes; was it changed, or is it of another cache?",
        ));
    };
    let made = &manifest.made;
    if is_json {
        return Ok(format!(
            "{}\n",
            json!({
                "file": name, "stage": made.stage, "output": output, "pipeline": made.pipeline,
                "key": manifest.record.key(), "digest": digest, "made": made.at, "commit": made.commit,
                "changed_since": false, "result": manifest,
            })
        ));
    }
    let mut lines = Lines::default();
    lines.add("file", name);
    lines.add("is", format!("output `{output}` of {} in pipeline {}, by its bytes", made.stage, made.pipeline));
    lines.add("made", ui::moment(&made.at));
    if let Some(commit) = &made.commit {
        lines.add("commit", commit);
    }
    lines.add("key", manifest.record.key().to_string());
    if found.len() > 1 {
        lines.add("also", format!("{} have the same bytes", ui::count(found.len() - 1, "other result")));
    }
    Ok(lines.text())
}
