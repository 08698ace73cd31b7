//! What every command shares in speaking: numbers for people, and standard output that may be a closed pipe.

use std::io::Write;

use atflow::plain::plain;

use crate::report::{CliError, Exit};

/// Prints words for people to standard output. What others wrote into them, such as names and titles, does nothing to a
/// terminal. A reader that has gone away (`| head`) ends the program in peace.
///
/// # Errors
/// [`CliError`] if it cannot be written for another reason.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    write(&plain(text))
}

/// Prints what programs may read: as it is into a pipe or a file, as [`print`] does to a terminal.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_data(text: &str) -> Result<(), CliError> {
    if console::user_attended() { print(text) } else { write(text) }
}

/// Prints all that a file holds, as it is.
///
/// # Errors
/// As [`print`]; one that reads the file is told, too.
pub(crate) fn copy(mut from: impl std::io::Read) -> Result<(), CliError> {
    written(std::io::copy(&mut from, &mut std::io::stdout().lock()).map(drop))
}

/// Prints a result as JSON, or as words for people.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_either(is_json: bool, text: &str) -> Result<(), CliError> {
    if is_json { print_data(text) } else { print(text) }
}

fn write(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn written(how: std::io::Result<()>) -> Result<(), CliError> {
    match how {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(Exit::Done as i32),
        Err(error) => Err(CliError::environment(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.0005 => "0 s".to_owned(),
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 59.5 => format!("{s:.0} s"),
        s => {
            let s = s.round() as u64;
            if s < 3600 {
                format!("{} min {} s", s / 60, s % 60)
            } else {
                format!("{} h {} min", s / 3600, s % 3600 / 60)
            }
        }
    }
}

/// A moment for people, of one as manifests have it: `2026-07-01 12:00:00 UTC`.
pub(crate) fn moment(at: &str) -> String {
    // Fractions of a second are for machines.
    let whole = at.split_once('.').map_or(at, |(whole, _)| whole);
    format!("{} UTC", whole.trim_end_matches('Z').replace('T', " "))
}

/// A size for people.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count with its noun: `1 stage`, `3 stages`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Names in a row: beyond a few they are counted.
pub(crate) fn some(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let rest = names.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    format!("{}{more}", names[..names.len() - rest].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        let durations = [0.0, 0.004, 0.2, 9.96, 59.4, 59.6, 3725.0].map(duration);
        assert_eq!(durations, ["0 s", "4 ms", "0.2 s", "10 s", "59 s", "1 min 0 s", "1 h 2 min"]);
        assert_eq!(
            [0, 999, 1000, 999_600, 8_500_000].map(bytes),
            ["0 bytes", "999 bytes", "1.0 kB", "1.0 MB", "8.5 MB"]
        );
    }
}
