//! Common corruptions on bytes (Hendrycks & Dietterich 2019), after the authors' `make_cifar_c.py` and
//! `make_imagenet_c.py`. Knows no sets.
//!
//! The arithmetic is plain f64, and exponentials and angles are those of the crate `libm`, so that every processor
//! makes the same bytes.

mod jpeg;
mod plane;
mod warp;
mod weather;

use atflow::resample::{Filter, Interleaved};
use atflow::stage_kinds::{Corruption, SeverityTable};

use crate::rng::Stream;
pub use weather::Snow;

/// A corruption of one strength, ready for images of any size.
pub enum Corrupter {
    /// Normal noise of a standard deviation.
    Gaussian(f64),
    /// Distributions of the Poisson count of each byte, and the count that is white.
    Shot(Vec<Vec<f64>>, f64),
    /// Black or white with a probability.
    Impulse(f64),
    /// Weights of a blur, with their offsets in rows and columns.
    Blur(Vec<(isize, isize, f64)>),
    /// Added to the brightness.
    Brightness(f64),
    /// What is left of the contrast.
    Contrast(f64),
    /// Factor of the small image's sides.
    Pixelate(f64),
    /// Deviation of the smoothing, how far pixels move, how often.
    Glass(f64, usize, usize),
    /// Radius and deviation of a blur along a line.
    Motion(f64, f64),
    /// Factors by which the image is enlarged.
    Zoom(Vec<f64>),
    /// How it snows.
    Snow(Snow),
    /// Thickness of the fog, and decay of its roughness.
    Fog(f64, f64),
    /// Largest move, smoothness of moves and stretch, as parts of the image's shorter side.
    Elastic(f64, f64, f64),
    /// Quality of a JPEG file.
    Jpeg(i32),
}

