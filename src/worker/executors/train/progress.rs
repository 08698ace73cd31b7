//! Saves the progress of a training after each epoch, and resumes a training from it.

use atflow::formats::EpochMetrics;
use atflow::stage_kinds::TrainParams;

use super::metrics::describe;
use super::training::Training;
use crate::context::Context;
use crate::error::StageError;
use crate::training_state::TrainingCheckpoints;

/// Saves and restores the progress of one training.
pub(super) struct ProgressKeeper {
    checkpoints: TrainingCheckpoints,
    /// Whether the user knows that progress could not be saved.
    has_warned: bool,
}

impl ProgressKeeper {
    pub(super) fn new(context: &Context<'_>, params: &TrainParams) -> Self {
        ProgressKeeper { checkpoints: TrainingCheckpoints::new(context, params), has_warned: false }
    }

    /// Restores the furthest usable progress of earlier jobs; returns the metrics of its epochs, or none.
    ///
    /// # Errors
    /// [`StageError::Torch`].
    pub(super) fn resume(
        &self,
        context: &mut Context<'_>,
        training: &mut Training,
    ) -> Result<Vec<EpochMetrics>, StageError> {
        let log = |line| context.reporter.log(line);
        let Some(progress) = self.checkpoints.find::<EpochMetrics>(training.params.epochs, &*training.network, log)
        else {
            return Ok(Vec::new());
        };
        progress.restore(&*training.network, &mut training.optimizer)?;
        training.restore(progress.more)?;
        context.earlier = progress.took;
        // The log of the interrupted job is lost with it.
        for epoch in &progress.epochs {
            context.reporter.log(describe(epoch, training.params.epochs));
        }
        context.reporter.log(format!("resumed after epoch {}", progress.epochs.len()));
        Ok(progress.epochs)
    }

    /// Saves the progress after the last of `epochs`. A training that cannot save its progress can still finish.
    pub(super) fn keep(
        &mut self,
        context: &mut Context<'_>,
        training: &Training,
        epochs: &[EpochMetrics],
        is_done: bool,
    ) {
        let took = context.earlier + context.started.elapsed();
        let (network, state) = (&*training.network, training.state());
        let kept = self.checkpoints.keep(epochs, took, is_done, network, &training.optimizer, &state);
        let Err(error) = kept else { return };
        let words = format!("the progress after epoch {} could not be kept: {}", epochs.len(), chain(&error));
        // Warn the user once; log every occurrence.
        match std::mem::replace(&mut self.has_warned, true) {
            false => context.reporter.warn(format!("{words}; if it is stopped now, it begins anew")),
            true => context.reporter.log(words),
        }
    }
}

/// Returns an error's text and those of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
