//! `atflow cancel`.

use atflow::cache::{Access, Cache, RunOutcome};
use atflow::cluster::controller;
use atflow::cluster::folder::RunFolder;

use super::cluster_run::{Attached, cluster_of, pace, site_of};
use super::shared_runs::note_end;
use crate::args::CancelArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &CancelArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.cache.cache)?;
    let folder = find(&cache, args)?;
    let short = folder.id().short();
    if let Some(end) = folder.ended() {
        let message = format!("run {short} ended {}", ui::moment(&end.at));
        return Err(CliError::environment(message).help("`atflow status` shows the runs that can be cancelled"));
    }
    // First, so that agents stop whatever becomes of the rest.
    folder.cancel().map_err(atflow::cache::CacheError::from)?;
    let jobs = cluster_of(&folder).and_then(|cluster| {
        let mut site = site_of(&cluster, pace());
        controller::cancel(&folder, &mut *site).map_err(|error| CliError::environment(error.to_string()))
    });
    if let Ok(run) = Attached::read(&folder) {
        note_end(&folder.cache(&cache)?, &run, RunOutcome::Interrupted)?;
    }
    match jobs {
        Ok(jobs) => eprint(&format!("run {short} is cancelled: {} asked to end\n", ui::count(jobs, "job"))),
        Err(error) => eprint(&format!(
            "run {short} is cancelled, and its agents end by themselves; jobs that wait could not be ended from here: {}\n",
            error.words()
        )),
    }
    Ok(Exit::Done)
}

fn find(cache: &Cache, args: &CancelArgs) -> Result<RunFolder, CliError> {
    let shown = args.cache.cache.display();
    if let Some(name) = &args.run {
        return Ok(RunFolder::find(cache, name)?);
    }
    let mut live: Vec<RunFolder> = RunFolder::all(cache).into_iter().filter(RunFolder::is_live).collect();
    match (live.pop(), live.len()) {
        (None, _) => {
            let error = CliError::environment(format!("no run on a cluster is under way with the cache {shown}"));
            Err(error.help("a run on this machine ends with Ctrl-C"))
        }
        (Some(only), 0) => Ok(only),
        (Some(last), _) => {
            let names: Vec<String> = live.iter().chain([&last]).map(|folder| folder.id().short()).collect();
            let error = CliError::environment(format!("{} runs are under way: {}", names.len(), names.join(", ")));
            Err(error.help("name the one to cancel: `atflow cancel RUN`"))
        }
    }
}
