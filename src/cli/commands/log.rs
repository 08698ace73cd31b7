//! `atflow log`.

use atflow::cache::Cache;

use super::not_found;
use crate::args::NameArgs;
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open(&args.found.cache.cache)?;
    let mut known: Vec<String> = Vec::new();
    // The newest run that tried it: a failure is newer than the result that stood before it.
    for run in cache.runs(args.found.pipeline.as_deref()) {
        let log = match (run.failed.get(&args.stage), run.keys.get(&args.stage)) {
            (Some(failed), _) => failed.log,
            (None, Some(key)) => match cache.lookup(*key) {
                Some(manifest) => manifest.made.log,
                None => continue,
            },
            (None, None) => {
                known.extend(run.keys.into_keys().chain(run.failed.into_keys()));
                continue;
            }
        };
        let bytes = cache
            .read(log.digest)
            .map_err(|error| CliError::environment(format!("the log cannot be read: {error}")))?;
        let text = String::from_utf8_lossy(&bytes);
        let text = if args.json {
            format!("{}\n", serde_json::json!({"stage": args.stage, "log": text}))
        } else {
            text.into_owned()
        };
        ui::print(&text)?;
        return Ok(Exit::Done);
    }
    Err(not_found(&args.stage, known, &args.found))
}
