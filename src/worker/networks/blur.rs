//! A Gaussian blur of feature maps. It has no weights, and it is the same in training and in a frozen network.

use atflow::stage_kinds::{Smooth, SmoothAfter};
use tch::{TchError, Tensor};

use super::state::channels_last;
use crate::error::StageError;

/// Where a residual network blurs its feature maps.
#[derive(Debug, Clone)]
pub(super) struct Smoothing {
    /// Standard deviation, in places of the feature map.
    sigma: f64,
    stem: bool,
    /// The last block of each group that is blurred, counted over all groups.
    blocks: Vec<usize>,
}

impl Smoothing {
    /// Makes the blur of a network with so many blocks in each group.
    pub(super) fn new(smooth: &Smooth, groups: &[i64]) -> Self {
        let stem = smooth.after == SmoothAfter::Stem;
        let ends = groups.iter().scan(0, |blocks, &count| {
            *blocks += count as usize;
            Some(*blocks - 1)
        });
        let blocks = if stem { Vec::new() } else { ends.collect() };
        Smoothing { sigma: smooth.sigma.get(), stem, blocks }
    }

    /// Blurs what the stem gave (N × C × H × W), if that is asked for.
    pub(super) fn after_stem(&self, features: Tensor) -> Result<Tensor, TchError> {
        if self.stem { blurred(&features, self.sigma) } else { Ok(features) }
    }

    /// Blurs what a block gave (N × C × H × W), if it is the last of a group that is blurred.
    pub(super) fn after_block(&self, block: usize, features: Tensor) -> Result<Tensor, TchError> {
        if self.blocks.contains(&block) { blurred(&features, self.sigma) } else { Ok(features) }
    }
}

/// Checks what the schema of the worker's messages cannot.
///
/// # Errors
/// [`StageError`] if the standard deviation is out of range.
pub(super) fn check(smooth: Option<&Smooth>) -> Result<(), StageError> {
    match smooth.map(|smooth| smooth.sigma.get()) {
        Some(sigma) if !(sigma > 0.0 && sigma <= 16.0) => {
            Err(StageError::setting("net.smooth.sigma", "must be above 0 and at most 16"))
        }
        _ => Ok(()),
    }
}

/// Blurs each channel of N × C × H × W numbers. Products of matrices: a convolution of each channel alone is slow on
/// CPUs.
fn blurred(features: &Tensor, sigma: f64) -> Result<Tensor, TchError> {
    let (_, _, height, width) = features.size4()?;
    let matrix = |side: i64| {
        let matrix = Tensor::f_from_slice(&gauss(sigma, side))?.f_view([side, side])?;
        matrix.f_to_device(features.device())?.f_to_kind(features.kind())
    };
    let across = features.f_contiguous()?.f_matmul(&matrix(width)?.f_transpose(0, 1)?)?;
    channels_last(&matrix(height)?.f_matmul(&across)?)
}

/// A matrix that blurs a column of so many numbers: in each row a Gaussian around its place, up to ⌈3 σ⌉ away, that
/// sums to 1.
fn gauss(sigma: f64, side: i64) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as i64;
    let height = |from: i64, to: i64| {
        let away = (from - to) as f64 / sigma;
        if (from - to).abs() <= radius { (-0.5 * away * away).exp() } else { 0.0 }
    };
    let row = |at: i64| {
        let sum: f64 = (0..side).map(|to| height(at, to)).sum();
        (0..side).map(move |to| (height(at, to) / sum) as f32)
    };
    (0..side).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use atflow::number::Real;
    use tch::{Device, Kind};

    #[test]
    fn a_spark_becomes_a_gaussian_and_a_constant_stays() {
        let spark = Tensor::zeros([1, 2, 9, 9], (Kind::Float, Device::Cpu));
        let _ = spark.get(0).get(1).get(4).get(4).fill_(1.0);
        let found = blurred(&spark, 1.0).unwrap();
        // scipy.ndimage.gaussian_filter1d of a spark, sigma 1 and radius 3: its middle, and a step away.
        let (middle, beside) = (0.39905027_f64, 0.24203622_f64);
        assert!((found.double_value(&[0, 1, 4, 4]) - middle * middle).abs() < 1e-6, "{found}");
        assert!((found.double_value(&[0, 1, 5, 3]) - beside * beside).abs() < 1e-6, "{found}");
        assert_eq!(found.get(0).get(0).abs().max().double_value(&[]), 0.0, "channels do not mix");
        let constant = Tensor::full([1, 1, 4, 2], 3.0, (Kind::Float, Device::Cpu));
        assert!((blurred(&constant, 1.0).unwrap() - 3.0).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn the_ends_of_groups_are_blurred_or_the_stem() {
        let smooth = |after| Smooth { sigma: Real::new(1.0), after };
        let of = |after| Smoothing::new(&smooth(after), &[1, 2, 3]);
        assert_eq!((of(SmoothAfter::Groups).blocks, of(SmoothAfter::Groups).stem), (vec![0, 2, 5], false));
        assert_eq!((of(SmoothAfter::Stem).blocks, of(SmoothAfter::Stem).stem), (vec![], true));
    }
}
