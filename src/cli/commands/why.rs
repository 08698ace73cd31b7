//! `atflow why`.

use atflow::address::masked;
use atflow::cache::{Access, Manifest};
use atflow::plan::causes::{Cause, CauseQuery, Contents, StaleCause};
use atflow::plan::difference::Change;
use atflow::plan::{CacheStatus, PlannedState, Resumption};
use atflow::spec::{At, InstanceId, Problems, Written};

use super::{Loaded, file_of_last_run};
use crate::args::WhyArgs;
use crate::report::{CliError, Exit};
use crate::ui;

/// Beyond so many causes of one sort nobody reads on; `--json` has them all.
const SHOWN: usize = 6;

pub(crate) fn run(args: &WhyArgs) -> Result<Exit, CliError> {
    let file = match &args.pipeline {
        Some(file) => file.clone(),
        None => file_of_last_run(&args.changes.cache, &format!("atflow why PIPELINE.yaml {}", args.stage))?,
    };
    let loaded = Loaded::open(&file, std::slice::from_ref(&args.stage), &args.changes, Access::Look)?.from(None)?;
    let ids = loaded.graph.targets(std::slice::from_ref(&args.stage)).map_err(Problems)?;
    let status_of = loaded.survey()?;
    let history = loaded.history();
    let question = CauseQuery {
        spec: &loaded.spec,
        overrides: &loaded.overrides,
        context: loaded.context(),
        status_of: &status_of,
        history: &history,
    };
    let mut answers: Vec<serde_json::Value> = Vec::new();
    let mut text = String::new();
    for id in ids {
        let Some(status) = &status_of[id] else { continue };
        let causes = question.causes(id);
        if args.json {
            answers.push(json(&loaded, id, status, &causes));
        } else {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&words(&loaded, id, status, &causes));
        }
    }
    if args.json {
        text = format!("{}\n", serde_json::json!({ "stages": answers }));
    }
    // An address in a command may hold a password.
    ui::print_either(args.json, &masked(&text))?;
    Ok(Exit::Done)
}

fn json(loaded: &Loaded, id: InstanceId, status: &CacheStatus, causes: &[Cause]) -> serde_json::Value {
    let instance = loaded.graph.instance(id);
    let mut answer = serde_json::json!({
        "name": instance.name, "kind": instance.kind, "state": status.state(), "causes": causes,
    });
    if let Some(goes_on) = goes_on(loaded, id, status) {
        answer["goes_on"] = serde_json::json!(goes_on);
    }
    if let CacheStatus::Fresh(key, manifest) = status {
        answer["key"] = serde_json::json!(key);
        answer["record"] = serde_json::json!(manifest.record);
        answer["made"] = serde_json::json!(manifest.made);
    }
    answer
}

/// The progress from which a stale training goes on.
fn goes_on(loaded: &Loaded, id: InstanceId, status: &CacheStatus) -> Option<Resumption> {
    let CacheStatus::Stale(action, _) = status else { return None };
    Resumption::of(&loaded.cache, action, loaded.forced_stages()[id])
}

fn words(loaded: &Loaded, id: InstanceId, status: &CacheStatus, causes: &[Cause]) -> String {
    let name = &loaded.graph.instance(id).name;
    let state = match (status, status.state()) {
        (CacheStatus::Fresh(key, manifest), _) => return fresh_words(loaded, id, &key.to_string(), manifest),
        (_, PlannedState::Pending) => "pending: what it needs has to run first, and it may turn out fresh",
        _ => "stale: it has to run",
    };
    let mut text = format!("{name} is {state}\n");
    if let Some(goes_on) = goes_on(loaded, id, status) {
        text.push_str(&format!("it {}\n", goes_on.words()));
    }
    let groups = groups(causes);
    for group in &groups {
        text.push('\n');
        text.push_str(&group_words(group, name));
        // Bytes that nobody reads are missed only by who asks for them.
        let is_lost = |cause: &&Cause| cause.stage == *name && matches!(cause.what, StaleCause::OutputGone { .. });
        if group.iter().any(is_lost) && loaded.graph.consumers(id).next().is_some() {
            text.push_str("  when     it is named as a target, or something that has to run reads it\n");
        }
    }
    text
}

/// Causes of several stages that are one and the same for a person.
fn groups(causes: &[Cause]) -> Vec<Vec<&Cause>> {
    let mut groups: Vec<Vec<&Cause>> = Vec::new();
    for cause in causes {
        let same = |other: &&Cause| root(other) == root(cause) && is_alike(&other.what, &cause.what);
        match groups.iter_mut().find(|group| group.first().is_some_and(same)) {
            Some(group) => group.push(cause),
            None => groups.push(vec![cause]),
        }
    }
    // What was never run follows from what changed more often than not.
    groups.sort_by_key(|group| group[0].what == StaleCause::NeverRun);
    groups
}

