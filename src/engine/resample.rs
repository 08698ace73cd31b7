//! Pillow's resampling of 8-bit images, to the bit: which pixels make a new one, with which weights in fixed point.
//! Published networks were trained on images that Pillow resized; other libraries round otherwise or leave out the
//! smoothing. Knows bytes only; a worker applies the same taps to tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Binary digits behind the point of a weight. Pillow's `PRECISION_BITS` (libImaging/Resample.c): a sum of 255 times
/// the weights has room in 32 bits.
pub const PRECISION: u32 = 22;

/// The kernel that new pixels are made with, stretched by the scale where an image gets smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Resampling")]
pub enum Filter {
    /// A triangle: torchvision's default for images.
    #[default]
    Bilinear,
    /// A windowed sinc of three lobes: sharper; Pillow's `ANTIALIAS` of old.
    Lanczos,
    /// A box: the mean of the old pixels below a new one. Of `pixelate` alone, no set is resized by it.
    #[serde(skip)]
    Box,
}

impl Filter {
    const fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Lanczos => 3.0,
            Filter::Box => 0.5,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        match self {
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
            // Half open as in Pillow, so that no old pixel is counted twice.
            Filter::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
        }
    }
}

/// How each new pixel of a line is made of old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taps {
    /// The first old pixel of each new one.
    pub first: Vec<usize>,
    /// Weights of the old pixels from there on, in units of 2^-[`PRECISION`]; the same number for each new pixel, zeros
    /// at the end.
    pub weights: Vec<i32>,
    /// Weights of a new pixel.
    pub width: usize,
}

impl Taps {
    /// The taps that make `to` pixels of `from`; both are at least 1.
    pub fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let width = (support.ceil() as usize * 2 + 1).min(from);
        let (mut first, mut weights) = (Vec::with_capacity(to), Vec::with_capacity(to * width));
        for index in 0..to {
            let centre = (index as f64 + 0.5) * scale;
            // Casts cut off towards 0, as they do in C; below 0 they give 0.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (start..end).map(|at| filter.weight((at as f64 - centre + 0.5) / stretch)).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: f64| {
                let weight = if sum == 0.0 { weight } else { weight / sum } * f64::from(1 << PRECISION);
                (weight + 0.5_f64.copysign(weight)) as i32
            };
            first.push(start);
            weights.extend(raw.iter().map(|&weight| fixed(weight)));
            weights.resize((index + 1) * width, 0);
        }
        Taps { first, weights, width }
    }

    /// Old pixels of a new one, and their weights.
    fn of(&self, index: usize) -> (usize, &[i32]) {
        (self.first[index], &self.weights[index * self.width..][..self.width])
    }
}

/// An image of C colours that stand beside each other: H × W × C bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interleaved<const C: usize> {
    /// The bytes.
    pub pixels: Vec<u8>,
    /// Its height.
    pub height: usize,
    /// Its width.
    pub width: usize,
}

impl<const C: usize> Interleaved<C> {
    /// The image in another size: first along its rows, then along its columns, each rounded to bytes. No side may be
    /// 0.
    pub fn resized(self, [height, width]: [usize; 2], filter: Filter) -> Self {
        let across = if width == self.width { self } else { self.across(width, filter) };
        if height == across.height { across } else { across.down(height, filter) }
    }

    fn across(&self, width: usize, filter: Filter) -> Self {
        let taps = Taps::new(self.width, width, filter);
        let mut pixels = Vec::with_capacity(self.height * width * C);
        for row in self.pixels.chunks_exact(self.width * C) {
            let (row, _) = row.as_chunks::<C>();
            for index in 0..width {
                let (first, weights) = taps.of(index);
                let mut sums = [0_i32; C];
                for (pixel, weight) in row[first..].iter().zip(weights) {
                    for (sum, &colour) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(colour) * weight;
                    }
                }
                pixels.extend(sums.map(rounded));
            }
        }
        Interleaved { pixels, height: self.height, width }
    }

    fn down(&self, height: usize, filter: Filter) -> Self {
        let (taps, stride) = (Taps::new(self.height, height, filter), self.width * C);
        let mut pixels = Vec::with_capacity(height * stride);
        let mut sums = vec![0_i32; stride];
        for index in 0..height {
            let (first, weights) = taps.of(index);
            sums.fill(0);
            for (row, &weight) in self.pixels[first * stride..].chunks_exact(stride).zip(weights) {
                for (sum, &colour) in sums.iter_mut().zip(row) {
                    *sum += i32::from(colour) * weight;
                }
            }
            pixels.extend(sums.iter().map(|&sum| rounded(sum)));
        }
        Interleaved { pixels, height, width: self.width }
    }

    /// The window of `height` × `width` whose upper left corner is at (`top`, `left`); it lies within the image.
    pub fn window(&self, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Self {
        let (stride, row) = (self.width * C, width * C);
        let rows = (top..top + height).flat_map(|y| &self.pixels[y * stride + left * C..][..row]);
        Interleaved { pixels: rows.copied().collect(), height, width }
    }

    /// The same with each colour by itself: C × H × W bytes.
    pub fn planes(&self) -> Vec<u8> {
        let (pixels, _) = self.pixels.as_chunks::<C>();
        (0..C).flat_map(|channel| pixels.iter().map(move |pixel| pixel[channel])).collect()
    }
}

fn rounded(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// Height and width of an image whose shorter side becomes `side`, as torchvision's `Resize` reckons them: the longer
/// one cut off to a whole number.
pub fn short_side([height, width]: [usize; 2], side: usize) -> [usize; 2] {
    if width <= height { [side * height / width.max(1), side] } else { [side, side * width / height.max(1)] }
}
