//! What a comparison of two runs says: numbers, differences, and their notes. The same for every format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use atflow::action::ActionKey;
use atflow::cache::{Cache, RunRecord};
use atflow::parameters::ParameterChanges;
use atflow::results::{Cell, cell_number, difference, interval, p_value};
use atflow::run_diff::{CellDiff, Paired, RunDiff, TableDiff, diff};
use atflow::stage_kinds::Metric;

use crate::commands::runs::changed_words;
use crate::ui;

/// One of the two runs that are compared.
pub(in crate::commands) struct Side {
    /// What the user called it, and the run's name.
    pub name: String,
    /// The run.
    pub run: RunRecord,
    /// Its results.
    pub keys: BTreeMap<String, ActionKey>,
}

/// All that differs.
pub(in crate::commands) struct Difference {
    /// The earlier run.
    pub before: Side,
    /// The later run.
    pub after: Side,
    /// Changed parameters.
    pub parameters: ParameterChanges,
    /// Changed results.
    pub results: RunDiff,
}

/// Returns a number with its interval: `81.5 [79.0, 83.8]`.
pub(in crate::commands) fn number_words(metric: Metric, cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return "–".to_owned() };
    let interval = interval(metric, &cell.number).map(|interval| format!(" {interval}"));
    cell_number(metric, cell) + &interval.unwrap_or_default()
}

/// Returns the difference of a cell: on the same images with its interval, else the difference of the two numbers.
pub(in crate::commands) fn difference_words(cell: &CellDiff) -> String {
    match (&cell.paired, cell.difference) {
        (Paired::Compared(compared), _) if compared.difference.is_some() => difference(compared),
        (_, None) => "–".to_owned(),
        (_, Some(value)) if cell.metric.is_share() => signed(100.0 * value, 1),
        (_, Some(value)) => signed(value, 3),
    }
}

fn signed(value: f64, decimals: usize) -> String {
    format!("{value:+.decimals$}").replace('-', "−")
}

/// Returns the p of a cell, or a sign that there is none.
pub(in crate::commands) fn p_words(cell: &CellDiff) -> String {
    match &cell.paired {
        Paired::Compared(compared) => compared.p.map_or_else(|| "–".to_owned(), p_value),
        Paired::None(_) => "–".to_owned(),
    }
}

/// Returns what the numbers of a table's differences are, and why some cells have no test.
pub(in crate::commands) fn notes(table: &TableDiff) -> Vec<String> {
    let mut notes = vec![format!("{LEGEND} {} with the same number.", ui::count(table.same, "cell"))];
    if table.cells.iter().any(|cell| cell.metric == Metric::AccuracyOnCorrect) {
        notes.push("Of accuracy on correct, on the images that both runs classify correctly untransformed.".to_owned());
    }
    notes.extend(untested(table));
    notes
}

/// Returns the reasons why cells have no test, each once.
fn untested(table: &TableDiff) -> Vec<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for cell in &table.cells {
        if let Paired::None(reason) = &cell.paired {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let told = |(reason, count): (&str, usize)| format!("{} without a test: {reason}.", ui::count(count, "cell"));
    reasons.into_iter().map(told).collect()
}

/// What the columns of a difference are.
const LEGEND: &str = "Difference: after less before, on the same images, in percentage points [95 % \
    interval of Agresti and Min]; p of the exact McNemar test, not corrected for the number of cells.";

/// The most cells that the end of a run tells.
const MOST_MOVED: usize = 8;

/// Returns the lines about numbers that moved since the last run of the pipeline with the same profile that has other
/// numbers of these tables.
pub(in crate::commands) fn moved_words(cache: &Cache, run: &RunRecord, tables: &[&str]) -> String {
    let is_moved = |earlier: &RunRecord, table: &&str| {
        earlier.keys.get(*table).is_some_and(|key| run.keys.get(*table).is_some_and(|now| now != key))
    };
    let mut earlier =
        cache.runs(Some(&run.pipeline)).filter(|other| other.id != run.id && other.profile == run.profile);
    // The newest run with any of them decides: beyond it lies what was told then.
    let Some(before) = earlier.find(|other| tables.iter().any(|table| other.keys.contains_key(*table))) else {
        return String::new();
    };
    let moved: Vec<&&str> = tables.iter().filter(|table| is_moved(&before, table)).collect();
    let keys = |run: &RunRecord| moved.iter().map(|name| ((**name).to_owned(), run.keys[**name])).collect();
    let results = diff(cache, &keys(&before), &keys(run));
    let mut cells: Vec<(&TableDiff, &CellDiff)> = results
        .tables
        .iter()
        .flat_map(|table| table.cells.iter().map(move |cell| (table, cell)))
        .filter(|(_, cell)| cell.difference.is_some_and(|difference| difference != 0.0))
        .collect();
    if cells.is_empty() {
        return String::new();
    }
    let size = |cell: &CellDiff| cell.difference.unwrap_or_default().abs();
    cells.sort_by(|(_, a), (_, b)| size(b).total_cmp(&size(a)));
    let changed = changed_words(Some(&before), run);
    let mut text = format!("moved since run {} ({changed}):\n", before.id.short());
    for (table, cell) in cells.iter().take(MOST_MOVED) {
        let (now, was) = (cell.after.as_ref(), cell.before.as_ref());
        let shown = |cell: Option<&Cell>, metric| cell.map(|cell| cell_number(metric, cell));
        let (now, was) = (shown(now, cell.metric).unwrap_or_default(), shown(was, cell.metric).unwrap_or_default());
        let p = match p_words(cell).as_str() {
            "–" => String::new(),
            p => format!(", {p}"),
        };
        let difference = difference_words(cell);
        _ = writeln!(text, "  {} {} / {}: {now}, was {was}, {difference}{p}", table.stage, cell.row, cell.column);
    }
    if cells.len() > MOST_MOVED {
        _ = writeln!(text, "  and {} more; `atflow diff` shows all", cells.len() - MOST_MOVED);
    }
    text
}
