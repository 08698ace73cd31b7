//! The losses that attacks maximise: one number for each image, from logits and true classes.

use atflow::stage_kinds::AttackLoss;
use tch::{Kind, Reduction, TchError, Tensor};

/// A loss: logits (N × classes) and true classes (I64, N) to N values.
pub(super) type LossFn = fn(&Tensor, &Tensor) -> Result<Tensor, TchError>;

/// Keeps the difference of logits ratio finite: added to the spread of the logits that it divides by.
const SMALLEST_SPREAD: f64 = 1e-12;

/// Returns the loss of this name.
pub(super) fn loss(of: AttackLoss) -> LossFn {
    match of {
        AttackLoss::Ce => cross_entropy,
        AttackLoss::Margin => other_minus_true,
        AttackLoss::Dlr => dlr,
        AttackLoss::ProbabilityMargin => probability_margin,
    }
}

/// Computes the cross-entropy of the true classes, N.
pub(super) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::None, -100, 0.0)
}

/// Computes the margin z_y − max of the others, N: below 0 for misclassified images.
pub(super) fn margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let labels = labels.f_unsqueeze(1)?;
    let truth = logits.f_gather(1, &labels, false)?.f_squeeze_dim(1)?;
    let others = logits.f_scatter_value(1, &labels, f64::NEG_INFINITY)?;
    truth.f_sub(&others.f_amax([1i64].as_slice(), false)?)
}

/// Computes the lead z_t − z_y of target classes (I64, N) over the true ones, N.
pub(super) fn lead(logits: &Tensor, labels: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let of = |class: &Tensor| logits.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_squeeze_dim(1);
    of(target)?.f_sub(&of(labels)?)
}

/// Computes max of the others − z_y (Carlini and Wagner 2017, f6 without its hinge).
fn other_minus_true(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    margin(logits, labels)?.f_neg()
}

/// Computes max of the others − p_y of the probabilities (Xie et al. 2024, arXiv 2411.15210).
pub(super) fn probability_margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    other_minus_true(&logits.f_softmax(1, Kind::Float)?, labels)
}

/// Computes the difference of logits ratio (Croce and Hein 2020, equation 6): −(z_y − max of the others) / (z_π1 −
/// z_π3).
///
/// z_π is sorted in descending order.
pub(super) fn dlr(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let classes = logits.size().get(1).copied().unwrap_or_default();
    if classes < 3 {
        return Err(TchError::Torch(format!("the loss `dlr` compares three classes, and the network has {classes}")));
    }
    let (sorted, order) = logits.f_sort(1, true)?;
    let rank = |rank: i64| sorted.f_select(1, rank);
    let truth = logits.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
    let is_right = order.f_select(1, 0)?.f_eq_tensor(labels)?;
    let other = rank(1)?.f_where_self(&is_right, &rank(0)?)?;
    truth.f_sub(&other)?.f_neg()?.f_div(&rank(0)?.f_sub(&rank(2)?)?.f_add_scalar(SMALLEST_SPREAD)?)
}

/// Computes the targeted difference of logits ratio (equation 7): −(z_y − z_t) / (z_π1 − (z_π3 + z_π4) / 2).
pub(super) fn dlr_targeted(logits: &Tensor, labels: &Tensor, target: &Tensor) -> Result<Tensor, TchError> {
    let (sorted, _) = logits.f_sort(1, true)?;
    let rank = |rank: i64| sorted.f_select(1, rank);
    let of = |class: &Tensor| logits.f_gather(1, &class.f_unsqueeze(1)?, false)?.f_squeeze_dim(1);
    let spread = rank(0)?.f_sub(&rank(2)?.f_add(&rank(3)?)?.f_mul_scalar(0.5)?)?.f_add_scalar(SMALLEST_SPREAD)?;
    of(labels)?.f_sub(&of(target)?)?.f_neg()?.f_div(&spread)
}
