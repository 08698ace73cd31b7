//! Options of `bundle`.

use std::path::PathBuf;

use atflow::plan::rerun_from::RerunFrom;
use clap::{Args, Subcommand, ValueEnum};

use super::{CacheArgs, ParameterArgs, examples};
use crate::complete;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = examples::BUNDLE)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    pub action: Option<BundleAction>,
    /// The pipeline file
    #[arg(required = true)]
    pub pipeline: Option<PathBuf>,
    /// Stages, instances (`model/standard`) or patterns (`tested/pgd-*/*`); all if none is given
    #[arg(add = complete::targets())]
    pub targets: Vec<String>,
    /// The file to write, NAME.tar.zst
    #[arg(long, short, value_name = "FILE", required = true)]
    pub out: Option<PathBuf>,
    /// Also pack what a rerun from this depth needs [default: results only]
    #[arg(long, value_enum, value_name = "DEPTH")]
    pub with: Option<BundleDepth>,
    /// The licence that the bundle names: an SPDX identifier (`CC-BY-4.0`), an address, or words [default: none is
    /// stated]
    #[arg(long, value_name = "LICENCE")]
    pub license: Option<String>,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    #[command(flatten)]
    pub cache: CacheArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleAction {
    /// Check every file of a bundle, and say what it holds
    Check(BundleCheckArgs),
    /// Check a bundle and unpack it into a new folder
    Unpack(BundleUnpackArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BundleCheckArgs {
    /// The bundle
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BundleUnpackArgs {
    /// The bundle
    pub file: PathBuf,
    /// The new folder [default: the bundle's name without .tar.zst]
    #[arg(long, short, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// What a bundle holds beside results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleDepth {
    /// Predictions: tables and curves can be made again, without libtorch
    Predictions,
    /// Predictions and checkpoints: evaluations can be made again, too
    Checkpoints,
}

impl From<BundleDepth> for RerunFrom {
    fn from(depth: BundleDepth) -> Self {
        match depth {
            BundleDepth::Predictions => RerunFrom::Predictions,
            BundleDepth::Checkpoints => RerunFrom::Checkpoints,
        }
    }
}
