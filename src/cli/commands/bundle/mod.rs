//! `atflow bundle`: one archive with a pipeline, its results, and all that a rerun from some depth needs.

mod check;
mod stage;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use atflow::bundle::{About, WriteError, index_of, write};
use atflow::external_inputs::causes;
use atflow::fsio;

use crate::args::{BundleAction, BundleArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;
use stage::Stage;

pub(crate) fn run(args: &BundleArgs) -> Result<Exit, CliError> {
    match &args.action {
        Some(BundleAction::Check(args)) => check::check(&args.file),
        Some(BundleAction::Unpack(args)) => check::unpack(&args.file, args.out.as_deref()),
        None => pack(args),
    }
}

/// Ending of the names of bundles.
const ENDING: &str = ".tar.zst";

fn pack(args: &BundleArgs) -> Result<Exit, CliError> {
    let (Some(pipeline), Some(out)) = (&args.pipeline, &args.out) else {
        return Err(CliError::environment("a bundle needs a pipeline and a file to write").help("add -o FILE.tar.zst"));
    };
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(name) = name.strip_suffix(ENDING).filter(|name| !name.is_empty()) else {
        let message = format!("{} does not end in {ENDING}, as a bundle does", out.display());
        return Err(CliError::environment(message).help(format!("write to {}{ENDING}", out.display())));
    };
    let folder = fsio::folder_of(out);
    fsio::create_dir(folder).map_err(|error| cannot_write(&error))?;
    let scratch = tempfile::Builder::new().prefix(".atflow-bundle-").tempdir_in(folder);
    let scratch = scratch.map_err(|error| cannot_write(&error))?;
    let stage = Stage::fill(args, pipeline, scratch.path())?;
    stage.check_that_it_reruns(args)?;
    let count = archive(&stage.folder, stage.about, name, out)?;
    ui::print(&format!("{}\n", out.display()))?;
    let size = std::fs::metadata(out).map_or(0, |metadata| metadata.len());
    let with = args.with.map_or("results only", |with| match with {
        crate::args::BundleDepth::Predictions => "with predictions",
        crate::args::BundleDepth::Checkpoints => "with predictions and checkpoints",
    });
    eprint(&format!("{}, {}, {with}\n", ui::count(count, "file"), ui::bytes(size)));
    for (name, how) in &stage.not_packed {
        eprint(&format!("not in it: {name}: {how}\n"));
    }
    Ok(Exit::Done)
}

/// Writes the archive; it is there as a whole or not at all. Returns the number of its files.
fn archive(folder: &Path, about: About, name: &str, out: &Path) -> Result<usize, CliError> {
    let failed = |error: WriteError| cannot_write(&error);
    let index = index_of(folder, about).map_err(failed)?;
    let temporary = fsio::scratch_file(fsio::folder_of(out)).map_err(|error| cannot_write(&error))?;
    write(folder, &index, name, BufWriter::new(temporary.as_file())).map_err(failed)?;
    File::sync_all(temporary.as_file()).map_err(|error| cannot_write(&error))?;
    fsio::publish(temporary.into_temp_path(), out).map_err(|error| cannot_write(&error))?;
    Ok(index.files.len())
}

fn cannot_write(error: &(dyn std::error::Error + 'static)) -> CliError {
    let error = CliError::environment(format!("the bundle cannot be written: {}", causes(error).join(": ")));
    error.help("check the folder and its free space, or name another file with -o")
}
