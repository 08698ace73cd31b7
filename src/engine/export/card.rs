//! The model card: what the network is, how it was trained, how accurate it is, and how it is loaded.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{ExportSource, TORCHSCRIPT};
use crate::cache::Manifest;
use crate::formats::Predictions;
use crate::plan::CacheStatus;
use crate::redact::Redaction;
use crate::results::{Number, measure, percent};
use crate::spec::Instance;
use crate::stage_kinds::Metric;
use crate::tidy::Subject;

/// Returns the card as Markdown, with the front matter that hubs of models read.
pub(super) fn card(source: ExportSource<'_>, metadata: &Json) -> String {
    let ExportSource { results, of, manifest, license, .. } = source;
    let instance = results.graph.instance(of);
    let mut text = front_matter(license);
    let Made { arch, classes, channels } = Made::of(metadata);
    _ = write!(
        text,
        "# {}, of the pipeline {}\n\n\
         A network `{arch}` that classifies images of {channels} into {} classes: {}.\n\n\
         ```python\n\
         from modeling import load                # this folder must be the working folder, or on sys.path\n\n\
         model = load(\"model.safetensors\")        # in evaluation mode\n\
         logits = model(images)                   # images: N × C × H × W, floats from 0 to 1\n\
         ```\n\n\
         The network has its normalisation within it. `modeling.py` needs PyTorch alone. `config.json` describes the\n\
         network and says what the checkpoint comes from.\n\n",
        instance.name,
        results.spec.name,
        classes.len(),
        classes.join(", "),
    );
    if arch == TORCHSCRIPT {
        text.push_str(
            "**This checkpoint holds a program.** PyTorch runs the TorchScript program of the network, which may read and\n\
             write files. Load it only if you trust whoever made it.\n\n",
        );
    }
    text.push_str(&accuracies(source));
    text.push_str(&training(manifest));
    // What a pipeline says may hold what is private.
    Redaction::of_environment().shown(&text)
}

/// What a checkpoint says of itself.
struct Made<'a> {
    arch: &'a str,
    classes: Vec<&'a str>,
    channels: String,
}

impl<'a> Made<'a> {
    fn of(metadata: &'a Json) -> Self {
        let classes = metadata["classes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let channels = match metadata["channels"].as_u64() {
            Some(1) => "1 channel".to_owned(),
            channels => format!("{} channels", channels.unwrap_or_default()),
        };
        let arch = metadata.pointer("/net/arch").and_then(Json::as_str).unwrap_or_default();
        Made { arch, classes: classes.iter().filter_map(Json::as_str).collect(), channels }
    }
}

fn front_matter(license: Option<&str>) -> String {
    let license = license.map_or_else(String::new, |name| format!("license: {}\n", Json::from(name)));
    format!(
        "---\n{license}library_name: pytorch\npipeline_tag: image-classification\ntags: [adversarial-robustness]\n---\n\n"
    )
}

/// A row for each evaluation of the network whose predictions are in the cache.
fn accuracies(source: ExportSource<'_>) -> String {
    let graph = source.results.graph;
    let mut rows = String::new();
    let mut unmade = Vec::new();
    let model = Some(&graph.instance(source.of).name);
    for id in graph.ids() {
        let instance = graph.instance(id);
        let has_predictions = instance.outputs.iter().any(|output| output.name == "predictions");
        if !has_predictions || Subject::of(source.results, instance).model.as_ref() != model {
            continue;
        }
        match &source.results.status_of[id] {
            Some(CacheStatus::Fresh(_, manifest)) => match accuracy(source, manifest) {
                Some(number) => rows.push_str(&row(source, instance, &number)),
                None => unmade.push(instance.name.as_str()),
            },
            _ => unmade.push(instance.name.as_str()),
        }
    }
    let mut text = "## Accuracy\n\n".to_owned();
    if rows.is_empty() {
        text.push_str("No evaluation of this network has a current result.\n\n");
    } else {
        text.push_str("| images | attack | ε | accuracy in percent [95 % Wilson interval] | n | stage |\n");
        text.push_str("| --- | --- | --- | ---: | ---: | --- |\n");
        text.push_str(&rows);
        text.push('\n');
    }
    if !unmade.is_empty() {
        _ = write!(text, "Without a current result: {}.\n\n", unmade.join(", "));
    }
    text
}

fn accuracy(source: ExportSource<'_>, manifest: &Manifest) -> Option<Number> {
    let bytes = source.results.cache.read(manifest.outputs.get("predictions")?.digest).ok()?;
    measure(Metric::Accuracy, None, &Predictions::from_bytes(&bytes).ok()?, None).ok()
}

fn row(source: ExportSource<'_>, instance: &Instance, number: &Number) -> String {
    let Subject { set, attack, source: made_on, eps_written, .. } = Subject::of(source.results, instance);
    // A program of its own says nothing of its attack: its stage's name does.
    let attack = attack.unwrap_or_else(|| if instance.params.get("run").is_some() { "own" } else { "none" }.to_owned());
    // Such a number says nothing of an attack that knows this network.
    let attack = made_on.map_or_else(|| attack.clone(), |made_on| format!("{attack}, made on {made_on}"));
    let interval = match (number.low, number.high) {
        (Some(low), Some(high)) => format!(" [{}, {}]", percent(low), percent(high)),
        _ => String::new(),
    };
    let value = number.value.map_or_else(|| "–".to_owned(), percent);
    let (set, eps) = (set.unwrap_or_default(), eps_written.unwrap_or_default());
    format!("| {set} | {attack} | {eps} | {value}{interval} | {} | {} |\n", number.n, instance.name)
}

/// How the checkpoint was made.
fn training(manifest: &Manifest) -> String {
    let record = &manifest.record;
    let params = serde_yaml::to_string(&record.params).unwrap_or_default();
    let seed = record.seed.map_or_else(String::new, |seed| format!("seed: {seed}\n"));
    let made = &manifest.made;
    let commit = made.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {commit}"));
    let device = if made.device_name.is_empty() { &made.device } else { &made.device_name };
    format!(
        "## Training\n\n`{}` made it with these parameters on {device}{commit}.\n\
         atflow {} hashed them and the contents of the data to the key\n`{}`.\n\n```yaml\n{seed}{params}```\n",
        record.kind.name(),
        made.atflow,
        record.key(),
    )
}
