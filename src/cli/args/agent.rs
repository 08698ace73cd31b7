//! Arguments of `atflow agent`.

use std::path::PathBuf;

use clap::Args;

use super::values::{device, patience};
use super::{CacheArgs, PATIENCE};

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub cache: CacheArgs,
    /// The bucket that the agents of the run share, where machines share no folder: s3://…, gs://…, az://…; then
    /// --cache is a folder of this machine
    #[arg(long, value_name = "URL")]
    pub remote: Option<String>,
    /// Seconds that the bucket may be silent before a retry; 3 tries in all
    #[arg(long, value_name = "SECONDS", env = "ATFLOW_PATIENCE", default_value_t = PATIENCE, value_parser = patience)]
    pub patience: u16,
    /// The run, as `atflow run --executor` names it
    #[arg(long, value_name = "ID")]
    pub run: String,
    /// Class of the stages to start; `all` starts stages of every class
    #[arg(long, value_name = "NAME")]
    pub class: String,
    /// Time at which the agent has to have ended, as in 2026-05-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "seconds")]
    pub until: Option<jiff::Timestamp>,
    /// Seconds after which the agent has to have ended
    #[arg(long, value_name = "N")]
    pub seconds: Option<u32>,
    /// End after so many seconds without anything to do
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub idle: u32,
    /// CPU threads to use at once [default: all that the machine or the job gives]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Device for tensors: auto, cpu, cuda:N; cuda for a stage on each GPU in CUDA_VISIBLE_DEVICES
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = each_device)]
    pub device: String,
    /// Folder of this machine for the files of running stages [default: one in the cache]
    #[arg(long, value_name = "FOLDER", env = "ATFLOW_SCRATCH")]
    pub scratch: Option<PathBuf>,
}

fn each_device(text: &str) -> Result<String, String> {
    if text == "cuda" { Ok(text.to_owned()) } else { device(text) }
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "expected a time with its zone, such as 2026-05-01T12:00:00Z".to_owned())
}
