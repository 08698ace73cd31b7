//! `atflow completions`.

use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::args::{CompletionsArgs, ShellName};
use crate::complete::VARIABLE;
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let shell: &dyn EnvCompleter = match args.shell {
        ShellName::Bash => &Bash,
        ShellName::Zsh => &Zsh,
        ShellName::Fish => &Fish,
    };
    let mut text = Vec::new();
    let written = shell.write_registration(VARIABLE, "atflow", "atflow", "atflow", &mut text);
    written.map_err(|error| CliError::environment(format!("the completions cannot be written: {error}")))?;
    ui::print_data(&String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}
