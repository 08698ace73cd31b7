//! What a table says in words: the text of its cells, its notes, and the signs of verdicts. The same for every
//! rendering; markup is theirs.

use std::collections::BTreeMap;

use super::{Cell, Comparison, Number, State, TableDocument, Verdict};
use crate::stage_kinds::{Compare, Family, Metric, Radius};

/// What stands where there is no number.
pub(super) const ABSENT: &str = "–";

/// The line under a row's numbers that tells the published ones.
pub(super) const PUBLISHED: &str = "↳ published";

/// The sign of a published number that is known to be wrong.
pub(super) const ANOMALY: &str = "†";

/// The sign of a verdict.
pub(super) const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "=",
        Verdict::WithinTolerance => "≈",
        Verdict::WithinSamplingError => "~",
        Verdict::Different => "≠",
        Verdict::Missing => "?",
        Verdict::NotCompared | Verdict::NotPublished => "",
    }
}

/// A number without its interval: `87.4`, `87.4 ± 0.5`.
pub fn number(metric: Metric, cell: &Cell) -> String {
    let Some(value) = cell.number.value else {
        return match cell.state {
            State::Missing => "missing".to_owned(),
            _ if cell.number.n > 0 => "n/a".to_owned(),
            _ => ABSENT.to_owned(),
        };
    };
    let deviation = cell.spread.as_ref().and_then(|spread| spread.deviation);
    let deviation = deviation.map_or(String::new(), |deviation| format!(" ± {}", shown(metric, deviation)));
    let state = if cell.state.is_made() { String::new() } else { format!(" ({})", cell.state.name()) };
    format!("{}{deviation}{state}", shown(metric, value))
}

/// The interval of a number: `[85.9, 88.8]`; nothing where it has none.
pub fn interval(metric: Metric, number: &Number) -> Option<String> {
    number.value?;
    let (low, high) = number.low.zip(number.high)?;
    Some(format!("[{}, {}]", shown(metric, low), shown(metric, high)))
}

/// A share in percent with one decimal, a loss with three, a radius as a fraction of 255 levels where it is one.
pub(super) fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::MedianEps if Radius::written(value).contains('/') => Radius::written(value),
        _ if metric.is_share() => percent(value),
        _ => told_apart(value, 3, None),
    }
}

/// A share, 0 to 1, in percent: `87.4`. `100.0` is said of all and `0.0` of nothing.
pub fn percent(share: f64) -> String {
    told_apart(100.0 * share, 1, Some(100.0))
}

/// More decimals than this tell nobody anything.
const MOST_DECIMALS: usize = 6;

/// A number with so many decimals, or with more where it would be rounded to 0, or to `all`, and is not.
fn told_apart(value: f64, decimals: usize, all: Option<f64>) -> String {
    let is_told = |text: &String| {
        let rounded: f64 = text.parse().unwrap_or(value);
        (rounded == 0.0) == (value == 0.0) && (Some(rounded) == all) == (Some(value) == all)
    };
    let written = |decimals: usize| format!("{value:.decimals$}");
    (decimals..MOST_DECIMALS).map(written).find(is_told).unwrap_or_else(|| written(MOST_DECIMALS))
}

/// The published number of a cell with its verdict and our difference from it: `≈ 86.27 (+0.4)`.
pub fn published(cell: &Cell) -> String {
    let Some((beside, printed)) = cell.published.as_ref().and_then(|beside| Some((beside, beside.printed()?))) else {
        return ABSENT.to_owned();
    };
    let mark = if beside.anomaly.is_some() { ANOMALY } else { "" };
    // A loss is rounded as it was printed, shares to a tenth of a point unless they are the same.
    let decimals = beside.decimals.min(2);
    let difference = beside.difference.map_or(String::new(), |points| format!(" ({})", signed(points, decimals)));
    format!("{} {printed}{mark}{difference}", sign(beside.verdict)).trim_start().to_owned()
}

