//! The command line as typed. What it means is in the commands.

mod agent;
mod bundle;
mod cluster;
mod examples;
mod init;
mod place;
mod results;
mod setup;
mod shared;
mod values;
mod verify;

use std::path::PathBuf;

use atflow::plan::rerun_from::RerunFrom;
use atflow::spec::Overrides;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use agent::AgentArgs;
pub(crate) use bundle::{BundleAction, BundleArgs, BundleDepth};
pub(crate) use cluster::{CancelArgs, ClusterArgs, ExecutorName};
pub(crate) use init::InitArgs;
pub(crate) use place::DurabilityName;
pub(crate) use results::{
    DataArgs, DataFormat, DiffArgs, DiffFormat, ExportArgs, FindArgs, LogArgs, NameArgs, ReportArgs, RunsArgs,
    StatusArgs, TableArgs, TableFormat,
};
pub(crate) use setup::{CompletionsArgs, KeygenArgs, ManArgs, SchemaArgs, SchemaName, ShellName};
pub(crate) use shared::{MachineArgs, ParameterArgs};
pub(crate) use verify::VerifyArgs;

use crate::complete;
use values::{cache, key_value, patience, tolerance};

/// A build system for experiments on adversarially trained networks.
#[derive(Debug, Parser)]
#[command(name = "atflow", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a pipeline to start from: for Fashion-MNIST, or for images of your own
    Init(InitArgs),
    /// Run the stale stages of a pipeline
    Run(RunArgs),
    /// Start stages of a run that many machines share; a cluster's scheduler starts agents
    #[command(after_help = examples::AGENT)]
    Agent(AgentArgs),
    /// Show what would run, and why
    Plan(PlanArgs),
    /// Show what a stage made, from what, where and how
    #[command(after_help = examples::SHOW)]
    Show(NameArgs),
    /// Explain why a stage is stale or fresh
    Why(WhyArgs),
    /// Show the log of a stage, as far as it is if it is running
    Log(LogArgs),
    /// Show what runs now
    Status(StatusArgs),
    /// End a run on a cluster
    Cancel(CancelArgs),
    /// List earlier runs and what changed between them
    Runs(RunsArgs),
    /// Compare the parameters, numbers and pictures of two runs
    Diff(DiffArgs),
    /// Print a table
    Table(TableArgs),
    /// Write a report on a run: one self-contained page
    Report(ReportArgs),
    /// Pack a pipeline, its results and what a rerun needs; check or unpack such a bundle
    Bundle(BundleArgs),
    /// Write all results as tables for pandas, polars and R
    Data(DataArgs),
    /// Write a checkpoint as a folder for PyTorch: weights, code, model card
    Export(ExportArgs),
    /// Upload results to a remote cache
    Push(PushArgs),
    /// Download results from a remote cache; run nothing
    Pull(PullArgs),
    /// Draw the stages of a pipeline
    Graph(GraphArgs),
    /// Check the cache's integrity, or rerun stages and compare
    Verify(VerifyArgs),
    /// Delete results that no pipeline or recent run uses
    Gc(GcArgs),
    /// Check this machine's setup
    Doctor(DoctorArgs),
    /// Generate a key pair to sign results
    Keygen(KeygenArgs),
    /// Print a JSON schema: of pipeline files, or of what programs read
    Schema(SchemaArgs),
    /// Generate shell completions
    Completions(CompletionsArgs),
    /// Write man pages, one for each command
    Man(ManArgs),
}

impl Command {
    /// Whether a program reads what the command prints: then an error is told to it, too. A run that is not only shown
    /// tells its errors in its last line.
    pub(crate) fn prints_json(&self) -> bool {
        match self {
            Command::Run(args) => args.json && args.dry_run,
            Command::Plan(args) => args.json,
            Command::Why(args) => args.json,
            Command::Show(args) => args.json,
            Command::Log(args) => args.name.json,
            Command::Status(args) => args.json,
            Command::Verify(args) => args.json,
            Command::Gc(args) => args.json,
            Command::Doctor(args) => args.json,
            Command::Runs(args) => args.json,
            Command::Diff(args) => args.format == DiffFormat::Json,
            Command::Table(args) => args.format == TableFormat::Json,
            Command::Bundle(_) | Command::Push(_) | Command::Pull(_) | Command::Graph(_) => false,
            Command::Report(_)
            | Command::Data(_)
            | Command::Export(_)
            | Command::Schema(_)
            | Command::Init(_)
            | Command::Cancel(_)
            | Command::Keygen(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Agent(_) => false,
        }
    }
}

/// What a pipeline is and which part of it is meant.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline file
    pub pipeline: PathBuf,
    /// Stages, instances (`model/standard`) or patterns (`tested/pgd-*/*`); all if none is given
    #[arg(add = complete::targets())]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub changes: ChangeArgs,
}

