//! Times as the profile's shapes want them: milliseconds and a numeric offset, `2026-01-31T12:00:00.000+00:00`.

use jiff::{SignedDuration, Timestamp};

fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string()
}

/// Returns a time of a record, RFC 3339; nothing if it cannot be read.
pub(super) fn time(at: &str) -> Option<String> {
    at.parse().ok().map(written)
}

/// Returns the time so many seconds before one of a record.
pub(super) fn before(at: &str, seconds: f64) -> Option<String> {
    let end: Timestamp = at.parse().ok()?;
    let start = end.checked_sub(SignedDuration::from_millis((seconds * 1000.0).round() as i64)).ok()?;
    Some(written(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_an_offset() {
        assert_eq!(time("2026-11-28T12:38:52.272452671Z").unwrap(), "2026-11-28T12:38:52.272+00:00");
        assert_eq!(time("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00.000+00:00");
        assert_eq!(before("2026-01-31T12:00:00Z", 1.5).unwrap(), "2026-01-31T11:59:58.500+00:00");
        assert_eq!(before("2026-01-31T12:00:00Z", f64::INFINITY), None);
        assert_eq!(time("yesterday"), None);
    }
}
