//! Stochastic gradient descent like PyTorch's, and learning-rate schedules.
//!
//! This code replaces the tch optimiser because momentum must be readable and weight decay must reach every parameter.

use atflow::stage_kinds::{Schedule, Sgd};
use tch::{Device, TchError, Tensor};

use crate::error::StageError;
use crate::system::{self, LibraryText, WithoutOneDnn};

/// The optimiser: its parameters and state.
pub struct Optimizer {
    momentum: f64,
    weight_decay: f64,
    parameters: Vec<Tensor>,
    /// Held if oneDNN's gradients of these parameters may be wrong. It is also held between steps, so a training uses
    /// the same kernels throughout.
    _without_onednn: Option<WithoutOneDnn>,
    /// Empty before the first step.
    velocities: Vec<Tensor>,
}

impl Optimizer {
    /// Creates an optimiser that updates these parameters in place.
    ///
    /// # Errors
    /// [`StageError::Setting`].
    pub fn new(sgd: &Sgd, parameters: Vec<Tensor>) -> Result<Self, StageError> {
        if sgd.lr.get() <= 0.0 {
            return Err(StageError::setting("optimizer.lr", "must be above 0"));
        }
        if !(0.0..=1.0).contains(&sgd.momentum.get()) {
            return Err(StageError::setting("optimizer.momentum", "must be between 0 and 1"));
        }
        if sgd.weight_decay.get() < 0.0 {
            return Err(StageError::setting("optimizer.weight_decay", "must not be below 0"));
        }
        let (momentum, weight_decay) = (sgd.momentum.get(), sgd.weight_decay.get());
        let _without_onednn = outgrow_onednn(&parameters).then(system::without_onednn);
        Ok(Optimizer { momentum, weight_decay, parameters, _without_onednn, velocities: Vec::new() })
    }

    /// Returns the momentum of each parameter, in order; empty before the first step.
    pub fn velocities(&self) -> &[Tensor] {
        &self.velocities
    }

    /// Restores the result of [`Optimizer::velocities`]: one tensor per parameter, of its shape.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn restore(&mut self, velocities: &[Tensor]) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        let as_laid_out = |(parameter, velocity): (&Tensor, &Tensor)| {
            let mut own = parameter.f_detach()?.f_zeros_like()?;
            own.f_copy_(velocity)?;
            Ok(own)
        };
        self.velocities = self.parameters.iter().zip(velocities).map(as_laid_out).collect::<Result<_, TchError>>()?;
        Ok(())
    }

    /// Computes the gradients of a scalar loss and takes one step.
    ///
    /// g += weight_decay · p; v = momentum · v + g; p −= lr · v (`torch.optim.SGD` without dampening; v starts as the
    /// first g).
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn step(&mut self, loss: &Tensor, lr: f64) -> Result<(), TchError> {
        let gradients = Tensor::f_run_backward(&[loss], &self.parameters, false, false)?;
        self.descend(gradients, lr)
    }

    /// Takes one step like `step`, and returns the gradient of the loss with respect to `inputs`.
    ///
    /// The gradient is computed at the parameters before the step.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn step_and_ask(&mut self, loss: &Tensor, lr: f64, inputs: &Tensor) -> Result<Tensor, TchError> {
        let asked: Vec<&Tensor> = self.parameters.iter().chain([inputs]).collect();
        let mut gradients = Tensor::f_run_backward(&[loss], &asked, false, false)?;
        let of_inputs = gradients.pop().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))?;
        self.descend(gradients, lr)?;
        Ok(of_inputs)
    }

    fn descend(&mut self, mut gradients: Vec<Tensor>, lr: f64) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        for (gradient, parameter) in gradients.iter_mut().zip(&self.parameters) {
            if self.weight_decay != 0.0 {
                let _ = gradient.f_add_(&parameter.f_mul_scalar(self.weight_decay)?)?;
            }
        }
        if self.velocities.is_empty() {
            self.velocities = gradients;
        } else {
            for (velocity, gradient) in self.velocities.iter_mut().zip(&gradients) {
                let _ = velocity.f_mul_scalar_(self.momentum)?.f_add_(gradient)?;
            }
        }
        for (parameter, velocity) in self.parameters.iter_mut().zip(&self.velocities) {
            let _ = parameter.f_sub_(&velocity.f_mul_scalar(lr)?)?;
        }
        Ok(())
    }
}

/// Returns whether oneDNN's gradients of these parameters may be wrong.
///
/// This concerns convolutions on the CPU whose channels do not fill whole oneDNN blocks. The gradient kernel of 1 × 1
/// convolutions with a stride accesses memory beyond its scratch space if the last input block is not full. This was
/// seen with oneDNN 3.10.2, that of libtorch 2.11.0, on AVX2 with fewer than 8 channels. The gradients were off by
/// their own size, and the process sometimes crashed or hung. Partial output blocks showed no harm, but are not trusted
/// either.
fn outgrow_onednn(parameters: &[Tensor]) -> bool {
    let Some(block) = onednn_block() else { return false };
    let is_cut = |size: &[i64]| match *size {
        [to, from, 1, 1] => to % block != 0 || from % block != 0,
        [to, _, _, _] => to % block != 0,
        _ => false,
    };
    parameters.iter().any(|parameter| parameter.device() == Device::Cpu && is_cut(&parameter.size()))
}

