//! Loads a pipeline from a file or a text and reports all its errors at once.

use std::path::Path;

use super::expand;
use super::include::{self, Read};
use super::pipeline::PipelineSpec;
use super::problem::Problems;
use super::settings::Overrides;
use super::source::SourceFile;

impl PipelineSpec {
    /// Reads a pipeline file and its includes.
    ///
    /// # Errors
    /// Returns every [`Problem`](super::Problem) found without expansion. If there is one, it also returns those found
    /// by expanding the rest.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Problems> {
        check(include::read(path)?, overrides)
    }

    /// Reads a pipeline from a text; its includes are still read from files next to `name`.
    ///
    /// # Errors
    /// As [`PipelineSpec::read`].
    pub fn from_text(name: &str, text: &str, overrides: &Overrides) -> Result<Self, Problems> {
        check(include::read_text(SourceFile::new(name, text))?, overrides)
    }
}

fn check(read: Read, overrides: &Overrides) -> Result<PipelineSpec, Problems> {
    let (spec, mut problems) = PipelineSpec::assemble(read, overrides)?;
    if problems.is_empty() {
        return Ok(spec);
    }
    // The rest can be checked independently.
    problems.extend(expand::problems(&spec));
    Err(Problems(expand::shown(&spec, problems)))
}
