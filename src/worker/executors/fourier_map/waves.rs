//! Waves of a single frequency over an image, and the signs that they are added with. Knows no models.

use std::f64::consts::TAU;

use crate::rng::Rng;

/// The frequencies that real images of a height and a width tell apart, as rows and columns of their spectrum. The
/// mirror image (H − row, W − column) of one is the same wave, and not listed.
pub fn frequencies([height, width]: [usize; 2]) -> Vec<[usize; 2]> {
    let half = (0..height).flat_map(|row| (0..=width / 2).map(move |column| [row, column]));
    // Columns that are their own mirror images have each frequency twice.
    half.filter(|&[row, column]| (column > 0 && 2 * column < width) || 2 * row <= height).collect()
}

/// The place of the mirror image of a frequency.
pub(super) fn mirrored([height, width]: [usize; 2], [row, column]: [usize; 2]) -> [usize; 2] {
    [(height - row) % height, (width - column) % width]
}

/// The wave of a frequency, H × W values row by row: a cosine with its crest at the first pixel, and a 2-norm of 1. Its
/// spectrum is 0 but at the frequency and its mirror image (Yin et al. 2019, section 2).
pub fn wave([height, width]: [usize; 2], [row, column]: [usize; 2]) -> Vec<f32> {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let area = height * width;
    // In whole numbers, so that equal phases are equal to the last digit.
    let phase = |(y, x)| (row * y * width + column * x * height) % area;
    let waves: Vec<f64> = places.map(|place| libm::cos(TAU * phase(place) as f64 / area as f64)).collect();
    let norm = waves.iter().map(|value| value * value).sum::<f64>().sqrt();
    waves.iter().map(|value| (value / norm) as f32).collect()
}

/// The signs of the waves, 1 or −1, each equally likely: by frequency, then by image and channel.
pub fn signs(rng: Rng, images: &[u64], frequencies: usize, channels: usize) -> Vec<Vec<f32>> {
    let mut signs: Vec<Vec<f32>> = (0..frequencies).map(|_| Vec::with_capacity(images.len() * channels)).collect();
    for &image in images {
        let mut stream = rng.stream("fourier map", &[image]);
        for signs in &mut signs {
            signs.extend((0..channels).map(|_| if stream.bits() & 1 == 1 { 1.0 } else { -1.0 }));
        }
    }
    signs
}
