//! `atflow gc`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::cache::{Access, Cache};
use atflow::cluster::folder::RunFolder;
use atflow::gc::{FileClass, FileCount, Keep, collect, survey};
use atflow::plan::{CacheStatus, StaleReason};
use atflow::spec::{Overrides, PipelineSpec};
use atflow::stage_kinds::StageKind;

use super::Loaded;
use crate::args::{ChangeArgs, GcArgs};
use crate::report::{CliError, Exit, eprint};
use crate::ui;

pub(crate) fn run(args: &GcArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.cache.cache)?;
    let mut keep = reached(&cache, args)?;
    let mut found = survey(&cache, &keep)?;
    let freed = found.freed();
    let mut text = if args.json {
        let runs = keep.in_progress.runs;
        let how = serde_json::json!({
            "freed": args.yes, "garbage": freed, "kept": found.kept, "runs_in_progress": runs,
            "reached_from": { "pipelines": args.pipelines, "profiles": args.profile, "set": args.set, "runs": args.keep_runs },
        });
        format!("{how}\n")
    } else {
        words(&freed, &found.kept) + &reached_words(args)
    };
    if !args.json && keep.in_progress.runs > 0 {
        text.push_str(&format!(
            "{} in progress: what they may need is kept\n",
            ui::count(keep.in_progress.runs, "run")
        ));
    }
    if !args.yes {
        if !args.json && !freed.is_empty() {
            text.push_str("nothing was removed; --yes frees it\n");
        }
        ui::print_either(args.json, &text)?;
        return Ok(Exit::Done);
    }
    ui::print_either(args.json, &text)?;
    let now = cache.in_progress();
    if now.unknown > 0 {
        let cache = args.cache.cache.display();
        let error = CliError::environment(format!(
            "a run of another version of atflow is at work in {cache}, and what it needs cannot be told, so nothing was removed"
        ));
        return Err(error.help("collect when it has ended"));
    }
    if now != keep.in_progress {
        // A run began meanwhile: what it needs is kept, too.
        keep.in_progress = now;
        found = survey(&cache, &keep)?;
    }
    cache.clear_abandoned();
    let (removed, failed) = collect(&found);
    for (path, error) in &failed {
        eprint(&format!("warning: cannot remove {}: {error}\n", path.display()));
    }
    if !args.json {
        ui::print(&format!("freed {} ({})\n", files(removed), ui::bytes(removed.bytes)))?;
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Wrong })
}

/// What the pipelines and the last runs reach.
fn reached(cache: &Cache, args: &GcArgs) -> Result<Keep, CliError> {
    let age = Duration::from_secs(u64::from(args.partial_days) * 24 * 3600);
    let mut keep = Keep { age, ..Keep::default() };
    // What trainings may go on from, and whether that can be told.
    let (mut going_on, mut is_told) = (HashSet::new(), true);
    // The logs of agents that share a bucket are there, and a collection asks no server.
    for shared in RunFolder::all(cache).into_iter().filter(|shared| !shared.is_in_bucket()) {
        keep.logs.extend(shared.failures().iter().map(|failed| failed.log));
    }
    for run in cache.runs(None).take(args.keep_runs) {
        keep.keys.extend(run.keys.values());
        keep.logs.extend(run.failed.values().map(|failed| failed.log));
    }
    for (file, changes) in ways(args)? {
        let loaded = Loaded::open(file, &[], &changes, Access::Read)?;
        for (id, status) in loaded.survey()? {
            match status {
                Some(CacheStatus::Fresh(key, manifest)) => {
                    keep.keys.insert(key);
                    going_on.extend(manifest.record.onward_key());
                }
                Some(CacheStatus::Stale(record, absence)) => {
                    going_on.extend([record.key()].into_iter().chain(record.onward_key()));
                    // Its result is recorded; what is left of it is reached.
                    if !matches!(absence, StaleReason::Unknown) {
                        keep.keys.insert(record.key());
                    }
                }
                // Its key is known only when what it needs has run.
                Some(CacheStatus::Pending(_)) => is_told &= loaded.graph.instance(id).kind != StageKind::Train,
                None => {}
            }
        }
    }
    keep.partials = is_told.then_some(going_on);
    keep.in_progress = cache.in_progress();
    Ok(keep)
}

