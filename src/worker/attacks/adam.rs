//! Adam (Kingma and Ba 2015, algorithm 1), element-wise: an image's steps do not depend on the rest of the batch.

use tch::{TchError, Tensor};

use crate::arithmetic::square_root;

/// Decay rates of the gradient mean and of the mean square, as published.
const BETA: [f64; 2] = [0.9, 0.999];
/// Keeps the quotient of the two finite, as published (ε in the paper).
const STABILISER: f64 = 1e-8;

/// The optimiser of one variable.
pub struct Adam {
    length: f64,
    steps: i32,
    /// The means of the gradients and of their squares; `None` before the first step.
    means: Option<[Tensor; 2]>,
}

impl Adam {
    /// Creates an optimiser with steps of about this length.
    pub const fn new(length: f64) -> Self {
        Adam { length, steps: 0, means: None }
    }

    /// Returns the next point, given a point and its gradient.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn step(&mut self, point: &Tensor, gradient: &Tensor) -> Result<Tensor, TchError> {
        let [mean, square] = match self.means.take() {
            Some(means) => means,
            None => [gradient.f_zeros_like()?, gradient.f_zeros_like()?],
        };
        self.steps += 1;
        let mean = mean.f_mul_scalar(BETA[0])?.f_add(&gradient.f_mul_scalar(1.0 - BETA[0])?)?;
        let square = square.f_mul_scalar(BETA[1])?.f_add(&gradient.f_square()?.f_mul_scalar(1.0 - BETA[1])?)?;
        let unbiased = |mean: &Tensor, beta: f64| mean.f_div_scalar(1.0 - beta.powi(self.steps));
        let width = square_root(&unbiased(&square, BETA[1])?)?.f_add_scalar(STABILISER)?;
        let change = unbiased(&mean, BETA[0])?.f_div(&width)?.f_mul_scalar(self.length)?;
        self.means = Some([mean, square]);
        point.f_sub(&change)
    }
}
