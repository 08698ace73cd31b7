//! `atflow bundle check` and `atflow bundle unpack`: read a bundle as hostile input.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use atflow::bundle::{About, BundleError, Checked, INSTRUCTIONS, read};
use atflow::external_inputs::causes;
use atflow::fsio;
use atflow::plain::plain;
use atflow::plan::rerun_from::RerunFrom;

use super::ENDING;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Checks every file of a bundle and says what it holds.
pub(super) fn check(file: &Path) -> Result<Exit, CliError> {
    let checked = read(open(file)?, None).map_err(|error| refused(file, &error))?;
    ui::print(&words(&checked))?;
    Ok(Exit::Done)
}

/// Unpacks a bundle into a new folder, which is there as a whole or not at all.
pub(super) fn unpack(file: &Path, out: Option<&Path>) -> Result<Exit, CliError> {
    let out = out.map_or_else(|| default_folder(file), Path::to_owned);
    if out.symlink_metadata().is_ok() {
        let message = format!("{} is there already, and a bundle is unpacked into a new folder", out.display());
        return Err(CliError::environment(message).help("name another folder with -o"));
    }
    let parent = fsio::folder_of(&out);
    fsio::create_dir(parent).map_err(|error| cannot_unpack(&error))?;
    let scratch = tempfile::Builder::new().prefix(".atflow-bundle-").tempdir_in(parent);
    let scratch = scratch.map_err(|error| cannot_unpack(&error))?;
    let content = scratch.path().join("content");
    let checked = read(open(file)?, Some(&content)).map_err(|error| refused(file, &error))?;
    std::fs::rename(&content, &out).map_err(|error| cannot_unpack(&error))?;
    ui::print(&words(&checked))?;
    eprint(&format!("unpacked into {}; {} says how to go on\n", out.display(), out.join(INSTRUCTIONS).display()));
    Ok(Exit::Done)
}

fn open(file: &Path) -> Result<BufReader<File>, CliError> {
    let opened = fsio::open_regular(file);
    opened.map(BufReader::new).map_err(|error| {
        CliError::environment(format!("cannot read {}: {error}", file.display()))
            .help("name a file that `atflow bundle` wrote")
    })
}

/// The folder beside the bundle with its name.
fn default_folder(file: &Path) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    PathBuf::from(name.strip_suffix(ENDING).unwrap_or("bundle"))
}

fn words(Checked { index, manifests, blobs, bytes }: &Checked) -> String {
    let About { pipeline, file, targets, profile, with, .. } = &index.about;
    let targets = if targets.is_empty() { "all".to_owned() } else { targets.join(" ") };
    let with = match with {
        None => "results only",
        Some(RerunFrom::Predictions) => "predictions",
        Some(_) => "predictions and checkpoints",
    };
    let profile = profile.as_ref().map(|profile| format!("profile    {profile}\n")).unwrap_or_default();
    let (manifests, blobs) = (ui::count(*manifests, "result"), ui::count(*blobs, "blob"));
    let files = ui::count(index.files.len(), "file");
    let text = format!(
        "pipeline   {pipeline} ({file})\ntargets    {targets}\n{profile}with       {with}\n\
         holds      {files} ({}): {manifests}, {blobs}\nchecked    every digest is right\n",
        ui::bytes(*bytes)
    );
    // Somebody else wrote the names.
    plain(&text).into_owned()
}

fn refused(file: &Path, error: &BundleError) -> CliError {
    let message = format!("{} is refused: {}", file.display(), causes(error).join(": "));
    CliError::environment(message).help("get it again from its author; nothing of it was kept")
}

fn cannot_unpack(error: &(dyn std::error::Error + 'static)) -> CliError {
    let message = format!("the bundle cannot be unpacked: {}", causes(error).join(": "));
    CliError::environment(message).help("check the folder and its free space, or name another one with -o")
}