/// A difference of two models: `+2.1 [1.0, 3.2]`.
pub fn difference(compared: &Comparison) -> String {
    let Some(difference) = compared.difference else { return ABSENT.to_owned() };
    let points = |share: f64| signed(share * 100.0, 1);
    let interval = compared.low.zip(compared.high);
    let interval = interval.map(|(low, high)| format!(" [{}, {}]", points(low), points(high)));
    points(difference) + &interval.unwrap_or_default()
}

/// A p: `p = 0.012`, `p < 0.001`.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

/// Its p, and the corrected one: `p = 0.012`, `Holm p = 0.024`.
pub(super) fn p_values(compared: &Comparison) -> Option<[String; 2]> {
    Some([p_value(compared.p?), format!("Holm {}", p_value(compared.p_holm?))])
}

/// All of it: `+2.1 [1.0, 3.2], p = 0.012, Holm p = 0.024`.
pub fn compared(compared: &Comparison) -> String {
    let p_values = p_values(compared).map(|[p, corrected]| format!(", {p}, {corrected}"));
    difference(compared) + &p_values.unwrap_or_default()
}

/// A number with its sign; zero has none.
fn signed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let is_zero = !text.bytes().any(|digit| (b'1'..=b'9').contains(&digit));
    let sign = match (is_zero, value < 0.0) {
        (true, _) => "",
        (false, true) => "−",
        (false, false) => "+",
    };
    format!("{sign}{text}")
}

/// The line under a row's numbers that compares them.
pub(super) fn comparison_label(to: &str) -> String {
    format!("↳ less {to}")
}

/// What the numbers are, of how many images, and what the signs mean; a paragraph each. Nothing is said of intervals
/// where the rendering shows none.
pub fn notes(table: &TableDocument, intervals: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if table.mockup {
        notes.push("A mock-up: it shows what the pipeline makes, and its numbers mean nothing.".to_owned());
    }
    notes.extend(kinds_of_numbers(table, intervals));
    notes.extend(unequal_columns(table));
    if intervals {
        notes.extend(of_images_alone(table));
        notes.extend(no_intervals(table));
    }
    notes.extend(agreeing_seeds(table));
    if let Some(compare) = &table.compare {
        notes.extend(comparisons(table, compare, intervals));
    }
    if let Some(judgement) = table.published.as_ref().filter(|_| table.mockup) {
        notes.push(format!("{PUBLISHED}: the number of {}; a mock-up is not compared with it.", judgement.table));
    } else if let Some(judgement) = &table.published {
        let shares = if table.columns.iter().any(|column| column.metric.is_share()) {
            " and by no more than half of it or of what it lacks to 100"
        } else {
            ""
        };
        let within = judgement.tolerance.map_or(String::new(), |points| format!(" ≈ at most {points} away{shares},"));
        let unsaid = match judgement.verdicts.get(&Verdict::NotCompared) {
            Some(1..) => "; no sign where ours is of an earlier state or of some seeds only",
            _ => "",
        };
        notes.push(format!(
            "{PUBLISHED}: the number of {} (ours less it): = the same when rounded as printed,{within} ~ one lies in the 95 % interval of the other, ≠ different, ? missing here{unsaid}.",
            judgement.table
        ));
        let told = Verdict::ALL.into_iter().filter_map(|verdict| {
            let count = judgement.verdicts.get(&verdict).filter(|count| **count > 0)?;
            let at = match (verdict, judgement.different_at_anomalies) {
                (Verdict::Different, 1..) => format!(" ({} of them at {ANOMALY})", judgement.different_at_anomalies),
                _ => String::new(),
            };
            Some(format!("{count} {}{at}", verdict.name()))
        });
        let told: Vec<String> = told.collect();
        let all: usize = judgement.verdicts.values().sum();
        notes.push(format!("Of {all} cells: {}.", told.join(", ")));
        for (row, column, cell) in table.places() {
            if let Some(reason) = cell.published.as_ref().and_then(|beside| beside.anomaly.as_ref()) {
                notes.push(format!("{ANOMALY} {row}, {column}: {reason}."));
            }
        }
    }
    let count = |state: State| table.places().filter(|(.., cell)| cell.state == state).count();
    let not_made: Vec<String> = [State::Missing, State::Stale, State::Incomplete]
        .into_iter()
        .filter_map(|state| Some((count(state), state)).filter(|(count, _)| *count > 0))
        .map(|(count, state)| format!("{count} {}", state.name()))
        .collect();
    if !not_made.is_empty() {
        let stale = if count(State::Stale) > 0 { "; stale ones are those of earlier results" } else { "" };
        notes.push(format!("Not all cells are as the pipeline has them now: {}{stale}.", not_made.join(", ")));
    }
    notes
}

