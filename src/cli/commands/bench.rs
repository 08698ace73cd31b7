//! `atflow doctor --bench`.

use std::path::Path;

use atflow::bench::{self, BenchError, BenchProgress};
use atflow::cache::{Cache, FileRates, MachineRates, PassRate};
use atflow::stage_kinds::{Pass, Precision};
use indicatif::{ProgressBar, ProgressStyle};

use super::worker_program;
use crate::report::CliError;
use crate::ui;

/// Measures this machine, shows how far it is, and keeps the rates in the cache.
pub(super) fn run(cache: &Path) -> Result<MachineRates, CliError> {
    let cache = Cache::open(cache)?;
    let bar = ProgressBar::new(0);
    // The template is a constant; one that is wrong shows as the default bar.
    let style = ProgressStyle::with_template("measuring {msg}  {bar:24.cyan/dim} {pos} of {len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut tell = |BenchProgress { done, total, what }: BenchProgress| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(what);
    };
    let rates = bench::bench(&worker_program(), &cache, &mut tell);
    bar.finish_and_clear();
    rates.map_err(|error| match error {
        BenchError::Cache(error) => error.into(),
        error => CliError::environment(error.to_string()).help("nothing was kept; run it again on a quieter machine"),
    })
}

/// Tells the rates: a line for each sort of pass, with a column for each network, and one for files.
pub(super) fn words(rates: &MachineRates) -> String {
    let mut networks: Vec<&PassRate> = Vec::new();
    for rate in &rates.passes {
        if !networks.iter().any(|known| known.network == rate.network) {
            networks.push(rate);
        }
    }
    let mut rows: Vec<Vec<String>> = vec![
        ["images a second".to_owned()].into_iter().chain(networks.iter().map(|rate| rate.network.clone())).collect(),
        ["10⁶ multiply-adds each".to_owned()]
            .into_iter()
            .chain(networks.iter().map(|rate| three_digits(rate.multiply_adds / 1e6)))
            .collect(),
    ];
    for rate in &rates.passes {
        let title = title(rate);
        if rows.iter().any(|row| row[0] == title) {
            continue;
        }
        let of = |network: &&PassRate| {
            let is_it = |other: &&PassRate| other.network == network.network && self::title(other) == title;
            rates.passes.iter().find(is_it).map(|rate| three_digits(rate.images_per_second)).unwrap_or_default()
        };
        rows.push([title.clone()].into_iter().chain(networks.iter().map(of)).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=networks.len()).map(width).collect();
    let mut text = format!("\n{}, libtorch {}, {}\n", rates.device_name, rates.libtorch, rates.numerics);
    for row in &rows {
        let mut cells = row.iter().zip(&widths);
        let title = cells.next().map(|(cell, width)| format!("{cell:width$}")).unwrap_or_default();
        let rest: String = cells.map(|(cell, width)| format!("  {cell:>width$}")).collect();
        text.push_str(&format!("{title}{rest}\n"));
    }
    let FileRates { write, sync, read, hash } = rates.files;
    let each = |rate: f64| ui::bytes(rate as u64);
    text.push_str(&format!(
        "files: write {}/s, read {}/s, hash {}/s, sync {} each\n",
        each(write),
        each(read),
        each(hash),
        ui::duration(sync)
    ));
    text
}

/// What a rate is of, for people.
fn title(rate: &PassRate) -> String {
    let pass = match rate.pass {
        Pass::Update => "training",
        Pass::Gradient => "attack, each step",
        Pass::Forward => "evaluation",
    };
    let bits = if rate.precision == Precision::Fp32 { "" } else { ", 16 bits" };
    let threads = if rate.threads > 1 { format!(", {} threads", rate.threads) } else { String::new() };
    format!("{pass}{bits}{threads}")
}

/// A number with three digits, or all of its whole part: `0.123`, `12.3`, `12345`.
fn three_digits(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
