//! `atflow verify PIPELINE TARGET… --remote URL`: recomputes a random sample of the targets' predictions from published
//! checkpoints.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use atflow::address::masked;
use atflow::cache::{Access, Manifest};
use atflow::event::RunSummary;
use atflow::spec::InstanceId;
use atflow::verify::reproduce::{Published, compare_published};
use atflow::verify::spot_check::{Draw, SampleSize, Unobtainable, chance_to_meet, draw, predictions};
use atflow::verify::{self, Compared, Verdict};

use super::run::TOLERANCE;
use super::verify::{compared_lines, run_beside};
use super::{Loaded, remote_results};
use crate::args::{ChangeArgs, VerifyArgs};
use crate::report::{CliError, Exit};
use crate::ui;

/// How large a share is drawn unless somebody says otherwise.
const SHARE: f64 = 0.1;

/// What a draw can show is told for so large a share of wrong predictions.
const WRONG: f64 = 0.05;

pub(crate) fn run(file: &Path, args: &VerifyArgs) -> Result<Exit, CliError> {
    let changes = ChangeArgs {
        remote: args.remote.clone(),
        patience: args.patience,
        trust: args.trust.clone(),
        ..ChangeArgs::plain(args.parameters.overrides(), args.cache.clone())
    };
    let loaded = Loaded::open(file, &args.targets, &changes, Access::Write)?;
    let Loaded { graph, cache, .. } = &loaded;
    let wanted = &loaded.goals.wanted;
    let among = predictions(graph, wanted);
    if among.marked().next().is_none() {
        let error = CliError::environment("none of the targets rests on the predictions of an `evaluate` stage");
        return Err(error.help("leave --remote, --share and --sample out to run the targets themselves again"));
    }
    // Of all that lies before them, too: checkpoints that were trained here are not those that are to be checked.
    let recorded = Published::find(loaded.context(), wanted, wanted)?;
    let seed = args.seed.unwrap_or_else(unforeseeable);
    let amount = match args.sample {
        Some(count) => SampleSize::Count(count as usize),
        None => SampleSize::Share(args.share.unwrap_or(SHARE)),
    };
    let drawn = draw(graph, cache, &recorded, &among, amount, seed)?;
    let place = changes.remote().map_or_else(|| "this cache".to_owned(), masked);
    if drawn.drawn.is_empty() {
        return Err(nothing_to_recompute(&loaded, &drawn, &place));
    }
    let again: Vec<InstanceId> = drawn.drawn.iter().map(|(id, _)| *id).collect();
    let wanted = drawn.status_of.values().map(Option::is_some).collect();
    let (beside, summary) = run_beside(&loaded, wanted, &drawn.status_of, &again, args)?;
    let tolerance = args.tolerance.unwrap_or(TOLERANCE);
    let mut found = SpotCheckReport {
        seed,
        place,
        of: drawn.population,
        unobtainable: drawn.unobtainable,
        ..SpotCheckReport::default()
    };
    let rerun = |id: InstanceId| summary.keys.get(&graph.instance(id).name).and_then(|key| beside.cache.lookup(*key));
    for (id, published) in &drawn.drawn {
        match rerun(*id) {
            Some(rerun) => found.add(&loaded, *id, compare(&loaded, published, &beside, &rerun, tolerance)?),
            None => found.failed += 1,
        }
    }
    let text = if args.json { found.json() } else { found.words(&args.targets, &loaded) };
    ui::print(&text)?;
    Ok(match summary {
        RunSummary { interrupted: true, .. } => Exit::Interrupted,
        _ if !found.different.is_empty() => Exit::Differs,
        // What a remote cache keeps back it may have reason to.
        _ if found.failed > 0 || !found.unobtainable.is_empty() => Exit::StageFailed,
        _ => Exit::Done,
    })
}

fn compare(
    loaded: &Loaded,
    published: &Manifest,
    beside: &verify::ScratchCache,
    rerun: &Manifest,
    tolerance: f64,
) -> Result<Vec<Compared>, CliError> {
    Ok(compare_published(&loaded.cache, published, &beside.cache, rerun, Some(tolerance))?)
}

