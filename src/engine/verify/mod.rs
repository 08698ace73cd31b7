//! Runs stages again beside their recorded results and compares the two. The rerun happens in a cache of its own, which
//! borrows from the real one what the stages need; the scheduler runs them there as it runs anything. The recorded
//! results are only read.

pub mod reproduce;
pub mod spot_check;

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::cache::{Blob, Cache, CacheError, Manifest};
use crate::external_inputs::{CheckedSource, ExternalInputs};
use crate::formats::Predictions;
use crate::fsio::{self, Context};
use crate::graph::Graph;
use crate::plan::Standing;
use crate::results::{Cell, TableDocument, measure};
use crate::spec::InstanceId;
use crate::stage_kinds::{Metric, StageKind};

/// Why stages cannot be run again beside their results.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no result to compare with.
    #[error("{stage} has no result for its parameters as they are now")]
    NotFresh {
        /// The stage.
        stage: String,
    },
    /// A blob that is needed is gone.
    #[error("output `{output}` of {stage} is gone from the cache")]
    Gone {
        /// Whose it is.
        stage: String,
        /// Which one.
        output: String,
    },
    /// The file system said no.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A cache for reruns; it goes away when dropped.
#[derive(Debug)]
pub struct ScratchCache {
    /// Where the reruns' results are.
    pub cache: Cache,
    _folder: tempfile::TempDir,
}

/// Makes a cache in which the `targets` are yet to be run and all that they need is there. A target that needs another
/// target takes what the rerun gives.
///
/// # Errors
/// [`VerifyError`].
pub fn beside(
    real: &Cache,
    graph: &Graph,
    sources: &ExternalInputs,
    standings: &[Option<Standing>],
    targets: &[bool],
) -> Result<ScratchCache, VerifyError> {
    // Within the real cache: blobs are borrowed as links, which do not cross file systems.
    let folder = real.scratch()?;
    let cache = Cache::open(&folder.path().join("cache"))?;
    for id in graph.ids().filter(|id| standings[id.0].is_some()) {
        let Some(manifest) = fresh(standings, id) else {
            if targets[id.0] {
                return Err(VerifyError::NotFresh { stage: graph.instance(id).name.clone() });
            }
            continue;
        };
        if targets[id.0] {
            borrow_inputs(real, &cache, graph, sources, standings, targets, id)?;
        } else {
            cache.commit(manifest)?;
            // What people look at must be there for its stage to count as done.
            for output in graph.instance(id).outputs.iter().filter(|output| output.result.is_some()) {
                if let Some(blob) = manifest.outputs.get(&output.name).filter(|blob| real.has(**blob)) {
                    borrow(real, &cache, *blob)?;
                }
            }
        }
    }
    Ok(ScratchCache { cache, _folder: folder })
}

fn fresh(standings: &[Option<Standing>], id: InstanceId) -> Option<&Manifest> {
    match &standings[id.0] {
        Some(Standing::Fresh(_, manifest)) => Some(manifest),
        _ => None,
    }
}

fn borrow_inputs(
    real: &Cache,
    cache: &Cache,
    graph: &Graph,
    sources: &ExternalInputs,
    standings: &[Option<Standing>],
    targets: &[bool],
    id: InstanceId,
) -> Result<(), VerifyError> {
    let instance = graph.instance(id);
    for need in instance.needs.iter().filter(|need| !targets[need.from.0]) {
        let blob = fresh(standings, need.from).and_then(|manifest| manifest.outputs.get(&need.output));
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

/// Makes a blob of one cache one of another, too.
fn borrow(from: &Cache, to: &Cache, blob: Blob) -> Result<(), CacheError> {
    let (source, target) = (from.object_path(blob.digest), to.object_path(blob.digest));
    if to.has(blob) {
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fsio::create_dir(folder)?;
    }
    if fs::hard_link(&source, &target).is_err() {
        // A file system without links: a copy is as good and takes longer.
        fs::copy(&source, &target).on("write", &target)?;
    }
    Ok(())
}

/// How an output of a rerun compares with the recorded one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The same bytes.
    Same,
    /// Other bytes, and numbers that are near enough.
    Within {
        /// The largest difference, in percentage points.
        points: f64,
    },
    /// Numbers that differ.
    Numbers {
        /// Those that do.
        cells: Vec<Difference>,
    },
    /// Other bytes.
    Bytes,
    /// Other bytes that hold no numbers, where only numbers are compared.
    NotCompared,
}

/// A number that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The row, or what was measured.
    pub row: String,
    /// The column.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub column: String,
    /// As recorded, 0 to 1.
    pub recorded: Option<f64>,
    /// In the rerun.
    pub rerun: Option<f64>,
}

/// One output compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The stage.
    pub stage: String,
    /// The output.
    pub output: String,
    /// How it compares.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Whether the rerun had the inputs of the recorded result; if not, another stage differs before this one.
    pub same_inputs: bool,
}

/// Whether a kind's outputs hold numbers that can be compared within a tolerance.
pub const fn has_numbers(kind: StageKind) -> bool {
    matches!(kind, StageKind::Table | StageKind::Evaluate)
}

/// Compares every output of a rerun with the recorded one. `tolerance` is in percentage points; without one bytes must
/// be the same.
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

/// The numbers of a result by row and column.
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
        StageKind::Evaluate => {
            let predictions = Predictions::from_bytes(&read("predictions")?).ok()?;
            let share = measure(Metric::Accuracy, None, &predictions, None).ok()?.value;
            Some(BTreeMap::from([(("accuracy".to_owned(), String::new()), share)]))
        }
        _ => None,
    }
}

/// The numbers further apart than the tolerance, and the largest distance of the others.
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
        // Shares are ratios of counts: what is left of their difference after rounding is far below any tolerance.
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
