//! The cache that stands beside a pipeline, for commands from another folder.
//!
//! The obvious cache comes first: `--cache`, `$ATFLOW_CACHE`, `cache/` in the working folder.

use std::path::{Path, PathBuf};

use atflow::bundle;
use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::args::{CACHE, Command};
use crate::report::eprint;

/// The file that marks a folder as a cache.
const MARK: &str = "VERSION";

/// Gives a command the cache beside its pipeline, if nobody named one and the working folder has none. Says so.
pub(crate) fn adopt(matches: &ArgMatches, command: &mut Command) {
    if !is_default(matches) || Path::new(CACHE).join(MARK).exists() {
        return;
    }
    let is_quiet = command.is_quiet();
    let Some((pipeline, cache)) = command.pipeline_and_cache() else { return };
    if let Some(found) = beside(&pipeline) {
        if !is_quiet {
            eprint(&format!("cache: {}, beside the pipeline; this folder has none\n", found.display()));
        }
        cache.cache = found;
    }
}

/// Returns whether neither the command line nor the environment names a cache.
fn is_default(matches: &ArgMatches) -> bool {
    let Some((_, command)) = matches.subcommand() else { return false };
    let has_cache = command.ids().any(|id| id == CACHE);
    has_cache && command.value_source(CACHE) == Some(ValueSource::DefaultValue)
}

/// Returns the nearest cache in the folder of a pipeline or above it, up to the root of its repository, that of its
/// bundle, or the home folder.
fn beside(pipeline: &Path) -> Option<PathBuf> {
    let file = std::fs::canonicalize(pipeline).ok()?;
    let home = std::env::home_dir();
    for folder in file.ancestors().skip(1) {
        let cache = folder.join(CACHE);
        if cache.join(MARK).is_file() {
            return Some(cache);
        }
        // Whoever checks a bundle does so with a cache of its own, wherever it was unpacked.
        let is_root = [".git", bundle::INDEX].iter().any(|name| folder.join(name).exists());
        if is_root || home.as_deref() == Some(folder) {
            return None;
        }
    }
    None
}
