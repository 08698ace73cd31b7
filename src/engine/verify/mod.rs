//! Reruns stages and compares their results with the recorded ones.
//!
//! The rerun happens in a separate cache that borrows the inputs from the real one. The scheduler runs the stages there
//! as usual. The recorded results are only read.

pub mod reproduce;
pub mod spot_check;

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::cache::{Blob, Cache, CacheError, Manifest};
use crate::external_inputs::CheckedSource;
use crate::formats::Predictions;
use crate::fsio::{self, Context};
use crate::plan::{CacheStatus, CacheStatuses, PlanContext};
use crate::results::{Cell, TableDocument, measure};
use crate::spec::{InstanceId, PerInstance};
use crate::stage_kinds::{Metric, StageKind};

/// Reason why stages cannot be rerun for comparison.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no result to compare with.
    #[error("{stage} has no result for its parameters as they are now")]
    NotFresh {
        /// Name of the stage.
        stage: String,
    },
    /// A required blob is gone.
    #[error("output `{output}` of {stage} is gone from the cache")]
    Gone {
        /// Stage that made it.
        stage: String,
        /// Name of the output.
        output: String,
    },
    /// A cache operation failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Temporary cache for reruns; dropping it removes it.
#[derive(Debug)]
pub struct ScratchCache {
    /// Cache that holds the results of the reruns.
    pub cache: Cache,
    _folder: tempfile::TempDir,
}

/// Creates a cache that lacks the results of the `targets` and has all that they need.
///
/// A target that needs another target reads the rerun's result.
///
/// # Errors
/// [`VerifyError`].
pub fn beside(
    context: PlanContext<'_>,
    status_of: &CacheStatuses,
    targets: &PerInstance<bool>,
) -> Result<ScratchCache, VerifyError> {
    let PlanContext { graph, cache: real, .. } = context;
    // Inside the real cache: borrowed blobs are hard links, which do not cross file systems.
    let folder = real.scratch()?;
    let cache = Cache::open(&folder.path().join("cache"))?;
    for id in graph.ids().filter(|id| status_of[*id].is_some()) {
        let Some(manifest) = fresh(status_of, id) else {
            if targets[id] {
                return Err(VerifyError::NotFresh { stage: graph.instance(id).name.clone() });
            }
            continue;
        };
        if targets[id] {
            borrow_inputs(context, &cache, status_of, targets, id)?;
        } else {
            cache.commit(manifest)?;
            // A stage counts as done only if its result files exist.
            for output in graph.instance(id).outputs.iter().filter(|output| output.result.is_some()) {
                if let Some(blob) = manifest.outputs.get(&output.name).filter(|blob| real.has(**blob)) {
                    borrow(real, &cache, *blob)?;
                }
            }
        }
    }
    Ok(ScratchCache { cache, _folder: folder })
}

fn fresh(status_of: &CacheStatuses, id: InstanceId) -> Option<&Manifest> {
    match &status_of[id] {
        Some(CacheStatus::Fresh(_, manifest)) => Some(manifest),
        _ => None,
    }
}

fn borrow_inputs(
    context: PlanContext<'_>,
    cache: &Cache,
    status_of: &CacheStatuses,
    targets: &PerInstance<bool>,
    id: InstanceId,
) -> Result<(), VerifyError> {
    let PlanContext { graph, cache: real, sources } = context;
    let instance = graph.instance(id);
    for need in instance.needs.iter().filter(|need| !targets[need.from]) {
        let blob = fresh(status_of, need.from).and_then(|manifest| manifest.outputs.get(&need.output));
        let Some(blob) = blob.filter(|blob| real.has(**blob)) else {
            let stage = graph.instance(need.from).name.clone();
            return Err(VerifyError::Gone { stage, output: need.output.clone() });
        };
        borrow(real, cache, *blob)?;
    }
    for source in &instance.sources {
        let checked = sources.get(id, source);
        if let CheckedSource::Remote { .. } = checked {
            let identity = checked.identity();
            if let Some(blob) = real.fetched(&identity).filter(|blob| real.has(*blob)) {
                borrow(real, cache, blob)?;
                cache.remember_fetched(&identity, blob)?;
            }
        }
    }
    Ok(())
}

/// Links or copies a blob from one cache into another.
fn borrow(from: &Cache, to: &Cache, blob: Blob) -> Result<(), CacheError> {
    let (source, target) = (from.object_path(blob.digest), to.object_path(blob.digest));
    if to.has(blob) {
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fsio::create_dir(folder)?;
    }
    if fs::hard_link(&source, &target).is_err() {
        // The file system has no hard links: a copy is as good but slower.
        fs::copy(&source, &target).on("write", &target)?;
    }
    Ok(())
}

/// Comparison of a rerun's output with the recorded one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The bytes are the same.
    Same,
    /// The bytes differ, and the numbers are within the tolerance.
    Within {
        /// Largest difference, in percentage points.
        points: f64,
    },
    /// Some numbers differ by more than the tolerance.
    Numbers {
        /// Those numbers.
        cells: Vec<Difference>,
    },
    /// The bytes differ.
    Bytes,
    /// The bytes differ and hold no numbers, where only numbers are compared.
    NotCompared,
}

/// Number that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Row, or the quantity measured.
    pub row: String,
    /// Column.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub column: String,
    /// Recorded value, 0 to 1.
    pub recorded: Option<f64>,
    /// Value in the rerun.
    pub rerun: Option<f64>,
}

