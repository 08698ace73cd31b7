//! Options that several commands have.

use atflow::spec::Overrides;
use clap::Args;

use super::values::{device, key_value};
use crate::complete;

/// What the command line changes in a pipeline's parameters.
#[derive(Debug, Clone, Args)]
pub(crate) struct ParameterArgs {
    /// Override a parameter, as in `--set eps=4/255`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, add = complete::settings())]
    pub set: Vec<(String, String)>,
    /// Use a profile of the pipeline, a named set of parameters
    #[arg(long, value_name = "NAME", add = complete::profiles())]
    pub profile: Option<String>,
}

impl ParameterArgs {
    /// What they are to whoever reads a pipeline.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { profile: self.profile.clone(), set: self.set.clone() }
    }
}

/// What stages may use of this machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineArgs {
    /// CPU threads to use at once [default: all]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Device for tensors: auto, cpu, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: String,
}