/// A seed that a remote cache could not be made to fit.
fn unforeseeable() -> u64 {
    // The standard library keys its hashes by the system's random numbers. Short enough to be typed again.
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000_000
}

fn nothing_to_recompute(loaded: &Loaded, drawn: &Draw, place: &str) -> CliError {
    let passed_over = remote_results::passed_over_words(&loaded.cache);
    match drawn.unobtainable.as_slice() {
        [] => CliError::environment(format!("there are no predictions of the targets in {place}\n{passed_over}"))
            .help("name another remote cache, or run the targets first"),
        missing => {
            let lines: String = missing.iter().map(missing_words).collect();
            CliError::environment(format!("none of the drawn predictions can be recomputed from {place}:\n{lines}"))
                .help("ask who published them for the checkpoints and test sets")
        }
    }
}

fn missing_words(missing: &Unobtainable) -> String {
    format!("  {}: `{}` of {} cannot be had\n", missing.stage, missing.output, missing.of)
}

/// What a spot check found.
#[derive(Default, serde::Serialize)]
struct SpotCheckReport {
    seed: u64,
    #[serde(rename = "from")]
    place: String,
    of: usize,
    recomputed: usize,
    identical: usize,
    within: usize,
    points: f64,
    different: Vec<Compared>,
    failed: usize,
    #[serde(rename = "not_recomputed")]
    unobtainable: Vec<Unobtainable>,
}

impl SpotCheckReport {
    fn add(&mut self, loaded: &Loaded, id: InstanceId, compared: Vec<Compared>) {
        self.recomputed += 1;
        let mut worst: Option<f64> = None;
        let mut different = Vec::new();
        for output in compared {
            match output.verdict {
                Verdict::Same => {}
                Verdict::Within { points } => worst = Some(worst.unwrap_or(0.0).max(points)),
                Verdict::Numbers { .. } | Verdict::Bytes | Verdict::NotCompared => {
                    different.push(Compared { stage: loaded.graph.instance(id).name.clone(), ..output });
                }
            }
        }
        match (different.is_empty(), worst) {
            (false, _) => self.different.extend(different),
            (true, Some(points)) => {
                self.within += 1;
                self.points = self.points.max(points);
            }
            (true, None) => self.identical += 1,
        }
    }

    /// How many wrong ones are supposed, and the chance that this draw had met one of them.
    fn chance(&self) -> (usize, f64) {
        let wrong = ((WRONG * self.of as f64).ceil() as usize).max(1);
        (wrong, chance_to_meet(self.of, wrong, self.recomputed))
    }

    fn json(&self) -> String {
        let (wrong, probability) = self.chance();
        let mut json = serde_json::json!(self);
        json["would_have_met"] = serde_json::json!({ "wrong": wrong, "probability": probability });
        format!("{json}\n")
    }

    fn words(&self, targets: &[String], loaded: &Loaded) -> String {
        let mut text = format!(
            "recomputed {} of {} that {} rests on, from the checkpoints in {} (drawn with --seed {}):\n",
            self.recomputed,
            ui::count(self.of, "prediction"),
            targets.join(" "),
            self.place,
            self.seed
        );
        let within = match self.within {
            0 => "0 within tolerance".to_owned(),
            count => format!("{count} with other bytes and numbers within {:.2} points", self.points),
        };
        text.push_str(&format!("{} identical, {within}, {} different\n", self.identical, self.different.len()));
        text.push_str(&compared_lines(&self.different));
        if self.failed + self.unobtainable.len() > 0 {
            let count = ui::count(self.failed + self.unobtainable.len(), "drawn prediction");
            text.push_str(&format!("{count} NOT recomputed\n"));
            self.unobtainable.iter().for_each(|missing| text.push_str(&missing_words(missing)));
        }
        let (wrong, probability) = self.chance();
        text.push_str(&format!(
            "what this shows: had {wrong} of the {} been wrong, such a draw would have met one with a chance of {:.0} %\n\
             what it does not show: that the checkpoints were trained as the pipeline says; --from scratch trains them\n",
            self.of,
            100.0 * probability
        ));
        text.push_str(&remote_results::passed_over_words(&loaded.cache));
        text
    }
}
