//! `atflow show`.

use std::collections::VecDeque;
use std::io::Read;

use atflow::address::masked;
use atflow::cache::{Access, Cache, Manifest};
use atflow::lines::read_lines;
use atflow::plain::plain_line;
use atflow::results_folder::FolderManifest;

use super::attempts::{Failed, Tries};
use super::remote_results::origin_words;
use super::{describe_arithmetic, show_file};
use crate::args::NameArgs;
use crate::report::{CliError, Exit, eprint};
use crate::ui;

/// So many of the last lines of a failed stage's log are shown; `atflow log` has them all.
const TAIL: usize = 20;

/// So many bytes of each.
const LONGEST_LINE: usize = 2000;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    if show_file::is_file(&args.stage) {
        show_file::show(&cache, &args.stage, args.json)?;
        return Ok(Exit::Done);
    }
    let tries = Tries::of(&cache, &args.stage, &args.found)?;
    let text = if args.json {
        let mut json = match &tries.made {
            Some(manifest) => json_with_files(&cache, manifest, &args.stage, &tries),
            None => serde_json::json!({ "stage": args.stage }),
        };
        json["pipeline"] = serde_json::json!(tries.pipeline);
        if let Some(failed) = &tries.failed {
            json["failed"] = failed.json(&cache);
        }
        if let Some(interrupted) = tries.interrupted_json(&cache) {
            json["interrupted"] = interrupted;
        }
        format!("{json}\n")
    } else {
        let interrupted = tries.interrupted_words(&cache).map(|words| interrupted_words(&args.stage, &tries, words));
        let failed = tries.failed.as_ref().map(|failed| failed_words(&cache, &args.stage, failed, &tries));
        let made = tries.made.as_ref().map(|manifest| words(&cache, manifest, &tries));
        // An address in a command may hold a password.
        let before = if failed.is_some() { "\nbefore that it failed:\n" } else { "\nbefore that it went well:\n" };
        let rest = failed.into_iter().chain(made).collect::<Vec<_>>().join("\nbefore that it went well:\n");
        let parts = interrupted.into_iter().chain((!rest.is_empty()).then_some(rest)).collect::<Vec<_>>();
        masked(&parts.join(before))
    };
    ui::print_either(args.json, &text)?;
    if !args.json {
        eprint(&tries.elsewhere(&args.stage));
    }
    Ok(Exit::Done)
}

fn interrupted_words(stage: &str, tries: &Tries, when: String) -> String {
    let mut lines = Lines::default();
    lines.add("stage", stage);
    lines.add("pipeline", &tries.pipeline);
    lines.add("interrupted", when);
    lines.text()
}

/// A manifest, and the files of each output: in the cache, and in the results folder. `null` where there is none.
fn json_with_files(cache: &Cache, manifest: &Manifest, stage: &str, tries: &Tries) -> serde_json::Value {
    let mut json = serde_json::json!(manifest);
    let folder = FolderManifest::read(&tries.folder);
    let key = manifest.record.key();
    for (name, blob) in &manifest.outputs {
        let path = cache.has(*blob).then(|| cache.object_path(blob.digest));
        let laid_out = folder.as_ref().and_then(|folder| folder.file_of(&tries.pipeline, stage, name, key));
        let result = laid_out.and_then(|file| std::path::absolute(tries.folder.join(file)).ok());
        json["outputs"][name]["path"] = serde_json::json!(path);
        json["outputs"][name]["result"] = serde_json::json!(result.filter(|file| file.exists()));
    }
    json
}

fn failed_words(cache: &Cache, stage: &str, failed: &Failed, tries: &Tries) -> String {
    let mut lines = Lines::default();
    lines.add("stage", stage);
    lines.add("pipeline", &tries.pipeline);
    lines.add("failed", failed.when());
    let log = tries.log(cache).map(tail);
    // The causes of a program's failure are its last words, which the log has.
    let is_said = |cause: &&String| {
        let start = cause.split('…').next().unwrap_or_default();
        log.as_ref().is_ok_and(|(_, tail)| tail.iter().any(|line| line.contains(start)))
    };
    let causes = failed.causes().iter().filter(|cause| !is_said(cause)).map(String::as_str);
    lines.add("error", std::iter::once(failed.message()).chain(causes).collect::<Vec<_>>().join("\n"));
    match log {
        Ok((all, tail)) => {
            let count = match tail.len() {
                count if count == all => ui::count(count, "line"),
                count => format!("the last {count} of {all} lines"),
            };
            lines.add("log", format!("{count}; all of it is in {}", failed.log_file(cache).display()));
            if !tail.is_empty() {
                lines.add("", Vec::from(tail).join("\n"));
            }
        }
        Err(error) => lines.add("log", error),
    }
    lines.text()
}

/// How many lines a log has, and the last of them.
fn tail(log: Option<impl Read>) -> (usize, VecDeque<String>) {
    let (mut all, mut tail) = (0, VecDeque::new());
    if let Some(log) = log {
        read_lines(log, LONGEST_LINE, |line| {
            all += 1;
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(plain_line(line, LONGEST_LINE));
            true
        });
    }
    (all, tail)
}

fn words(cache: &Cache, manifest: &Manifest, tries: &Tries) -> String {
    let made = &manifest.made;
    let mut lines = Lines::default();
    lines.add("stage", format!("{} ({})", made.stage, manifest.record.kind));
    lines.add(
        "pipeline",
        match &tries.pipeline {
            pipeline if *pipeline == made.pipeline => pipeline.clone(),
            pipeline => format!("{pipeline} (made in a run of {})", made.pipeline),
        },
    );
    lines.add("result", &made.summary);
    lines.add("made", format!("{} in {} on {}", ui::moment(&made.at), ui::duration(made.seconds), made.host));
    if let Some(origin) = &manifest.from {
        lines.add("from", origin_words(origin));
    }
    let device = if made.device_name.is_empty() {
        made.device.clone()
    } else {
        format!("{} ({})", made.device, made.device_name)
    };
    lines.add("device", format!("{device}, {}", ui::count(made.threads, "thread")));
    let libtorch = made.libtorch.as_ref().map(|version| format!(", libtorch {version}")).unwrap_or_default();
    lines.add("with", format!("atflow {}{libtorch}", made.atflow));
    if let (Some(numerics), Some(arithmetic)) = (manifest.record.numerics, &made.arithmetic) {
        lines.add("numerics", describe_arithmetic(numerics, arithmetic));
    }
    if let Some(commit) = &made.commit {
        lines.add("commit", commit);
    }
    if let Some(peak) = made.peak_memory {
        lines.add("peak memory", format!("{} (of its worker so far)", ui::bytes(peak)));
    }
    lines.add("key", manifest.record.key().to_string());
    if let Some(seed) = manifest.record.seed {
        lines.add("seed", seed.to_string());
    }
    lines.add("parameters", serde_json::to_string_pretty(&manifest.record.params).unwrap_or_default());
    for (name, digest) in &manifest.record.inputs {
        lines.add(format!("input {name}"), digest);
    }
    for (name, blob) in &manifest.outputs {
        let gone = if cache.has(*blob) { "" } else { " (gone from the cache)" };
        let path = cache.object_path(blob.digest);
        lines.add(format!("output {name}"), format!("{} {}{gone}", ui::bytes(blob.size), path.display()));
    }
    lines.text()
}

/// Names and values below one another.
#[derive(Default)]
pub(super) struct Lines(Vec<(String, String)>);

impl Lines {
    pub(super) fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    pub(super) fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(32);
        let indent = format!("\n{}", " ".repeat(width + 2));
        self.0.iter().map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &indent))).collect()
    }
}
