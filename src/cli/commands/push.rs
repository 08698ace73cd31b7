//! `atflow push`.

use std::collections::HashSet;

use atflow::cache::{Access, CacheError, Manifest, OutputBlob};
use atflow::remote::{Remote, at_once};
use atflow::spec::InstanceId;

use super::{Loaded, patience};
use crate::args::{ChangeArgs, PushArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// Results whose files are sent before their manifests are.
const AT_A_TIME: usize = 64;

pub(crate) fn run(args: &PushArgs) -> Result<Exit, CliError> {
    let Some(to) = args.pipeline.changes.remote() else {
        let error = CliError::environment("push needs a place to copy to");
        return Err(error.help("name a folder or a bucket: --remote /shared/atflow-cache, --remote s3://bucket/folder"));
    };
    // What is there already is no answer to what is here.
    let here = ChangeArgs { remote: None, ..args.pipeline.changes.clone() };
    let loaded = Loaded::open(&args.pipeline.pipeline, &args.pipeline.targets, &here, Access::Read)?;
    let scratch = loaded.cache.scratch()?;
    let remote = Remote::create(to, patience(&args.pipeline.changes), scratch.path()).map_err(CacheError::from)?;
    let results = loaded.fresh()?;
    let mut seen = HashSet::new();
    let (mut files, mut bytes, mut lost) = (0, 0, 0);
    // A few at a time: what was copied before a stop counts, because blobs that are there are not sent again and manifests follow theirs soon.
    for some in results.chunks(AT_A_TIME) {
        let mut blobs: Vec<OutputBlob> = Vec::new();
        for (id, manifest) in some {
            for blob in manifest.outputs.values().chain([&manifest.made.log]).filter(|blob| seen.insert(blob.digest)) {
                if loaded.cache.has(*blob) {
                    blobs.push(*blob);
                } else {
                    let name = &loaded.graph.instance(*id).name;
                    eprint(&format!("warning: a file of {name} is gone from this cache and is not copied\n"));
                    lost += 1;
                }
            }
        }
        let put = |blob: &OutputBlob| remote.put_blob(blob.digest, &loaded.cache.object_path(blob.digest));
        for (blob, put) in blobs.iter().zip(at_once(&blobs, put)) {
            if put.map_err(CacheError::from)? {
                files += 1;
                bytes += blob.size;
            }
        }
        // Blobs first: a manifest promises that they are there.
        let put = |(_, manifest): &(InstanceId, Manifest)| {
            let text = serde_json::to_vec_pretty(manifest).unwrap_or_default();
            remote.put_manifest(manifest.record.key(), &text)
        };
        for put in at_once(some, put) {
            put.map_err(CacheError::from)?;
        }
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
        let them = if stale == 1 { "it" } else { "them" };
        eprint(&format!(
            "{} not up to date here and not copied; run first to have {them}\n",
            ui::count(stale, "stage")
        ));
    }
    Ok(if lost > 0 { Exit::StageFailed } else { Exit::Done })
}
