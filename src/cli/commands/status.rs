//! `atflow status`.

use std::path::Path;
use std::time::Duration;

use atflow::cache::{Access, Cache, FoundRun, LiveRun, LiveStage, RunRecord, Sign};
use atflow::plain::plain;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::shared_runs;
use crate::args::StatusArgs;
use crate::progress::{left_words, pace_words};
use crate::report::{CliError, Exit};
use crate::ui;

/// So many running stages of a run are listed unless all are asked for.
const SHOWN: usize = 8;

/// A run of another machine that has been silent for so long may be gone: it writes its state every ten seconds, and a
/// network file system may show that a minute late.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);

pub(crate) fn run(args: &StatusArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Look, &args.cache.cache)?;
    let runs = cache.live_runs();
    let shared = shared_runs::live(&cache);
    let text = if args.json {
        let runs: Vec<Value> = runs.iter().map(described).collect();
        let shared: Vec<Value> = shared.iter().filter_map(|run| Some(run.as_ref().ok()?.json())).collect();
        let mut told = json!({ "runs": runs });
        if !shared.is_empty() {
            told["cluster"] = json!(shared);
        }
        format!("{told}\n")
    } else if shared.is_empty() {
        words(&cache, &args.cache.cache, &runs, args.all)
    } else {
        let told = shared.iter().map(|run| match run {
            Ok(run) => run.words(args.all),
            Err((id, error)) => format!("run {} on a cluster: {}\n", id.short(), error.words()),
        });
        let own = runs.iter().map(|found| run_words(found, args.all));
        told.chain(own).collect::<Vec<_>>().join("\n")
    };
    ui::print_either(args.json, &text)?;
    Ok(Exit::Done)
}

/// The state of a run, and whether it lives.
fn described(found: &FoundRun) -> Value {
    let mut run = json!(found.run);
    run["alive"] = match found.sign {
        Sign::Alive => json!(true),
        Sign::Dead => json!(false),
        Sign::Silent(_) => Value::Null,
    };
    if let Sign::Silent(age) = found.sign {
        run["silent_seconds"] = json!(age.as_secs_f64());
    }
    run
}

fn words(cache: &Cache, folder: &Path, runs: &[FoundRun], all: bool) -> String {
    if runs.is_empty() {
        let last = cache.runs(None).next().map(|run| last_words(&run)).unwrap_or_default();
        return format!("nothing runs with the cache {}\n{last}", folder.display());
    }
    runs.iter().map(|found| run_words(found, all)).collect::<Vec<_>>().join("\n")
}

fn last_words(run: &RunRecord) -> String {
    let how = run.outcome.map(|outcome| format!(": {}", json!(outcome).as_str().unwrap_or_default()));
    let (id, at) = (run.id.short(), ui::moment(&run.at));
    format!("the last run, {id} of {}, ended {at}{}\n", run.pipeline, how.unwrap_or_default())
}

fn run_words(found: &FoundRun, all: bool) -> String {
    let run = &found.run;
    let mut text = format!("{}\n", heading(run));
    text.push_str(&match found.sign {
        Sign::Alive => String::new(),
        Sign::Silent(age) if age < LONGEST_SILENCE => String::new(),
        Sign::Silent(age) => {
            format!("  no sign of life for {}: it may have been killed\n", ui::duration(age.as_secs_f64()))
        }
        Sign::Dead => format!("  killed after {}; run it again to go on\n", ui::moment(&run.at)),
    });
    text.push_str(&format!("  {}\n", counts(run)));
    if found.sign == Sign::Dead {
        return text;
    }
    let shown = if all { run.running.len() } else { run.running.len().min(SHOWN) };
    let width = run.running[..shown].iter().map(|stage| plain(&stage.stage).chars().count()).max().unwrap_or(0);
    for stage in &run.running[..shown] {
        text.push_str(&format!("    {}\n", stage_words(stage, width)));
    }
    if run.running.len() > shown {
        text.push_str(&format!("    and {} more running; --all lists them\n", run.running.len() - shown));
    }
    for wait in &run.waiting {
        let whom = wait.holder.as_ref().map(|(host, pid)| format!(" ({host} pid {pid})")).unwrap_or_default();
        text.push_str(&format!("    {} waits for another run{whom}\n", wait.stage));
    }
    text
}

/// The pipeline with what the command line changed, the process, and since when it runs.
fn heading(run: &LiveRun) -> String {
    let profile = run.profile.iter().map(|profile| format!(" --profile {profile}"));
    let set = run.set.iter().map(|(key, value)| format!(" --set {key}={value}"));
    let targets = run.targets.iter().map(|target| format!(" {target}"));
    let how: String = targets.chain(profile).chain(set).collect();
    let (host, pid) = (&run.holder.host, run.holder.pid);
    let user = run.user.as_ref().map(|user| format!("{user} on ")).unwrap_or_default();
    let time = since(&run.started).map(|time| format!(" ({time})")).unwrap_or_default();
    format!("{}{how}: {user}{host}, pid {pid}, since {}{time}", run.pipeline, ui::moment(&run.started))
}

fn counts(run: &LiveRun) -> String {
    let mut parts = vec![format!("{} of {} stages done", run.ended(), run.stages)];
    let counts = [(run.ran, "ran"), (run.cached, "cached"), (run.failed, "failed"), (run.skipped, "skipped")];
    let counts = counts.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}"));
    parts.extend(counts);
    parts.extend(left_words(run.seconds_left, run.never_ran));
    parts.join(", ")
}

fn stage_words(stage: &LiveStage, width: usize) -> String {
    let time = since(&stage.started).unwrap_or_default();
    let mut parts = vec![format!("{:width$}", stage.stage), format!("{time:>5}")];
    if let Some(progress) = &stage.progress {
        if progress.total > 0 {
            parts.push(format!("{:3.0} %", 100.0 * progress.done as f64 / progress.total as f64));
        }
        parts.push(progress.message.replace('\n', " "));
        parts.push(pace_words(progress));
    }
    parts.join("  ").trim_end().to_owned()
}

/// How long ago something was, by this machine's clock.
fn since(at: &str) -> Option<String> {
    let at: Timestamp = at.parse().ok()?;
    Some(ui::duration(Timestamp::now().duration_since(at).as_secs_f64().max(0.0).round()))
}
