//! Stochastic gradient descent and AdamW like PyTorch's, and learning-rate schedules.
//!
//! This code replaces the tch optimiser because its state must be readable and weight decay must reach every parameter.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use atflow::stage_kinds::{OptimizerName, OptimizerParams, Schedule};
use tch::{Device, Kind, TchError, Tensor};

use crate::arithmetic::square_root;
use crate::error::StageError;
use crate::system::{self, LibraryText, WithoutOneDnn};

/// AdamW's decay rates unless somebody says otherwise.
const BETAS: [f64; 2] = [0.9, 0.999];
/// Keeps AdamW's quotient finite (ε in the paper).
const STABILISER: f64 = 1e-8;
/// Prefix of AdamW's means of squares in the saved state; a number follows.
const SQUARES: &str = "squares/";
/// Name of AdamW's number of steps in the saved state.
const STEPS: &str = "steps";

/// How gradients move the parameters.
enum Rule {
    Sgd { momentum: f64, nesterov: bool },
    AdamW { betas: [f64; 2] },
}

/// The optimiser: its parameters and state.
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    parameters: Vec<Tensor>,
    /// Held if oneDNN's gradients of these parameters may be wrong. It is also held between steps, so a training uses
    /// the same kernels throughout.
    _without_onednn: Option<WithoutOneDnn>,
    /// SGD's momentum, or AdamW's means of gradients. Empty before the first step.
    velocities: Vec<Tensor>,
    /// AdamW's means of squared gradients, and its number of steps so far (f64, a single value).
    squares: Vec<Tensor>,
    steps: Tensor,
}

impl Optimizer {
    /// Creates an optimiser that updates these parameters in place.
    ///
    /// # Errors
    /// [`StageError::Setting`].
    pub fn new(params: &OptimizerParams, parameters: Vec<Tensor>) -> Result<Self, StageError> {
        if params.lr.get() <= 0.0 {
            return Err(StageError::setting("optimizer.lr", "must be above 0"));
        }
        if !(0.0..=1.0).contains(&params.momentum.get()) {
            return Err(StageError::setting("optimizer.momentum", "must be between 0 and 1"));
        }
        let betas = params.betas.map_or(BETAS, |betas| betas.map(atflow::number::Real::get));
        if !betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(StageError::setting("optimizer.betas", "must each be at least 0 and below 1"));
        }
        if params.weight_decay.get() < 0.0 {
            return Err(StageError::setting("optimizer.weight_decay", "must not be below 0"));
        }
        let rule = match params.name {
            OptimizerName::Sgd => Rule::Sgd { momentum: params.momentum.get(), nesterov: params.nesterov },
            OptimizerName::Adamw => Rule::AdamW { betas },
        };
        let weight_decay = params.weight_decay.get();
        let _without_onednn = outgrow_onednn(&parameters).then(system::without_onednn);
        let (velocities, squares) = (Vec::new(), Vec::new());
        let steps = Tensor::f_zeros([1i64].as_slice(), (Kind::Double, Device::Cpu))?;
        Ok(Optimizer { rule, weight_decay, parameters, _without_onednn, velocities, squares, steps })
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

    /// Returns the rest of the state, by name: none of SGD's.
    pub fn more(&self) -> BTreeMap<String, &Tensor> {
        let squares = self.squares.iter().enumerate().map(|(index, square)| (format!("{SQUARES}{index}"), square));
        let steps = (!self.squares.is_empty()).then(|| (STEPS.to_owned(), &self.steps));
        squares.chain(steps).collect()
    }

