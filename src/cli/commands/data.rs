//! `atflow data`: every result that the cache holds for a pipeline, as tables for pandas, polars and R.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use atflow::cache::Access;
use atflow::plan::CacheStatus;
use atflow::results_folder::default_folder;
use atflow::tidy::{Exported, TABLES, TidyError, TidyFormat, TidySource, export};

use super::Loaded;
use crate::again;
use crate::args::{ChangeArgs, DataArgs, DataFormat};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Most instances that a command names one by one.
const MOST_TARGETS: usize = 6;

pub(crate) fn run(args: &DataArgs) -> Result<Exit, CliError> {
    let changes = ChangeArgs::plain(args.parameters.overrides(), args.cache.clone());
    let mut loaded = Loaded::open(&args.pipeline, &args.targets, &changes, Access::Look)?;
    // A result that is known is current, even if a file of it is gone: that costs some rows, and is told.
    loaded.goals.needed = loaded.graph.per_instance(false);
    let status_of = loaded.survey()?;
    if !status_of.values().any(|status| matches!(status, Some(CacheStatus::Fresh(..)))) {
        let message = format!("{} has no result of this pipeline as it is now", args.cache.cache.display());
        return Err(CliError::environment(message).help(format!("`{}` makes them", with_targets(args, &args.targets))));
    }
    let default = || default_folder(loaded.name(), &loaded.overrides).join("data");
    let folder = args.out.clone().unwrap_or_else(default);
    let is_asked = |format: &TidyFormat| args.format.iter().any(|asked| TidyFormat::from(*asked) == *format);
    let formats: Vec<TidyFormat> = TidyFormat::ALL.into_iter().filter(is_asked).collect();
    let source = TidySource {
        spec: &loaded.spec,
        overrides: &loaded.overrides,
        graph: &loaded.graph,
        cache: &loaded.cache,
        status_of: &status_of,
    };
    let exported = export(source, &folder, &formats).map_err(|error| cannot_write(&error))?;
    let paths: String = exported.files.iter().map(|file| format!("{}\n", file.display())).collect();
    ui::print(&paths)?;
    eprint(&left_out(args, &exported));
    eprint(&earlier(&folder, &exported.files));
    Ok(Exit::Done)
}

impl From<DataFormat> for TidyFormat {
    fn from(format: DataFormat) -> Self {
        match format {
            DataFormat::Parquet => TidyFormat::Parquet,
            DataFormat::Csv => TidyFormat::Csv,
        }
    }
}

fn cannot_write(error: &TidyError) -> CliError {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    CliError::environment(format!("{error}{cause}")).help("check the folder and its space, or name another with --out")
}

/// What has no rows, and how it gets some.
fn left_out(args: &DataArgs, exported: &Exported) -> String {
    let mut words = String::new();
    if !exported.unmade.is_empty() {
        let count = ui::count(exported.unmade.len(), "stage");
        let names = ui::some(&exported.unmade);
        words += &format!(
            "left out: {count} without a current result: {names}\n`{}` makes them\n",
            with_targets(args, &args.targets)
        );
    }
    if !exported.gone.is_empty() {
        let count = ui::count(exported.gone.len(), "stage");
        let names = ui::some(&exported.gone);
        let command = with_targets(args, &few_targets(&exported.gone));
        words += &format!("left out: {count} whose file is gone from the cache: {names}\n`{command}` makes them\n");
    }
    for (name, reason) in &exported.unreadable {
        words += &format!("left out: {name}, whose file cannot be read: {reason}\n");
    }
    if !exported.unreadable.is_empty() {
        let command = again::with_cache(&["verify", "--repair"], &args.cache.cache);
        words += &format!("`{command}` puts damaged files aside; a run makes them again\n");
    }
    words
}

/// Files of an earlier export in a format that this one did not write: they may say something else.
fn earlier(folder: &Path, written: &[PathBuf]) -> String {
    let files = TidyFormat::ALL.iter().flat_map(|format| {
        TABLES.iter().map(|table| format!("{table}.{}", format.ending())).map(|name| folder.join(name))
    });
    let left: Vec<String> = files
        .filter(|file| file.exists() && !written.contains(file))
        .filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()))
        .collect();
    if left.is_empty() {
        return String::new();
    }
    format!("of an earlier export, and not written now: {} in {}\n", left.join(" "), folder.display())
}

/// Names that make all of these: themselves, or their stages if they are many.
fn few_targets(names: &[String]) -> Vec<String> {
    if names.len() <= MOST_TARGETS {
        return names.to_vec();
    }
    let stages: BTreeSet<&str> = names.iter().map(|name| name.split('/').next().unwrap_or(name)).collect();
    stages.into_iter().map(str::to_owned).collect()
}

/// The command that makes what is missing.
fn with_targets(args: &DataArgs, targets: &[String]) -> String {
    let overrides = args.parameters.overrides();
    again::run_command(&args.pipeline, targets, &overrides, &args.cache.cache)
}
