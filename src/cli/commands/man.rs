//! `atflow man`: the help of every command as man pages.

use clap::CommandFactory;

use atflow::fsio;

use crate::args::{Cli, ManArgs};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    fsio::create_dir(&args.dir).map_err(|error| CliError::environment(error.to_string()))?;
    // `help` as a page of its own says nothing that `atflow.1` does not.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.dir).map_err(|error| {
        let message = format!("cannot write man pages into {}: {error}", args.dir.display());
        CliError::environment(message).help("check the folder and its permissions")
    })?;
    ui::print(&format!("wrote {}\n", args.dir.join("atflow.1").display()))?;
    Ok(Exit::Done)
}
