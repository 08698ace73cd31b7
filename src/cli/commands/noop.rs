//! Runs that have nothing to do, answered from the memo of such a run before.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use atflow::cache::NoOpMemo;
use atflow::event::RunSummary;
use atflow::folder::Folder;
use serde::{Deserialize, Serialize};

use super::Loaded;
use super::lay_out::LaidOut;
use crate::args::RunArgs;
use crate::report::{CliError, eprint};
use crate::ui;

/// One run in so many does not believe its memo, and looks whether it is right.
const CHECKED: u128 = 64;

/// What a run with nothing to do says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Stages that are up to date.
    cached: usize,
    /// The tables, for standard output.
    tables: String,
    /// Closing lines, after the first.
    words: String,
}

/// A run that may have nothing to do.
pub(super) struct NoOp {
    memo: NoOpMemo,
    started: Instant,
    known: Option<Answer>,
    /// Whether the memo is compared with what the run finds.
    is_checked: bool,
}

impl NoOp {
    /// Looks for the memo of a run; `None` for runs that are not remembered: those that print events, ask a remote
    /// cache, make anything anew, or have targets.
    pub(super) fn of(args: &RunArgs) -> Option<Self> {
        let RunArgs { changes, .. } = args;
        let is_plain =
            args.plan.is_none() && args.targets.is_empty() && args.from.is_none() && changes.force.is_empty();
        let is_silent = !args.json && !args.dry_run && !args.verbose;
        if !(is_plain && is_silent) || changes.remote().is_some() {
            return None;
        }
        let now = jiff::Timestamp::now().as_nanosecond();
        let variable = |name: &str| std::env::var_os(name);
        let (folder, host) = (std::env::current_dir().ok()?, gethostname::gethostname());
        let user = (variable("USER"), variable("LOGNAME"));
        // Whether it is checked changes nothing in what it says.
        let is_checked = args.check || now.unsigned_abs().is_multiple_of(CHECKED);
        let asked = (&args.pipeline, changes, &args.out, args.quiet, args.tolerance, args.keep_going);
        let command = format!("{asked:?} {folder:?} {host:?} {user:?} {}", env!("CARGO_PKG_VERSION"));
        let memo = NoOpMemo::new(&changes.cache.cache, &command, now);
        let known = memo.answer().and_then(|answer| serde_json::from_str(&answer).ok());
        Some(NoOp { memo, started: Instant::now(), known, is_checked })
    }

    /// Says what the run before said, if that still holds. Returns whether it does.
    ///
    /// # Errors
    /// [`CliError`] if standard output cannot be written.
    pub(super) fn answer(&self, args: &RunArgs) -> Result<bool, CliError> {
        let Some(answer) = self.known.as_ref().filter(|_| !self.is_checked) else { return Ok(false) };
        ui::print(&answer.tables)?;
        if !args.quiet {
            let seconds = self.started.elapsed().as_secs_f64();
            eprint(&nothing_to_do(answer.cached, seconds));
            eprint(&answer.words);
        }
        Ok(true)
    }

    /// Remembers a run that had nothing to do. Returns whether what was remembered before was wrong.
    pub(super) fn keep(self, loaded: &Loaded, summary: &RunSummary, laid_out: &LaidOut, words: String) -> bool {
        let has_nothing_to_do = summary.ran + summary.failed + summary.skipped == 0 && !summary.interrupted;
        // Warnings are drawn for the terminal that there is.
        let found = (has_nothing_to_do && loaded.warnings.is_empty()).then(|| Answer {
            cached: summary.cached,
            tables: laid_out.tables.clone(),
            words,
        });
        if self.known.is_some() && self.known != found {
            self.memo.forget();
            return true;
        }
        if let Some(answer) = found.filter(|_| self.known.is_none())
            && let Some(looked_at) = looked_at(loaded, laid_out)
            && let Ok(answer) = serde_json::to_string(&answer)
        {
            self.memo.keep(&loaded.cache, looked_at, answer);
        }
        false
    }
}

/// The closing line of a run with nothing to do.
pub(super) fn nothing_to_do(cached: usize, seconds: f64) -> String {
    format!("nothing to do: {} up to date ({})\n", ui::count(cached, "stage"), ui::duration(seconds))
}

/// Every path that a run looked at; nothing if some cannot be listed.
fn looked_at(loaded: &Loaded, laid_out: &LaidOut) -> Option<BTreeSet<PathBuf>> {
    let mut paths: BTreeSet<PathBuf> = loaded.cache.watched().into_iter().collect();
    // Another version of the program may see it otherwise.
    paths.insert(std::env::current_exe().ok()?);
    paths.extend(loaded.spec.files.iter().map(|file| file.path.clone()));
    paths.extend(laid_out.looked_at.iter().cloned());
    for id in loaded.graph.ids() {
        let instance = loaded.graph.instance(id);
        for source in &instance.sources {
            let Some(path) = instance.source_file(source) else { continue };
            if source.source.is_folder {
                let folder = Folder::list(&path).ok()?;
                for file in &folder.files {
                    let file = folder.path_of(file);
                    paths.extend(file.ancestors().take_while(|above| above.starts_with(&path)).map(PathBuf::from));
                }
                paths.extend(folder.empty.iter().map(|name| path.join(name)));
            }
            paths.insert(path);
        }
    }
    Some(paths)
}

#[cfg(test)]
mod tests;
