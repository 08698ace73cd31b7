//! Fourier filters: a mask of zeros and ones on the spectrum of each channel. Knows neither sets nor bytes.
//!
//! libtorch computes the transforms. On a spectrum that belongs to no real image, its `irfft2` differs between CPU and
//! GPU (pytorch#154496). The inverse of the half spectrum is therefore composed here from operations that are defined
//! everywhere.

use atflow::stage_kinds::{Filter, Fourier, Mask};
use tch::{Device, TchError, Tensor};

use crate::error::StageError;
use crate::rng::{DrawTensor, Rng, Stream};

/// A filter for images of one size.
pub struct Filtering {
    /// Whether the inverse uses only the half spectrum, as the authors do.
    half: bool,
    kept: KeptModes,
}

/// The modes to keep.
enum KeptModes {
    /// 1 where a mode is kept, else 0: H × W, f32, the same for every image.
    Fixed(Tensor),
    /// All modes except a share drawn per image and channel. With a symmetric mask, `deciding` names the draw that
    /// decides each mode: I64, H·W.
    Random { dropped: f32, deciding: Option<Tensor> },
}

impl Filtering {
    /// Creates the filter that the parameters describe, for images of H × W.
    ///
    /// # Errors
    /// [`StageError::Setting`] if the parameters are invalid; [`StageError::Torch`].
    pub fn new(params: &Fourier, size: [i64; 2], device: Device) -> Result<Self, StageError> {
        if let Some((name, problem)) = params.problem() {
            return Err(StageError::setting(name, problem));
        }
        let half = params.mask == Mask::Authors;
        let kept = match params.filter {
            Filter::Random => {
                let dropped = params.dropped();
                if !(0.0..=1.0).contains(&dropped) {
                    return Err(StageError::setting("p", format!("must be between 0 and 1, not {dropped}")));
                }
                let deciding = match half {
                    true => None,
                    false => Some(Tensor::f_from_slice(&deciding(size))?.f_to_device(device)?),
                };
                KeptModes::Random { dropped: dropped as f32, deciding }
            }
            filter => {
                let radius = params.radius.map_or(0.0, |radius| radius.get());
                if radius < 0.0 {
                    return Err(StageError::setting("radius", "must not be below 0"));
                }
                let mask: Vec<f32> = mask(filter, params.mask, radius, size).into_iter().map(f32::from).collect();
                KeptModes::Fixed(Tensor::f_from_slice(&mask)?.f_view(size)?.f_to_device(device)?)
            }
        };
        Ok(Filtering { half, kept })
    }

    /// Filters images (N × C × H × W, f32); `indices` key each image's random draws. The result is not clamped.
    ///
    /// # Errors
    /// Returns the error from libtorch.
    pub fn apply(&self, images: &Tensor, rng: Rng, indices: &[u64]) -> Result<Tensor, TchError> {
        match &self.kept {
            KeptModes::Fixed(mask) => masked(images, mask, self.half),
            KeptModes::Random { dropped, deciding } => {
                let shape = images.size();
                let draw = |stream: &mut Stream| f32::from(stream.unit() >= *dropped);
                let mut mask = rng.tensor("fourier", &[], indices, &shape[1..], images.device(), draw)?;
                if let Some(deciding) = deciding {
                    mask = mask.f_flatten(-2, -1)?.f_index_select(-1, deciding)?.f_view(&shape[..])?;
                }
                masked(images, &mask, self.half)
            }
        }
    }
}

/// Multiplies the spectrum (orthonormal, unshifted) of images by a mask: N × C × H × W, f32.
///
/// With `half`, the inverse uses columns 0 to W/2 of the masked spectrum and treats the others as their mirror image,
/// like the authors' library. Otherwise the mask must be symmetric.
///
/// # Errors
/// Returns the error from libtorch.
pub fn masked(images: &Tensor, mask: &Tensor, half: bool) -> Result<Tensor, TchError> {
    let spectrum = images.f_fft_fft2(None::<&[i64]>, [-2, -1], "ortho")?.f_mul(mask)?;
    if !half {
        return spectrum.f_fft_ifft2(None::<&[i64]>, [-2, -1], "ortho")?.f_real()?.f_contiguous();
    }
    let width = images.size4()?.3;
    let columns = spectrum.f_narrow(-1, 0, width / 2 + 1)?.f_fft_ifft(None, -2, "ortho")?;
    // Column 0, and the last one for an even width, are their own mirror images, so their imaginary parts are
    // meaningless. MKL and pocketfft ignore them; cuFFT may not.
    let parts = columns.f_view_as_real()?.f_contiguous()?;
    let alone = if width % 2 == 0 { vec![0, width / 2] } else { vec![0] };
    for column in alone {
        let _ = parts.f_select(-2, column)?.f_select(-1, 1)?.f_zero_()?;
    }
    parts.f_view_as_complex()?.f_fft_irfft(width, -1, "ortho")
}

