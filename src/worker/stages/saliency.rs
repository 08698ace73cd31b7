//! Saliency maps (being built).

use crate::context::Context;
use crate::error::StageError;

/// Runs a `saliency` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    Err(StageError::NotForWorkers(context.job.kind))
}
