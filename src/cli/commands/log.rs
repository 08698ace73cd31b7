//! `atflow log`.

use atflow::cache::{Access, Cache};

use super::tries::Tries;
use crate::args::NameArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    let tries = Tries::of(&cache, &args.stage, &args.found)?;
    let log = tries.log(&cache).map_err(CliError::environment)?;
    if args.json {
        let mut json = serde_json::json!({ "stage": args.stage, "log": log });
        if let Some(failed) = &tries.failed {
            json["failed"] = failed.json(&cache);
        }
        ui::print(&format!("{json}\n"))?;
        return Ok(Exit::Done);
    }
    ui::print(&log)?;
    if let Some(failed) = &tries.failed {
        let (stage, when, file) = (&args.stage, failed.when(), failed.log_file(&cache));
        eprint(&format!("{stage} failed {when}: {}\nits log is in {}\n", failed.message(), file.display()));
    }
    Ok(Exit::Done)
}
