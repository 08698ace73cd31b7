//! The images of a batch that are still under attack. Misclassified images leave, so no step is wasted on them.
//!
//! Knows positions, no attack.

use tch::{Kind, TchError, Tensor};

use super::Batch;

/// The active images of a batch.
pub(super) struct ActiveSet {
    /// N × C × H × W.
    pub(super) images: Tensor,
    /// The true classes, I64, N.
    pub(super) labels: Tensor,
    /// Their positions in the batch, I64, N.
    pub(super) positions: Tensor,
    /// One point per image of the whole batch: where it left, or its final point.
    result: Tensor,
}

/// The images that stay, as indices into the previous active set.
pub(super) struct Remaining {
    pub(super) staying: Vec<i64>,
    index: Tensor,
}

impl Remaining {
    /// Keeps the rows of a tensor that belong to staying images; `dim` is the image dimension.
    pub(super) fn keep(&self, tensor: &mut Tensor, dim: i64) -> Result<(), TchError> {
        *tensor = tensor.f_index_select(dim, &self.index)?;
        Ok(())
    }
}

impl ActiveSet {
    /// Creates the set of the whole batch.
    pub(super) fn all(batch: &Batch<'_>) -> Result<Self, TchError> {
        let count = batch.labels.size()[0];
        Ok(ActiveSet {
            images: batch.images.shallow_clone(),
            labels: batch.labels.shallow_clone(),
            positions: Tensor::f_arange(count, (Kind::Int64, batch.images.device()))?,
            result: batch.images.f_detach_copy()?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.size()[0] == 0
    }

    /// Removes the flagged images, each at its point; returns `None` if no flag is set.
    pub(super) fn remove(&mut self, leaving: &Tensor, points: &Tensor) -> Result<Option<Remaining>, TchError> {
        let places = |flags: &Tensor| flags.f_nonzero()?.f_view(-1);
        let index = places(leaving)?;
        if index.size()[0] == 0 {
            return Ok(None);
        }
        let positions = self.positions.f_index_select(0, &index)?;
        let _ = self.result.f_index_copy_(0, &positions, &points.f_index_select(0, &index)?)?;
        let index = places(&leaving.f_logical_not()?)?;
        let staying = Vec::<i64>::try_from(index.f_to_device(tch::Device::Cpu)?)?;
        let remaining = Remaining { staying, index };
        for tensor in [&mut self.images, &mut self.labels, &mut self.positions] {
            remaining.keep(tensor, 0)?;
        }
        Ok(Some(remaining))
    }

    /// Finishes: the remaining images take these points. Returns a point for each image of the batch.
    pub(super) fn finish(mut self, points: &Tensor) -> Result<Tensor, TchError> {
        if !self.is_empty() {
            let _ = self.result.f_index_copy_(0, &self.positions, points)?;
        }
        Ok(self.result)
    }
}
