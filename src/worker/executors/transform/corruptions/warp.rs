//! Corruptions that move pixels: glass blur, zoom blur, elastic transform. Knows no strengths.

use super::plane::{Border, Plane};
use super::{to_byte, unit};
use crate::rng::Stream;

/// As through frosted glass. `deviation` of the smoothing is in pixels; each of `rounds` takes each pixel from at most
/// `reach` rows and columns away.
///
/// The authors mean to exchange the two pixels. Their code copies one over the other, because it exchanges views of
/// the same array, and so does this.
pub(super) fn glass(
    image: &[u8],
    [height, width]: [usize; 2],
    (deviation, reach, rounds): (f64, usize, usize),
    stream: &mut Stream,
) -> Vec<u8> {
    let area = height * width;
    let smooth =
        |bytes: &[u8]| Plane::of_bytes(bytes, [height, width]).smoothed(deviation, 4.0, Border::Nearest).values;
    let mut pixels: Vec<u8> =
        image.chunks(area).flat_map(&smooth).map(|value| (value * 255.0).clamp(0.0, 255.0) as u8).collect();
    let from = |side: usize| (reach + 1..=side.saturating_sub(reach)).rev();
    for _ in 0..rounds {
        for y in from(height) {
            for x in from(width) {
                let mut move_by = || stream.below(2 * reach as u64) as usize;
                let (right, down) = (move_by(), move_by());
                let (y, x, there_y, there_x) = (y, x, y + down - reach, x + right - reach);
                for channel in pixels.chunks_mut(area) {
                    channel[y * width + x] = channel[there_y * width + there_x];
                }
            }
        }
    }
    pixels.chunks(area).flat_map(smooth).map(to_byte).collect()
}

/// As with a lens that zooms while the picture is taken: the mean of the image and of its middle, enlarged by each of
/// `factors`.
pub(super) fn zoom(plane: &[u8], sides: [usize; 2], factors: &[f64]) -> Vec<u8> {
    let plane = Plane::of_bytes(plane, sides);
    let mut sums = plane.values.clone();
    for &factor in factors {
        sums.iter_mut().zip(plane.zoomed(factor).values).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().map(|sum| to_byte(sum / (factors.len() + 1) as f64)).collect()
}

/// Stretches the image, then moves each pixel. `strengths` are the largest move, the smoothness of moves, and the most
/// by which three points of the image move, all in pixels.
pub(super) fn elastic(
    image: &[u8],
    [height, width]: [usize; 2],
    (most, deviation, stretch): (f64, f64, f64),
    stream: &mut Stream,
) -> Vec<u8> {
    let mut drawn = |most: f64| -most + 2.0 * most * unit(stream);
    let moves: [[f64; 2]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| drawn(stretch)));
    let affine = Affine::stretching([height, width], moves);
    let mut field = || {
        let noise = Plane::of([height, width], |_| drawn(1.0));
        noise.smoothed(deviation, 3.0, Border::Reflect).values
    };
    let (right, down) = (field(), field());
    let moved = image.chunks(height * width).flat_map(|plane| {
        let stretched = affine.apply(&Plane::of_bytes(plane, [height, width]));
        let moved = Plane::of([height, width], |(y, x)| {
            let at = y * width + x;
            stretched.between(y as f64 + down[at] * most, x as f64 + right[at] * most, Border::Reflect)
        });
        moved.values
    });
    moved.map(to_byte).collect()
}

/// Where the pixels of a stretched image come from: (x, y) from (ax + by + c, dx + ey + f).
struct Affine([[f64; 3]; 2]);

impl Affine {
    /// The map that moves three points, on a square about the centre, by `moves` (columns, rows).
    fn stretching([height, width]: [usize; 2], moves: [[f64; 2]; 3]) -> Self {
        let centre = [width, height].map(|side| (side / 2) as f64);
        let half = (height.min(width) / 3) as f64;
        let from = [[half, half], [half, -half], [-half, -half]].map(|[x, y]| [centre[0] + x, centre[1] + y]);
        let to: [[f64; 2]; 3] = std::array::from_fn(|point| {
            std::array::from_fn(|axis| f64::from(from[point][axis] as f32 + moves[point][axis] as f32))
        });
        // Pixels are fetched, so the map from the moved points to the points is needed.
        let [p, q, r] = to;
        let area = (p[0] - r[0]) * (q[1] - r[1]) - (q[0] - r[0]) * (p[1] - r[1]);
        Affine(std::array::from_fn(|axis| {
            let (first, second) = (from[0][axis] - from[2][axis], from[1][axis] - from[2][axis]);
            let x = (first * (q[1] - r[1]) - second * (p[1] - r[1])) / area;
            let y = (second * (p[0] - r[0]) - first * (q[0] - r[0])) / area;
            [x, y, from[2][axis] - x * r[0] - y * r[1]]
        }))
    }

    /// As OpenCV's `warpAffine` with a mirrored border: places are rounded to 1/32 pixel.
    fn apply(&self, plane: &Plane) -> Plane {
        let fixed = |value: f64| (value * 1024.0).round_ties_even();
        let place = |[x, y, constant]: [f64; 3], (row, column): (usize, usize)| {
            let sum = fixed(y * row as f64 + constant) + 16.0 + fixed(x * column as f64);
            (sum / 32.0).floor() / 32.0
        };
        Plane::of([plane.height, plane.width], |at| {
            plane.between(place(self.0[1], at), place(self.0[0], at), Border::Mirror)
        })
    }
}
