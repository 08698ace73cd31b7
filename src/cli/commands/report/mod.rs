//! `atflow report`: one self-contained page on a run, which needs no network and reads without scripts; and the run as
//! an RO-Crate.

mod chart;
mod data;
mod page;
mod schedule;
mod shown;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atflow::cache::{Access, Cache, RunId, RunRecord};
use atflow::external_inputs::causes;
use atflow::fsio;
use atflow::report::{EVENT_FILE, RunResults, event_files, training_curves};
use atflow::results_folder::folder_of_run;
use atflow::ro_crate::ExtraFile;
use atflow::spec::{Overrides, PipelineSpec};

use super::ran_pipeline::{self, Beside, check_new_folder, crate_files, write_crate};
use super::runs::{find_run, run_before};
use crate::args::{FindArgs, ReportArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Name of the file in a results folder.
const NAME: &str = "report.html";

/// A run with more stages gets a report on request only: it may take longer than a second.
const MOST_STAGES: usize = 1000;

pub(crate) fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.cache.cache)?;
    args.crate_folder.as_deref().map_or(Ok(()), check_new_folder)?;
    let run = wanted(&cache, args)?;
    let against = match &args.compare {
        Some(name) => Some(find_run(&cache, name, &found(args, Some(&run.pipeline)))?),
        None => run_before(&cache, &run, &run.keys),
    };
    let out = args.out.clone().unwrap_or_else(|| default_place(&run));
    let results = RunResults::read(&cache, run);
    let text = write(&cache, &results, against.as_ref(), !args.no_images, &out)?;
    ui::print(&format!("{}\n", out.display()))?;
    if let Some(folder) = &args.tensorboard {
        write_events(&cache, &results, folder)?;
    }
    if let Some(folder) = &args.crate_folder {
        write_run_crate(args, &results, text, folder)?;
        ui::print(&format!("{}\n", folder.display()))?;
    }
    if !results.lost.is_empty() {
        eprint(&format!("{} gone from the cache: {}\n", results.lost.len(), ui::some(&results.lost)));
    }
    Ok(Exit::Done)
}

/// Writes the report of a run that has just ended into its results folder; returns the file. Nothing if the run has too
/// many stages for that, or no record.
///
/// # Errors
/// [`CliError`] if it cannot be written.
pub(super) fn write_at_end(cache: &Cache, run: &RunId, folder: &Path) -> Result<Option<PathBuf>, CliError> {
    let Some(run) = cache.runs(None).find(|record| record.id == *run) else { return Ok(None) };
    if run.keys.len() > MOST_STAGES {
        return Ok(None);
    }
    let against = run_before(cache, &run, &run.keys);
    let out = folder.join(NAME);
    write(cache, &RunResults::read(cache, run), against.as_ref(), true, &out)?;
    Ok(Some(out))
}

/// Writes the page of a run, and returns it.
fn write(
    cache: &Cache,
    results: &RunResults,
    against: Option<&RunRecord>,
    images: bool,
    out: &Path,
) -> Result<String, CliError> {
    let text = page::html(cache, results, against, images)?;
    let folder = fsio::folder_of(out);
    let written = fsio::create_dir(folder).and_then(|()| fsio::write_atomic(out, folder, text.as_bytes()));
    written.map_err(|error| {
        let causes = causes(&error).join(": ");
        CliError::environment(format!("the report cannot be written: {causes}")).help("name another file with --out")
    })?;
    Ok(text)
}

/// Writes an event file for each training of a run, and prints their folders.
fn write_events(cache: &Cache, results: &RunResults, folder: &Path) -> Result<(), CliError> {
    let files = event_files(results, &training_curves(cache, results));
    if files.is_empty() {
        eprint(&format!("nothing for TensorBoard: run {} has no training\n", results.run.id.short()));
    }
    for file in files {
        let run = folder.join(&file.run);
        let written =
            fsio::create_dir(&run).and_then(|()| fsio::write_atomic(&run.join(EVENT_FILE), &run, &file.bytes));
        written.map_err(|error| {
            let causes = causes(&error).join(": ");
            let message = format!("the numbers of {} cannot be written for TensorBoard: {causes}", file.run);
            CliError::environment(message).help("name another folder with --tensorboard")
        })?;
        ui::print(&format!("{}\n", run.display()))?;
    }
    Ok(())
}

/// Returns the report on a run, compared with the run before.
pub(super) fn page_of(cache: &Cache, results: &RunResults) -> Result<String, CliError> {
    page::html(cache, results, run_before(cache, &results.run, &results.run.keys).as_ref(), true)
}

/// Writes a run as an RO-Crate, with the report in it.
fn write_run_crate(args: &ReportArgs, results: &RunResults, report: String, folder: &Path) -> Result<(), CliError> {
    let loaded = ran_pipeline::of_run(results, args.pipeline.as_deref(), &args.cache)?;
    let beside = Beside {
        layout: ran_pipeline::layout(loaded.spec.files.iter().map(|file| file.path.as_path()))?,
        license: args.license.clone(),
        extra: vec![report_file(report)],
        manifest_path: |key| format!("manifests/{key}.json"),
        blobs: BTreeMap::new(),
        sources: BTreeMap::new(),
    };
    write_crate(folder, &crate_files(results, &loaded, beside)?)
}

/// The report as a file of a crate.
pub(super) fn report_file(report: String) -> ExtraFile {
    let about = "A page for people on the run; it needs a browser and no network.".to_owned();
    ExtraFile { path: "report.html".to_owned(), bytes: report.into_bytes(), media: "text/html", about }
}

fn found(args: &ReportArgs, pipeline: Option<&str>) -> FindArgs {
    FindArgs { pipeline: pipeline.map(str::to_owned), cache: args.cache.clone() }
}

/// Returns the run that was named, else the last one of the pipeline file, else the last one of all.
fn wanted(cache: &Cache, args: &ReportArgs) -> Result<RunRecord, CliError> {
    let pipeline = match &args.pipeline {
        Some(file) => Some(PipelineSpec::read(file, &Overrides::default())?.name.clone()),
        None => None,
    };
    find_run(cache, args.run.as_deref().unwrap_or("last"), &found(args, pipeline.as_deref()))
}

fn default_place(run: &RunRecord) -> PathBuf {
    folder_of_run(run).join(NAME)
}