    /// Restores one entry of [`Optimizer::more`].
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn restore_more(&mut self, name: &str, value: &Tensor) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        if name == STEPS {
            self.steps = value.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
            return Ok(());
        }
        let index = name.strip_prefix(SQUARES).and_then(|index| index.parse::<usize>().ok());
        let Some((index, parameter)) = index.and_then(|index| Some((index, self.parameters.get(index)?))) else {
            return Ok(());
        };
        let mut own = parameter.f_detach()?.f_zeros_like()?;
        own.f_copy_(value)?;
        while self.squares.len() <= index {
            self.squares.push(self.parameters[self.squares.len()].f_detach()?.f_zeros_like()?);
        }
        self.squares[index] = own;
        Ok(())
    }

    /// Returns the gradients of a scalar loss with respect to the parameters, in order.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>, TchError> {
        Tensor::f_run_backward(&[loss], &self.parameters, false, false)
    }

    /// Returns the parameters, in order; they share their storage with the network.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Computes the gradients of a scalar loss and takes one step.
    ///
    /// SGD: g += weight_decay · p; v = momentum · v + g; p −= lr · v, with Nesterov lr · (g + momentum · v)
    /// (`torch.optim.SGD` without dampening; v starts as the first g). AdamW: `torch.optim.AdamW`.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn step(&mut self, loss: &Tensor, lr: f64) -> Result<(), TchError> {
        let gradients = self.gradients(loss)?;
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

    fn descend(&mut self, gradients: Vec<Tensor>, lr: f64) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        match self.rule {
            Rule::Sgd { momentum, nesterov } => self.descend_sgd(gradients, lr, momentum, nesterov),
            Rule::AdamW { betas } => self.descend_adamw(&gradients, lr, betas),
        }
    }

    fn descend_sgd(
        &mut self,
        mut gradients: Vec<Tensor>,
        lr: f64,
        momentum: f64,
        nesterov: bool,
    ) -> Result<(), TchError> {
        for (gradient, parameter) in gradients.iter_mut().zip(&self.parameters) {
            if self.weight_decay != 0.0 {
                let _ = gradient.f_add_(&parameter.f_mul_scalar(self.weight_decay)?)?;
            }
        }
        let ahead = if nesterov {
            Some(gradients.iter().map(Tensor::f_detach_copy).collect::<Result<Vec<_>, _>>()?)
        } else {
            None
        };
        if self.velocities.is_empty() {
            self.velocities = gradients;
        } else {
            for (velocity, gradient) in self.velocities.iter_mut().zip(&gradients) {
                let _ = velocity.f_mul_scalar_(momentum)?.f_add_(gradient)?;
            }
        }
        for (index, (parameter, velocity)) in self.parameters.iter_mut().zip(&self.velocities).enumerate() {
            let change = match &ahead {
                None => velocity.f_mul_scalar(lr)?,
                Some(gradients) => gradients[index].f_add(&velocity.f_mul_scalar(momentum)?)?.f_mul_scalar(lr)?,
            };
            let _ = parameter.f_sub_(&change)?;
        }
        Ok(())
    }

    /// Loshchilov and Hutter 2019, algorithm 2, in the order of PyTorch: the decay first.
    fn descend_adamw(&mut self, gradients: &[Tensor], lr: f64, betas: [f64; 2]) -> Result<(), TchError> {
        if self.squares.is_empty() {
            let zeros =
                |gradients: &[Tensor]| gradients.iter().map(Tensor::f_zeros_like).collect::<Result<Vec<_>, _>>();
            (self.velocities, self.squares) = (zeros(gradients)?, zeros(gradients)?);
        }
        self.steps = self.steps.f_add_scalar(1.0)?;
        let steps = self.steps.f_double_value(&[0])? as i32;
        let [mean_bias, square_bias] = betas.map(|beta| 1.0 - beta.powi(steps));
        let means = self.velocities.iter_mut().zip(&mut self.squares);
        for ((parameter, gradient), (mean, square)) in self.parameters.iter_mut().zip(gradients).zip(means) {
            let _ = parameter.f_mul_scalar_(1.0 - lr * self.weight_decay)?;
            let _ = mean.f_mul_scalar_(betas[0])?.f_add_(&gradient.f_mul_scalar(1.0 - betas[0])?)?;
            let _ = square.f_mul_scalar_(betas[1])?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - betas[1])?)?;
            let width = square_root(square)?.f_div_scalar(square_bias.sqrt())?.f_add_scalar(STABILISER)?;
            let _ = parameter.f_sub_(&mean.f_div(&width)?.f_mul_scalar(lr / mean_bias)?)?;
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
/// A triangle and a cosine are evaluated at the middle of each step, so no step has a rate of 0.
pub fn learning_rate(schedule: &Schedule, highest: f64, step: u64, steps: u64, epoch: u32) -> f64 {
    match schedule {
        Schedule::Constant => highest,
        Schedule::Triangle { warmup } => {
            let (time, warmup) = ((step as f64 + 0.5) / steps as f64, warmup.get());
            highest * if time < warmup { time / warmup } else { (1.0 - time) / (1.0 - warmup) }
        }
        Schedule::Cosine { warmup } => {
            let (time, warmup) = ((step as f64 + 0.5) / steps as f64, warmup.get());
            highest
                * if time < warmup {
                    time / warmup
                } else {
                    // Computed in Rust alone, so that the bytes do not depend on the system's library.
                    0.5 * (1.0 + libm::cos(PI * (time - warmup) / (1.0 - warmup)))
                }
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
        Schedule::Cosine { warmup } if !(0.0..1.0).contains(&warmup.get()) => {
            Err(StageError::setting("schedule.warmup", "must be at least 0 and below 1"))
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
    fn a_cosine_rises_in_a_line_and_falls_as_half_a_wave() {
        let rate = |warmup, step| learning_rate(&Schedule::Cosine { warmup: Real::new(warmup) }, 0.4, step, 100, 1);
        assert!((rate(0.2, 10) - 0.4 * 0.105 / 0.2).abs() < 1e-12);
        // Halfway down at time 0.6; as far from the top as from the bottom on either side.
        assert!((rate(0.2, 59) + rate(0.2, 60) - 0.4).abs() < 1e-12 && rate(0.2, 59) > 0.2);
        assert!((rate(0.0, 24) - 0.2 * (1.0 + (PI * 0.245).cos())).abs() < 1e-12);
        assert!(rate(0.0, 0) > 0.3999 && rate(0.0, 99) < 1e-4 && rate(0.0, 99) > 0.0);
    }

    const ADAMW: [[f32; 2]; 3] = [[0.895, -1.89], [0.8760729, -1.853916], [0.8605211, -1.900637]];
    const ADAMW_FAST: [[f32; 2]; 3] = [[0.9, -1.9], [0.8911941, -1.878577], [0.8846518, -1.94004]];
    const NESTEROV: [[f32; 2]; 3] = [[0.4205, -1.791], [0.5494553, -1.779886], [0.4821874, -2.476033]];

    /// python: p = torch.tensor([1., -2.], requires_grad=True); o = torch.optim.AdamW([p], lr=0.1, weight_decay=0.05),
    /// and SGD([p], lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True); after the gradients (3, -1), (-2, 0.5) and
    /// (0, 4) each in a step, print(p). PyTorch 2.11.0.
    #[test]
    fn steps_are_those_of_pytorch() {
        let cases = [
            (serde_json::json!({"name": "adamw", "lr": 0.1, "weight_decay": 0.05}), ADAMW),
            (serde_json::json!({"name": "adamw", "lr": 0.1, "weight_decay": 0.0, "betas": [0.8, 0.9]}), ADAMW_FAST),
            (serde_json::json!({"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": true}), NESTEROV),
        ];
        for (params, expected) in cases {
            let params: OptimizerParams = serde_json::from_value(params).unwrap();
            let point = Tensor::from_slice(&[1.0f32, -2.0]).set_requires_grad(true);
            let mut optimizer = Optimizer::new(&params, vec![point.shallow_clone()]).unwrap();
            for (gradient, expected) in [[3.0f32, -1.0], [-2.0, 0.5], [0.0, 4.0]].iter().zip(expected) {
                let loss = (&point * Tensor::from_slice(gradient)).sum(Kind::Float);
                optimizer.step(&loss, 0.1).unwrap();
                let off = (&point - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
                assert!(off < 1e-6, "{params:?}: {point}, expected {expected:?}");
            }
        }
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
