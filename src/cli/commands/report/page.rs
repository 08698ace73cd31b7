//! The page of a report, section by section.

use std::collections::BTreeMap;

use askama::Template;
use atflow::cache::{Cache, RunOutcome, RunRecord};
use atflow::digest::Digest;
use atflow::formats::EpochMetrics;
use atflow::redact::Redaction;
use atflow::report::{
    JoinedStage, RunResults, Timeline, TrainingCurve, map_sheets, outcomes, timeline, training_curves,
};
use atflow::stage_kinds::{EpochNumber, StageKind};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::chart::{Chart, Line};
use super::shown::{Analysis, MOST_TEXT};
use super::tables::{ReportTable, TableView};
use super::{data, schedule, shown, tables};
use crate::commands::diff::page::{STYLE, TableDiffView, data_uri};
use crate::commands::runs::{change_words, changed_words, parameters_between};
use crate::report::CliError;
use crate::ui;

const SCRIPT: &str = include_str!("../../page/report.js");

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    script_digest: String,
    data: String,
    title: String,
    facts: Vec<(&'static str, String)>,
    warnings: Vec<String>,
    failures: Vec<Failure>,
    tables: Vec<TableView>,
    figures: Vec<Picture>,
    saliency: Vec<Picture>,
    analyses: Vec<Analysis>,
    has_sheets: bool,
    has_outcomes: bool,
    charts: Vec<ChartView>,
    graph: String,
    graph_words: String,
    timeline: Option<String>,
    timeline_facts: Vec<(&'static str, String)>,
    kinds: Vec<(usize, String)>,
    changes: Option<Changes>,
    families: Vec<Family>,
}

struct Failure {
    stage: String,
    message: String,
    causes: Vec<String>,
}

struct Picture {
    stage: String,
    title: String,
    uri: Option<String>,
    numbers: Option<String>,
}

struct ChartView {
    title: String,
    svg: String,
    legend: Vec<(usize, String, String)>,
    rows: Vec<(String, String)>,
}

struct Changes {
    before: String,
    parameters: Vec<(String, String, String)>,
    words: String,
    tables: Vec<TableDiffView>,
    pictures: Vec<(String, Option<String>, Option<String>)>,
}

/// Instances of one stage.
struct Family {
    name: String,
    kind: String,
    count: usize,
    seconds: String,
    ran: usize,
    rows: Vec<StageRow>,
    more: usize,
}

struct StageRow {
    index: usize,
    name: String,
    state: &'static str,
    seconds: String,
    summary: String,
    key: String,
    device: String,
}

/// Instances of a stage that stand in the page itself; scripts show the rest.
const MOST_ROWS: usize = 100;

/// Returns the page.
pub(super) fn html(
    cache: &Cache,
    results: &RunResults,
    against: Option<&RunRecord>,
    images: bool,
) -> Result<String, CliError> {
    let run = &results.run;
    let read = tables::read(cache, results);
    let (found, times) = (outcomes(cache, results), timeline(results));
    let sheets = if images { map_sheets(cache, results) } else { Vec::new() };
    let pictures = |kinds: &[StageKind], outputs: &[&str]| pictures(cache, results, kinds, outputs, images);
    let digest = Sha256::digest(SCRIPT.as_bytes());
    // A report is made to be passed on.
    let redaction = Redaction::of_environment();
    let page = Page {
        style: STYLE,
        script: SCRIPT,
        script_digest: base64::engine::general_purpose::STANDARD.encode(digest),
        data: data::encoded(cache, results, &read, &found, &sheets, &redaction)?,
        title: format!("{}: run {}", run.pipeline, run.id.short()),
        facts: facts(results, against, &redaction),
        warnings: warnings(results),
        failures: failures(run, &redaction),
        tables: read.iter().enumerate().map(|(number, table): (usize, &ReportTable)| table.view(number)).collect(),
        figures: pictures(&[StageKind::Figure, StageKind::FourierMap], &["svg", "png"]),
        saliency: pictures(&[StageKind::Saliency], &["grid"]),
        analyses: shown::analyses(cache, results, images),
        has_sheets: !sheets.is_empty(),
        has_outcomes: found.len() > 1,
        charts: charts(results, &training_curves(cache, results)),
        graph: graph(results),
        graph_words: graph_words(results),
        timeline: schedule::svg(results, &times),
        timeline_facts: timeline_facts(results, &times),
        kinds: kinds(results, &times),
        changes: against.map(|before| changes(cache, before, run, images)),
        families: families(results, &redaction),
    };
    page.render().map_err(|error| CliError::environment(format!("the page cannot be made: {error}")))
}

fn facts(results: &RunResults, against: Option<&RunRecord>, redaction: &Redaction) -> Vec<(&'static str, String)> {
    let run = &results.run;
    let outcome = match run.outcome {
        Some(RunOutcome::Done) | None if run.failed.is_empty() => "done",
        Some(RunOutcome::Interrupted) => "stopped by the user",
        Some(RunOutcome::Broken) => "broken off by an error",
        _ => "failed",
    };
    let mut facts = vec![
        ("pipeline", format!("{} ({})", run.pipeline, redaction.shown(&run.file.to_string_lossy()))),
        ("ended", format!("{}, {outcome}", ui::moment(&run.at))),
        (
            "stages",
            format!("{} ran, {} from the cache", run.ran.len(), results.stages.len().saturating_sub(run.ran.len())),
        ),
    ];
    let mut add = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("by", run.user.as_ref().map(|user| format!("{user} on {}", run.host.as_deref().unwrap_or("this host"))));
    add("profile", run.profile.clone());
    let overridden: Vec<String> = run.overridden.iter().map(|(name, change)| change_words(name, change)).collect();
    add("overridden", (!overridden.is_empty()).then(|| overridden.join(", ")));
    add("commit", run.commit.clone());
    add(
        "changed",
        against.map(|before| format!("{} (since run {})", changed_words(Some(before), run), before.id.short())),
    );
    facts
}

fn warnings(results: &RunResults) -> Vec<String> {
    let run = &results.run;
    let mut warnings = Vec::new();
    let is_mockup = |stage: &JoinedStage| stage.manifest.record.params.get("mockup") == Some(&true.into());
    if results.stages.iter().any(is_mockup) {
        warnings.push("A mock-up: it shows what the pipeline makes, and its numbers mean nothing.".to_owned());
    }
    if !run.skipped.is_empty() {
        warnings.push(format!("Not made: {}.", ui::some(&run.skipped)));
    }
    if !results.lost.is_empty() {
        warnings.push(format!("Gone from the cache: {}.", ui::some(&results.lost)));
    }
    let dirty: Vec<String> = results
        .stages
        .iter()
        .filter(|stage| stage.manifest.made.commit.as_ref().is_some_and(|commit| commit.ends_with("-dirty")))
        .map(|stage| stage.name.clone())
        .collect();
    if !dirty.is_empty() {
        warnings.push(format!("Made from a repository with uncommitted changes: {}.", ui::some(&dirty)));
    }
    let arithmetics: std::collections::BTreeSet<String> = results
        .stages
        .iter()
        .filter_map(|stage| stage.manifest.made.arithmetic.as_ref())
        .map(|arithmetic| format!("{} with ATen {}", arithmetic.isa, arithmetic.aten))
        .collect();
    if arithmetics.len() > 1 {
        let all: Vec<String> = arithmetics.into_iter().collect();
        warnings.push(format!("Computed with several instruction sets: {}.", all.join("; ")));
    }
    let mut remotes: BTreeMap<&str, usize> = BTreeMap::new();
    for origin in results.stages.iter().filter_map(|stage| stage.manifest.from.as_ref()) {
        *remotes.entry(&origin.remote).or_default() += 1;
    }
    warnings.extend(remotes.into_iter().map(|(remote, count)| {
        format!("{} came from {remote} and were not computed here.", ui::count(count, "result"))
    }));
    warnings
}

fn failures(run: &RunRecord, redaction: &Redaction) -> Vec<Failure> {
    let failed = run.failed.iter().map(|(stage, failed)| Failure {
        stage: stage.clone(),
        message: redaction.shown(&failed.failure.message),
        causes: failed.failure.causes.iter().map(|cause| redaction.shown(cause)).collect(),
    });
    failed.collect()
}

/// Returns the pictures of the stages of some kinds; `outputs` are tried in their order.
fn pictures(cache: &Cache, results: &RunResults, kinds: &[StageKind], outputs: &[&str], images: bool) -> Vec<Picture> {
    let of_kinds = results.stages.iter().filter(|stage| kinds.contains(&stage.manifest.record.kind));
    let picture = |stage: &JoinedStage| {
        let blob = outputs.iter().find_map(|output| stage.manifest.outputs.get(*output));
        // A heat map has a number for each frequency; people read its summary.
        let numbers = if stage.manifest.record.kind == StageKind::FourierMap { "markdown" } else { "csv" };
        let numbers = stage.manifest.outputs.get(numbers).filter(|blob| blob.size <= MOST_TEXT);
        let numbers = numbers.and_then(|blob| cache.read(blob.digest).ok());
        let title = stage.manifest.record.params.get("title").and_then(serde_json::Value::as_str);
        Picture {
            stage: stage.name.clone(),
            title: title.map_or_else(|| stage.name.clone(), str::to_owned),
            uri: blob.filter(|_| images).and_then(|blob| data_uri(cache, *blob)),
            numbers: numbers.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        }
    };
    of_kinds.map(picture).collect()
}

/// Most points of a line; beyond that every second, third, … epoch is drawn.
const MOST_POINTS: usize = 512;

/// The numbers of trainings that have a chart.
const CHARTS: [EpochNumber; 6] = [
    EpochNumber::TrainLoss,
    EpochNumber::TrainAccuracy,
    EpochNumber::ValidationAccuracy,
    EpochNumber::AdversarialAccuracy,
    EpochNumber::CheckedAccuracy,
    EpochNumber::HoldoutAccuracy,
];

/// Returns the charts of the trainings: loss and accuracies, a line for each training.
fn charts(results: &RunResults, curves: &[TrainingCurve]) -> Vec<ChartView> {
    let mut charts = Vec::new();
    for number in CHARTS {
        let (title, is_share) = (number.title(), number.is_share());
        let mut lines = Vec::new();
        for (index, curve) in curves.iter().enumerate() {
            let point = |epoch: &EpochMetrics| Some((f64::from(epoch.epoch), number.of(epoch)?));
            let points: Vec<(f64, f64)> = curve.metrics.epochs.iter().filter_map(point).collect();
            let step = points.len().div_ceil(MOST_POINTS).max(1);
            let points: Vec<(f64, f64)> = points.into_iter().step_by(step).collect();
            if !points.is_empty() {
                let name = results.stages[curve.stage].name.clone();
                lines.push(Line { name, points, dash: dash(index), colour: index });
            }
        }
        if lines.is_empty() {
            continue;
        }
        let shown = |value: f64| if is_share { format!("{:.1} %", 100.0 * value) } else { format!("{value:.3}") };
        let rows = lines
            .iter()
            .map(|line| (line.name.clone(), line.points.last().map(|(_, value)| shown(*value)).unwrap_or_default()))
            .collect();
        let legend = lines
            .iter()
            .map(|line| (line.colour % super::chart::COLOURS, line.dash.to_owned(), line.name.clone()))
            .collect();
        let unit = if is_share { " (%)" } else { "" };
        let chart = Chart { title: title.to_owned(), x: "epoch", is_share, lines };
        charts.push(ChartView { title: format!("{title}{unit}"), svg: chart.svg(), legend, rows });
    }
    charts
}

/// Returns the dashes of a line: with them twice as many colours and more can be told apart.
fn dash(index: usize) -> &'static str {
    ["", "6 3", "2 3", "8 3 2 3"][(index / super::chart::COLOURS) % 4]
}

