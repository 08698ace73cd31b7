//! Images resized on a device to the bytes that Pillow makes of them: whole numbers throughout, so that every device
//! gives the same. Knows tensors only.

use atflow::resample::{Filter, PRECISION, Taps};
use tch::{Device, Kind, TchError, Tensor};

/// What makes images of one size those of another.
#[derive(Debug)]
pub struct Resize {
    across: Option<Line>,
    down: Option<Line>,
}

/// How each new pixel of a line is made: for each tap, the old pixels and their weights.
#[derive(Debug)]
struct Line {
    /// I64, one for each new pixel.
    from: Vec<Tensor>,
    /// I32, the same number.
    weights: Vec<Tensor>,
}

impl Line {
    /// Nothing where the length stays.
    fn new(from: usize, to: usize, device: Device) -> Result<Option<Self>, TchError> {
        if from == to {
            return Ok(None);
        }
        let taps = Taps::new(from, to, Filter::Bilinear);
        let mut line = Line { from: Vec::new(), weights: Vec::new() };
        for tap in 0..taps.width {
            // Behind the end weights are 0, and any pixel does.
            let at: Vec<i64> = taps.first.iter().map(|&first| (first + tap).min(from - 1) as i64).collect();
            let weights: Vec<i32> = taps.weights.iter().skip(tap).step_by(taps.width).copied().collect();
            if weights.iter().any(|&weight| weight != 0) {
                line.from.push(Tensor::f_from_slice(&at)?.f_to_device(device)?);
                line.weights.push(Tensor::f_from_slice(&weights)?.f_to_device(device)?);
            }
        }
        Ok(Some(line))
    }

    /// Along dimension `along` of N × C × H × W bytes; `shape` lays the weights along it.
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
    /// From one height and width to another, bilinearly; no side is 0.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(from: [usize; 2], to: [usize; 2], device: Device) -> Result<Self, TchError> {
        Ok(Resize { across: Line::new(from[1], to[1], device)?, down: Line::new(from[0], to[0], device)? })
    }

    /// The images in the other size: N × C × H × W, U8.
    ///
    /// # Errors
    /// What libtorch says.
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
