//! A table that is being written: it collects rows, and writes them to its files group by group.

use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::cell::{Cell, Column};
use super::csv::CsvFile;
use super::parquet::ParquetFile;
use super::{TidyError, TidyFormat};
use crate::fsio::{self, Context};

/// Rows that are collected before they are written; a stage is never divided. Larger groups read faster, and take more
/// memory here.
const ROWS: usize = 1 << 16;

/// A table and its files.
pub(super) struct Frame {
    columns: Vec<Column>,
    /// Rows that are not written yet, one after the other.
    cells: Vec<Cell>,
    files: Vec<FrameFile>,
}

enum FrameFile {
    Csv(CsvFile),
    Parquet(Box<ParquetFile>),
}

/// A complete file without its name.
pub(super) struct Finished(NamedTempFile, PathBuf);

impl Frame {
    /// Begins the files of a table.
    pub(super) fn create(
        folder: &Path,
        name: &str,
        columns: Vec<Column>,
        formats: &[TidyFormat],
    ) -> Result<Self, TidyError> {
        let file = |format: &TidyFormat| {
            let path = folder.join(format!("{name}.{}", format.ending()));
            Ok(match format {
                TidyFormat::Csv => FrameFile::Csv(CsvFile::create(path, folder, &columns)?),
                TidyFormat::Parquet => FrameFile::Parquet(Box::new(ParquetFile::create(path, folder, &columns)?)),
            })
        };
        let files: Result<Vec<FrameFile>, TidyError> = formats.iter().map(file).collect();
        let files = files?;
        Ok(Frame { columns, cells: Vec::new(), files })
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.cells.extend(cells);
        debug_assert!(self.cells.len().is_multiple_of(self.columns.len()), "a row has a cell for each column");
    }

    /// Ends the rows of a stage.
    pub(super) fn end_stage(&mut self) -> Result<(), TidyError> {
        if self.cells.len() < ROWS * self.columns.len() { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), TidyError> {
        for file in &mut self.files {
            match file {
                FrameFile::Csv(csv) => csv.write(self.columns.len(), &self.cells)?,
                FrameFile::Parquet(parquet) => parquet.write(&self.columns, &self.cells)?,
            }
        }
        self.cells.clear();
        Ok(())
    }

    /// Writes what is left, and returns the files.
    pub(super) fn finish(mut self) -> Result<Vec<Finished>, TidyError> {
        if !self.cells.is_empty() {
            self.write()?;
        }
        let finish = |file: FrameFile| {
            let (file, path) = match file {
                FrameFile::Csv(csv) => csv.finish()?,
                FrameFile::Parquet(parquet) => parquet.finish()?,
            };
            file.as_file().sync_all().on("write", &path)?;
            Ok(Finished(file, path))
        };
        self.files.into_iter().map(finish).collect()
    }
}

impl Finished {
    /// Gives the file its name.
    pub(super) fn publish(self) -> Result<PathBuf, TidyError> {
        let Finished(file, path) = self;
        fsio::publish(file.into_temp_path(), &path)?;
        Ok(path)
    }
}