/// Columns of one metric that are measured on sets of different sizes: a number of few images stands beside one of many
/// as though the two compared.
fn unequal_columns(table: &TableDocument) -> Option<String> {
    let mut columns: BTreeMap<Metric, BTreeMap<u64, Vec<&str>>> = BTreeMap::new();
    for (index, column) in table.columns.iter().enumerate() {
        // Of the other metrics n depends on the model.
        let counts_all = matches!(column.metric, Metric::Accuracy | Metric::Loss | Metric::ProbabilityOfTrueClass);
        let made = table.cells.iter().filter_map(|row| row[index].as_ref());
        let most = made.map(|cell| cell.number.n).max().filter(|n| counts_all && *n > 0);
        if let Some(n) = most {
            columns.entry(column.metric).or_default().entry(n).or_default().push(&column.label);
        }
    }
    let unequal = columns.into_values().filter(|by_n| by_n.len() > 1);
    let told =
        unequal.flat_map(|by_n| by_n.into_iter().rev().map(|(n, of)| format!("{} ({})", thousands(n), of.join(", "))));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| {
        format!("Columns of unequal n are not of the same images, and do not compare: n = {}.", told.join(", "))
    })
}

/// What an interval leaves out.
fn of_images_alone(table: &TableDocument) -> Option<String> {
    let has_interval = table.places().any(|(.., cell)| cell.number.low.is_some());
    has_interval.then(|| match table.over.is_empty() {
        true => {
            "An interval is over images: another seed of a training may change a number by more than that.".to_owned()
        }
        false => "An interval is over seeds: other images may change a number by more than that.".to_owned(),
    })
}

/// Where no interval stands, and why.
fn no_intervals(table: &TableDocument) -> Vec<String> {
    let has = |what: &dyn Fn(&Cell) -> bool| table.places().any(|(.., cell)| what(cell));
    let mut notes = Vec::new();
    if has(&|cell| cell.number.fixed) {
        let on_itself = "accuracy on correctly classified images of the untransformed images themselves";
        notes.push(format!("A number that is 100 % by definition has no interval: {on_itself}."));
    }
    let is_bare = |cell: &Cell| {
        let is_of_seeds = cell.spread.as_ref().is_some_and(|spread| !spread.values.is_empty());
        is_of_seeds && cell.number.low.is_none() && !cell.number.fixed
    };
    if has(&is_bare) {
        notes.push("No interval where fewer than two seeds count, or where all have the same number.".to_owned());
    }
    notes
}

/// Cells that a note names one by one.
const NAMED: usize = 3;