fn graph(results: &RunResults) -> String {
    let diagram = results.diagram(|members| {
        let seconds: f64 = members.iter().map(|stage| stage.manifest.made.seconds).sum();
        let ran = members.iter().filter(|stage| stage.ran.is_some()).count();
        format!("{} · {ran} ran", ui::duration(seconds))
    });
    format!("data:image/svg+xml;base64,{}", base64::engine::general_purpose::STANDARD.encode(diagram.svg()))
}

fn graph_words(results: &RunResults) -> String {
    let diagram = results.diagram(|_| String::new());
    let arrow = |(from, to): &(usize, usize)| format!("{} to {}", diagram.nodes[*from].name, diagram.nodes[*to].name);
    format!("Stages and what they need: {}", diagram.edges.iter().map(arrow).collect::<Vec<_>>().join(", "))
}

fn timeline_facts(results: &RunResults, times: &Timeline) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !times.bars.is_empty() {
        facts.push(("first to last stage", ui::duration(times.end)));
        facts.push(("work of all stages", ui::duration(times.worked)));
        let names: Vec<&str> = times.critical.iter().map(|index| results.stages[*index].name.as_str()).collect();
        facts.push(("critical path", format!("{} ({})", names.join(" → "), ui::duration(times.critical_seconds))));
    }
    facts.push(("saved by the cache", format!("{} of work", ui::duration(times.saved))));
    facts
}

