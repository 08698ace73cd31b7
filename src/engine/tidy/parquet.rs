//! Rows as Apache Parquet (<https://parquet.apache.org/docs/file-format/>), through the column writers of the crate
//! `parquet`. Texts that repeat stand once in a dictionary, so no compression is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::types::Type;
use tempfile::NamedTempFile;

use super::TidyError;
use super::cell::{Cell, Column, ColumnType};
use crate::fsio;

/// A Parquet file that is being written.
pub(super) struct ParquetFile {
    path: PathBuf,
    writer: SerializedFileWriter<NamedTempFile>,
}

impl ParquetFile {
    pub(super) fn create(path: PathBuf, folder: &Path, columns: &[Column]) -> Result<Self, TidyError> {
        let file = fsio::scratch_file(folder)?;
        let failed = |source| TidyError::Parquet { path: path.clone(), source };
        let schema = schema(columns).map_err(failed)?;
        let properties = Arc::new(WriterProperties::builder().build());
        let writer = SerializedFileWriter::new(file, Arc::new(schema), properties).map_err(failed)?;
        Ok(ParquetFile { path, writer })
    }

    /// Writes rows as one group; `cells` has them one after the other.
    pub(super) fn write(&mut self, columns: &[Column], cells: &[Cell]) -> Result<(), TidyError> {
        self.write_group(columns, cells).map_err(|source| TidyError::Parquet { path: self.path.clone(), source })
    }

    fn write_group(&mut self, columns: &[Column], cells: &[Cell]) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for (at, column) in columns.iter().enumerate() {
            let Some(mut writer) = group.next_column()? else { break };
            write_column(column.holds, &mut writer, cells.iter().skip(at).step_by(columns.len()))?;
            writer.close()?;
        }
        group.close().map(drop)
    }

    /// Returns the complete file and its path to be.
    pub(super) fn finish(self) -> Result<(NamedTempFile, PathBuf), TidyError> {
        let path = self.path;
        match self.writer.into_inner() {
            Ok(file) => Ok((file, path)),
            Err(source) => Err(TidyError::Parquet { path, source }),
        }
    }
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let fields: Result<Vec<_>, _> = columns.iter().map(|column| field(column).map(Arc::new)).collect();
    Type::group_type_builder("schema").with_fields(fields?).build()
}

fn field(column: &Column) -> Result<Type, ParquetError> {
    let (physical, logical) = match column.holds {
        ColumnType::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnType::Integer => (Physical::INT64, None),
        ColumnType::Seed => (Physical::INT64, Some(LogicalType::integer(64, false))),
        ColumnType::Real => (Physical::DOUBLE, None),
        ColumnType::Single => (Physical::FLOAT, None),
        ColumnType::Flag => (Physical::BOOLEAN, None),
        ColumnType::Moment => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
    };
    Type::primitive_type_builder(&column.name, physical)
        .with_logical_type(logical)
        .with_repetition(Repetition::OPTIONAL)
        .build()
}

fn write_column<'c>(
    holds: ColumnType,
    writer: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = &'c Cell>,
) -> Result<(), ParquetError> {
    match holds {
        ColumnType::Text => write_values::<ByteArrayType>(writer, cells, texts()),
        ColumnType::Integer | ColumnType::Seed | ColumnType::Moment => {
            write_values::<Int64Type>(writer, cells, |cell| match cell {
                Cell::Integer(number) | Cell::Moment(number, _) => Some(*number),
                Cell::Seed(seed) => Some(seed.cast_signed()),
                _ => None,
            })
        }
        ColumnType::Real => write_values::<DoubleType>(writer, cells, |cell| match cell {
            Cell::Real(number) => Some(*number),
            _ => None,
        }),
        ColumnType::Single => write_values::<FloatType>(writer, cells, |cell| match cell {
            Cell::Single(number) => Some(*number),
            _ => None,
        }),
        ColumnType::Flag => write_values::<BoolType>(writer, cells, |cell| match cell {
            Cell::Flag(flag) => Some(*flag),
            _ => None,
        }),
    }
}

/// Reads texts. Neighbours that are the same text share their bytes.
fn texts() -> impl FnMut(&Cell) -> Option<ByteArray> {
    let mut last: Option<(Arc<str>, ByteArray)> = None;
    move |cell| {
        let Cell::Text(text) = cell else { return None };
        match &last {
            Some((known, bytes)) if Arc::ptr_eq(known, text) => Some(bytes.clone()),
            _ => {
                let bytes = ByteArray::from(text.as_bytes().to_vec());
                last = Some((text.clone(), bytes.clone()));
                Some(bytes)
            }
        }
    }
}

/// Writes the values that are there, and for each row whether it has one.
fn write_values<'c, T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = &'c Cell>,
    mut value: impl FnMut(&Cell) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        let found = value(cell);
        levels.push(i16::from(found.is_some()));
        values.extend(found);
    }
    writer.typed::<T>().write_batch(&values, Some(&levels), None).map(drop)
}