/// Returns the number of channels in a block of oneDNN's kernels, or `None` without such blocks.
///
/// Depends on what this process may use, not on the processor: portable numerics limit both ATen and oneDNN to AVX2.
fn onednn_block() -> Option<i64> {
    match system::library_text(LibraryText::AtenKernels).as_str() {
        "AVX512" => Some(16),
        _ if cfg!(target_arch = "x86_64") => Some(8),
        _ => None,
    }
}

/// Returns the learning rate of step `step` (from 0) of `steps`, in an epoch counted from 1.
///
/// A triangle is evaluated at the middle of each step, so no step has a rate of 0.
pub fn learning_rate(schedule: &Schedule, highest: f64, step: u64, steps: u64, epoch: u32) -> f64 {
    match schedule {
        Schedule::Constant => highest,
        Schedule::Triangle { warmup } => {
            let (time, warmup) = ((step as f64 + 0.5) / steps as f64, warmup.get());
            highest * if time < warmup { time / warmup } else { (1.0 - time) / (1.0 - warmup) }
        }
        Schedule::Steps { drop_at } => {
            let drops = drop_at.iter().filter(|&&at| at <= epoch).count();
            highest * 0.1f64.powi(i32::try_from(drops).unwrap_or(i32::MAX))
        }
        Schedule::Table { rates } => {
            let mut ends = rates.iter().scan(0u64, |end, rate| {
                *end += u64::from(rate.epochs);
                Some((*end, rate))
            });
            let now = ends.find(|(end, _)| u64::from(epoch) <= *end).map(|(_, rate)| rate).or(rates.last());
            now.map_or(highest, |rate| rate.lr.get())
        }
    }
}

/// Checks the ranges of a schedule.
///
/// # Errors
/// [`StageError::Setting`].
pub fn check_schedule(schedule: &Schedule) -> Result<(), StageError> {
    match schedule {
        Schedule::Triangle { warmup } if !(0.0..=1.0).contains(&warmup.get()) => {
            Err(StageError::setting("schedule.warmup", "must be between 0 and 1"))
        }
        Schedule::Table { rates } if rates.is_empty() => {
            Err(StageError::setting("schedule.rates", "must have at least one entry"))
        }
        Schedule::Table { rates } if rates.iter().any(|rate| rate.epochs == 0 || rate.lr.get() <= 0.0) => {
            Err(StageError::setting("schedule.rates", "must have at least one epoch and a rate above 0 in each entry"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atflow::number::Real;
    use atflow::stage_kinds::Rate;

    #[test]
    fn a_triangle_rises_to_its_highest_and_falls_back() {
        let rate = |warmup, step| learning_rate(&Schedule::Triangle { warmup: Real::new(warmup) }, 0.4, step, 100, 1);
        assert!((rate(0.2, 0) - 0.4 * 0.005 / 0.2).abs() < 1e-12);
        assert!((rate(0.2, 10) - 0.4 * 0.105 / 0.2).abs() < 1e-12);
        assert!((rate(0.2, 60) - 0.4 * 0.395 / 0.8).abs() < 1e-12);
        assert!((rate(0.2, 99) - 0.4 * 0.005 / 0.8).abs() < 1e-12);
        for warmup in [0.0, 1.0] {
            assert!((0..100).all(|step| (0.0..=0.4).contains(&rate(warmup, step))), "{warmup}");
        }
        assert!(rate(0.0, 0) > 0.39 && rate(1.0, 99) > 0.39);
    }

    #[test]
    fn steps_divide_by_ten_at_the_start_of_their_epochs() {
        let schedule = Schedule::Steps { drop_at: vec![6, 9] };
        let rates = [1, 5, 6, 8, 9, 11].map(|epoch| learning_rate(&schedule, 0.01, 0, 1, epoch));
        for (rate, expected) in rates.into_iter().zip([0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }

    /// The authors' table for standard training has 5, 3 and 2 epochs; their loop runs eleven, the last at the last
    /// rate.
    #[test]
    fn a_table_is_read_as_it_stands_and_its_last_rate_goes_on() {
        let rate = |(epochs, lr)| Rate { epochs, lr: Real::new(lr) };
        let schedule = Schedule::Table { rates: [(5, 0.01), (3, 0.001), (2, 1e-4)].map(rate).to_vec() };
        let rates: Vec<f64> = (1..=11).map(|epoch| learning_rate(&schedule, 7.0, 0, 1, epoch)).collect();
        let expected = [[0.01; 5].as_slice(), &[0.001; 3], &[1e-4; 3]].concat();
        assert_eq!(rates, expected);
    }
}
