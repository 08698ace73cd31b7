//! `atflow completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Cli, CompletionsArgs, ShellName};
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "atflow", &mut text);
    ui::print_data(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
