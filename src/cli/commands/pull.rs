//! `atflow pull`.

use std::ops::ControlFlow;

use atflow::cache::{Access, Obtained};

use super::{Loaded, remote_results};
use crate::args::PullArgs;
use crate::progress::bar_of_bytes;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &PullArgs) -> Result<Exit, CliError> {
    if args.pipeline.changes.remote().is_none() {
        let error = CliError::environment("pull needs a cache to take from");
        return Err(error.help("name it: --remote https://… or a folder"));
    }
    let loaded = Loaded::new(&args.pipeline, Access::Write)?;
    let results = loaded.fresh()?;
    let (mut blobs, mut makers) = (Vec::new(), Vec::new());
    for (id, manifest) in &results {
        // What was asked for by name comes with its bytes; of what lies between it is enough to know it.
        if !args.pipeline.targets.is_empty() && !loaded.goals.needed[*id] {
            continue;
        }
        let name = &loaded.graph.instance(*id).name;
        for blob in manifest.outputs.values() {
            // What is pulled is whole afterwards: a length alone does not tell.
            if let Some(kept) = loaded.cache.quarantine(blob.digest)? {
                let kept = kept.display();
                eprint(&format!(
                    "warning: a file of {name} had other bytes than its digest says; it was moved to {kept}\n"
                ));
            }
            if !loaded.cache.has(*blob) {
                blobs.push(*blob);
                makers.push(name);
            }
        }
    }
    let bar = bar_of_bytes(blobs.iter().map(|blob| blob.size).sum());
    let outcomes = loaded.cache.obtain_all(&blobs, &|done| {
        bar.set_position(done);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let (mut files, mut bytes, mut wrong) = (0, 0, 0);
    for ((outcome, blob), maker) in outcomes?.into_iter().zip(blobs).zip(makers) {
        let problem = match outcome {
            // Another result has the same file.
            Obtained::Here => continue,
            Obtained::Fetched => {
                files += 1;
                bytes += blob.size;
                continue;
            }
            Obtained::Missing => format!("the remote cache lacks a file of {maker}"),
            Obtained::Wrong(message) => message,
        };
        eprint(&format!("warning: {problem}\n"));
        wrong += 1;
    }
    let results = results.len();
    eprint(&format!(
        "{} here: {} fetched ({})\n",
        ui::count(results, "result"),
        ui::count(files, "file"),
        ui::bytes(bytes)
    ));
    eprint(&remote_results::passed_over_words(&loaded.cache));
    let missing = loaded.goals.wanted.marked().count() - results;
    if missing > 0 {
        let them = if missing == 1 { "it" } else { "them" };
        eprint(&format!("{} neither here nor there; `atflow run` makes {them}\n", ui::count(missing, "stage")));
    }
    Ok(if wrong > 0 { Exit::StageFailed } else { Exit::Done })
}
