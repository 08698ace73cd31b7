//! Every result of a pipeline as rows of five tables, for pandas, polars and R: `metrics`, `images`, `epochs`,
//! `saliency` and `stages`. `docs/data.md` describes their columns.
//!
//! Rows come from the graph, the manifests and the blobs alone, in the order of the graph. So the same results give the
//! same bytes. Predictions are read one stage at a time, and rows leave memory in groups.

mod cell;
mod coordinates;
mod csv;
mod epochs;
mod frame;
mod images;
mod metrics;
mod parquet;
mod predicted;
mod saliency;
mod stages;
mod subject;
mod tables;

use std::path::{Path, PathBuf};

use crate::cache::{Cache, Manifest};
use crate::fsio::{self, FileError};
use crate::graph::Graph;
use crate::plan::{CacheStatus, CacheStatuses};
use crate::spec::{InstanceId, Overrides, PipelineSpec};

pub use self::subject::Subject;

use self::predicted::Reader;
use self::tables::Tables;

/// A format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TidyFormat {
    /// Apache Parquet, with the type of every column.
    Parquet,
    /// CSV, UTF-8, after RFC 4180 with line feeds.
    Csv,
}

impl TidyFormat {
    /// Every format.
    pub const ALL: [TidyFormat; 2] = [TidyFormat::Parquet, TidyFormat::Csv];

    /// The ending of a file's name.
    pub const fn ending(self) -> &'static str {
        match self {
            TidyFormat::Parquet => "parquet",
            TidyFormat::Csv => "csv",
        }
    }
}

/// Names of the tables, which are the names of their files.
pub const TABLES: [&str; 5] = ["metrics", "images", "epochs", "saliency", "stages"];

/// Why rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A Parquet file cannot be written.
    #[error("cannot write {}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: ::parquet::errors::ParquetError,
    },
}

/// A pipeline, and how its instances stand.
#[derive(Debug, Clone, Copy)]
pub struct TidySource<'a> {
    /// The pipeline, which tells how a number is written.
    pub spec: &'a PipelineSpec,
    /// What the command line changed in it.
    pub overrides: &'a Overrides,
    /// Its instances.
    pub graph: &'a Graph,
    /// The cache with their results.
    pub cache: &'a Cache,
    /// Status of each instance in the cache; instances without one are left out.
    pub status_of: &'a CacheStatuses,
}

/// What was written, and what was not.
#[derive(Debug, Default)]
pub struct Exported {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Instances without a fresh result. They have a row in `stages` alone.
    pub unmade: Vec<String>,
    /// Instances whose result is known, while its file is not in the cache.
    pub gone: Vec<String>,
    /// Instances whose file cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Writes the tables into a folder. They replace the ones there once all of them are complete.
///
/// # Errors
/// [`TidyError`]; the files of before are untouched then.
pub fn export(source: TidySource<'_>, folder: &Path, formats: &[TidyFormat]) -> Result<Exported, TidyError> {
    fsio::create_dir(folder)?;
    let mut tables = Tables::create(source, folder, formats)?;
    let mut exported = Exported::default();
    let mut reader = Reader::new(source.cache);
    for (id, status) in source.status_of.iter() {
        let Some(status) = status else { continue };
        tables.stage(id, status)?;
        let name = &source.graph.instance(id).name;
        match status {
            CacheStatus::Fresh(_, manifest) => {
                add_result(&mut tables, &mut reader, (id, name), manifest, &mut exported)?
            }
            _ => exported.unmade.push(name.clone()),
        }
    }
    for file in tables.finish()? {
        exported.files.push(file.publish()?);
    }
    Ok(exported)
}

/// Adds the rows of a result. A file that is not there, or that is damaged, costs its own rows only.
fn add_result(
    tables: &mut Tables<'_>,
    reader: &mut Reader<'_>,
    (id, name): (InstanceId, &str),
    manifest: &Manifest,
    exported: &mut Exported,
) -> Result<(), TidyError> {
    for output in tables.outputs_with_rows(id) {
        match manifest.outputs.get(&output.name).filter(|blob| reader.has(**blob)) {
            Some(blob) => {
                let unreadable = tables.rows((id, &output), manifest, *blob, reader)?;
                exported.unreadable.extend(unreadable.map(|reason| (name.to_owned(), reason)));
            }
            None if exported.gone.last().is_none_or(|gone| gone != name) => exported.gone.push(name.to_owned()),
            None => {}
        }
    }
    Ok(())
}
