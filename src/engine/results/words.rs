//! What a table says in words: the text of its cells, its notes, and the signs of verdicts. The same for every rendering; markup is theirs.

use super::{Cell, Comparison, Number, State, TableDocument, Verdict};
use crate::kinds::Metric;

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
pub(super) fn number(metric: Metric, cell: &Cell) -> String {
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
pub(super) fn interval(metric: Metric, number: &Number) -> Option<String> {
    number.value?;
    let (low, high) = number.low.zip(number.high)?;
    Some(format!("[{}, {}]", shown(metric, low), shown(metric, high)))
}

/// A share in percent with one decimal, a loss with three.
fn shown(metric: Metric, value: f64) -> String {
    if metric.is_share() { format!("{:.1}", value * 100.0) } else { format!("{value:.3}") }
}

/// The published number of a cell with its verdict and our difference from it: `≈ 86.27 (+0.4)`.
pub(super) fn published(cell: &Cell) -> String {
    let Some((beside, printed)) = cell.published.as_ref().and_then(|beside| Some((beside, beside.printed()?))) else {
        return ABSENT.to_owned();
    };
    let mark = if beside.anomaly.is_some() { ANOMALY } else { "" };
    // A loss is rounded as it was printed, shares to a tenth of a point unless they are the same.
    let decimals = beside.decimals.min(2);
    let difference = beside.difference.map_or(String::new(), |points| format!(" ({})", signed(points, decimals)));
    format!("{} {printed}{mark}{difference}", sign(beside.verdict)).trim_start().to_owned()
}

/// A difference of two models: `+2.1 [1.0, 3.2], p = 0.012`.
pub(super) fn compared(compared: &Comparison) -> String {
    let Some(difference) = compared.difference else { return ABSENT.to_owned() };
    let points = |share: f64| signed(share * 100.0, 1);
    let p = if compared.p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {:.3}", compared.p) };
    format!("{} [{}, {}], {p}", points(difference), points(compared.low), points(compared.high))
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

/// What the numbers are, of how many images, and what the signs mean; a paragraph each.
pub(super) fn notes(table: &TableDocument) -> Vec<String> {
    let mut notes: Vec<String> = kinds_of_numbers(table);
    if let Some(compare) = &table.compare {
        let on_correct = table.columns.iter().any(|column| column.metric == Metric::AccuracyOnCorrect);
        let both = if on_correct {
            "; of accuracy on correct, on those that both models classify correctly untransformed"
        } else {
            ""
        };
        notes.push(format!(
            "{}: the difference to {} on the same images, in percentage points [95 % interval of Agresti and Min], p of the exact McNemar test{both}.",
            comparison_label(&compare.to),
            compare.to,
        ));
    }
    if let Some(judgement) = &table.published {
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

/// For each sort of number in the table what it is and how many images stand behind it.
fn kinds_of_numbers(table: &TableDocument) -> Vec<String> {
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
        let unit = if sort.0.is_share() { "percent" } else { "nats" };
        let what = match (table.over.len(), sort) {
            (0, (_, Some(batch))) => format!(", unweighted mean of the ratios of batches of {batch},"),
            (0, (Metric::Loss | Metric::ProbabilityOfTrueClass, _)) => ", mean [95 % interval of the mean],".to_owned(),
            (0, _) => " [95 % Wilson interval],".to_owned(),
            (seeds, (_, batch)) => {
                let batches = batch.map_or(String::new(), |batch| format!(" of batches of {batch}"));
                format!(
                    ", mean{batches} ± standard deviation over up to {seeds} seeds [95 % interval of the mean by Student's t],"
                )
            }
        };
        Some(format!("{name} in {unit}{what} n = {n} {}.", images(sort.0)))
    };
    sorts.into_iter().filter_map(told).collect()
}

/// The images that count.
const fn images(metric: Metric) -> &'static str {
    match metric {
        Metric::AccuracyOnCorrect => "images that the same model classifies correctly untransformed",
        Metric::ShapeBias => "images decided for the class of their shape or of their texture",
        Metric::ShapeBiasCoverage | Metric::ShapeShare | Metric::TextureShare => {
            "images whose shape and texture differ"
        }
        Metric::Accuracy | Metric::ProbabilityOfTrueClass | Metric::Loss => "images",
    }
}

/// `12,345`
fn thousands(n: u64) -> String {
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
    fn differences_have_their_sign() {
        assert_eq!([0.04, -0.04, 1.25, -12.0].map(|value| signed(value, 1)), ["0.0", "0.0", "+1.2", "−12.0"]);
    }
}