/// Returns which modes of an H × W spectrum a disc keeps, row by row.
pub fn mask(filter: Filter, mask: Mask, radius: f64, [height, width]: [i64; 2]) -> Vec<bool> {
    let frequency = |mode: i64, size: i64| mode.min(size - mode);
    let kept = |y: i64, x: i64| {
        let (dy, dx) = match mask {
            Mask::Authors => (y - (height / 2 - 1), x - (width / 2 - 1)),
            Mask::Centred => (frequency(y, height), frequency(x, width)),
        };
        let (squared, limit) = ((dy * dy + dx * dx) as f64, radius * radius);
        match (mask, filter) {
            (Mask::Authors, Filter::LowPass) => squared > limit,
            (Mask::Authors, _) => squared < limit,
            (Mask::Centred, Filter::LowPass) => squared <= limit,
            (Mask::Centred, _) => squared > limit,
        }
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| kept(y, x)).collect()
}

/// Returns, for each mode of an H × W spectrum, the first of it and its mirror image.
///
/// Both are kept or both are dropped, or the image would not be real.
fn deciding([height, width]: [i64; 2]) -> Vec<i64> {
    let mirrored = |y: i64, x: i64| (height - y) % height * width + (width - x) % width;
    (0..height)
        .flat_map(|y| (0..width).map(move |x| (y, x)))
        .map(|(y, x)| (y * width + x).min(mirrored(y, x)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of all modes that the authors' masks keep at 224 × 224, computed with numpy from their code.
    #[test]
    fn the_authors_discs_keep_what_they_kept() {
        let share = |filter, radius| {
            let kept = mask(filter, Mask::Authors, radius, [224, 224]);
            kept.iter().filter(|&&kept| kept).count() as f64 / kept.len() as f64
        };
        for (filter, radius, expected) in [
            (Filter::LowPass, 130.0, 0.070),
            (Filter::LowPass, 144.0, 0.017),
            (Filter::HighPass, 144.0, 0.983),
            (Filter::HighPass, 200.0, 1.0),
        ] {
            let found = share(filter, radius);
            assert!((found - expected).abs() < 0.0006, "{filter:?} {radius}: {found}");
        }
        let (low, high) = (
            mask(Filter::LowPass, Mask::Authors, 130.0, [224, 224]),
            mask(Filter::HighPass, Mask::Authors, 130.0, [224, 224]),
        );
        let neither: Vec<usize> = (0..low.len()).filter(|&at| !low[at] && !high[at]).collect();
        assert!(!neither.is_empty() && low.iter().zip(&high).all(|(low, high)| !(low & high)));
        assert!(neither.iter().all(|at| {
            let (dy, dx) = (*at as i64 / 224 - 111, *at as i64 % 224 - 111);
            dy * dy + dx * dx == 130 * 130
        }));
    }

    #[test]
    fn centred_masks_are_symmetric_and_share_out_every_mode() {
        for size in [[8, 8], [7, 9], [6, 7]] {
            let (low, high) =
                (mask(Filter::LowPass, Mask::Centred, 2.0, size), mask(Filter::HighPass, Mask::Centred, 2.0, size));
            assert!(low.iter().zip(&high).all(|(low, high)| low != high));
            assert!(low[0] && low[2] && !low[3], "frequency 0, 2 and 3 of the first row");
            for (at, first) in deciding(size).into_iter().enumerate() {
                assert_eq!(low[at], low[first as usize], "a mode and its mirror image");
                assert!(first as usize <= at);
            }
        }
    }
}
