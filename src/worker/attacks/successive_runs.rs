//! Several runs on one batch, each on the images that withstood the previous ones.
//!
//! Knows the points found so far, not the attacks that find them.

use tch::{Device, TchError, Tensor};

use super::Batch;
use super::attacked_model::{AttackedModel, misclassified};
use super::losses::cross_entropy;
use crate::error::StageError;

/// The best point of each image so far: a misclassified one, else the one with the largest cross-entropy.
pub(super) struct SuccessiveRuns<'a> {
    batch: &'a Batch<'a>,
    points: Tensor,
    /// The cross-entropy at each point, N.
    losses: Tensor,
    /// Whether each point is misclassified, Bool, N.
    wrong: Tensor,
}

impl<'a> SuccessiveRuns<'a> {
    /// Starts from a point of each image and its logits ([`AttackedModel::verdicts`]). Later runs overwrite the tensor
    /// of points.
    pub(super) fn new(batch: &'a Batch<'a>, points: Tensor, logits: &Tensor) -> Result<Self, TchError> {
        let (losses, wrong) = (cross_entropy(logits, batch.labels)?, misclassified(logits, batch.labels)?);
        Ok(SuccessiveRuns { batch, points, losses, wrong })
    }

    /// Runs an attack on the images that are still classified correctly; returns whether there were any.
    ///
    /// `attack` maps a batch, and the positions of its images in the whole batch (I64, N), to one point per image. The
    /// point counts if it is misclassified or raises the loss.
    pub(super) fn run(
        &mut self,
        model: &mut AttackedModel<'_>,
        attack: impl FnOnce(&mut AttackedModel<'_>, &Batch<'_>, &Tensor) -> Result<Tensor, StageError>,
    ) -> Result<bool, StageError> {
        let right = self.wrong.f_logical_not()?.f_nonzero()?.f_view(-1)?.f_to_device(Device::Cpu)?;
        let right = Vec::<i64>::try_from(right)?;
        if right.is_empty() {
            return Ok(false);
        }
        let left = self.batch.select(&right)?;
        let found = attack(model, &left.batch(), &left.positions)?;
        let logits = model.verdicts(&found)?;
        let (loss, now_wrong) = (cross_entropy(&logits, &left.labels)?, misclassified(&logits, &left.labels)?);
        let before = self.losses.f_index_select(0, &left.positions)?;
        let better = loss.f_gt_tensor(&before)?.f_logical_or(&now_wrong)?;
        let kept = self.points.f_index_select(0, &left.positions)?;
        let points = found.f_where_self(&better.f_view([-1, 1, 1, 1])?, &kept)?;
        let _ = self.points.f_index_copy_(0, &left.positions, &points)?;
        let _ = self.losses.f_index_copy_(0, &left.positions, &loss.f_where_self(&better, &before)?)?;
        let _ = self.wrong.f_index_copy_(0, &left.positions, &now_wrong)?;
        Ok(true)
    }

    /// Returns the best point of each image.
    pub(super) fn into_points(self) -> Tensor {
        self.points
    }
}
