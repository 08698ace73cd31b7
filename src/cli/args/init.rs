//! `atflow init` as typed.

use std::path::PathBuf;

use clap::Args;

use super::examples;

#[derive(Debug, Args)]
#[command(after_help = examples::INIT)]
pub(crate) struct InitArgs {
    /// Folder for the pipeline; made if it is not there
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Write a pipeline for these images: a folder or an archive with a folder for each class
    #[arg(long, value_name = "DIR|ARCHIVE")]
    pub images: Option<PathBuf>,
}
