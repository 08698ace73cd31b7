//! Options of the commands that look at what was run or runs: show, log, status, runs, diff, report, data,
//! table.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::key_value;
use super::{CacheArgs, ParameterArgs, examples};
use crate::complete;

/// An instance of a pipeline that was run.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// The instance, such as `model/standard`; for `show` also a file of a results folder
    #[arg(add = complete::targets())]
    pub stage: String,
    #[command(flatten)]
    pub found: FindArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::LOG)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    pub name: NameArgs,
    /// Go on until the stage ends; wait for it if it has not started
    #[arg(long, short, conflicts_with = "json")]
    pub follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::STATUS)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub cache: CacheArgs,
    /// List all running stages
    #[arg(long, short)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// The pipeline's name [default: the last one run]
    #[arg(long, short, value_name = "NAME")]
    pub pipeline: Option<String>,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Args)]
#[command(after_help = examples::RUNS)]
pub(crate) struct RunsArgs {
    /// Show one run: a name from the list, or `last`, `last-1`, …
    pub run: Option<String>,
    #[command(flatten)]
    pub found: FindArgs,
    /// Number of runs to list
    #[arg(long, short, value_name = "N", default_value_t = 20)]
    pub number: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::DIFF)]
pub(crate) struct DiffArgs {
    /// The earlier run: a name from `atflow runs`, `last-1`, or a results folder [default: the newest one before the
    /// other with other results]
    pub before: Option<String>,
    /// The later run [default: last]
    pub after: Option<String>,
    #[command(flatten)]
    pub found: FindArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t = DiffFormat::Md)]
    pub format: DiffFormat,
    /// Write to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = examples::REPORT)]
pub(crate) struct ReportArgs {
    /// The pipeline file whose last run to report [default: the last run of all]
    pub pipeline: Option<PathBuf>,
    /// The run: a name from `atflow runs`, or `last-1`, … [default: last]
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// The run to compare with [default: the newest one before with other results]
    #[arg(long, value_name = "RUN")]
    pub compare: Option<String>,
    /// The file to write [default: report.html in the run's results folder]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Leave out figures, saliency maps and samples
    #[arg(long)]
    pub no_images: bool,
    /// Also write what trainings measured after each epoch, for TensorBoard: a folder of DIR for each training
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Also write the run as an RO-Crate into a new folder: pipeline, results and report, with what made what, how and
    /// where
    #[arg(long = "crate", value_name = "DIR")]
    pub crate_folder: Option<PathBuf>,
    /// The licence that the crate names: an SPDX identifier (`CC-BY-4.0`), an address, or words [default: none is
    /// stated]
    #[arg(long, value_name = "LICENCE", requires = "crate_folder")]
    pub license: Option<String>,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true, after_help = examples::EXPORT)]
pub(crate) struct ExportArgs {
    /// The pipeline file; that of the last run if only a stage is given
    pub pipeline: Option<PathBuf>,
    /// The instance whose checkpoint to export (`model/standard`)
    #[arg(required = true)]
    pub stage: String,
    /// The folder to write [default: export/<pipeline>/<instance>, with - for each /]
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The licence that the model card names, such as `cc-by-4.0` [default: none is stated]
    #[arg(long, value_name = "LICENCE")]
    pub license: Option<String>,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Args)]
#[command(after_help = examples::DATA)]
pub(crate) struct DataArgs {
    /// The pipeline file
    pub pipeline: PathBuf,
    /// Stages, instances (`model/standard`) or patterns (`tested/pgd-*/*`), and what they are made from; all if none is
    /// given
    #[arg(add = complete::targets())]
    pub targets: Vec<String>,
    /// Formats of the files; several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "parquet")]
    pub format: Vec<DataFormat>,
    /// The folder to write into [default: data/ in the pipeline's results folder]
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// A format of tables for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataFormat {
    /// Apache Parquet: small, with the type of every column
    Parquet,
    /// CSV
    Csv,
}

/// The format of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffFormat {
    /// Markdown
    Md,
    /// One JSON object
    Json,
    /// One self-contained page, with pictures side by side
    Html,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true, after_help = examples::TABLE)]
pub(crate) struct TableArgs {
    /// The pipeline file: the table as the pipeline has it now, from what is there; without it, that of the last run
    #[arg(value_name = "PIPELINE")]
    pub file: Option<PathBuf>,
    /// The table's stage
    #[arg(required = true, add = complete::targets())]
    pub name: String,
    #[command(flatten)]
    pub found: FindArgs,
    /// Override a parameter, as in `--set eps=4/255`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, add = complete::settings(), requires = "file")]
    pub set: Vec<(String, String)>,
    /// Use a profile of the pipeline, a named set of parameters
    #[arg(long, value_name = "NAME", requires = "file", add = complete::profiles())]
    pub profile: Option<String>,
    /// Output format
    #[arg(long, value_enum, default_value_t = TableFormat::Md)]
    pub format: TableFormat,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// Markdown
    Md,
    /// One line for each number
    Csv,
    /// Every cell with all that is known of it
    Json,
    /// LaTeX, with the package booktabs
    Tex,
}
