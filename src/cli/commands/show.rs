//! `atflow show`.

use atflow::cache::{Cache, Manifest};

use super::find;
use crate::args::NameArgs;
use crate::report::{CliError, Exit};
use crate::ui;

pub(crate) fn run(args: &NameArgs) -> Result<Exit, CliError> {
    let cache = Cache::open(&args.found.cache.cache)?;
    let manifest = find(&cache, &args.stage, &args.found)?;
    let text = if args.json { format!("{}\n", serde_json::json!(manifest)) } else { words(&cache, &manifest) };
    ui::print(&text)?;
    Ok(Exit::Done)
}

fn words(cache: &Cache, manifest: &Manifest) -> String {
    let made = &manifest.made;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
    line("stage", format!("{} ({})", made.stage, manifest.record.kind));
    line("result", made.summary.clone());
    // Fractions of a second are for machines.
    let at = made.at.split_once('.').map_or(made.at.as_str(), |(whole, _)| whole);
    line(
        "made",
        format!(
            "{} UTC in {} on {}",
            at.trim_end_matches('Z').replace('T', " "),
            ui::duration(made.seconds),
            made.host
        ),
    );
    let device = if made.device_name.is_empty() {
        made.device.clone()
    } else {
        format!("{} ({})", made.device, made.device_name)
    };
    line("device", format!("{device}, {}", ui::count(made.threads, "thread")));
    let libtorch = made.libtorch.as_ref().map(|version| format!(", libtorch {version}")).unwrap_or_default();
    line("with", format!("atflow {}{libtorch}", made.atflow));
    if let Some(commit) = &made.commit {
        line("commit", commit.clone());
    }
    if let Some(peak) = made.peak_memory {
        line("peak memory", format!("{} (of its worker so far)", ui::bytes(peak)));
    }
    line("key", manifest.record.key().to_string());
    if let Some(seed) = manifest.record.seed {
        line("seed", seed.to_string());
    }
    line("parameters", serde_json::to_string_pretty(&manifest.record.params).unwrap_or_default());
    for (name, digest) in &manifest.record.inputs {
        line(&format!("input {name}"), digest.clone());
    }
    for (name, blob) in &manifest.outputs {
        let gone = if cache.has(*blob) { "" } else { " (gone from the cache)" };
        let path = cache.object_path(blob.digest);
        line(&format!("output {name}"), format!("{} {}{gone}", ui::bytes(blob.size), path.display()));
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(32);
    let indent = format!("\n{}", " ".repeat(width + 2));
    lines.iter().map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &indent))).collect()
}
