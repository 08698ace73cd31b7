//! Options of the commands that set things up: schema, completions, keygen, man pages.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::examples;

#[derive(Debug, Args)]
#[command(after_help = examples::SCHEMA)]
pub(crate) struct SchemaArgs {
    /// What to describe
    #[arg(value_enum, default_value_t = SchemaName::Pipeline)]
    pub of: SchemaName,
}

/// What has a JSON schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaName {
    /// A pipeline file
    Pipeline,
    /// `cluster.yaml`
    Cluster,
    /// A line of `atflow run --json`
    Run,
    /// A run in `atflow status --json`
    Status,
}

#[derive(Debug, Args)]
#[command(after_help = INSTALLING)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: ShellName,
}

/// How a shell gets its completions.
const INSTALLING: &str = "To install them, write them where the shell looks, and start it anew:
  bash  atflow completions bash > ~/.local/share/bash-completion/completions/atflow
  zsh   atflow completions zsh > \"${fpath[1]}/_atflow\"
  fish  atflow completions fish > ~/.config/fish/completions/atflow.fish
They ask atflow itself for stages, instances, parameters and profiles of the pipeline on the line.";

/// A shell that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellName {
    /// `atflow completions bash > ~/.local/share/bash-completion/completions/atflow`
    Bash,
    /// `atflow completions zsh > "${fpath[1]}/_atflow"`
    Zsh,
    /// `atflow completions fish > ~/.config/fish/completions/atflow.fish`
    Fish,
}

#[derive(Debug, Args)]
#[command(after_help = examples::KEYGEN)]
pub(crate) struct KeygenArgs {
    /// File for the secret key; the public key goes to the same name with `.pub`
    pub file: PathBuf,
    /// Protect the secret key with a password: prompted for, or read from ATFLOW_SIGN_PASSWORD
    #[arg(long)]
    pub password: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// The folder to write; pages of the same names are replaced
    pub dir: PathBuf,
}
