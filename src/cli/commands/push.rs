//! `atflow push`.

use std::collections::HashSet;

use atflow::cache::CacheError;
use atflow::fetch::Patience;
use atflow::remote::Remote;

use super::Loaded;
use crate::args::{ChangeArgs, PushArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &PushArgs) -> Result<Exit, CliError> {
    let Some(to) = &args.pipeline.changes.remote else {
        let error = CliError::environment("push needs a place to copy to");
        return Err(error.help("name a folder: --remote /shared/atflow-cache"));
    };
    // What is there already is no answer to what is here.
    let here = ChangeArgs { remote: None, ..args.pipeline.changes.clone() };
    let loaded = Loaded::open(&args.pipeline.pipeline, &args.pipeline.targets, &here)?;
    let scratch = loaded.cache.scratch()?;
    let remote = Remote::create(to, Patience::default(), scratch.path()).map_err(CacheError::from)?;
    let results = loaded.fresh()?;
    let mut seen = HashSet::new();
    let (mut files, mut bytes, mut lost) = (0, 0, 0);
    for (instance, manifest) in &results {
        // Blobs first: a manifest promises that they are there.
        for blob in manifest.outputs.values().chain([&manifest.made.log]).filter(|blob| seen.insert(blob.digest)) {
            if !loaded.cache.has(*blob) {
                eprint(&format!("warning: a file of {} is gone from this cache and is not copied\n", instance.name));
                lost += 1;
            } else if remote.put_blob(blob.digest, &loaded.cache.object_path(blob.digest)).map_err(CacheError::from)? {
                files += 1;
                bytes += blob.size;
            }
        }
        let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
        remote.put_manifest(manifest.record.key(), &text).map_err(CacheError::from)?;
    }
    let results = results.len();
    eprint(&format!(
        "{} in {to}: {} copied ({})\n",
        ui::count(results, "result"),
        ui::count(files, "file"),
        ui::bytes(bytes)
    ));
    let stale = loaded.wanted.iter().filter(|wanted| **wanted).count() - results;
    if stale > 0 {
        eprint(&format!("{} not up to date here and not copied; run first to have them\n", ui::count(stale, "stage")));
    }
    Ok(if lost > 0 { Exit::StageFailed } else { Exit::Done })
}
