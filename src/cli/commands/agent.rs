//! `atflow agent`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::cache::{Access, Cache};
use atflow::cluster::agent::{self, ALL, AgentEnd, AgentError, AgentOptions};
use atflow::cluster::folder::{ExitNote, ExitReason, FindError, RunFolder, agent_name};
use atflow::cluster::frozen_plan::ThawError;
use atflow::event::RunEvent;
use atflow::external_inputs::causes;

use super::{interrupt, jobs, keeper_program, patience, worker_program};
use crate::args::AgentArgs;
use crate::progress::Progress;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &AgentArgs) -> Result<Exit, CliError> {
    let cache = match args.remote.as_deref().filter(|name| !name.is_empty()) {
        Some(remote) => {
            let cache = Cache::open(&args.cache.cache)?;
            let cache = cache.read_through(remote, patience(args.patience))?.sharing_work()?;
            // Nobody else looks after a cache of this machine.
            cache.clear_abandoned();
            cache
        }
        None => Cache::open_to(Access::Read, &args.cache.cache)?,
    };
    let folder = RunFolder::find(&cache, &args.run)?;
    let (name, job) = agent_name(|name| std::env::var(name).ok());
    let after = |seconds: u32| jiff::Timestamp::now() + Duration::from_secs(seconds.into());
    let options = AgentOptions {
        name,
        job,
        class: args.class.clone(),
        until: args.until.or(args.seconds.map(after)),
        idle: Duration::from_secs(args.idle.into()),
        jobs: jobs(args.jobs),
        device: args.device.clone(),
        worker: worker_program(),
        keeper: keeper_program(),
        scratch: args.scratch.as_deref().map(scratch).transpose()?,
    };
    eprint(&format!("agent {} of class {}, run {}\n", options.name, options.class, folder.id().short()));
    let mut progress = Progress::for_people(false, cache.root());
    let interrupt = interrupt(progress.last_words())?;
    let observer = &mut |event: RunEvent| progress.event(event);
    let AgentEnd { note, broken } = agent::run(&cache, &folder, &options, &interrupt, observer)?;
    progress.finish();
    eprint(&closing_words(&note));
    match broken {
        Some(error) if note.reason == ExitReason::Storage => Err(CliError::from(error).exits(Exit::Storage)),
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}

/// Makes sure that there is a folder for the files of running stages; returns its absolute path.
fn scratch(folder: &Path) -> Result<PathBuf, CliError> {
    let made = std::fs::create_dir_all(folder).and_then(|()| std::path::absolute(folder));
    made.map_err(|error| CliError::environment(format!("cannot make the folder {}: {error}", folder.display())))
}

fn closing_words(note: &ExitNote) -> String {
    let why = match note.reason {
        ExitReason::Finished => "nothing is left that it could do",
        ExitReason::Idle => "it had nothing to do for long",
        ExitReason::Deadline => "its time is over",
        ExitReason::Cancelled => "the run was cancelled",
        ExitReason::Storage => "the cache cannot be used from this machine",
        ExitReason::Failed => "it could not work",
    };
    let failed = if note.failed > 0 { format!(", {} failed", note.failed) } else { String::new() };
    format!("{} ran{failed}; {}: {why}\n", ui::count(note.ran, "stage"), note.reason.name())
}

impl From<FindError> for CliError {
    fn from(error: FindError) -> Self {
        let help = match &error {
            FindError::Unknown { known, .. } if known.is_empty() => {
                "`atflow run PIPELINE --executor …` makes one; --cache names the cache that it was made in".to_owned()
            }
            FindError::Unknown { known, .. } => format!("it has {}", known.join(", ")),
            FindError::Ambiguous { .. } => "give more of its name".to_owned(),
            FindError::Bucket(_) => "look at the address and at the credentials of the bucket".to_owned(),
        };
        CliError::environment(error.to_string()).help(help)
    }
}

impl From<AgentError> for CliError {
    fn from(error: AgentError) -> Self {
        let help = match &error {
            AgentError::Class { known, .. } => format!("it has {}, and `{ALL}` for every stage", known.join(", ")),
            AgentError::Plan(ThawError::Version { found, .. }) => {
                format!("start agents with atflow {found}, or submit the run again with this version")
            }
            AgentError::Plan(ThawError::NoPlan { .. } | ThawError::File(_)) => {
                "submit the run again; what was finished is kept".to_owned()
            }
        };
        let mut chain = causes(&error);
        let message = chain.remove(0);
        chain.retain(|cause| *cause != message);
        CliError::environment(message).because(chain).help(help)
    }
}
