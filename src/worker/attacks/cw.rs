//! Carlini and Wagner's L2 attack (2017, section V.B and VI.A).
//!
//! Adam minimises the change that causes misclassification, in a variable that keeps images in [0, 1]. A binary search
//! finds each image's weight of the two objectives.

use atflow::stage_kinds::Cw;
use tch::{Kind, TchError, Tensor};

use super::adam::Adam;
use super::attacked_model::AttackedModel;
use super::losses::margin;
use super::{Adversary, Batch};
use crate::arithmetic::square_root;
use crate::error::StageError;

/// Keeps the variable of black and white finite.
const INSIDE: f64 = 0.999_999;
/// Growth factor of the weight until a misclassified point is found.
const GROWTH: f64 = 10.0;

impl Adversary for Cw {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        let count = batch.labels.size();
        let full = |value: f64| Tensor::f_full(&count[..], value, (Kind::Float, batch.images.device()));
        let start = to_variable(batch.images)?;
        let centre = to_image(&start)?;
        // If no point is found within ε, the result is the image itself.
        let mut best = Best { points: batch.images.f_detach_copy()?, norms: full(f64::INFINITY)? };
        let (mut weight, mut lower, mut upper) = (full(self.c.get())?, full(0.0)?, full(f64::INFINITY)?);
        for search in 0..self.search_steps {
            let mut optimizer = Adam::new(self.lr.get());
            let mut variable = start.shallow_clone();
            let mut succeeded = full(0.0)?.f_ne(0.0)?;
            for step in 0..self.steps {
                let query = model.query(&variable, |network, variable| {
                    let images = to_image(variable)?;
                    let logits = network.forward(&images)?;
                    let lead = margin(&logits, batch.labels)?.f_add_scalar(self.confidence.get())?.f_relu()?;
                    let change = squared_norm(&images.f_sub(&centre)?)?;
                    Ok((change.f_add(&lead.f_mul(&weight)?)?, logits))
                })?;
                if search == 0 && step == 0 {
                    model.count(&query.gradient, &query.logits, batch)?;
                }
                let points = to_image(&variable)?;
                let most = -self.confidence.get();
                let logits = model.settle(query.logits, &points, batch.labels, most)?;
                let is_found = margin(&logits, batch.labels)?.f_lt(most)?;
                succeeded = succeeded.f_logical_or(&is_found)?;
                best.take(&points, &square_root(&squared_norm(&points.f_sub(batch.images)?)?)?, &is_found)?;
                variable = optimizer.step(&variable, &query.gradient.f_nan_to_num(0.0, None, None)?)?;
            }
            upper = weight.f_where_self(&succeeded, &upper)?;
            lower = lower.f_where_self(&succeeded, &weight)?;
            let middle = lower.f_add(&upper)?.f_div_scalar(2.0)?;
            weight = weight.f_mul_scalar(GROWTH)?.f_where_self(&upper.f_isinf()?, &middle)?;
        }
        let counts = best.norms.f_le(self.eps.get())?.f_view([-1, 1, 1, 1])?;
        Ok(best.points.f_where_self(&counts, batch.images)?)
    }
}

/// The misclassified point with the smallest change so far, and the norm of that change.
struct Best {
    points: Tensor,
    norms: Tensor,
}

impl Best {
    fn take(&mut self, points: &Tensor, norms: &Tensor, is_found: &Tensor) -> Result<(), TchError> {
        let is_better = norms.f_lt_tensor(&self.norms)?.f_logical_and(is_found)?;
        self.points = points.f_where_self(&is_better.f_view([-1, 1, 1, 1])?, &self.points)?;
        self.norms = norms.f_where_self(&is_better, &self.norms)?;
        Ok(())
    }
}

fn squared_norm(change: &Tensor) -> Result<Tensor, TchError> {
    change.f_flatten(1, -1)?.f_square()?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
}

/// Maps any variable to an image in [0, 1]: (tanh w + 1) / 2.
fn to_image(variable: &Tensor) -> Result<Tensor, TchError> {
    variable.f_tanh()?.f_add_scalar(1.0)?.f_div_scalar(2.0)
}

/// Maps an image to its variable. Spells out artanh, because libraries compute it differently.
fn to_variable(images: &Tensor) -> Result<Tensor, TchError> {
    let x = images.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_mul_scalar(INSIDE)?;
    x.f_add_scalar(1.0)?.f_div(&x.f_neg()?.f_add_scalar(1.0)?)?.f_log()?.f_div_scalar(2.0)
}
