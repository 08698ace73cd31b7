//! `atflow doctor`.

use std::path::Path;

use atflow::cache::Cache;
use atflow::cluster::echo;
use atflow::numerics::Numerics;
use atflow::probe::{self, Greeting};
use atflow::protocol::{Event, PROTOCOL_VERSION, is_gpu};
use serde::Serialize;

use super::{bench, cluster_check, describe_arithmetic, worker_program};
use crate::args::{DoctorArgs, ExecutorName};
use crate::report::{CliError, Exit};
use crate::ui;

/// Below this a training or two may fill the disk.
const LITTLE_SPACE: u64 = 5_000_000_000;

/// A file system's clock may be off by this; its time stamps have steps, too.
const CLOCK: f64 = 2.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    advice: String,
}

fn check(name: impl Into<String>, state: State, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { name: name.into(), state, found: found.into(), advice: advice.into() }
}

pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    if let Some(folder) = &args.echo {
        // Whoever asked tells what it missed.
        _ = echo::answer(folder, cluster_check::UNSEEN);
    }
    let version = format!("{} at {}", env!("CARGO_PKG_VERSION"), probe::own_program().display());
    let mut checks = vec![check("atflow", State::Ok, version, "")];
    checks.extend(worker());
    checks.extend(cache(&args.cache.cache));
    checks.push(match probe::git() {
        Some(version) => check("git", State::Ok, version, ""),
        None => check(
            "git",
            State::Warning,
            "not found",
            "results are recorded without the commit that they were made from",
        ),
    });
    if args.executor != ExecutorName::Local {
        let found = cluster_check::look(args)?.into_iter();
        checks.extend(found.map(|(name, is_well, found, advice)| {
            check(name, if is_well { State::Ok } else { State::Problem }, found, advice)
        }));
    } else if args.cluster.is_some() {
        let error = CliError::environment("--cluster describes a cluster, and none is to be checked");
        return Err(error.help("add --executor slurm, or leave it out"));
    }
    let is_well = checks.iter().all(|check| check.state != State::Problem);
    let checked = checks.iter().map(words).collect::<String>();
    // Words on the set-up do not wait for the measurements; one JSON object holds both.
    if !args.json {
        ui::print(&checked)?;
    }
    let rates = if args.bench && is_well { Some(bench::run(&args.cache.cache)?) } else { None };
    if args.json {
        let mut json = serde_json::json!({ "checks": checks });
        if let Some(rates) = &rates {
            json["rates"] = serde_json::json!(rates);
        }
        ui::print_data(&format!("{json}\n"))?;
    } else if let Some(rates) = &rates {
        ui::print(&bench::words(rates))?;
    }
    Ok(if is_well { Exit::Done } else { Exit::Wrong })
}

fn words(check: &Check) -> String {
    let state = match check.state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Problem => "problem",
    };
    let advice = if check.advice.is_empty() { String::new() } else { format!("\n{:21}{}", "", check.advice) };
    // Checks of a class have long names.
    let width = (check.name.chars().count() + 1).max(12);
    format!("{state:9}{:width$}{}{advice}\n", check.name, check.found)
}

fn worker() -> Vec<Check> {
    let program = worker_program();
    let shown = program.display();
    let wrong = |found: String, advice: &str| vec![check("worker", State::Problem, found, advice)];
    let build = "build it with `make build`, or name another one in $ATFLOW_WORKER";
    match probe::worker(&program, "auto", Numerics::default()) {
        Greeting::NotStarted(error) => wrong(format!("cannot start {shown}: {error}"), build),
        Greeting::Silent(said) => {
            let last = said.lines().last().unwrap_or("and said nothing").to_owned();
            wrong(format!("{shown} ended before it was ready: {last}"), "run `make setup` and `make build` again")
        }
        Greeting::Said(Event::Hello { protocol, version, .. }) if protocol != PROTOCOL_VERSION => wrong(
            format!("{shown} is version {version} and speaks protocol {protocol}, atflow speaks {PROTOCOL_VERSION}"),
            "build both programs from the same source: `make build`",
        ),
        Greeting::Said(Event::Hello { version, libtorch, device, device_name, arithmetic, .. }) => {
            let name = if device_name.is_empty() { String::new() } else { format!(" ({device_name})") };
            let mut checks = vec![
                check("worker", State::Ok, format!("{version} at {shown}"), ""),
                check("libtorch", State::Ok, libtorch, ""),
                check("device", State::Ok, format!("{device}{name}"), ""),
                check("arithmetic", State::Ok, describe_arithmetic(Numerics::default(), &arithmetic), ""),
            ];
            if !is_gpu(&device) {
                checks.push(no_cuda(&program));
            }
            checks
        }
        Greeting::Said(Event::Unusable { message }) => wrong(message, "run `make setup` and `make build` again"),
        Greeting::Said(_) => {
            wrong(format!("{shown} did not greet"), "build both programs from the same source: `make build`")
        }
    }
}

/// Asks a worker why it has no GPU. That there is none is nothing to worry about.
fn no_cuda(program: &Path) -> Check {
    match probe::worker(program, "cuda:0", Numerics::default()) {
        Greeting::Said(Event::Unusable { message }) => {
            check("CUDA", State::Ok, format!("none: {message}"), "trainings run on the CPU")
        }
        Greeting::Said(_) => {
            check("CUDA", State::Ok, "there; `--device auto` takes the CPU", "`--device cuda:0` takes it")
        }
        Greeting::NotStarted(_) | Greeting::Silent(_) => {
            check("CUDA", State::Warning, "the worker ended when it was asked for it", "use `--device cpu`")
        }
    }
}

fn cache(root: &Path) -> Vec<Check> {
    if !root.join("VERSION").exists() {
        return vec![check(
            "cache",
            State::Ok,
            format!("{} is not there yet", root.display()),
            "the first run makes it",
        )];
    }
    let cache = match Cache::open(root) {
        Ok(cache) => cache,
        Err(error) => {
            let advice = "use another folder with --cache, or the version of atflow that made this one";
            return vec![check("cache", State::Problem, error.to_string(), advice)];
        }
    };
    let (files, bytes) = probe::size(cache.root());
    let found = format!("{}: {}, {}", root.display(), ui::count(files as usize, "file"), ui::bytes(bytes));
    let mut checks = vec![check("cache", State::Ok, found, "")];
    match probe::file_system(&cache) {
        Err(error) => {
            let advice = "check the folder and its permissions, or use another one with --cache";
            checks.push(check("writing", State::Problem, error.to_string(), advice));
        }
        Ok(found) => {
            let free = format!("{} free", ui::bytes(found.free));
            checks.push(if found.free < LITTLE_SPACE {
                check("disk", State::Warning, free, "`atflow gc` shows what can be freed")
            } else {
                check("disk", State::Ok, free, "")
            });
            let seconds = found.clock.abs();
            checks.push(if seconds > CLOCK {
                let advice = "set the clocks of this machine and of the file server, with NTP for example";
                check("clock", State::Warning, format!("the file system's is off by {seconds:.0} s"), advice)
            } else {
                check("clock", State::Ok, "the file system's agrees with this machine's", "")
            });
            checks.push(if found.locks {
                check("locks", State::Ok, "keep others out", "")
            } else {
                let advice = "let one run at a time use this cache, or put it on a file system with locks";
                check("locks", State::Problem, "do not keep others out", advice)
            });
            if !found.links {
                let advice = "`atflow verify` copies what it needs: that takes longer";
                checks.push(check("links", State::Warning, "a file cannot have two names", advice));
            }
        }
    }
    checks
}