/// Each pipeline in each way in which it counts: as it is, and with what the command line changes, as far as it
/// declares that.
fn ways(args: &GcArgs) -> Result<Vec<(&Path, ChangeArgs)>, CliError> {
    let is_changed = !args.profile.is_empty() || !args.set.is_empty();
    let read = |file: &PathBuf| PipelineSpec::read(file, &Overrides::default());
    let specs = args.pipelines.iter().filter(|_| is_changed).map(read).collect::<Result<Vec<_>, _>>()?;
    let mut ways = Vec::new();
    for (at, file) in args.pipelines.iter().enumerate() {
        // What no pipeline declares is left to the error that any of them gives.
        let fits = |declares: &dyn Fn(&PipelineSpec) -> bool| declares(&specs[at]) || !specs.iter().any(declares);
        let has =
            |spec: &PipelineSpec, key: &str| spec.param_place(key.split('.').next().unwrap_or_default()).is_some();
        let set = args.set.iter().filter(|(key, _)| fits(&|spec| has(spec, key)));
        let set: Vec<(String, String)> = set.cloned().collect();
        let profiles = args.profile.iter().filter(|name| fits(&|spec| spec.has_profile(name)));
        for profile in std::iter::once(None).chain(profiles.map(Some)) {
            let with = |set| {
                (file.as_path(), ChangeArgs::plain(Overrides { profile: profile.cloned(), set }, args.cache.clone()))
            };
            ways.push(with(Vec::new()));
            if !set.is_empty() {
                ways.push(with(set.clone()));
            }
        }
    }
    Ok(ways)
}

/// What counts as reached, so that nobody is surprised by what goes.
fn reached_words(args: &GcArgs) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !args.pipelines.is_empty() {
        let files: Vec<String> = args.pipelines.iter().map(|file| file.display().to_string()).collect();
        let mut ways = vec![if files.len() == 1 { "as it is" } else { "as they are" }.to_owned()];
        ways.extend(args.profile.iter().map(|name| format!("with --profile {name}")));
        ways.extend((!args.set.is_empty()).then(|| {
            let sets: Vec<String> = args.set.iter().map(|(key, value)| format!("--set {key}={value}")).collect();
            format!("each with {}", sets.join(" "))
        }));
        let ways = if ways.len() > 1 { format!(" ({})", ways.join(", ")) } else { String::new() };
        parts.push(format!("{}{ways}", files.join(", ")));
    }
    if args.keep_runs > 0 {
        parts.push(format!("the last {}", ui::count(args.keep_runs, "run")));
    }
    if parts.is_empty() {
        return "no pipeline and no run was named to be kept\n".to_owned();
    }
    format!("reached from {}\n", parts.join(", and "))
}

fn files(amount: FileCount) -> String {
    ui::count(amount.files as usize, "file")
}

fn words(freed: &BTreeMap<FileClass, FileCount>, kept: &BTreeMap<FileClass, FileCount>) -> String {
    let name = |sort: FileClass| match sort {
        FileClass::Manifest => "manifests",
        FileClass::Blob => "blobs",
        FileClass::Fetched => "fetched",
        FileClass::Quarantine => "quarantine",
        FileClass::Partial => "progress",
        FileClass::Temporary => "half done",
        FileClass::SharedRun => "shared runs",
    };
    let shown = |amount: Option<&FileCount>| {
        let amount = amount.copied().unwrap_or_default();
        format!("{} ({})", amount.files, ui::bytes(amount.bytes))
    };
    if freed.is_empty() {
        let total = kept.values().map(|amount| amount.bytes).sum();
        return format!("nothing to free: {} are reached or younger than an hour\n", ui::bytes(total));
    }
    let mut text = format!("{:12}{:>20}{:>20}\n", "", "to free", "kept");
    for sort in [
        FileClass::Manifest,
        FileClass::Blob,
        FileClass::Fetched,
        FileClass::Quarantine,
        FileClass::Partial,
        FileClass::Temporary,
        FileClass::SharedRun,
    ] {
        if freed.contains_key(&sort) || kept.contains_key(&sort) {
            text.push_str(&format!("{:12}{:>20}{:>20}\n", name(sort), shown(freed.get(&sort)), shown(kept.get(&sort))));
        }
    }
    text
}
