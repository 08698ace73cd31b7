//! Options of runs on a cluster, and of the commands that look after such runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CacheArgs, examples};

/// What runs the stages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorName {
    /// This machine
    #[default]
    Local,
    /// Agents that Slurm starts
    Slurm,
    /// Agents that commands of the cluster file start
    Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// What runs the stages: this machine, or agents on a cluster
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = ExecutorName::Local)]
    pub executor: ExecutorName,
    /// The description of the cluster [default: cluster.yaml beside the pipeline, or here]
    #[arg(long, value_name = "FILE")]
    pub cluster: Option<PathBuf>,
    /// Submit agents and return; `atflow status` shows them
    #[arg(long)]
    pub detach: bool,
    /// Cancel the run on Ctrl-C or TERM instead of leaving it to its agents
    #[arg(long, conflicts_with = "detach")]
    pub cancel_on_exit: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::CANCEL)]
pub(crate) struct CancelArgs {
    /// The run, as `atflow status` names it [default: the only one]
    pub run: Option<String>,
    #[command(flatten)]
    pub cache: CacheArgs,
}
