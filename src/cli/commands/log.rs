//! `atflow log`.

use atflow::cache::{Access, Cache};
use atflow::lines::{read_lines, read_text};

use super::attempts::Tries;
use super::live_log::{self, Following};
use crate::args::{LogArgs, NameArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// A longer line of a log is broken on a terminal.
const LONGEST_LINE: usize = 16 << 10;

pub(crate) fn run(args: &LogArgs) -> Result<Exit, CliError> {
    let (name, follow) = (&args.name, args.follow);
    let cache = Cache::open_to(Access::Read, &name.found.cache.cache)?;
    if name.json {
        json(&cache, &Tries::of(&cache, &name.stage, &name.found)?, name)?;
        return Ok(Exit::Done);
    }
    match live_log::show(&cache, name, follow)? {
        Following::Shown => Ok(Exit::Done),
        Following::NotRunning => recorded(&cache, name),
    }
}

/// Prints the log of the newest try that has ended.
fn recorded(cache: &Cache, args: &NameArgs) -> Result<Exit, CliError> {
    let tries = Tries::of(cache, &args.stage, &args.found)?;
    eprint(&tries.whose(&args.stage));
    if let Some(log) = tries.log(cache).map_err(CliError::environment)? {
        let mut told = Ok(());
        if console::user_attended() {
            read_lines(log, LONGEST_LINE, |line| {
                told = ui::print(&format!("{line}\n"));
                told.is_ok()
            });
        } else {
            told = ui::copy(log);
        }
        told?;
    }
    if let Some(words) = tries.interrupted_words(cache) {
        eprint(&format!("{} was interrupted {words}\n", args.stage));
    }
    if let Some(failed) = &tries.failed {
        let (stage, when, file) = (&args.stage, failed.when(), failed.log_file(cache));
        eprint(&format!("{stage} failed {when}: {}\nits log is in {}\n", failed.message(), file.display()));
    }
    Ok(Exit::Done)
}

/// One object, whose log is written as it is read.
fn json(cache: &Cache, tries: &Tries, args: &NameArgs) -> Result<(), CliError> {
    let mut rest = serde_json::json!({ "stage": args.stage, "pipeline": tries.pipeline });
    if let Some(failed) = &tries.failed {
        rest["failed"] = failed.json(cache);
    }
    let log = tries.log(cache).map_err(CliError::environment)?;
    ui::print_data("{\"log\":\"")?;
    let mut told = Ok(());
    if let Some(log) = log {
        read_text(log, |piece| {
            let quoted = serde_json::json!(piece).to_string();
            told = ui::print_data(&quoted[1..quoted.len() - 1]);
            told.is_ok()
        });
    }
    told?;
    let rest = rest.to_string();
    ui::print_data(&format!("\",{}\n", &rest[1..]))
}
