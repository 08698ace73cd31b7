//! Instructions for whoever gets a bundle: what it holds, how to rerun it from each depth, and what that took.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{About, CACHE, stages_that_run};
use crate::cache::Manifest;
use crate::graph::Graph;
use crate::plan::rerun_from::RerunFrom;
use crate::shell_words::quoted;
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::StageKind;

/// What instructions are made from.
#[derive(Debug)]
pub struct Instructions<'a> {
    /// What the bundle is of.
    pub about: &'a About,
    /// The instances of the pipeline.
    pub graph: &'a Graph,
    /// Marks those that the bundle is of.
    pub wanted: &'a PerInstance<bool>,
    /// Their manifests.
    pub manifests: &'a BTreeMap<InstanceId, Manifest>,
    /// Sources that are not in the bundle: the name of each, and how to get it.
    pub not_packed: &'a BTreeMap<String, String>,
}

/// Returns the instructions as Markdown.
pub fn instructions(of: &Instructions<'_>) -> String {
    let About { pipeline, file, .. } = of.about;
    let mut text = format!(
        "# Rerun {pipeline}\n\n\
         This folder holds the pipeline, its tables and figures, and the records of the run that made them.\n\
         `ro-crate-metadata.json` describes every file for programs, `report.html` the results for people.\n\n\
         Unpack the bundle with `atflow bundle unpack FILE`, which checks every digest, and go to the folder.\n\
         Then run one of these commands there. Each one ends with a comparison with the results of this bundle.\n\n"
    );
    text.push_str("| from | command | what runs | time in the records | made on |\n| --- | --- | --- | ---: | --- |\n");
    for depth in [RerunFrom::Predictions, RerunFrom::Checkpoints, RerunFrom::Scratch] {
        let runs = stages_that_run(of.graph, of.wanted, depth);
        let made: Vec<&Manifest> = runs.marked().filter_map(|id| of.manifests.get(&id)).collect();
        let seconds: f64 = made.iter().map(|manifest| manifest.made.seconds).sum();
        _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} |",
            depth.name(),
            command(of.about, file, depth),
            kinds(&made),
            time(seconds),
            machines(&made),
        );
    }
    text.push_str(
        "\nThe times are sums over all stages, as if one ran after another. From predictions, every byte must match.\n\
         From checkpoints and from scratch, other hardware may round differently; numbers then count as the same within\n\
         0.5 percentage points (`--tolerance`).\n\n",
    );
    text.push_str(&what_is_in_it(of));
    text
}

fn command(about: &About, file: &str, depth: RerunFrom) -> String {
    let mut parts = vec![format!("atflow run {}", quoted(file))];
    parts.extend(about.targets.iter().map(|target| quoted(target).into_owned()));
    parts.extend(about.profile.iter().map(|profile| format!("--profile {}", quoted(profile))));
    parts.extend(about.set.iter().map(|(key, value)| format!("--set {}", quoted(&format!("{key}={value}")))));
    parts.push(format!("--remote {CACHE} --from {}", depth.name()));
    parts.join(" ")
}

/// Returns how many stages of each kind there are: `evaluate (48), table (3)`.
fn kinds(made: &[&Manifest]) -> String {
    let mut counts: BTreeMap<StageKind, usize> = BTreeMap::new();
    for manifest in made {
        *counts.entry(manifest.record.kind).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Returns the machines that made results, as far as tensors were computed.
fn machines(made: &[&Manifest]) -> String {
    let with_tensors = made.iter().filter(|manifest| manifest.record.kind.needs_worker());
    let name = |manifest: &&&Manifest| {
        let made = &manifest.made;
        let name = if made.device_name.is_empty() { &made.device } else { &made.device_name };
        name.replace('|', "/")
    };
    let names: BTreeSet<String> = with_tensors.map(|manifest| name(&manifest)).collect();
    if names.is_empty() {
        "any machine; no libtorch".to_owned()
    } else {
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1.0 => "under a second".to_owned(),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Returns what the bundle holds of the results, and which sources it lacks.
fn what_is_in_it(of: &Instructions<'_>) -> String {
    let held = match of.about.with {
        None => {
            "The bundle holds the results, not what they were made from. Only `--from scratch` makes them again; the\n\
             author can make a bundle with more (`atflow bundle --with predictions` or `--with checkpoints`).\n"
        }
        Some(RerunFrom::Predictions) => {
            "The bundle holds the predictions, so tables and curves can be made again anywhere. `--from checkpoints`\n\
             needs the checkpoints, which it does not hold.\n"
        }
        Some(RerunFrom::Checkpoints | RerunFrom::Scratch) => {
            "The bundle holds predictions and checkpoints. Data sets and transformed sets are made again from the sources.\n"
        }
    };
    let mut text = format!("## What it holds\n\n{held}");
    if !of.not_packed.is_empty() {
        text.push_str("\nThese sources are not in it. A run gets those with an address itself when it needs them:\n\n");
        for (name, how) in of.not_packed {
            _ = writeln!(text, "- `{name}`: {how}");
        }
    }
    text
}
