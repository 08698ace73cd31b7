//! Random augmentation of training images that keeps their size: horizontal flips, and shifts over a black border.

use atflow::stage_kinds::Augmentation;
use tch::{Kind, TchError, Tensor};

use crate::rng::Rng;

/// Augments training images, with draws keyed by (epoch, image).
///
/// # Errors
/// Returns the error from libtorch.
pub fn augment(
    images: Tensor,
    augmentation: &Augmentation,
    rng: Rng,
    epoch: u64,
    indices: &[u64],
) -> Result<Tensor, TchError> {
    let pad = i64::from(augmentation.pad_crop);
    if !augmentation.flip && pad == 0 {
        return Ok(images);
    }
    // Each output pixel copies one pixel of the padded image. Compute all source positions for the whole batch at once,
    // so neither the CPU nor a GPU processes images one by one.
    let (count, channels, height, width) = images.size4()?;
    let device = images.device();
    let mut draws: [Vec<i64>; 3] = Default::default();
    for &index in indices {
        let mut stream = rng.stream("augmentation", &[epoch, index]);
        let (flip, down, right) = (stream.below(2), stream.below(2 * pad as u64 + 1), stream.below(2 * pad as u64 + 1));
        let flip = if augmentation.flip { flip } else { 0 };
        for (list, draw) in draws.iter_mut().zip([flip, down, right]) {
            list.push(draw as i64);
        }
    }
    let column = |list: &[i64]| Tensor::f_from_slice(list)?.f_view([count, 1, 1])?.f_to_device(device);
    let (flip, down, right) = (column(&draws[0])?, column(&draws[1])?, column(&draws[2])?);
    let x = Tensor::f_arange(width, (Kind::Int64, device))?.f_view([1, 1, width])?;
    let y = Tensor::f_arange(height, (Kind::Int64, device))?.f_view([1, height, 1])?;
    // x of the flipped image: x without a flip, width − 1 − x with one.
    let flipped = x.f_add(&flip.f_mul(&x.f_mul_scalar(-2)?.f_add_scalar(width - 1)?)?)?;
    let source = y.f_add(&down)?.f_mul_scalar(width + 2 * pad)?.f_add(&flipped.f_add(&right)?)?;
    let source = source.f_view([count, 1, height * width])?.f_expand([count, channels, height * width], false)?;
    images
        .f_constant_pad_nd([pad, pad, pad, pad])?
        .f_view([count, channels, -1])?
        .f_gather(2, &source, false)?
        .f_view([count, channels, height, width])
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn images() -> Tensor {
        Tensor::arange(2 * 2 * 4 * 5, (Kind::Float, Device::Cpu)).view([2, 2, 4, 5]) + 1
    }

    #[test]
    fn a_flip_mirrors_and_nothing_else() {
        let augmentation = Augmentation { flip: true, ..Augmentation::default() };
        let mirrored = images().flip([3]);
        let mut seen = [0, 0];
        for epoch in 0..20 {
            let out = augment(images(), &augmentation, Rng::new(1), epoch, &[0, 1]).unwrap();
            for index in 0..2 {
                let flipped = out.get(index) == mirrored.get(index);
                assert!(flipped || out.get(index) == images().get(index));
                seen[usize::from(flipped)] += 1;
            }
        }
        assert!(seen[0] > 8 && seen[1] > 8, "{seen:?}");
    }

    #[test]
    fn a_crop_is_a_window_of_the_padded_image_and_depends_on_the_image_only() {
        let augmentation = Augmentation { pad_crop: 2, ..Augmentation::default() };
        let padded = images().constant_pad_nd([2, 2, 2, 2]);
        let crop = |epoch, indices: &[u64]| augment(images(), &augmentation, Rng::new(5), epoch, indices).unwrap();
        let mut windows = std::collections::BTreeSet::new();
        for epoch in 0..40 {
            let first = crop(epoch, &[0, 1]).get(0);
            let places = (0..5).flat_map(|y| (0..5).map(move |x| (y, x)));
            let place = places.into_iter().find(|&(y, x)| padded.get(0).narrow(1, y, 4).narrow(2, x, 5) == first);
            windows.insert(place.expect("a window of the padded image"));
        }
        assert!(windows.len() > 12, "{windows:?}");
        // As image 0, the second picture of the batch would get the crop of image 0.
        let rows_kept = |t: Tensor| t.ne(0.0).any_dim(0, false);
        assert_eq!(rows_kept(crop(3, &[7, 0]).get(1)), rows_kept(crop(3, &[0, 7]).get(0)));
    }
}
