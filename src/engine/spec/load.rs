//! From a file, or a text, to a pipeline: all that is wrong with it is reported at once.

use std::path::Path;

use super::expand;
use super::include::{self, Read};
use super::pipeline::PipelineSpec;
use super::problem::Problems;
use super::settings::Overrides;
use super::source::SourceFile;

impl PipelineSpec {
    /// Reads a pipeline file and those that it includes.
    ///
    /// # Errors
    /// Every [`Problem`](super::Problem) that can be reported without expanding the pipeline; if there is one, with
    /// every one that expanding the rest gives.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Problems> {
        check(include::read(path)?, overrides)
    }

    /// The same from a text; what it includes is still read from files beside `name`.
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
    // The rest is right or wrong by itself.
    problems.extend(expand::problems(&spec));
    Err(Problems(expand::shown(&spec, problems)))
}
