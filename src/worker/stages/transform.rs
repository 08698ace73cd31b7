//! Makes changed test sets. Works on bytes, on the CPU.

use atflow::formats::ImageSet;
use atflow::kinds::{PatchShuffle, Saturate, TransformParams};

use super::grouped;
use crate::context::Context;
use crate::data;
use crate::error::StageError;

/// Runs a `transform` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: TransformParams = context.params()?;
    let input = context.input("data")?;
    let bytes = data::read(input)?;
    let mut set =
        ImageSet::from_bytes(&bytes).map_err(|source| StageError::ImageSet { slot: input.slot.clone(), source })?;
    let done = match params {
        TransformParams::Saturate(Saturate { level }) => {
            if level.get() <= 0.0 {
                return Err(StageError::setting("level", "must be above 0"));
            }
            let table = saturation(level.get());
            set.pixels.iter_mut().for_each(|pixel| *pixel = table[usize::from(*pixel)]);
            format!("saturated to level {level}")
        }
        TransformParams::PatchShuffle(PatchShuffle { k }) => {
            let pieces = k as usize;
            let [_, channels, height, width] = set.shape;
            if pieces == 0 || height % pieces != 0 || width % pieces != 0 {
                let problem =
                    format!("must divide the images' height and width ({height} × {width}), and {k} does not");
                return Err(StageError::setting("k", problem));
            }
            let (rng, total) = (context.rng, set.len() as u64);
            let size = channels * height * width;
            let mut source = vec![0; size];
            for index in 0..set.len() {
                let image = &mut set.pixels[index * size..][..size];
                source.copy_from_slice(image);
                let order = rng.stream("patch shuffle", &[index as u64]).permutation(pieces * pieces);
                shuffle_patches(&source, image, [channels, height, width], pieces, &order);
                if index % 256 == 0 {
                    context.reporter.progress(index as u64, total, || format!("image {}", grouped(index as u64)))?;
                }
            }
            format!("shuffled in {k} × {k} pieces")
        }
    };
    let bytes = set.to_bytes().map_err(|error| StageError::Encode { output: "images", source: error.into() })?;
    context.write("images", &bytes)?;
    Ok(format!("{} images {done}", grouped(set.len() as u64)))
}

/// What saturation makes of each byte: v' = sign(2v−1) |2v−1|^(2/level) / 2 + 1/2 (Zhang & Zhu 2019, section 3.2), clamped to [0, 1] and
/// rounded to the nearest byte. `level` is above 0.
pub fn saturation(level: f64) -> [u8; 256] {
    std::array::from_fn(|byte| {
        let signed = 2.0 * byte as f64 / 255.0 - 1.0;
        let value = signed.signum() * signed.abs().powf(2.0 / level) / 2.0 + 0.5;
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

/// Puts the k × k pieces of an image (C × H × W bytes) in another order: piece `order[i]` of `source` becomes piece i of `target`,
/// both counted along rows. k divides height and width.
pub fn shuffle_patches(
    source: &[u8],
    target: &mut [u8],
    [channels, height, width]: [usize; 3],
    k: usize,
    order: &[usize],
) {
    let (tall, wide) = (height / k, width / k);
    let corner = |piece: usize| (piece / k * tall, piece % k * wide);
    for channel in 0..channels {
        for (to, &from) in order.iter().enumerate() {
            let ((to_y, to_x), (from_y, from_x)) = (corner(to), corner(from));
            for row in 0..tall {
                let at = |y: usize, x: usize| (channel * height + y + row) * width + x;
                target[at(to_y, to_x)..][..wide].copy_from_slice(&source[at(from_y, from_x)..][..wide]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturation_has_its_fixed_points_and_its_symmetry() {
        let identity: [u8; 256] = std::array::from_fn(|byte| byte as u8);
        assert_eq!(saturation(2.0), identity);
        for level in [0.25, 1.0, 8.0, 1024.0] {
            let table = saturation(level);
            assert_eq!((table[0], table[255]), (0, 255), "black and white stay, {level}");
            assert!(table.windows(2).all(|pair| pair[0] <= pair[1]), "order of greys is kept, {level}");
            assert!((0..=127).all(|b| table[b].abs_diff(255 - table[255 - b]) <= 1), "dark as light, {level}");
        }
        assert!(saturation(1024.0).iter().all(|&byte| byte <= 1 || byte >= 254), "only black and white are left");
    }

    #[test]
    fn pieces_go_where_the_order_says() {
        // Two channels of 4 × 4; each pixel tells its channel and piece.
        let piece = |y: usize, x: usize| y / 2 * 2 + x / 2;
        let image = |order: [usize; 4]| -> Vec<u8> {
            let pixels = (0..2).flat_map(|c| (0..4).flat_map(move |y| (0..4).map(move |x| (c, y, x))));
            pixels.map(|(c, y, x)| (10 * c + order[piece(y, x)] + 100 * (y % 2) + 50 * (x % 2)) as u8).collect()
        };
        let mut out = vec![0; 32];
        shuffle_patches(&image([0, 1, 2, 3]), &mut out, [2, 4, 4], 2, &[2, 0, 3, 1]);
        assert_eq!(out, image([2, 0, 3, 1]));
    }
}
