//! Compares the results of two runs: numbers cell by cell with a paired test on the same images, and pictures.
//!
//! Knows results by their keys, so a run, an earlier run and a results folder can all be compared.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde::Serialize;

use crate::action::ActionKey;
use crate::cache::{Blob, Cache, Manifest};
use crate::digest::Digest;
use crate::formats::Predictions;
use crate::results::{Cell, Comparison, TableDocument, compare};
use crate::stage_kinds::{Metric, StageKind};

/// The results of two runs beside each other.
#[derive(Debug, Default, Serialize)]
pub struct RunDiff {
    /// How many instances of each stage have another key, are new, or are gone.
    pub stages: BTreeMap<String, StageDiff>,
    /// Tables with other numbers, by instance.
    pub tables: Vec<TableDiff>,
    /// Pictures with other bytes.
    pub pictures: Vec<PictureDiff>,
    /// Tables and pictures that are equal.
    pub same: Vec<String>,
    /// Tables and pictures whose files are gone from the cache.
    pub lost: Vec<String>,
}

/// Instances of one stage in two runs.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageDiff {
    /// Instances with another key.
    pub changed: usize,
    /// Instances that only the later run has.
    pub added: usize,
    /// Instances that only the earlier run has.
    pub removed: usize,
}

/// A table in two runs.
#[derive(Debug, Serialize)]
pub struct TableDiff {
    /// The instance.
    pub stage: String,
    /// Its caption.
    pub title: Option<String>,
    /// Cells with another number, by row and column of the later table, then those that only the earlier one has.
    pub cells: Vec<CellDiff>,
    /// Number of cells with the same number.
    pub same: usize,
}

/// A cell in two runs.
#[derive(Debug, Serialize)]
pub struct CellDiff {
    /// Row label.
    pub row: String,
    /// Column label.
    pub column: String,
    /// What the number is.
    pub metric: Metric,
    /// The earlier number, if there was one.
    pub before: Option<Cell>,
    /// The later number, if there is one.
    pub after: Option<Cell>,
    /// Later value less earlier value, in the metric's unit; a share is 0 to 1.
    pub difference: Option<f64>,
    /// The comparison on the same images.
    pub paired: Paired,
}

/// Comparison of two runs on the same images, or the reason why there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Paired {
    /// The later run less the earlier one.
    Compared(Comparison),
    /// There is none.
    None(String),
}

/// A picture in two runs.
#[derive(Debug, Serialize)]
pub struct PictureDiff {
    /// The instance.
    pub stage: String,
    /// The output.
    pub output: String,
    /// The earlier picture.
    pub before: Blob,
    /// The later picture.
    pub after: Blob,
}

/// Outputs that are pictures, the best first: one of each instance is compared.
const PICTURES: [&str; 3] = ["svg", "png", "grid"];

/// Compares two sets of results, each a key by instance.
pub fn diff(cache: &Cache, before: &BTreeMap<String, ActionKey>, after: &BTreeMap<String, ActionKey>) -> RunDiff {
    let mut diff = RunDiff { stages: stage_diffs(before, after), ..RunDiff::default() };
    let mut store = PredictionStore::new(cache);
    for (stage, key) in after {
        let Some(earlier) = before.get(stage) else { continue };
        let (Some(earlier), Some(later)) = (cache.lookup(*earlier), cache.lookup(*key)) else { continue };
        match later.record.kind {
            StageKind::Table if earlier.record.kind == StageKind::Table => {
                match table_diff(&mut store, &earlier, &later) {
                    None => diff.lost.push(stage.clone()),
                    Some(table) if table.cells.is_empty() => diff.same.push(stage.clone()),
                    Some(table) => diff.tables.push(TableDiff { stage: stage.clone(), ..table }),
                }
            }
            _ => match picture_diff(stage, &earlier, &later) {
                None => {}
                Some(picture) if picture.before.digest == picture.after.digest => diff.same.push(stage.clone()),
                Some(picture) => diff.pictures.push(picture),
            },
        }
    }
    diff
}

/// Compares a table with an earlier result of the same instance; nothing if one of the two cannot be read.
pub fn diff_table(cache: &Cache, before: &Manifest, after: &Manifest) -> Option<TableDiff> {
    let table = table_diff(&mut PredictionStore::new(cache), before, after)?;
    Some(TableDiff { stage: after.made.stage.clone(), ..table })
}

