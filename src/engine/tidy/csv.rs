//! Rows as CSV: a missing value is an empty field, and numbers have as many digits as tell them from their neighbours.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::cell::{Cell, Column};
use crate::fsio::{self, Context, FileError};
use crate::results::csv_line;

/// A CSV file that is being written.
pub(super) struct CsvFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl CsvFile {
    pub(super) fn create(path: PathBuf, folder: &Path, columns: &[Column]) -> Result<Self, FileError> {
        let mut csv = CsvFile { path, file: BufWriter::new(fsio::scratch_file(folder)?) };
        csv.line(columns.iter().map(|column| Cow::Borrowed(column.name.as_str())))?;
        Ok(csv)
    }

    /// Writes rows of `width` cells each.
    pub(super) fn write(&mut self, width: usize, cells: &[Cell]) -> Result<(), FileError> {
        cells.chunks_exact(width).try_for_each(|row| self.line(row.iter().map(field)))
    }

    fn line<'c>(&mut self, fields: impl Iterator<Item = Cow<'c, str>>) -> Result<(), FileError> {
        let fields: Vec<Cow<'c, str>> = fields.collect();
        let text = csv_line(fields.iter().map(|field| &**field));
        self.file.write_all(text.as_bytes()).on("write", &self.path)
    }

    /// Returns the complete file and its path to be.
    pub(super) fn finish(self) -> Result<(NamedTempFile, PathBuf), FileError> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error).on("write", &self.path)?;
        Ok((file, self.path))
    }
}

fn field(cell: &Cell) -> Cow<'_, str> {
    match cell {
        Cell::Missing => Cow::Borrowed(""),
        Cell::Text(text) | Cell::Moment(_, text) => Cow::Borrowed(text),
        Cell::Integer(number) => Cow::Owned(number.to_string()),
        Cell::Seed(number) => Cow::Owned(number.to_string()),
        Cell::Real(number) => Cow::Owned(number.to_string()),
        Cell::Single(number) => Cow::Owned(number.to_string()),
        Cell::Flag(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
    }
}