fn kinds(results: &RunResults, times: &Timeline) -> Vec<(usize, String)> {
    let shown = times.bars.iter().map(|bar| results.stages[bar.stage].manifest.record.kind);
    let names: BTreeMap<usize, String> = shown.map(|kind| (schedule::colour(kind), kind.to_string())).collect();
    names.into_iter().collect()
}

fn changes(cache: &Cache, before: &RunRecord, run: &RunRecord, images: bool) -> Changes {
    let found = atflow::run_diff::diff(cache, &before.keys, &run.keys);
    let shown = |value: Option<&serde_json::Value>| atflow::parameters::shown(value);
    let parameters = parameters_between(before, run);
    let parameters = parameters
        .iter()
        .map(|(name, change)| (name.clone(), shown(change.from.as_ref()), shown(change.to.as_ref())))
        .collect();
    let pictures = found
        .pictures
        .iter()
        .filter(|_| images)
        .map(|picture| (picture.stage.clone(), data_uri(cache, picture.before), data_uri(cache, picture.after)));
    Changes {
        before: before.id.short(),
        parameters,
        words: changed_words(Some(before), run),
        pictures: pictures.collect(),
        tables: found.tables.iter().map(TableDiffView::of).collect(),
    }
}

fn families(results: &RunResults, redaction: &Redaction) -> Vec<Family> {
    let mut families: Vec<(&str, Vec<(usize, &JoinedStage)>)> = Vec::new();
    for (index, stage) in results.stages.iter().enumerate() {
        match families.iter_mut().find(|(name, _)| *name == stage.stage()) {
            Some((_, members)) => members.push((index, stage)),
            None => families.push((stage.stage(), vec![(index, stage)])),
        }
    }
    let family = |(name, members): (&str, Vec<(usize, &JoinedStage)>)| Family {
        name: name.to_owned(),
        kind: members[0].1.manifest.record.kind.to_string(),
        count: members.len(),
        seconds: ui::duration(members.iter().map(|(_, stage)| stage.manifest.made.seconds).sum()),
        ran: members.iter().filter(|(_, stage)| stage.ran.is_some()).count(),
        rows: members.iter().take(MOST_ROWS).map(|(index, stage)| row(*index, stage, redaction)).collect(),
        more: members.len().saturating_sub(MOST_ROWS),
    };
    families.into_iter().map(family).collect()
}

fn row(index: usize, stage: &JoinedStage, redaction: &Redaction) -> StageRow {
    let made = &stage.manifest.made;
    let key: Digest = stage.key.0;
    StageRow {
        index,
        name: stage.name.clone(),
        state: if stage.ran.is_some() { "ran" } else { "cached" },
        seconds: ui::duration(made.seconds),
        summary: redaction.shown(&made.summary),
        key: key.short(),
        device: made.device.clone(),
    }
}