/// Comparison of one output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the stage.
    pub stage: String,
    /// Name of the output.
    pub output: String,
    /// Result of the comparison.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether the rerun had the same action as the recorded result. If not, an upstream stage differs already.
    pub same_inputs: bool,
}

/// Whether the outputs of a kind hold numbers that a tolerance applies to.
pub const fn has_numbers(kind: StageKind) -> bool {
    matches!(kind, StageKind::Table | StageKind::Evaluate | StageKind::WorstCase)
}

/// Compares every output of a rerun with the recorded one.
///
/// `tolerance` is in percentage points; `None` requires the same bytes.
pub fn compare(
    real: &Cache,
    recorded: &Manifest,
    rerun_in: &Cache,
    rerun: &Manifest,
    tolerance: Option<f64>,
) -> Vec<Compared> {
    let same_inputs = recorded.record == rerun.record;
    let numbers = numbers(real, recorded).zip(numbers(rerun_in, rerun));
    let verdict = |output: &String, blob: &Blob| {
        if rerun.outputs.get(output) == Some(blob) {
            return Verdict::Same;
        }
        match (&numbers, tolerance) {
            (None, None) => Verdict::Bytes,
            (None, Some(_)) if has_numbers(recorded.record.kind) => Verdict::Bytes,
            (None, Some(_)) => Verdict::NotCompared,
            (Some((old, new)), tolerance) => match differences(old, new, tolerance.unwrap_or(0.0)) {
                (cells, _) if !cells.is_empty() => Verdict::Numbers { cells },
                (_, points) if tolerance.is_some() => Verdict::Within { points },
                _ => Verdict::Bytes,
            },
        }
    };
    let compared = |(output, blob): (&String, &Blob)| Compared {
        stage: recorded.made.stage.clone(),
        output: output.clone(),
        verdict: verdict(output, blob),
        same_inputs,
    };
    recorded.outputs.iter().map(compared).collect()
}

/// Numbers of a result by row and column.
type Numbers = BTreeMap<(String, String), Option<f64>>;

fn numbers(cache: &Cache, manifest: &Manifest) -> Option<Numbers> {
    let read = |output: &str| cache.read(manifest.outputs.get(output)?.digest).ok();
    match manifest.record.kind {
        StageKind::Table => {
            let table = TableDocument::from_json(&read("json")?).ok()?;
            let share = |cell: &Option<Cell>| cell.as_ref().and_then(|cell| cell.number.value);
            let row = |(label, cells): (&String, &Vec<Option<Cell>>)| -> Vec<((String, String), Option<f64>)> {
                let column = |(column, cell): (&crate::stage_kinds::Column, &Option<Cell>)| {
                    ((label.clone(), column.label.clone()), share(cell))
                };
                table.columns.iter().zip(cells).map(column).collect()
            };
            Some(table.rows.iter().zip(&table.cells).flat_map(row).collect())
        }
        StageKind::Evaluate | StageKind::WorstCase => {
            // One output, or one for each radius.
            let accuracy = |output: &String| {
                let predictions = Predictions::from_bytes(&read(output)?).ok()?;
                let share = measure(Metric::Accuracy, None, &predictions, None).ok()?.value;
                let column = if manifest.outputs.len() > 1 { output.clone() } else { String::new() };
                Some((("accuracy".to_owned(), column), share))
            };
            manifest.outputs.keys().map(accuracy).collect()
        }
        _ => None,
    }
}

/// Returns the numbers that differ by more than the tolerance, and the largest difference of the others.
fn differences(old: &Numbers, new: &Numbers, tolerance: f64) -> (Vec<Difference>, f64) {
    let mut largest: f64 = 0.0;
    let mut cells = Vec::new();
    let mut places: Vec<&(String, String)> = old.keys().chain(new.keys()).collect();
    places.sort_unstable();
    places.dedup();
    for place in places {
        let (recorded, rerun) = (old.get(place).copied().flatten(), new.get(place).copied().flatten());
        let points = match (recorded, rerun) {
            (Some(old), Some(new)) => 100.0 * (old - new).abs(),
            (None, None) => 0.0,
            _ => f64::INFINITY,
        };
        // Shares are ratios of counts: rounding errors in their difference are far below any tolerance.
        if points > tolerance + 1e-9 {
            cells.push(Difference { row: place.0.clone(), column: place.1.clone(), recorded, rerun });
        } else {
            largest = largest.max(points);
        }
    }
    (cells, largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_in_percentage_points() {
        let of = |clean: Option<f64>, attacked: Option<f64>| {
            let place = |column: &str| ("pgd".to_owned(), column.to_owned());
            Numbers::from([(place("clean"), clean), (place("PGD"), attacked)])
        };
        let old = of(Some(0.9), Some(0.4));
        assert_eq!(differences(&old, &old, 0.0), (Vec::new(), 0.0));
        let (cells, largest) = differences(&old, &of(Some(0.905), Some(0.45)), 0.5);
        assert_eq!((cells.len(), cells[0].column.as_str()), (1, "PGD"));
        assert!((largest - 0.5).abs() < 1e-9);
        assert_eq!(differences(&old, &of(Some(0.9), None), 50.0).0.len(), 1, "a number that is gone is no near number");
    }
}
