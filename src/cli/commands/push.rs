//! `atflow push`.

use std::collections::HashSet;

use atflow::cache::CacheError;
use atflow::fetch::Patience;
use atflow::plan::PlannedState;
use atflow::remote::Remote;

use super::Loaded;
use crate::args::PushArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &PushArgs) -> Result<Exit, CliError> {
    let Some(to) = &args.pipeline.remote else {
        return Err(CliError::environment("push needs a place to copy to").help("name a folder: --remote /shared/atflow-cache"));
    };
    let loaded = Loaded::with(&args.pipeline, false)?;
    let scratch = loaded.cache.scratch()?;
    let remote = Remote::create(to, Patience::default(), scratch.path()).map_err(CacheError::from)?;
    let mut copied = (0_usize, 0_u64);
    let mut lost = 0_usize;
    let mut seen = HashSet::new();
    let (stages, keys) = loaded.plan_with_keys()?;
    for (name, key) in &keys {
        let Some(manifest) = loaded.cache.lookup(*key) else { continue };
        // Blobs first: a manifest promises that they are there.
        for blob in manifest.outputs.values().chain([&manifest.made.log]) {
            if !seen.insert(blob.digest) {
                continue;
            }
            if !loaded.cache.has(*blob) {
                eprint(&format!("warning: a file of {name} is gone from this cache and is not copied\n"));
                lost += 1;
                continue;
            }
            if remote.put_blob(blob.digest, &loaded.cache.object_path(blob.digest)).map_err(CacheError::from)? {
                copied = (copied.0 + 1, copied.1 + blob.size);
            }
        }
        let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
        remote.put_manifest(*key, &text).map_err(CacheError::from)?;
    }
    let stale = stages.iter().filter(|stage| stage.state != PlannedState::Fresh).count();
    let mut words = format!("{} in {to}: {} copied ({})\n", ui::count(keys.len(), "result"), ui::count(copied.0, "file"), ui::bytes(copied.1));
    if stale > 0 {
        words.push_str(&format!("{} not up to date here and not copied; run first to have them\n", ui::count(stale, "stage")));
    }
    eprint(&words);
    Ok(if lost > 0 { Exit::StageFailed } else { Exit::Done })
}
