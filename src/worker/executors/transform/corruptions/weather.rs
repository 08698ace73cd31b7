//! Snow and fog. Knows no strengths.

use super::plane::{Plane, smear};
use super::{to_byte, unit, value};
use crate::rng::Stream;

/// How it snows.
#[derive(Debug, Clone, Copy)]
pub struct Snow {
    /// Mean and standard deviation of the noise that flakes are made of.
    pub noise: (f64, f64),
    /// By which factor flakes are enlarged.
    pub size: f64,
    /// Below this value, noise is no flake.
    pub threshold: f64,
    /// Radius and standard deviation of the blur by falling, in pixels.
    pub fall: (f64, f64),
    /// What is left of the image; the rest of it is whitened.
    pub left: f64,
}

impl Snow {
    /// The image in snow; `image` and result are C × H × W bytes.
    pub(super) fn apply(&self, image: &[u8], [height, width]: [usize; 2], stream: &mut Stream) -> Vec<u8> {
        let (mean, deviation) = self.noise;
        let noise = Plane::of([height, width], |_| mean + deviation * f64::from(stream.normal()));
        let angle = -135.0 + 90.0 * unit(stream);
        let flake = |&value: &f64| if value < self.threshold { 0 } else { (value.clamp(0.0, 1.0) * 255.0) as u8 };
        let flakes: Vec<u8> = noise.zoomed(self.size).values.iter().map(flake).collect();
        // ImageMagick cuts the flakes off to bytes.
        let flakes: Vec<u8> =
            smear(&flakes, [height, width], self.fall, angle).map(|fine| (fine / 257) as u8).collect();
        let area = height * width;
        let pale: Vec<f64> = (0..area).map(|at| grey(image, area, at) * 1.5 + 0.5).collect();
        let whitened = |(at, &byte): (usize, &u8)| {
            let (at, value) = (at % area, value(byte));
            let image = self.left * value + (1.0 - self.left) * value.max(pale[at]);
            // The same flakes once more, upside down.
            to_byte(image + f64::from(flakes[at]) / 255.0 + f64::from(flakes[area - 1 - at]) / 255.0)
        };
        image.iter().enumerate().map(whitened).collect()
    }
}

/// The luma of a pixel (ITU-R BT.601), or the value of an image of one channel.
fn grey(image: &[u8], area: usize, at: usize) -> f64 {
    match image.len() / area {
        3 => 0.299 * value(image[at]) + 0.587 * value(image[area + at]) + 0.114 * value(image[2 * area + at]),
        _ => value(image[at]),
    }
}

/// The image in fog of a thickness; `image` and result are C × H × W bytes.
pub(super) fn fog(
    image: &[u8],
    [height, width]: [usize; 2],
    (thickness, decay): (f64, f64),
    stream: &mut Stream,
) -> Vec<u8> {
    let side = height.max(width).next_power_of_two();
    let plasma = plasma(side, decay, stream);
    let brightest = image.iter().max().map_or(0.0, |&byte| value(byte));
    let foggy = |(at, &byte): (usize, &u8)| {
        let (y, x) = (at / width % height, at % width);
        to_byte((value(byte) + thickness * plasma[y * side + x]) * brightest / (brightest + thickness))
    };
    image.iter().enumerate().map(foggy).collect()
}

/// A fractal surface of side × side heights in [0, 1], by the diamond-square algorithm (Fournier, Fussell and Carpenter
/// 1982) on a torus. `side` is a power of two. Each halving of the steps divides the roughness by `decay`.
fn plasma(side: usize, decay: f64, stream: &mut Stream) -> Vec<f64> {
    let mut heights = vec![0.0; side * side];
    let (mut step, mut rough) = (side, 100.0);
    while step >= 2 {
        let half = step / 2;
        let count = side / step;
        // The midpoint of four heights, which lie `reach` rows and columns away.
        let mut middle = |heights: &mut [f64], from: [usize; 2], around: [[usize; 2]; 4]| {
            for index in 0..count * count {
                let (y, x) = (index / count * step, index % count * step);
                let at = |[down, right]: [usize; 2]| (y + down) % side * side + (x + right) % side;
                let sum: f64 = around.iter().map(|&place| heights[at(place)]).sum();
                heights[at(from)] = sum / 4.0 + rough * (-rough + 2.0 * rough * unit(stream));
            }
        };
        let back = side - half;
        middle(&mut heights, [half, half], [[0, 0], [step, 0], [0, step], [step, step]]);
        middle(&mut heights, [0, half], [[half, half], [back, half], [0, 0], [0, step]]);
        middle(&mut heights, [half, 0], [[half, half], [half, back], [0, 0], [step, 0]]);
        step = half;
        rough /= decay;
    }
    let lowest = heights.iter().copied().fold(f64::INFINITY, f64::min);
    let range = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max) - lowest;
    heights.iter().map(|height| if range > 0.0 { (height - lowest) / range } else { 0.0 }).collect()
}
