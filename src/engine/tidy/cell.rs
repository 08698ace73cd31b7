//! Columns with their types, and the values in them.

use std::sync::Arc;

/// What a column holds. Every value may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Text,
    /// A whole number of 64 bits, with a sign.
    Integer,
    /// A seed: a whole number of 64 bits, without a sign.
    Seed,
    /// A float of 64 bits.
    Real,
    /// A float of 32 bits.
    Single,
    /// True or false.
    Flag,
    /// A moment in UTC.
    Moment,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) holds: ColumnType,
}

impl Column {
    pub(super) fn new(name: impl Into<String>, holds: ColumnType) -> Self {
        Column { name: name.into(), holds }
    }
}

/// A value. Rows of one stage share their texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Cell {
    #[default]
    Missing,
    Text(Arc<str>),
    Integer(i64),
    Seed(u64),
    Real(f64),
    Single(f32),
    Flag(bool),
    /// Microseconds since 1970, and the same as RFC 3339 has it.
    Moment(i64, Arc<str>),
}

impl Cell {
    /// Returns a moment that RFC 3339 describes; missing if it does not.
    pub(super) fn moment(text: &str) -> Self {
        text.parse::<jiff::Timestamp>().map_or(Cell::Missing, |at| Cell::Moment(at.as_microsecond(), text.into()))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text.into())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Cell::from(number as u64)
    }
}

impl From<u64> for Cell {
    /// A count that is too large for the type would be a bug elsewhere, and is missing rather than wrong.
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Cell::Missing, Cell::Integer)
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        Cell::Integer(number.into())
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Cell::Integer(number.into())
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Cell::Real(number)
    }
}

impl From<f32> for Cell {
    fn from(number: f32) -> Self {
        Cell::Single(number)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Cell::Flag(flag)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Missing, Into::into)
    }
}
