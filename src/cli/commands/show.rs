//! `atflow show`.

use atflow::address::masked;
use atflow::cache::{Access, Cache, Manifest};

use super::describe_arithmetic;
use super::elsewhere::origin_words;
use super::tries::{Failed, Tries};
use crate::args::NameArgs;
use crate::report::{CliError, Exit};
use crate::ui;

/// So many of the last lines of a failed stage's log are shown; `atflow log` has them all.
const TAIL: usize = 20;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open_to(Access::Read, &args.found.cache.cache)?;
    let tries = Tries::of(&cache, &args.stage, &args.found)?;
    let text = if args.json {
        let mut json = match &tries.made {
            Some(manifest) => serde_json::json!(manifest),
            None => serde_json::json!({ "stage": args.stage }),
        };
        if let Some(failed) = &tries.failed {
            json["failed"] = failed.json(&cache);
        }
        format!("{json}\n")
    } else {
        let failed = tries.failed.as_ref().map(|failed| failed_words(&cache, &args.stage, failed, tries.log(&cache)));
        let made = tries.made.as_ref().map(|manifest| words(&cache, manifest));
        // An address in a command may hold a password.
        masked(&failed.into_iter().chain(made).collect::<Vec<_>>().join("\nbefore that it went well:\n"))
    };
    ui::print(&text)?;
    Ok(Exit::Done)
}

fn failed_words(cache: &Cache, stage: &str, failed: &Failed, log: Result<String, String>) -> String {
    let mut lines = Lines::default();
    lines.add("stage", stage);
    lines.add("failed", failed.when());
    // The causes of a program's failure are its last words, which the log has.
    let is_said = |cause: &&String| log.as_ref().is_ok_and(|log| log.contains(cause.as_str()));
    let causes = failed.causes().iter().filter(|cause| !is_said(cause)).map(String::as_str);
    lines.add("error", std::iter::once(failed.message()).chain(causes).collect::<Vec<_>>().join("\n"));
    match log {
        Ok(log) => {
            let all: Vec<&str> = log.lines().collect();
            let tail = &all[all.len().saturating_sub(TAIL)..];
            let count = match tail.len() {
                count if count == all.len() => ui::count(count, "line"),
                count => format!("the last {count} of {} lines", all.len()),
            };
            lines.add("log", format!("{count}; all of it is in {}", failed.log_file(cache).display()));
            if !tail.is_empty() {
                lines.add("", tail.join("\n"));
            }
        }
        Err(error) => lines.add("log", error),
    }
    lines.text()
}

fn words(cache: &Cache, manifest: &Manifest) -> String {
    let made = &manifest.made;
    let mut lines = Lines::default();
    lines.add("stage", format!("{} ({})", made.stage, manifest.record.kind));
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
struct Lines(Vec<(String, String)>);

impl Lines {
    fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(32);
        let indent = format!("\n{}", " ".repeat(width + 2));
        self.0.iter().map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &indent))).collect()
    }
}