/// What the command line changes in a pipeline, and the cache that it is compared with.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChangeArgs {
    /// Override a parameter, as in `--set eps=4/255`; `eps=2/255,4/255` takes each value in turn
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, add = complete::settings())]
    pub set: Vec<(String, String)>,
    /// Use a profile of the pipeline, a named set of parameters
    #[arg(long, value_name = "NAME", add = complete::profiles())]
    pub profile: Option<String>,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Run these even if they are fresh
    #[arg(long, value_name = "TARGET", add = complete::targets())]
    pub force: Vec<String>,
    /// Read results from a remote cache: a web server (https://…), a bucket (s3://…, gs://…, az://…; credentials from
    /// the environment), a cache server of Bazel's (bazel-https://…, bazel-http://…; over gRPC reapis://…, reapi://…),
    /// or a folder
    #[arg(long, value_name = "URL", env = "ATFLOW_REMOTE", hide_env_values = true)]
    pub remote: Option<String>,
    /// Seconds that a remote server may be silent, or slower than 10 bytes a second, before a retry; 3 tries in all
    #[arg(long, value_name = "SECONDS", env = "ATFLOW_PATIENCE", default_value_t = PATIENCE, value_parser = patience)]
    pub patience: u16,
    /// Fetch nothing: no remote cache, no data
    #[arg(long)]
    pub offline: bool,
    /// Use remote results only if this key signed them: a minisign public key (`RW…`) or a file with one; repeatable
    #[arg(long, value_name = "PUBLIC_KEY", env = "ATFLOW_TRUST")]
    pub trust: Vec<String>,
}

impl ChangeArgs {
    /// Nothing but a profile and parameters: no remote cache, nothing forced.
    pub(crate) fn plain(overrides: Overrides, cache: CacheArgs) -> Self {
        let Overrides { profile, set } = overrides;
        let (force, trust) = (Vec::new(), Vec::new());
        ChangeArgs { set, profile, cache, force, remote: None, patience: PATIENCE, offline: false, trust }
    }

    /// The remote cache; one without a name, as an empty variable gives it, is none.
    pub(crate) fn remote(&self) -> Option<&str> {
        self.remote.as_deref().filter(|name| !name.is_empty())
    }
}

/// How long a server may be silent unless somebody says otherwise, in seconds.
const PATIENCE: u16 = 30;

/// The cache's folder unless somebody says otherwise.
pub(crate) const CACHE: &str = atflow::cache::USUAL_FOLDER;

#[derive(Debug, Clone, Args)]
pub(crate) struct CacheArgs {
    /// The cache's folder; where there is none here, one beside the pipeline or above it in its project
    #[arg(long, value_name = "DIR", env = "ATFLOW_CACHE", default_value = CACHE, value_parser = OsStringValueParser::new().map(cache))]
    pub cache: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = examples::RUN)]
pub(crate) struct RunArgs {
    /// The pipeline file
    #[arg(required_unless_present = "plan")]
    pub pipeline: Option<PathBuf>,
    /// Stages, instances (`model/standard`) or patterns (`tested/pgd-*/*`); all if none is given
    #[arg(add = complete::targets())]
    pub targets: Vec<String>,
    /// Run a plan saved by `atflow plan --save`, if nothing it shows has changed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pipeline", "targets", "set", "profile", "force", "from"])]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Rerun everything after predictions, after checkpoints, or from scratch
    #[arg(long, value_enum, value_name = "DEPTH")]
    pub from: Option<DepthName>,
    /// With --from: accept numbers within so many percentage points of the published ones [default: 0.5; byte for byte
    /// from predictions]
    #[arg(long, value_name = "POINTS", value_parser = tolerance)]
    pub tolerance: Option<f64>,
    /// Share work with other runs that have the same bucket as their remote cache and no folder in common: take leases
    /// there, and send each result as soon as it is made
    #[arg(long, requires = "remote", conflicts_with_all = ["offline", "force"])]
    pub share_work: bool,
    /// Folder for tables and figures [default: results/<pipeline>, or results/<pipeline>@<profile>,<key>=<value>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write no report at the end
    #[arg(long)]
    pub no_report: bool,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Continue with stages that do not need a failed one
    #[arg(long)]
    pub keep_going: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Only show what would run, as `plan` does
    #[arg(long)]
    pub dry_run: bool,
    /// What a power cut may take: nothing, the newest results, or parts of the newest, which are noticed and made again
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    pub durability: DurabilityName,
    /// Compare what is remembered of a run with nothing to do with what this run finds
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Print errors only
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show the logs of stages as they run
    #[arg(long, short)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::PLAN)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Rerun everything after predictions, after checkpoints, or from scratch
    #[arg(long, value_enum, value_name = "DEPTH")]
    pub from: Option<DepthName>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show fresh stages too
    #[arg(long, short)]
    pub all: bool,
    /// CPU threads to assume for the estimate [default: all]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Ask servers for the sizes of files to download
    #[arg(long)]
    pub sizes: bool,
    /// Save the plan to a file, for `atflow run --plan`
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true, after_help = examples::WHY)]
pub(crate) struct WhyArgs {
    /// The pipeline file; that of the last run if only a stage is given
    pub pipeline: Option<PathBuf>,
    /// A stage, an instance (`model/standard`) or a pattern (`tested/pgd-*/*`)
    #[arg(required = true, add = complete::targets())]
    pub stage: String,
    #[command(flatten)]
    pub changes: ChangeArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::GC)]
