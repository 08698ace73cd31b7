//! `atflow log`.

use atflow::cache::{Access, Cache};
use atflow::lines::{read_lines, read_text};

use super::attempts::Tries;
use crate::args::NameArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// A longer line of a log is broken on a terminal.
const LONGEST_LINE: usize = 16 << 10;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    let tries = Tries::of(&cache, &args.stage, &args.found)?;
    if args.json {
        json(&cache, &tries, args)?;
        return Ok(Exit::Done);
    }
    eprint(&tries.whose(&args.stage));
    if let Some(log) = tries.log(&cache).map_err(CliError::environment)? {
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
    if let Some(failed) = &tries.failed {
        let (stage, when, file) = (&args.stage, failed.when(), failed.log_file(&cache));
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
