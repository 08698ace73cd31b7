//! One channel of an image as numbers, and the filters that several corruptions share, in the order of operations of
//! scipy, OpenCV and ImageMagick. Knows no corruptions.

use super::{mirror, value};

/// One channel: rows of values, white is 1.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    pub(super) values: Vec<f64>,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// What stands beyond the border of an image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Border {
    /// The nearest pixel.
    Nearest,
    /// The image, mirrored; the pixel at the border is repeated.
    Reflect,
    /// The image, mirrored; the pixel at the border is not repeated.
    Mirror,
}

impl Border {
    /// The place within `len` that stands for one anywhere.
    fn within(self, at: isize, len: usize) -> usize {
        let len = len as isize;
        let inside = match self {
            Border::Nearest => at.clamp(0, len - 1),
            Border::Reflect => {
                let at = at.rem_euclid(2 * len);
                at.min(2 * len - 1 - at)
            }
            Border::Mirror => mirror(at, len),
        };
        inside as usize
    }
}

impl Plane {
    /// The channel that bytes stand for.
    pub(super) fn of_bytes(bytes: &[u8], [height, width]: [usize; 2]) -> Self {
        Plane { values: bytes.iter().map(|&byte| value(byte)).collect(), height, width }
    }

    /// The channel with the value that `value` gives to each row and column.
    pub(super) fn of([height, width]: [usize; 2], value: impl FnMut((usize, usize)) -> f64) -> Self {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        Plane { values: places.map(value).collect(), height, width }
    }

    fn row(&self, y: usize) -> &[f64] {
        &self.values[y * self.width..(y + 1) * self.width]
    }

    /// The value at a place, which may lie beyond the border.
    pub(super) fn at(&self, y: isize, x: isize, border: Border) -> f64 {
        self.values[border.within(y, self.height) * self.width + border.within(x, self.width)]
    }

    /// The value between four pixels.
    pub(super) fn between(&self, y: f64, x: f64, border: Border) -> f64 {
        let (top, left) = (y.floor(), x.floor());
        let (down, right) = (y - top, x - left);
        let (top, left) = (top as isize, left as isize);
        let at = |y, x| self.at(y, x, border);
        (1.0 - down) * ((1.0 - right) * at(top, left) + right * at(top, left + 1))
            + down * ((1.0 - right) * at(top + 1, left) + right * at(top + 1, left + 1))
    }

    /// Smoothed by a Gaussian of a deviation in pixels, whose weights end after `reach` deviations
    /// (`scipy.ndimage.gaussian_filter`).
    pub(super) fn smoothed(&self, deviation: f64, reach: f64, border: Border) -> Plane {
        let radius = (reach * deviation + 0.5) as isize;
        if radius == 0 {
            return self.clone();
        }
        let weight = |at: isize| libm::exp(-0.5 / (deviation * deviation) * (at * at) as f64);
        let sum: f64 = (-radius..=radius).map(weight).sum();
        let weights: Vec<f64> = (0..=radius).map(|at| weight(at) / sum).collect();
        let Plane { height, width, .. } = *self;
        // As in scipy, the outer pairs are added first: a value may be cut off to a byte later.
        let pairs = || (1..=radius).rev();
        let add = |sums: &mut [f64], one: &[f64], other: &[f64], weight: f64| {
            sums.iter_mut().zip(one.iter().zip(other)).for_each(|(sum, (one, other))| *sum += (one + other) * weight);
        };
        let mut down = Plane { values: self.values.iter().map(|value| value * weights[0]).collect(), height, width };
        for (y, sums) in down.values.chunks_mut(width).enumerate() {
            let row = |at: isize| self.row(border.within(y as isize + at, height));
            pairs().for_each(|at| add(sums, row(-at), row(at), weights[at as usize]));
        }
        let mut both = Plane { values: down.values.iter().map(|value| value * weights[0]).collect(), height, width };
        for (y, sums) in both.values.chunks_mut(width).enumerate() {
            let row = down.row(y);
            let padded: Vec<f64> = (-radius..width as isize + radius).map(|x| row[border.within(x, width)]).collect();
            let from = |at: isize| &padded[(radius + at) as usize..][..width];
            pairs().for_each(|at| add(sums, from(-at), from(at), weights[at as usize]));
        }
        both
    }

    /// The middle of the image, enlarged by a factor of at least 1 to the size of the image. Values between pixels are
    /// linear (`scipy.ndimage.zoom` of order 1, whose outer pixels stay the outer ones).
    pub(super) fn zoomed(&self, factor: f64) -> Plane {
        let [rows, columns] = [self.height, self.width].map(|side| Zoom::new(side, factor));
        Plane::of([self.height, self.width], |(y, x)| self.between(rows.at(y), columns.at(x), Border::Nearest))
    }
}

/// Where the pixels of an enlarged line lie in the line.
struct Zoom {
    first: usize,
    trimmed: usize,
    step: f64,
}

impl Zoom {
    fn new(side: usize, factor: f64) -> Self {
        let cropped = ((side as f64 / factor).ceil() as usize).min(side);
        let enlarged = (cropped as f64 * factor).round_ties_even() as usize;
        let step = (cropped - 1) as f64 / (enlarged.max(2) - 1) as f64;
        Zoom { first: (side - cropped) / 2, trimmed: enlarged.saturating_sub(side) / 2, step }
    }

    fn at(&self, place: usize) -> f64 {
        self.first as f64 + (self.trimmed + place) as f64 * self.step
    }
}

/// Smears bytes from each pixel along a line of one side, as ImageMagick's `-motion-blur` does. `radius` and
/// `deviation` are in pixels, `angle` is in degrees. The result is in units of 1/257 byte, the numbers of ImageMagick.
pub(super) fn smear(
    bytes: &[u8],
    [height, width]: [usize; 2],
    (radius, deviation): (f64, f64),
    angle: f64,
) -> impl Iterator<Item = u16> {
    let taps = 2 * radius.ceil() as usize + 1;
    let weight = |at: usize| libm::exp(-((at * at) as f64) / (2.0 * deviation * deviation));
    let sum: f64 = (0..taps).map(weight).sum();
    let (sine, cosine) = (libm::sin(angle.to_radians()), libm::cos(angle.to_radians()));
    let offset = |at: usize, along: f64| (at as f64 * along - 0.5).ceil() as isize;
    let taps: Vec<_> = (0..taps).map(|at| (offset(at, sine), offset(at, cosine), weight(at) / sum)).collect();
    let plane = Plane { values: bytes.iter().map(|&byte| f64::from(byte) * 257.0).collect(), height, width };
    let places = (0..height as isize).flat_map(move |y| (0..width as isize).map(move |x| (y, x)));
    places.map(move |(y, x)| {
        let tap = |&(dy, dx, weight): &(isize, isize, f64)| weight * plane.at(y + dy, x + dx, Border::Nearest);
        (taps.iter().map(tap).sum::<f64>() + 0.5) as u16
    })
}