impl Corrupter {
    /// The corruption with the strength that `severity` has in `table`; none unless it is from 1 to 5.
    pub fn new(corruption: Corruption, table: SeverityTable, severity: u8) -> Option<Self> {
        let level = usize::from(severity.checked_sub(1).filter(|level| *level < 5)?);
        let of = |cifar: [f64; 5], imagenet: [f64; 5]| strength(table, level, cifar, imagenet);
        Some(match corruption {
            Corruption::GaussianNoise => {
                Corrupter::Gaussian(of([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]))
            }
            Corruption::ShotNoise => {
                let white = of([500.0, 250.0, 100.0, 75.0, 50.0], [60.0, 25.0, 12.0, 5.0, 3.0]);
                Corrupter::Shot((0..256).map(|byte| poisson(f64::from(byte) / 255.0 * white)).collect(), white)
            }
            Corruption::ImpulseNoise => {
                Corrupter::Impulse(of([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]))
            }
            Corruption::DefocusBlur => {
                let radius = of([0.3, 0.4, 0.5, 1.0, 1.5], [3.0, 4.0, 6.0, 8.0, 10.0]);
                Corrupter::Blur(disc(radius, of([0.4, 0.5, 0.6, 0.2, 0.1], [0.1, 0.5, 0.5, 0.5, 0.5])))
            }
            Corruption::Brightness => Corrupter::Brightness(of([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5])),
            Corruption::Contrast => Corrupter::Contrast(of([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05])),
            Corruption::Pixelate => Corrupter::Pixelate(of([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25])),
            Corruption::GlassBlur => {
                let cifar = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)];
                let imagenet = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)];
                let (deviation, reach, rounds) = strength(table, level, cifar, imagenet);
                Corrupter::Glass(deviation, reach, rounds)
            }
            Corruption::MotionBlur => {
                let cifar = [(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)];
                let imagenet = [(10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)];
                let (radius, deviation) = strength(table, level, cifar, imagenet);
                Corrupter::Motion(radius, deviation)
            }
            Corruption::ZoomBlur => {
                // How many factors, and in which steps. Three of the authors' ranges end a step late, by rounding.
                let cifar = [(7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)];
                let imagenet = [(12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)];
                let (count, step) = strength(table, level, cifar, imagenet);
                // As numpy has it, whose step is the difference of the first two factors.
                let step = (1.0 + step) - 1.0;
                Corrupter::Zoom((0..count).map(|at| 1.0 + f64::from(at) * step).collect())
            }
            Corruption::Snow => Corrupter::Snow(snow(table, level)),
            Corruption::Fog => {
                let cifar = [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)];
                let imagenet = [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)];
                let (thickness, decay) = strength(table, level, cifar, imagenet);
                Corrupter::Fog(thickness, decay)
            }
            Corruption::ElasticTransform => {
                let cifar =
                    [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)];
                let imagenet =
                    [(2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)];
                let (most, deviation, stretch) = strength(table, level, cifar, imagenet);
                // The authors take images of 224 pixels for 244 wide.
                let side = strength(table, level, [1.0; 5], [244.0 / 224.0; 5]);
                Corrupter::Elastic(most * side, deviation * side, stretch * side)
            }
            Corruption::JpegCompression => {
                Corrupter::Jpeg(strength(table, level, [80, 65, 58, 50, 40], [25, 18, 15, 10, 7]))
            }
        })
    }

    /// The corrupted image; `image` and result are C × H × W bytes.
    pub fn apply(&self, image: &[u8], [_, height, width]: [usize; 3], stream: &mut Stream) -> Vec<u8> {
        let planes = image.chunks(height * width);
        match self {
            Corrupter::Gaussian(deviation) => {
                image.iter().map(|&byte| to_byte(value(byte) + deviation * f64::from(stream.normal()))).collect()
            }
            Corrupter::Shot(counts, white) => {
                let mut count = |byte: u8| {
                    let uniform = unit(stream);
                    counts[usize::from(byte)].partition_point(|&below| below <= uniform) as f64
                };
                image.iter().map(|&byte| to_byte(count(byte) / white)).collect()
            }
            Corrupter::Impulse(probability) => image.iter().map(|&byte| flip(byte, *probability, stream)).collect(),
            Corrupter::Blur(taps) => planes.flat_map(|plane| blur(plane, [height, width], taps)).collect(),
            Corrupter::Brightness(more) => brighten(image, height * width, *more),
            Corrupter::Contrast(left) => planes.flat_map(|plane| flatten(plane, *left)).collect(),
            Corrupter::Pixelate(factor) => planes.flat_map(|plane| pixelate(plane, [height, width], *factor)).collect(),
            &Corrupter::Glass(deviation, reach, rounds) => {
                warp::glass(image, [height, width], (deviation, reach, rounds), stream)
            }
            &Corrupter::Motion(radius, deviation) => {
                let angle = -45.0 + 90.0 * unit(stream);
                let smear = |plane| plane::smear(plane, [height, width], (radius, deviation), angle);
                planes.flat_map(smear).map(|fine| to_byte(f64::from(fine) / 65_535.0)).collect()
            }
            Corrupter::Zoom(factors) => planes.flat_map(|plane| warp::zoom(plane, [height, width], factors)).collect(),
            Corrupter::Snow(snow) => snow.apply(image, [height, width], stream),
            &Corrupter::Fog(thickness, decay) => weather::fog(image, [height, width], (thickness, decay), stream),
            &Corrupter::Elastic(most, deviation, stretch) => {
                let side = height.min(width) as f64;
                warp::elastic(image, [height, width], (most * side, deviation * side, stretch * side), stream)
            }
            Corrupter::Jpeg(quality) => jpeg::compress(image, [height, width], *quality),
        }
    }
}

/// The strength of a level, 0 to 4, in a table.
fn strength<T: Copy>(table: SeverityTable, level: usize, cifar: [T; 5], imagenet: [T; 5]) -> T {
    match table {
        SeverityTable::Cifar => cifar[level],
        SeverityTable::Imagenet => imagenet[level],
    }
}

fn snow(table: SeverityTable, level: usize) -> Snow {
    let cifar = [
        ((0.1, 0.2), 1.0, 0.6, (8.0, 3.0), 0.95),
        ((0.1, 0.2), 1.0, 0.5, (10.0, 4.0), 0.9),
        ((0.15, 0.3), 1.75, 0.55, (10.0, 4.0), 0.9),
        ((0.25, 0.3), 2.25, 0.6, (12.0, 6.0), 0.85),
        ((0.3, 0.3), 1.25, 0.65, (14.0, 12.0), 0.8),
    ];
    let imagenet = [
        ((0.1, 0.3), 3.0, 0.5, (10.0, 4.0), 0.8),
        ((0.2, 0.3), 2.0, 0.5, (12.0, 4.0), 0.7),
        ((0.55, 0.3), 4.0, 0.9, (12.0, 8.0), 0.7),
        ((0.55, 0.3), 4.5, 0.85, (12.0, 8.0), 0.65),
        ((0.55, 0.3), 2.5, 0.85, (12.0, 12.0), 0.55),
    ];
    let (noise, size, threshold, fall, left) = strength(table, level, cifar, imagenet);
    Snow { noise, size, threshold, fall, left }
}

fn value(byte: u8) -> f64 {
    f64::from(byte) / 255.0
}