fn is_alike(one: &StaleCause, other: &StaleCause) -> bool {
    let values = |what: &StaleCause| match what {
        StaleCause::Changed(Change::Param { old, new, .. }) => Some((old.clone(), new.clone())),
        _ => None,
    };
    one == other || (values(one).is_some() && values(one) == values(other))
}

/// Where a value is written in the end.
fn root(cause: &Cause) -> Option<String> {
    cause.written.last().map(|written| place(&written.at))
}

fn place(at: &At) -> String {
    match at {
        At::File(place) => place.to_string(),
        At::Set(key) => format!("--set {key}"),
    }
}

fn group_words(group: &[&Cause], asked: &str) -> String {
    let Some(first) = group.first() else { return String::new() };
    let mut text = format!("{}{}\n", other_paths(group), sentence(&first.what));
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:9}{value}\n"));
    if let StaleCause::Source { old, new, .. } = &first.what {
        line("was", &contents_words(old));
        line("is", &contents_words(new));
    }
    let mut name = "written";
    for Written { name: through, at } in first.written.iter().rev() {
        let through = through.as_ref().map(|name| format!("  ${{{name}}}")).unwrap_or_default();
        line(name, &format!("{}{through}", place(at)));
        name = "used";
    }
    let mut stages: Vec<&str> = group.iter().map(|cause| cause.stage.as_str()).collect();
    stages.dedup();
    let more = stages.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    line("in", &format!("{}{more}", stages[..stages.len().min(SHOWN)].join(", ")));
    if first.stage != asked {
        line("needed", &first.way.join(" → "));
    }
    text
}

/// One value may be several parameters: those besides the first, to be read before it.
fn other_paths(group: &[&Cause]) -> String {
    let path = |cause: &&Cause| match &cause.what {
        StaleCause::Changed(Change::Param { path, .. }) => Some(path.clone()),
        _ => None,
    };
    let mut paths: Vec<String> = group.iter().filter_map(path).collect();
    let first = paths.first().cloned();
    paths.retain(|path| Some(path) != first.as_ref());
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|path| format!("{path}, ")).collect()
}

fn sentence(what: &StaleCause) -> String {
    match what {
        StaleCause::NeverRun => "it never ran".to_owned(),
        StaleCause::OnlyFailed => "it has failed so far; `atflow log` shows what it said".to_owned(),
        StaleCause::FromRemote => "its result came from elsewhere, and what it is made of can be had".to_owned(),
        StaleCause::Forced => "it is asked for with --force".to_owned(),
        StaleCause::ResultGone => "its result is gone from the cache".to_owned(),
        StaleCause::RecordGone => "it changed, and what it was made from before is gone from the cache".to_owned(),
        StaleCause::OutputGone { output } => format!("its output `{output}` is gone from the cache"),
        StaleCause::Changed(change) => change.to_string(),
        StaleCause::Source { slot, file, .. } => format!("the file {file} changed (its input `{slot}`)"),
        StaleCause::OtherBytes { input, from, at, host } => {
            format!("its input `{input}` changed: {from}, made {at} on {host}, came out with other bytes")
        }
    }
}

fn fresh_words(loaded: &Loaded, id: InstanceId, key: &str, manifest: &Manifest) -> String {
    let instance = loaded.graph.instance(id);
    let (made, action) = (&manifest.made, &manifest.record);
    let mut text = format!("{} is fresh: the cache has the result of the same record\n", instance.name);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:9}{value}\n"));
    line("key", key.to_owned());
    let renamed = if made.stage == instance.name { String::new() } else { format!(", as {}", made.stage) };
    line("made", format!("{} in {} on {}{renamed}", made.at, ui::duration(made.seconds), made.host));
    let seed = action.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
    line("code", format!("{}, version {}{seed}", action.kind, action.version));
    line("compared", action.params.to_string());
    for (input, digest) in &action.inputs {
        let need = loaded.graph.inputs(id).find(|(name, _)| name == input).map(|(_, need)| need);
        let from = need.map(|need| format!("  {}.{}", loaded.graph.instance(need.from).name, need.output));
        line("input", format!("{input}  {}{}", short(digest), from.unwrap_or_default()));
    }
    text
}

fn contents_words(contents: &Contents) -> String {
    let bytes = contents.bytes.map(|bytes| format!(", {}", ui::bytes(bytes))).unwrap_or_default();
    format!("{}{bytes}", short(&contents.digest))
}

/// `blake3:` and the first twelve digits, for people.
fn short(identity: &str) -> &str {
    let end = identity.find(':').map_or(12, |colon| colon + 13);
    identity.get(..end).unwrap_or(identity)
}
