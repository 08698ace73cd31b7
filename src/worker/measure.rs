//! Measures how fast images pass a network: images of noise, initial weights, the code of trainings and attacks.
//!
//! On the CPU, one thread is measured by processor time, so that other programs do not matter. Knows nothing of stages,
//! and not what the rates are for.

use std::time::{Duration, Instant};

use atflow::number::Real;
use atflow::protocol::Measurement;
use atflow::stage_kinds::{Attack, Norm, OptimizerParams, Pass, Pgd, Precision};
use tch::{Cuda, Device, Kind, Reduction, Tensor};

use crate::attacks::{self, Batch};
use crate::error::StageError;
use crate::executors::optimizer::Optimizer;
use crate::networks::{self, Mode, Network};
use crate::rng::{DrawTensor, Rng, Stream};
use crate::system;

/// Classes of the network. Their number hardly matters.
const CLASSES: usize = 10;
/// Steps between two looks at the clock on a GPU, which computes on while the next step is prepared.
const STEPS_ON_GPU: u32 = 8;
/// Learning rate. It matters only that the weights stay finite.
const RATE: f64 = 1e-3;
/// Radius and step of the attack, which takes one step of PGD.
const RADIUS: f64 = 8.0 / 255.0;

/// Returns how many images passed, and how long they took.
///
/// # Errors
/// [`StageError::Torch`]; [`StageError::Setting`] if the network cannot be built.
pub fn measure(of: &Measurement, device: Device) -> Result<(u64, Duration), StageError> {
    let rng = Rng::new(0);
    let network = networks::build(&of.net, of.shape[0] as usize, CLASSES, rng, device)?;
    let indices: Vec<u64> = (0..u64::from(of.batch_size.max(1))).collect();
    let images = rng.tensor("measured images", &[], &indices, &of.shape.map(i64::from), device, Stream::unit)?;
    let labels: Vec<i64> = indices.iter().map(|index| (*index as usize % CLASSES) as i64).collect();
    let labels = Tensor::f_from_slice(&labels)?.f_to_device(device)?;
    let batch = &Batch { images: &images, labels: &labels, indices: &indices, epoch: 0 };
    let kind = match of.precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let mut step: Box<dyn FnMut() -> Result<(), StageError> + '_> = match of.pass {
        Pass::Forward => {
            let frozen = network.freeze_as(kind)?;
            Box::new(move || frozen.forward(batch.images).map(drop).map_err(StageError::from))
        }
        Pass::Gradient => {
            let (frozen, radius) = (network.freeze_as(kind)?, Real::new(RADIUS));
            let attack = Attack::Pgd(Pgd::plain(Norm::Inf, radius, radius, 1));
            Box::new(move || attacks::perturb(&attack, &*frozen, batch, rng, &mut || Ok(())).map(drop))
        }
        Pass::Update => updates(&*network, batch, kind)?,
    };
    let images = indices.len() as u64;
    let clock = Clock { device, is_alone: of.threads <= 1 };
    // The first step chooses kernels and takes memory. On a slow machine it has to do.
    let started = Instant::now();
    let first = clock.time(1, &mut step)?;
    if started.elapsed().as_secs_f64() >= of.seconds {
        return Ok((images, first));
    }
    let steps = if device.is_cuda() { STEPS_ON_GPU } else { 1 };
    let (mut passed, mut took, started) = (0, Duration::ZERO, Instant::now());
    while passed == 0 || started.elapsed().as_secs_f64() < of.seconds {
        took += clock.time(steps, &mut step)?;
        passed += u64::from(steps) * images;
    }
    Ok((passed, took))
}

/// Tells how long steps take.
struct Clock {
    device: Device,
    /// Whether a single thread computes.
    is_alone: bool,
}

impl Clock {
    /// Runs so many steps and waits for the device.
    fn time(&self, steps: u32, step: &mut dyn FnMut() -> Result<(), StageError>) -> Result<Duration, StageError> {
        let (started, used) = (Instant::now(), system::processor_time());
        for _ in 0..steps {
            step()?;
        }
        match self.device {
            Device::Cuda(index) => Cuda::synchronize(index as i64),
            _ if self.is_alone => return Ok(system::processor_time().saturating_sub(used)),
            _ => {}
        }
        Ok(started.elapsed())
    }
}

/// Steps of stochastic gradient descent on a batch.
fn updates<'a>(
    network: &'a dyn Network,
    batch: &'a Batch<'a>,
    kind: Kind,
) -> Result<Box<dyn FnMut() -> Result<(), StageError> + 'a>, StageError> {
    let mut optimizer = Optimizer::new(&OptimizerParams::default(), network.state().parameters())?;
    Ok(Box::new(move || {
        tch::with_grad(|| {
            let normalised = network.normalise(batch.images)?.f_to_kind(kind)?;
            let logits = network.classify(&normalised, Mode::Train)?;
            let loss = logits.f_cross_entropy_loss(batch.labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
            optimizer.step(&loss, RATE)
        })
        .map_err(StageError::from)
    }))
}