/// Seeds that are one result and no two.
fn agreeing_seeds(table: &TableDocument) -> Vec<String> {
    let mut groups: BTreeMap<&[String], Vec<String>> = BTreeMap::new();
    for (row, column, cell) in table.places() {
        for group in cell.spread.iter().flat_map(|spread| &spread.same) {
            groups.entry(group).or_default().push(format!("{row}, {column}"));
        }
    }
    let told = |(seeds, places): (&[String], Vec<String>)| {
        let seeds = match seeds {
            [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
            [] => String::new(),
        };
        let more = places.len().saturating_sub(NAMED);
        let mut places: Vec<String> = places.into_iter().take(NAMED).collect();
        places.extend((more > 0).then(|| format!("and {more} more")));
        let told = format!("Seeds {seeds} gave the same predictions and count as one");
        format!("{told} ({}).", places.join("; "))
    };
    groups.into_iter().map(told).collect()
}

/// Below this a p is commonly called small.
const SMALL: f64 = 0.05;

/// What the lines of comparisons are, and how many of them say something.
fn comparisons(table: &TableDocument, compare: &Compare, intervals: bool) -> Vec<String> {
    let on_correct = table.columns.iter().any(|column| column.metric == Metric::AccuracyOnCorrect);
    let both = if on_correct {
        "; of accuracy on correct, on those that both models classify correctly untransformed"
    } else {
        ""
    };
    let compared = || table.places().filter_map(|(.., cell)| cell.compared.as_ref());
    let families: Vec<usize> = compared().map(|found| found.family).filter(|size| *size > 0).collect();
    let label = comparison_label(&compare.to);
    let of_seeds = !table.over.is_empty();
    let (what, interval, test) = if of_seeds {
        let what = format!("the mean over seeds of the difference to {} of the same seed", compare.to);
        (what, "Student's t", "paired t-test over seeds")
    } else {
        (format!("the difference to {}", compare.to), "Agresti and Min", "exact McNemar test")
    };
    let interval =
        if intervals { format!(" [95 % interval of {interval}, of each comparison alone]") } else { String::new() };
    let mut notes = vec![format!(
        "{label}: {what} on the same images, in percentage points{interval}, p of the {test}, and that p after Holm's \
         correction{both}.",
    )];
    if of_seeds {
        notes.push(
            "The test takes seeds as drawn and images as given: few seeds find large differences only.".to_owned(),
        );
    }
    if let Some((least, most)) = families.iter().min().zip(families.iter().max()) {
        let sizes = match (*least, *most) {
            (1, 1) => "1 comparison".to_owned(),
            (least, most) if least == most => format!("{most} comparisons"),
            (least, most) => format!("{least} to {most} comparisons"),
        };
        let of = match compare.family {
            Family::Table => "of this table",
            Family::Column => "of its column",
            Family::Row => "of its row",
        };
        let small = |p: fn(&Comparison) -> Option<f64>| compared().filter_map(p).filter(|p| *p < SMALL).count();
        let all = families.len();
        let (before, after) = (small(|found| found.p), small(|found| found.p_holm));
        notes.push(format!(
            "Holm's correction is for the {sizes} {of}. p < {SMALL} before it: {before} of {all}; after it: \
             {after} of {all}."
        ));
    }
    if compared().any(|found| found.fixed) {
        notes.push(
            "A difference without interval and p is 0 by definition: the two have the same predictions, or the column \
             is that of the untransformed images themselves."
                .to_owned(),
        );
    }
    notes
}

/// For each sort of number in the table what it is and how many images stand behind it.
fn kinds_of_numbers(table: &TableDocument, intervals: bool) -> Vec<String> {
    let mut sorts: Vec<(Metric, Option<u32>)> =
        table.columns.iter().map(|column| (column.metric, column.batch_mean)).collect();
    sorts.sort_unstable();
    sorts.dedup();
    let counts_of = |sort: (Metric, Option<u32>)| -> Vec<u64> {
        let in_row = |row: &Vec<Option<Cell>>| -> Vec<u64> {
            let cells = row.iter().zip(&table.columns).filter(|(_, column)| (column.metric, column.batch_mean) == sort);
            let made = cells.filter_map(|(cell, _)| cell.as_ref());
            made.filter(|cell| cell.number != Number::default()).map(|cell| cell.number.n).collect()
        };
        table.cells.iter().flat_map(in_row).collect()
    };
    let told = |sort: (Metric, Option<u32>)| {
        let counts = counts_of(sort);
        let (&least, &most) = (counts.iter().min()?, counts.iter().max()?);
        let n = if least == most { thousands(least) } else { format!("{} to {}", thousands(least), thousands(most)) };
        let name = sort.0.title();
        let name = name[..1].to_uppercase() + &name[1..];
        let unit = match sort.0 {
            metric if metric.is_share() => " in percent".to_owned(),
            metric if metric.is_of_maps() => String::new(),
            metric => format!(" in {}", metric.unit()),
        };
        let what = match (table.over.len(), sort) {
            (0, (_, Some(batch))) => format!(", unweighted mean of the ratios of batches of {batch},"),
            (0, (Metric::Loss | Metric::ProbabilityOfTrueClass, _)) => ", mean [95 % interval of the mean],".to_owned(),
            (0, (metric, _)) if metric.is_of_maps() => ", mean [95 % interval of the mean],".to_owned(),
            (0, (Metric::MedianEps, _)) => " [95 % interval of the median],".to_owned(),
            (0, _) => " [95 % Wilson interval],".to_owned(),
            (seeds, (_, batch)) => {
                let batches = batch.map_or(String::new(), |batch| format!(" of batches of {batch}"));
                let most = if has_all_seeds(table, sort) { "" } else { "up to " };
                format!(
                    ", mean{batches} ± standard deviation over {most}{seeds} seeds [95 % interval of the mean by Student's t],"
                )
            }
        };
        let what = match what.split_once(" [").filter(|_| !intervals) {
            Some((before, _)) => format!("{before},"),
            None => what,
        };
        Some(format!("{name}{unit}{what} n = {n} {}.", images(sort.0)))
    };
    sorts.into_iter().filter_map(told).collect()
}

/// Whether every number of a sort is the mean of all seeds of the table.
fn has_all_seeds(table: &TableDocument, sort: (Metric, Option<u32>)) -> bool {
    let of_sort = |row: &'_ Vec<Option<Cell>>| {
        let cells = row.iter().zip(&table.columns).filter(|(_, column)| (column.metric, column.batch_mean) == sort);
        let counts = cells.filter_map(|(cell, _)| cell.as_ref()?.spread.as_ref().map(|spread| spread.values.len()));
        counts.collect::<Vec<usize>>()
    };
    table.cells.iter().flat_map(of_sort).all(|seeds| seeds == table.over.len())
}

