//! L-BFGS without line search, like `torch.optim.LBFGS` with `line_search_fn=None`, which tch does not bind.
//!
//! See Nocedal and Wright 2006, algorithms 7.4 and 7.5, with a fixed step. Knows a vector and a function of it, nothing
//! about attacks.

use std::collections::VecDeque;

use tch::{TchError, Tensor};

use crate::error::StageError;

/// Number of pairs of changes in the history.
const HISTORY: usize = 100;
/// A pair whose product is not above this is skipped: it holds no curvature information.
const SMALLEST_CURVATURE: f64 = 1e-10;

/// A function to minimise: returns its value and gradient at a point, the gradient in the point's shape and kind.
pub type Objective<'a> = dyn FnMut(&Tensor) -> Result<(f64, Tensor), StageError> + 'a;

/// The optimiser with its history.
pub struct Lbfgs {
    /// Step length, relative to the direction found.
    pub lr: f64,
    /// Maximum iterations per call.
    pub max_iter: u32,
    /// A call ends when no gradient entry exceeds this in absolute value.
    pub tolerance_grad: f64,
    /// A call ends when the value, or every entry of the point, changes by less than this.
    pub tolerance_change: f64,
    memory: Option<Memory>,
}

/// Curvature information and the last step.
struct Memory {
    direction: Tensor,
    length: f64,
    gradient: Tensor,
    /// Scale of the initial inverse Hessian.
    scale: f64,
    pairs: VecDeque<Pair>,
}

/// One step and its changes.
struct Pair {
    gradient: Tensor,
    point: Tensor,
    /// 1 over their product.
    rho: f64,
}

impl Lbfgs {
    /// Creates an optimiser with an empty history.
    pub const fn new(lr: f64, max_iter: u32, tolerance_grad: f64, tolerance_change: f64) -> Self {
        Lbfgs { lr, max_iter, tolerance_grad, tolerance_change, memory: None }
    }

    /// Takes up to `max_iter` iterations from `point` (a vector); returns the final point.
    ///
    /// # Errors
    /// The function's errors, and [`StageError::Torch`].
    pub fn step(&mut self, mut point: Tensor, function: &mut Objective<'_>) -> Result<Tensor, StageError> {
        let (mut value, mut gradient) = function(&point)?;
        if largest(&gradient)? <= self.tolerance_grad {
            return Ok(point);
        }
        let most_questions = self.max_iter * 5 / 4;
        for iteration in 1..=self.max_iter {
            let (direction, length, pairs, scale) = match self.memory.take() {
                None => {
                    let total = gradient.f_abs()?.f_sum(gradient.kind())?.f_double_value(&[])?;
                    (gradient.f_neg()?, (1.0 / total).min(1.0) * self.lr, VecDeque::new(), 1.0)
                }
                Some(memory) => {
                    let (pairs, scale) = memory.updated(&gradient)?;
                    (downhill(&gradient, &pairs, scale)?, self.lr, pairs, scale)
                }
            };
            let before = value;
            let slope = dot(&gradient, &direction)?;
            self.memory = Some(Memory {
                direction: direction.shallow_clone(),
                length,
                gradient: gradient.shallow_clone(),
                scale,
                pairs,
            });
            if slope > -self.tolerance_change {
                break;
            }
            let change = direction.f_mul_scalar(length)?;
            point = point.f_add(&change)?;
            // After the last iteration the value is not needed.
            if iteration == self.max_iter {
                break;
            }
            (value, gradient) = function(&point)?;
            let is_flat = largest(&gradient)? <= self.tolerance_grad;
            let is_still = largest(&change)? <= self.tolerance_change || (value - before).abs() < self.tolerance_change;
            if iteration + 1 >= most_questions || is_flat || is_still {
                break;
            }
        }
        Ok(point)
    }
}

impl Memory {
    /// Returns the pairs including the last step, and the new scale.
    fn updated(mut self, gradient: &Tensor) -> Result<(VecDeque<Pair>, f64), TchError> {
        let change = gradient.f_sub(&self.gradient)?;
        let step = self.direction.f_mul_scalar(self.length)?;
        let curvature = dot(&change, &step)?;
        if curvature > SMALLEST_CURVATURE {
            if self.pairs.len() == HISTORY {
                self.pairs.pop_front();
            }
            self.scale = curvature / dot(&change, &change)?;
            self.pairs.push_back(Pair { gradient: change, point: step, rho: 1.0 / curvature });
        }
        Ok((self.pairs, self.scale))
    }
}

/// Computes the approximate inverse Hessian times the negative gradient, in two loops over the pairs.
fn downhill(gradient: &Tensor, pairs: &VecDeque<Pair>, scale: f64) -> Result<Tensor, TchError> {
    let mut direction = gradient.f_neg()?;
    let mut factors = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let factor = dot(&pair.point, &direction)? * pair.rho;
        direction = direction.f_sub(&pair.gradient.f_mul_scalar(factor)?)?;
        factors.push(factor);
    }
    direction = direction.f_mul_scalar(scale)?;
    for (pair, factor) in pairs.iter().zip(factors.into_iter().rev()) {
        let other = dot(&pair.gradient, &direction)? * pair.rho;
        direction = direction.f_add(&pair.point.f_mul_scalar(factor - other)?)?;
    }
    Ok(direction)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64, TchError> {
    a.f_dot(b)?.f_double_value(&[])
}

fn largest(vector: &Tensor) -> Result<f64, TchError> {
    vector.f_abs()?.f_max()?.f_double_value(&[])
}
