//! Which pipeline and which cache a command is about, and how the cache is written.

use std::path::{Path, PathBuf};

use atflow::cache::Durability;
use clap::ValueEnum;

use super::{CacheArgs, Command};

/// How safely results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum DurabilityName {
    /// A result that was reported survives a power cut
    Strict,
    /// A power cut may take the newest results, and leaves the rest whole
    #[default]
    Group,
    /// Nothing is synced: for caches in memory and tests
    None,
}

impl From<DurabilityName> for Durability {
    fn from(name: DurabilityName) -> Self {
        match name {
            DurabilityName::Strict => Durability::Strict,
            DurabilityName::Group => Durability::Group,
            DurabilityName::None => Durability::None,
        }
    }
}

impl Command {
    /// Returns the pipeline file and the cache of a command that has both.
    pub(crate) fn pipeline_and_cache(&mut self) -> Option<(PathBuf, &mut CacheArgs)> {
        let (pipeline, cache): (Option<&Path>, &mut CacheArgs) = match self {
            Command::Run(args) => (args.pipeline.as_deref(), &mut args.changes.cache),
            Command::Plan(args) => (Some(&args.pipeline.pipeline), &mut args.pipeline.changes.cache),
            Command::Why(args) => (args.pipeline.as_deref(), &mut args.changes.cache),
            Command::Table(args) => (args.file.as_deref(), &mut args.found.cache),
            Command::Report(args) => (args.pipeline.as_deref(), &mut args.cache),
            Command::Bundle(args) => (args.pipeline.as_deref(), &mut args.cache),
            Command::Data(args) => (Some(&args.pipeline), &mut args.cache),
            Command::Push(args) => (Some(&args.pipeline.pipeline), &mut args.pipeline.changes.cache),
            Command::Pull(args) => (Some(&args.pipeline.pipeline), &mut args.pipeline.changes.cache),
            Command::Graph(args) => (Some(&args.pipeline), &mut args.cache),
            Command::Verify(args) => (args.pipeline.as_deref(), &mut args.cache),
            Command::Gc(args) => (args.pipelines.first().map(PathBuf::as_path), &mut args.cache),
            _ => return None,
        };
        Some((pipeline?.to_owned(), cache))
    }

    /// Returns whether the command prints errors only.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Command::Run(args) if args.quiet)
    }
}