/// The images that count.
const fn images(metric: Metric) -> &'static str {
    match metric {
        Metric::AccuracyOnCorrect => "images that the same model classifies correctly untransformed",
        Metric::ShapeBias => "images decided for the class of their shape or of their texture",
        Metric::ShapeBiasCoverage
        | Metric::ShapeShare
        | Metric::TextureShare
        | Metric::ShapeReciprocalRank
        | Metric::TextureReciprocalRank => "images whose shape and texture differ",
        _ => "images",
    }
}

/// `12,345`
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_is_neither_all_nor_nothing_is_not_rounded_to_it() {
        let shares = [1.0, 0.9996, 0.99996, 0.9994, 0.0, 0.0004, 0.00001, 0.5];
        let expected = ["100.0", "99.96", "99.996", "99.9", "0.0", "0.04", "0.001", "50.0"];
        assert_eq!(shares.map(|share| shown(Metric::Accuracy, share)), expected);
        assert_eq!(
            [0.0, 0.0004, 1.0, 100.0].map(|loss| shown(Metric::Loss, loss)),
            ["0.000", "0.0004", "1.000", "100.000"]
        );
        let radii = [8.0 / 255.0, 1.5, 0.0].map(|eps| shown(Metric::MedianEps, eps));
        assert_eq!(radii, ["8/255", "1.500", "0.000"]);
        assert_eq!(shown(Metric::Accuracy, 1.0 - 1e-12), "100.000000", "of fewer images than there can be");
    }

    #[test]
    fn differences_have_their_sign() {
        assert_eq!([0.04, -0.04, 1.25, -12.0].map(|value| signed(value, 1)), ["0.0", "0.0", "+1.2", "−12.0"]);
    }
}
