//! Arguments of `verify`: the cache's integrity, or a rerun that is compared.

use std::path::PathBuf;

use clap::Args;

use super::values::{patience, share, tolerance};
use super::{CacheArgs, MachineArgs, PATIENCE, ParameterArgs, examples};
use crate::complete;

#[derive(Debug, Args)]
#[command(after_help = examples::VERIFY)]
pub(crate) struct VerifyArgs {
    /// The pipeline whose targets to rerun; without one, the whole cache is checked
    #[arg(requires = "targets")]
    pub pipeline: Option<PathBuf>,
    /// Stages, instances (`model/standard`) or patterns to rerun, and no others
    #[arg(add = complete::targets())]
    pub targets: Vec<String>,
    /// Compare numbers only, within so many percentage points
    #[arg(long, value_name = "POINTS", value_parser = tolerance, requires = "targets")]
    pub tolerance: Option<f64>,
    /// Recompute a random sample of the targets' predictions from the checkpoints of this remote cache
    #[arg(long, value_name = "URL", requires = "targets")]
    pub remote: Option<String>,
    /// Share of the predictions to sample [default: 10%, at least one]
    #[arg(long, value_name = "PERCENT", value_parser = share, requires = "targets", conflicts_with = "sample")]
    pub share: Option<f64>,
    /// Number of predictions to sample
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "targets")]
    pub sample: Option<u32>,
    /// Seed of the sample [default: unpredictable]
    #[arg(long, value_name = "SEED", requires = "targets")]
    pub seed: Option<u64>,
    /// Use remote results only if this key signed them: a minisign public key (`RW…`) or a file with one; repeatable
    #[arg(long, value_name = "PUBLIC_KEY", env = "ATFLOW_TRUST")]
    pub trust: Vec<String>,
    /// Seconds that a remote server may be silent before a retry; 3 tries in all
    #[arg(long, value_name = "SECONDS", env = "ATFLOW_PATIENCE", default_value_t = PATIENCE, value_parser = patience)]
    pub patience: u16,
    /// Quarantine corrupt files, so that their stages rerun
    #[arg(long, conflicts_with = "targets")]
    pub repair: bool,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show the logs of stages as they run
    #[arg(long, short)]
    pub verbose: bool,
}
