//! The `file` stage: one file that was fetched and checked, handed on as it is.

use std::fs;

use super::error::StageError;
use super::{Reporter, name, read_error};
use crate::digest::{Digest, ReadError};
use crate::protocol::Job;

/// Slot and output `file`.
pub(super) fn run(job: &Job, reporter: &dyn Reporter) -> Result<String, StageError> {
    let (slot, output) = ("file", "file");
    let input = job.inputs.iter().find(|input| input.slot == slot);
    let input = input.ok_or_else(|| StageError::NoInput { slot: slot.to_owned() })?;
    let to = job.outputs.get(output).ok_or_else(|| StageError::NoOutput { output: output.to_owned() })?;
    super::check_cancelled(reporter)?;
    // A copy and not a link: a link would make the author's own file a blob of the cache.
    let size = fs::copy(&input.path, to).map_err(|source| {
        if input.path.exists() {
            return StageError::Write { output: output.to_owned(), source };
        }
        read_error(input, ReadError::Io { path: input.path.display().to_string(), source })
    })?;
    let found = Digest::of_file(to).map_err(|source| StageError::Write { output: output.to_owned(), source })?;
    if found != input.digest {
        let path = input.path.display().to_string();
        return Err(read_error(input, ReadError::Corrupt { path, expected: input.digest, found }));
    }
    reporter.log(&format!("{}: {size} bytes", name(input)));
    Ok(format!("{size} bytes"))
}