pub(crate) struct GcArgs {
    /// Pipelines whose current results to keep
    pub pipelines: Vec<PathBuf>,
    /// Also keep their results under this profile; repeatable
    #[arg(long, value_name = "NAME", requires = "pipelines")]
    pub profile: Vec<String>,
    /// Also keep their results with this parameter overridden, as in `--set eps=4/255`; several apply together
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, add = complete::settings(), requires = "pipelines")]
    pub set: Vec<(String, String)>,
    /// Keep the results and logs of the last so many runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub keep_runs: usize,
    /// Delete the progress of trainings untouched for so many days that none of the pipelines can use
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub partial_days: u16,
    /// Delete; without this, only show
    #[arg(long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only show what would be deleted (the default)
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::GRAPH)]
pub(crate) struct GraphArgs {
    /// The pipeline file
    pub pipeline: PathBuf,
    /// The language of the picture
    #[arg(long, value_enum, default_value_t = GraphFormat::Svg)]
    pub format: GraphFormat,
    /// Draw every instance instead of one box per stage
    #[arg(long, short)]
    pub all: bool,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// The language of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// Graphviz
    Dot,
    /// Mermaid, as in Markdown
    Mermaid,
    /// A picture
    Svg,
}

#[derive(Debug, Args)]
#[command(after_help = examples::DOCTOR)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub cache: CacheArgs,
    /// Measure this machine, too, for half a minute: `plan` then has prices before a first run
    #[arg(long)]
    pub bench: bool,
    /// Check a cluster, too: run a job of each class there
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = ExecutorName::Local)]
    pub executor: ExecutorName,
    /// The description of the cluster [default: cluster.yaml here]
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Answer the doctor of another machine, through files in this folder
    #[arg(long, hide = true, value_name = "DIR")]
    pub echo: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::PUSH)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Sign results computed here with a minisign secret key; its password is prompted for, or read from
    /// ATFLOW_SIGN_PASSWORD
    #[arg(long, value_name = "KEYFILE")]
    pub sign: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = examples::PULL)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub pipeline: PipelineArgs,
}

/// From what results are made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DepthName {
    /// Rerun only tables, figures and commands after evaluations: seconds, without libtorch
    Predictions,
    /// Train nothing; rerun evaluations, saliency maps and what follows from them
    Checkpoints,
    /// Rerun everything but data sets and files
    Scratch,
}

impl From<DepthName> for RerunFrom {
    fn from(name: DepthName) -> Self {
        match name {
            DepthName::Predictions => RerunFrom::Predictions,
            DepthName::Checkpoints => RerunFrom::Checkpoints,
            DepthName::Scratch => RerunFrom::Scratch,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = help.lines().filter(|line| line.trim_start().contains("atflow ")).collect();
            assert!(!lines.is_empty(), "`atflow {}` has no example", command.get_name());
            for line in lines.into_iter().filter(|line| line.starts_with("  atflow ")) {
                // A comment stands behind two spaces, and what a shell does behind `>`.
                let typed = line.trim_start().split("  ").next().unwrap_or_default();
                let typed = typed.split(" > ").next().unwrap_or_default();
                let words = shlex::split(typed).unwrap_or_default();
                assert_eq!(words.get(1).map(String::as_str), Some(command.get_name()), "{line}");
                assert!(Cli::try_parse_from(&words).is_ok(), "{typed}");
            }
        }
    }
}
