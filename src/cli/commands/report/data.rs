//! The data of a report for its scripts: JSON, compressed, in one element of the page.

use std::collections::BTreeMap;
use std::io::Write as _;

use atflow::cache::{Cache, Manifest};
use atflow::lines::read_lines;
use atflow::redact::Redaction;
use atflow::report::{EvaluationOutcomes, JoinedStage, MapSheet, RunResults};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::tables::ReportTable;
use crate::commands::describe_arithmetic;
use crate::report::CliError;

/// Last lines of a log that travel along.
const LOG_LINES: usize = 12;

/// Bytes of each of them.
const LONGEST_LINE: usize = 200;

/// Texts that many results share, each kept once.
#[derive(Default)]
struct Texts {
    all: Vec<Json>,
    known: BTreeMap<String, usize>,
}

impl Texts {
    fn add(&mut self, value: Json) -> usize {
        let text = value.to_string();
        *self.known.entry(text).or_insert_with(|| {
            self.all.push(value);
            self.all.len() - 1
        })
    }
}

/// Returns the data, encoded.
pub(super) fn encoded(
    cache: &Cache,
    results: &RunResults,
    tables: &[ReportTable],
    outcomes: &[EvaluationOutcomes],
    sheets: &[MapSheet],
    redaction: &Redaction,
) -> Result<String, CliError> {
    let (mut params, mut places) = (Texts::default(), Texts::default());
    let stages = results.stages.iter();
    let stages: Vec<Json> = stages.map(|stage| stage_json(cache, stage, &mut params, &mut places, redaction)).collect();
    let run = &results.run;
    let data = json!({
        "run": {
            "id": run.id.short(), "pipeline": run.pipeline,
            "file": redaction.shown(&run.file.to_string_lossy()), "profile": run.profile, "set": run.set,
        },
        "stages": stages,
        "params": params.all,
        "places": places.all,
        "tables": tables.iter().map(|table| table.json(results)).collect::<Vec<_>>(),
        "evaluations": outcomes.iter().map(outcome_json).collect::<Vec<_>>(),
        "sheets": sheets.iter().map(sheet_json).collect::<Vec<_>>(),
    });
    let cannot = |error: std::io::Error| CliError::environment(format!("the report cannot be compressed: {error}"));
    // Without a time and a name in its head, so the same data give the same bytes.
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    encoder.write_all(data.to_string().as_bytes()).map_err(cannot)?;
    Ok(STANDARD.encode(encoder.finish().map_err(cannot)?))
}

fn stage_json(
    cache: &Cache,
    stage: &JoinedStage,
    params: &mut Texts,
    places: &mut Texts,
    redaction: &Redaction,
) -> Json {
    let Manifest { record, made, outputs, from, .. } = &stage.manifest;
    let arithmetic = record.numerics.zip(made.arithmetic.as_ref());
    let place = json!({
        "host": made.host, "device": made.device, "device_name": made.device_name, "threads": made.threads,
        "atflow": made.atflow, "libtorch": made.libtorch, "commit": made.commit,
        "arithmetic": arithmetic.map(|(numerics, arithmetic)| describe_arithmetic(numerics, arithmetic)),
    });
    let params_masked: Json = serde_json::from_str(&redaction.shown(&record.params.to_string())).unwrap_or(Json::Null);
    json!({
        "n": stage.name, "k": record.kind, "y": stage.key, "s": made.seconds, "a": made.at, "m": redaction.shown(&made.summary),
        "e": record.seed, "r": stage.ran, "q": params.add(params_masked), "w": places.add(place),
        "p": stage.producers, "i": record.inputs,
        "o": outputs.iter().map(|(name, blob)| (name, json!([blob.digest, blob.size]))).collect::<BTreeMap<_, _>>(),
        "f": from.as_ref().map(|origin| redaction.shown(&origin.remote)),
        "l": log_end(cache, &stage.manifest, redaction),
    })
}

/// Returns the last lines of a stage's log.
fn log_end(cache: &Cache, manifest: &Manifest, redaction: &Redaction) -> Vec<String> {
    let mut lines = std::collections::VecDeque::new();
    if let Ok(log) = cache.open_log(&manifest.made.log) {
        read_lines(log, LONGEST_LINE, |line| {
            if lines.len() == LOG_LINES {
                lines.pop_front();
            }
            lines.push_back(redaction.shown(line));
            true
        });
    }
    lines.into()
}

fn outcome_json(outcomes: &EvaluationOutcomes) -> Json {
    json!([outcomes.stage, outcomes.n, outcomes.hits, outcomes.images, STANDARD.encode(&outcomes.bits)])
}

fn sheet_json(sheet: &MapSheet) -> Json {
    let png = |bytes: &Vec<u8>| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    json!({
        "stage": sheet.stage, "models": sheet.models, "sets": sheet.sets, "images": sheet.images, "tile": sheet.tile,
        "maps": png(&sheet.maps), "originals": sheet.originals.as_ref().map(png),
    })
}
