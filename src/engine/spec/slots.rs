//! Slots that no kind declares: the files of published numbers.

/// Slots of the files, as named in the record.
pub(super) const NUMBERS: &str = "published";
pub(super) const ANOMALIES: &str = "anomalies";
