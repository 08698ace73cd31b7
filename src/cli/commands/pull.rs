//! `atflow pull`.

use std::ops::ControlFlow;

use atflow::cache::Obtained;
use atflow::plan::PlannedState;

use super::Loaded;
use crate::args::PullArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &PullArgs) -> Result<Exit, CliError> {
    if args.pipeline.remote.is_none() {
        return Err(CliError::environment("pull needs a cache to take from").help("name it: --remote https://… or a folder"));
    }
    let loaded = Loaded::new(&args.pipeline)?;
    let (stages, keys) = loaded.plan_with_keys()?;
    let mut fetched = (0_usize, 0_u64);
    let mut wrong = 0_usize;
    for (name, key) in &keys {
        // What was asked for by name comes with its bytes; of what lies between it is enough to know it.
        let asked = args.pipeline.targets.is_empty() || loaded.graph.ids().any(|id| loaded.needed[id.0] && loaded.graph.instance(id).name == *name);
        let Some(manifest) = loaded.cache.lookup(*key).filter(|_| asked) else { continue };
        for blob in manifest.outputs.values() {
            match loaded.cache.obtain(*blob, &mut |_, _| ControlFlow::Continue(()))? {
                Obtained::Fetched => fetched = (fetched.0 + 1, fetched.1 + blob.size),
                Obtained::Here => {}
                Obtained::Missing => {
                    eprint(&format!("warning: the remote cache lacks a file of {name}\n"));
                    wrong += 1;
                }
                Obtained::Wrong(message) => {
                    eprint(&format!("warning: {message}\n"));
                    wrong += 1;
                }
            }
        }
    }
    let missing = stages.iter().filter(|stage| stage.state != PlannedState::Fresh).count();
    let mut words = format!("{} here: {} fetched ({})\n", ui::count(keys.len(), "result"), ui::count(fetched.0, "file"), ui::bytes(fetched.1));
    if missing > 0 {
        words.push_str(&format!("{} neither here nor there; `atflow run` makes them\n", ui::count(missing, "stage")));
    }
    eprint(&words);
    Ok(if wrong > 0 { Exit::StageFailed } else { Exit::Done })
}
