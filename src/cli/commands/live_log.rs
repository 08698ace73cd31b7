//! Prints the log of a stage that is running in another process, and follows it until the stage ends.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use atflow::cache::{Cache, FoundRun, Sign};
use atflow::cluster::folder::RunFolder;

use crate::args::{FindArgs, NameArgs};
use crate::report::{CliError, eprint};
use crate::ui;

/// Interval between two looks at the log.
const INTERVAL: Duration = Duration::from_millis(200);

/// Outcome of looking for a running stage.
pub(super) enum Following {
    /// Its log was printed.
    Shown,
    /// No run is running it.
    NotRunning,
}

/// Prints the log of a stage that is running. With `follow`, waits for the stage to start if a run is in progress, and
/// prints on until it ends.
///
/// # Errors
/// [`CliError`] if standard output cannot be written.
pub(super) fn show(cache: &Cache, args: &NameArgs, follow: bool) -> Result<Following, CliError> {
    let mut has_told = false;
    loop {
        let runs = living(cache, &args.found);
        if let Some(run) = runs.iter().find(|run| run.log_path(&args.stage).is_some()) {
            let (host, pid) = (&run.run.holder.host, run.run.holder.pid);
            eprint(&format!("{} of pipeline {}, running on {host}, pid {pid}\n", args.stage, run.run.pipeline));
            return print(cache, args, run, follow).map(|()| Following::Shown);
        }
        // Agents tell what they run some seconds late, and more of them may wait for a machine.
        if !follow || (runs.is_empty() && !RunFolder::all(cache).iter().any(RunFolder::is_live)) {
            return Ok(Following::NotRunning);
        }
        if !std::mem::replace(&mut has_told, true) {
            eprint(&format!("{} is not running; waiting until it is, or until the run ends\n", args.stage));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Runs of the pipeline that may be alive.
pub(super) fn living(cache: &Cache, args: &FindArgs) -> Vec<FoundRun> {
    let is_asked_for = |found: &FoundRun| {
        found.sign != Sign::Dead && args.pipeline.as_ref().is_none_or(|name| found.run.pipeline == *name)
    };
    cache.live_runs().into_iter().filter(is_asked_for).collect()
}

fn print(cache: &Cache, args: &NameArgs, run: &FoundRun, follow: bool) -> Result<(), CliError> {
    let Some(path) = run.log_path(&args.stage) else { return Ok(()) };
    let mut log: Option<File> = None;
    loop {
        // A stage that has said nothing has no file yet.
        log = log.or_else(|| File::open(&path).ok());
        // Asked before the last look, so that nothing is missed.
        let is_ended = match &log {
            Some(log) => log.metadata().map_or(true, |metadata| metadata.nlink() == 0) || !is_alive(cache, args, run),
            None => !is_running(cache, args, run),
        };
        if let Some(log) = &mut log {
            let mut bytes = Vec::new();
            // On a network file system, a removed file may be gone for its readers, too.
            _ = log.read_to_end(&mut bytes);
            ui::print_data(&String::from_utf8_lossy(&bytes))?;
        }
        if is_ended {
            eprint(&format!("{} is not running any more\n", args.stage));
            return Ok(());
        }
        if !follow {
            eprint(&format!("{} is still running; --follow goes on\n", args.stage));
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn is_alive(cache: &Cache, args: &NameArgs, run: &FoundRun) -> bool {
    living(cache, &args.found).iter().any(|living| living.run.holder == run.run.holder)
}

fn is_running(cache: &Cache, args: &NameArgs, run: &FoundRun) -> bool {
    let is_same = |living: &&FoundRun| living.run.holder == run.run.holder;
    living(cache, &args.found).iter().find(is_same).is_some_and(|living| living.log_path(&args.stage).is_some())
}
