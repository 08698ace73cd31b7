//! Commands that a user may copy from what atflow says. They name the profile, the parameters and the cache that the
//! user named.

use std::borrow::Cow;
use std::path::Path;

use atflow::address::masked;
use atflow::shell_words::quoted;
use atflow::spec::Overrides;

use crate::args::CACHE;

/// The command that runs targets of a pipeline, all if there is none, as it is changed here. A password in a parameter
/// is not shown.
pub(crate) fn run_command(file: &Path, targets: &[String], overrides: &Overrides, cache: &Path) -> String {
    let mut words = vec!["run".to_owned(), file.display().to_string()];
    words.extend(targets.iter().cloned());
    words.extend(overrides.profile.iter().flat_map(|profile| ["--profile".to_owned(), profile.clone()]));
    let set = overrides.set.iter().map(|(key, value)| format!("{key}={}", masked(value)));
    words.extend(set.flat_map(|set| ["--set".to_owned(), set]));
    with_cache(&words, cache)
}

/// A command that asks a cache, as in `atflow log model`.
pub(crate) fn with_cache(words: &[impl AsRef<str>], cache: &Path) -> String {
    let mut text = "atflow".to_owned();
    for word in words {
        text += &format!(" {}", quoted(word.as_ref()));
    }
    let there = absolute(cache);
    if there != absolute(Path::new(CACHE)) {
        let here = absolute(Path::new(""));
        let shown = there.strip_prefix(here).unwrap_or(&there);
        text += &format!(" --cache {}", quoted(&shown.display().to_string()));
    }
    text
}

/// A path from the root; as it is where the folder that we are in is gone.
fn absolute(path: &Path) -> Cow<'_, Path> {
    if path.as_os_str().is_empty() {
        return std::env::current_dir().map_or(Cow::Borrowed(path), Cow::Owned);
    }
    std::path::absolute(path).map_or(Cow::Borrowed(path), Cow::Owned)
}