fn to_byte(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Uniform in [0, 1), a multiple of 2⁻⁵³.
fn unit(stream: &mut Stream) -> f64 {
    (stream.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Probabilities that a Poisson count of a mean (at most 700) is at most 0, 1, 2, …, up to where the rest is nothing.
fn poisson(mean: f64) -> Vec<f64> {
    let most = (mean + 12.0 * mean.sqrt() + 20.0) as u32;
    let (mut one, mut sum) = (libm::exp(-mean), 0.0);
    (1..=most)
        .map(|next| {
            sum += one;
            one *= mean / f64::from(next);
            sum
        })
        .collect()
}

fn flip(byte: u8, probability: f64, stream: &mut Stream) -> u8 {
    let (uniform, white) = (unit(stream), stream.bits() & 1 == 1);
    match (uniform < probability, white) {
        (false, _) => byte,
        (true, false) => 0,
        (true, true) => 255,
    }
}

/// The disc of a radius in pixels, smoothed by a Gaussian of 3 × 3 weights, of 5 × 5 where the radius is above 8.
fn disc(radius: f64, deviation: f64) -> Vec<(isize, isize, f64)> {
    let (half, reach) = if radius <= 8.0 { (8, 1) } else { (radius as isize, 2) };
    let offsets = || (-half..=half).flat_map(move |y| (-half..=half).map(move |x| (y, x)));
    let inside = |y: isize, x: isize| f64::from(u8::from(((y * y + x * x) as f64) <= radius * radius));
    let area: f64 = offsets().map(|(y, x)| inside(y, x)).sum();
    let weight = |at: isize| libm::exp(-((at * at) as f64) / (2.0 * deviation * deviation));
    let sum: f64 = (-reach..=reach).map(weight).sum();
    // OpenCV mirrors the kernel at its border, as it does an image.
    let mirrored = |at: isize| mirror(at + half, 2 * half + 1) - half;
    let smooth = |y: isize, x: isize| -> f64 {
        let around = (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (dy, dx)));
        around.map(|(dy, dx)| weight(dy) * weight(dx) * inside(mirrored(y + dy), mirrored(x + dx))).sum()
    };
    let taps = offsets().map(|(y, x)| (y, x, smooth(y, x) / (area * sum * sum)));
    taps.filter(|&(_, _, weight)| weight > 0.0).collect()
}

/// The place within `len` that stands for one beyond the border; the pixel at the border is not repeated.
fn mirror(at: isize, len: isize) -> isize {
    let period = (2 * (len - 1)).max(1);
    let at = at.rem_euclid(period);
    at.min(period - at).min(len - 1)
}

fn blur(plane: &[u8], [height, width]: [usize; 2], taps: &[(isize, isize, f64)]) -> Vec<u8> {
    let at =
        |y: isize, x: isize| plane[mirror(y, height as isize) as usize * width + mirror(x, width as isize) as usize];
    let places = (0..height as isize).flat_map(|y| (0..width as isize).map(move |x| (y, x)));
    let blurred = |(y, x)| taps.iter().map(|&(dy, dx, weight)| weight * value(at(y + dy, x + dx))).sum();
    places.map(|place| to_byte(blurred(place))).collect()
}

/// Adds to the largest channel of each pixel, and keeps hue and saturation: all channels grow by the same factor.
fn brighten(image: &[u8], area: usize, more: f64) -> Vec<u8> {
    let planes: Vec<&[u8]> = image.chunks(area).collect();
    let largest = |at: usize| planes.iter().map(|plane| plane[at]).max().map_or(0.0, value);
    let factors: Vec<f64> = (0..area).map(|at| (largest(at) + more).min(1.0) / largest(at)).collect();
    let pixel = |(&byte, &factor): (&u8, &f64)| if factor.is_finite() { value(byte) * factor } else { more };
    planes.iter().flat_map(|plane| plane.iter().zip(&factors).map(pixel)).map(to_byte).collect()
}

fn flatten(plane: &[u8], left: f64) -> Vec<u8> {
    let mean = plane.iter().map(|&byte| value(byte)).sum::<f64>() / plane.len() as f64;
    plane.iter().map(|&byte| to_byte((value(byte) - mean) * left + mean)).collect()
}

fn pixelate(plane: &[u8], [height, width]: [usize; 2], factor: f64) -> Vec<u8> {
    let small = [height, width].map(|side| ((side as f64 * factor) as usize).max(1));
    let image = Interleaved::<1> { pixels: plane.to_vec(), height, width };
    image.resized(small, Filter::Box).resized([height, width], Filter::Box).pixels
}
