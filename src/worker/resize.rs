//! Resizes images on a device to the same bytes as Pillow.
//!
//! Uses integer arithmetic only, so every device gives the same result. Knows only tensors.

use atflow::resample::{Filter, PRECISION, Taps};
use tch::{Device, Kind, TchError, Tensor};

/// Resizes images from one size to another.
#[derive(Debug)]
pub struct Resize {
    across: Option<Line>,
    down: Option<Line>,
}

/// Resampling of one line: for each tap, the source pixels and their weights.
#[derive(Debug)]
struct Line {
    /// I64, one per new pixel.
    from: Vec<Tensor>,
    /// I32, one per new pixel.
    weights: Vec<Tensor>,
}

impl Line {
    /// Returns `None` if the length is unchanged.
    fn new(from: usize, to: usize, device: Device) -> Result<Option<Self>, TchError> {
        if from == to {
            return Ok(None);
        }
        let taps = Taps::new(from, to, Filter::Bilinear);
        let mut line = Line { from: Vec::new(), weights: Vec::new() };
        for tap in 0..taps.width {
            // Weights past the end are 0, so any pixel works.
            let at: Vec<i64> = taps.first.iter().map(|&first| (first + tap).min(from - 1) as i64).collect();
            let weights: Vec<i32> = taps.weights.iter().skip(tap).step_by(taps.width).copied().collect();
            if weights.iter().any(|&weight| weight != 0) {
                line.from.push(Tensor::f_from_slice(&at)?.f_to_device(device)?);
                line.weights.push(Tensor::f_from_slice(&weights)?.f_to_device(device)?);
            }
        }
        Ok(Some(line))
    }

    /// Resamples along dimension `along` of N × C × H × W bytes; `shape` aligns the weights with it.
    fn apply(&self, images: &Tensor, along: i64, shape: [i64; 2]) -> Result<Tensor, TchError> {
        let mut sum: Option<Tensor> = None;
        for (from, weights) in self.from.iter().zip(&self.weights) {
            let part = images.f_index_select(along, from)?.f_to_kind(Kind::Int)?.f_mul(&weights.f_view(shape)?)?;
            sum = Some(match sum {
                Some(mut sum) => sum.f_add_(&part)?,
                None => part,
            });
        }
        let Some(mut sum) = sum else { return Ok(images.shallow_clone()) };
        sum.f_add_scalar_(1_i64 << (PRECISION - 1))?
            .f_bitwise_right_shift_tensor_scalar_(i64::from(PRECISION))?
            .f_clamp_(0, 255)?
            .f_to_kind(Kind::Uint8)
    }
}

impl Resize {
    /// Creates a bilinear resize from one height and width to another; no side is 0.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn new(from: [usize; 2], to: [usize; 2], device: Device) -> Result<Self, TchError> {
        Ok(Resize { across: Line::new(from[1], to[1], device)?, down: Line::new(from[0], to[0], device)? })
    }

    /// Resizes images: N × C × H × W, U8.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn apply(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let mut images = images.shallow_clone();
        if let Some(line) = &self.across {
            images = line.apply(&images, 3, [1, -1])?;
        }
        if let Some(line) = &self.down {
            images = line.apply(&images, 2, [-1, 1])?;
        }
        Ok(images)
    }
}