/// Compares the keys of two runs by stage: the instance's name up to the first `/`.
pub fn stage_diffs(
    before: &BTreeMap<String, ActionKey>,
    after: &BTreeMap<String, ActionKey>,
) -> BTreeMap<String, StageDiff> {
    let mut stages: BTreeMap<String, StageDiff> = BTreeMap::new();
    let family = |name: &str| name.split_once('/').map_or(name, |(stage, _)| stage).to_owned();
    for (name, key) in after {
        match before.get(name) {
            Some(earlier) if earlier == key => {}
            Some(_) => stages.entry(family(name)).or_default().changed += 1,
            None => stages.entry(family(name)).or_default().added += 1,
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        stages.entry(family(name)).or_default().removed += 1;
    }
    stages
}

fn picture_diff(stage: &str, before: &Manifest, after: &Manifest) -> Option<PictureDiff> {
    let in_both = |name: &&&str| before.outputs.contains_key(**name) && after.outputs.contains_key(**name);
    let output = PICTURES.iter().find(in_both)?;
    Some(PictureDiff {
        stage: stage.to_owned(),
        output: (*output).to_owned(),
        before: before.outputs[*output],
        after: after.outputs[*output],
    })
}

fn table_diff(store: &mut PredictionStore<'_>, before: &Manifest, after: &Manifest) -> Option<TableDiff> {
    let (earlier, later) = (store.table(before)?, store.table(after)?);
    let old = cells_of(&earlier);
    let (mut cells, mut same) = (Vec::new(), 0);
    for (row, column, cell) in later.places() {
        let metric = metric_of(&later, column);
        let was = old.get(&(row, column)).copied();
        if was.is_some_and(|was| was.number == cell.number && was.spread == cell.spread) {
            same += 1;
            continue;
        }
        let difference = was.and_then(|was| Some(cell.number.value? - was.number.value?));
        let paired = match was {
            None => Paired::None("the earlier table has no such cell".to_owned()),
            Some(_) if metric != metric_of(&earlier, column) => Paired::None("the metric is another".to_owned()),
            Some(_) if !(earlier.over.is_empty() && later.over.is_empty()) => {
                Paired::None("the number is a mean over seeds".to_owned())
            }
            Some(_) => store.paired(metric, (before, after), row, column),
        };
        let (row, column) = (row.to_owned(), column.to_owned());
        cells.push(CellDiff {
            row,
            column,
            metric,
            before: was.cloned(),
            after: Some(cell.clone()),
            difference,
            paired,
        });
    }
    let new = cells_of(&later);
    for (row, column, cell) in earlier.places().filter(|(row, column, _)| !new.contains_key(&(*row, *column))) {
        cells.push(CellDiff {
            row: row.to_owned(),
            column: column.to_owned(),
            metric: metric_of(&earlier, column),
            before: Some(cell.clone()),
            after: None,
            difference: None,
            paired: Paired::None("the later table has no such cell".to_owned()),
        });
    }
    Some(TableDiff { stage: String::new(), title: later.title.clone(), cells, same })
}

fn cells_of(table: &TableDocument) -> HashMap<(&str, &str), &Cell> {
    table.places().map(|(row, column, cell)| ((row, column), cell)).collect()
}

fn metric_of(table: &TableDocument, column: &str) -> Metric {
    let found = table.columns.iter().find(|candidate| candidate.label == column);
    found.map_or(Metric::Accuracy, |column| column.metric)
}

/// Tables and predictions out of the cache, each read once.
struct PredictionStore<'a> {
    cache: &'a Cache,
    read: HashMap<Digest, Option<Rc<Predictions>>>,
}

impl<'a> PredictionStore<'a> {
    fn new(cache: &'a Cache) -> Self {
        PredictionStore { cache, read: HashMap::new() }
    }

    fn table(&self, manifest: &Manifest) -> Option<TableDocument> {
        let blob = self.cache.output(manifest, "json").ok()?;
        TableDocument::from_json(&self.cache.read(blob.digest).ok()?).ok()
    }

    /// Compares the predictions behind one cell of two tables.
    fn paired(&mut self, metric: Metric, (before, after): (&Manifest, &Manifest), row: &str, column: &str) -> Paired {
        let cell = format!("{row}/{column}");
        if matches!(metric, Metric::Loss | Metric::ProbabilityOfTrueClass | Metric::MedianEps) || metric.is_of_maps() {
            return Paired::None("the number is no share of images".to_owned());
        }
        let mut of = |manifest: &Manifest, slot: &str| self.input(manifest, &format!("{slot}/{cell}"));
        let gone = || Paired::None("the predictions are gone from the cache".to_owned());
        let (Some(earlier), Some(later)) = (of(before, "value"), of(after, "value")) else { return gone() };
        let references = (of(before, "reference"), of(after, "reference"));
        let compared =
            compare(metric, (later.as_ref(), references.1.as_deref()), (earlier.as_ref(), references.0.as_deref()));
        match compared {
            Ok(comparison) => Paired::Compared(comparison),
            Err(error) => Paired::None(error.to_string()),
        }
    }

    fn input(&mut self, manifest: &Manifest, name: &str) -> Option<Rc<Predictions>> {
        let digest: Digest = manifest.record.inputs.get(name)?.strip_prefix("blake3:")?.parse().ok()?;
        let cache = self.cache;
        let read = || Some(Rc::new(Predictions::from_bytes(&cache.read(digest).ok()?).ok()?));
        self.read.entry(digest).or_insert_with(read).clone()
    }
}
