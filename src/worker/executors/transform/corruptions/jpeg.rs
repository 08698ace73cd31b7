//! What is left of an image after it was saved as a JPEG file and read again: the arithmetic of libjpeg (baseline,
//! `islow` transforms, colours of half the size, smoothed when enlarged), without the file. Pillow does the same.
//! Knows no files.
//!
//! The transforms are those of Loeffler, Ligtenberg and Moschytz (1989) in fixed point of 13 bits.

/// Sides of a block.
const SIDE: usize = 8;

/// The quantisation of brightness at quality 50 (ITU-T T.81, table K.1).
#[rustfmt::skip]
const LUMA: [i32; 64] = [
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
];

/// The quantisation of colour at quality 50 (ITU-T T.81, table K.2).
#[rustfmt::skip]
const CHROMA: [i32; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
];

/// The image after JPEG compression of a quality from 1 to 100; `image` and result are C × H × W bytes. Three channels
/// are red, green and blue. Images of another number of channels are compressed channel by channel, as grey ones.
pub(super) fn compress(image: &[u8], [height, width]: [usize; 2], quality: i32) -> Vec<u8> {
    let area = height * width;
    if image.len() != 3 * area {
        let grey = |plane: &[u8]| compress_plane(&Samples::new(plane, [height, width]), &LUMA, quality).bytes;
        return image.chunks(area).flat_map(grey).collect();
    }
    let pixels = || (0..area).map(|at| [0, 1, 2].map(|channel| i32::from(image[channel * area + at])));
    let plane = |weights: [i32; 3], more: i32| -> Vec<u8> {
        let value = |[r, g, b]: [i32; 3]| (weights[0] * r + weights[1] * g + weights[2] * b + more) >> 16;
        pixels().map(|pixel| value(pixel) as u8).collect()
    };
    // Weights in units of 2⁻¹⁶, rounded as in jccolor.c.
    let luma = plane([19_595, 38_470, 7_471], 1 << 15);
    let centre = (128 << 16) + (1 << 15) - 1;
    let blue = plane([-11_059, -21_709, 32_768], centre);
    let red = plane([32_768, -27_439, -5_329], centre);
    let luma = compress_plane(&Samples::new(&luma, [height, width]), &LUMA, quality).bytes;
    let [blue, red] = [blue, red].map(|plane| {
        let small = Samples::new(&plane, [height, width]).halved();
        compress_plane(&small, &CHROMA, quality).doubled([height, width])
    });
    let (mut colours, byte) = (vec![0; image.len()], |value: i32| value.clamp(0, 255) as u8);
    for at in 0..area {
        let (y, blue, red) = (i32::from(luma[at]), i32::from(blue[at]) - 128, i32::from(red[at]) - 128);
        colours[at] = byte(y + ((91_881 * red + (1 << 15)) >> 16));
        colours[area + at] = byte(y + ((-22_554 * blue - 46_802 * red + (1 << 15)) >> 16));
        colours[2 * area + at] = byte(y + ((116_130 * blue + (1 << 15)) >> 16));
    }
    colours
}

/// One channel.
struct Samples {
    bytes: Vec<u8>,
    height: usize,
    width: usize,
}

impl Samples {
    fn new(bytes: &[u8], [height, width]: [usize; 2]) -> Self {
        Samples { bytes: bytes.to_vec(), height, width }
    }

    /// The sample at a place; beyond the border, the nearest one.
    fn at(&self, y: usize, x: usize) -> i32 {
        i32::from(self.bytes[y.min(self.height - 1) * self.width + x.min(self.width - 1)])
    }

    /// Means of 2 × 2 samples, rounded down and up in turn. Columns fill whole blocks: those beyond the border are
    /// means of its pixels, and not copies of its means.
    fn halved(&self) -> Samples {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2).next_multiple_of(SIDE));
        let mean = |y: usize, x: usize| {
            let sum: i32 =
                [(0, 0), (0, 1), (1, 0), (1, 1)].iter().map(|(dy, dx)| self.at(2 * y + dy, 2 * x + dx)).sum();
            ((sum + 1 + (x & 1) as i32) >> 2) as u8
        };
        let bytes = (0..height).flat_map(|y| (0..width).map(move |x| mean(y, x))).collect();
        Samples { bytes, height, width }
    }

    /// Twice the size and cut to `height` × `width`: 3/4 of the nearer sample and 1/4 of the farther, along both sides.
    fn doubled(&self, [height, width]: [usize; 2]) -> Vec<u8> {
        let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
        let at = |y: usize, x: usize| i32::from(self.bytes[y * self.width + x]);
        // libjpeg smooths only what is wide enough.
        if columns <= 2 {
            return places.map(|(y, x)| at(y / 2, x / 2) as u8).collect();
        }
        let beside = |place: usize, len: usize| match place % 2 {
            0 => (place / 2).saturating_sub(1),
            _ => (place / 2 + 1).min(len - 1),
        };
        let enlarged = |(y, x): (usize, usize)| {
            let sum = |x: usize| 3 * at(y / 2, x) + at(beside(y, rows), x);
            let round = if x % 2 == 0 { 8 } else { 7 };
            ((3 * sum(x / 2) + sum(beside(x, columns)) + round) >> 4) as u8
        };
        places.map(enlarged).collect()
    }
}

/// The samples after transform, quantisation and the way back.
fn compress_plane(plane: &Samples, table: &[i32; 64], quality: i32) -> Samples {
    let scale = if quality < 50 { 5_000 / quality } else { 200 - 2 * quality };
    let steps = table.map(|step| ((step * scale + 50) / 100).clamp(1, 255));
    let mut bytes = vec![0; plane.bytes.len()];
    for top in (0..plane.height).step_by(SIDE) {
        for left in (0..plane.width).step_by(SIDE) {
            let mut block: [i32; 64] = std::array::from_fn(|at| plane.at(top + at / SIDE, left + at % SIDE) - 128);
            forward(&mut block);
            for (coefficient, step) in block.iter_mut().zip(steps) {
                // The transform's numbers are 8 times the coefficients.
                *coefficient = (coefficient.abs() + 4 * step) / (8 * step) * coefficient.signum() * step;
            }
            inverse(&mut block);
            for (at, &value) in block.iter().enumerate() {
                let (y, x) = (top + at / SIDE, left + at % SIDE);
                if y < plane.height && x < plane.width {
                    bytes[y * plane.width + x] = (value + 128).clamp(0, 255) as u8;
                }
            }
        }
    }
    Samples { bytes, ..*plane }
}

const BITS: u32 = 13;
/// Bits that the first pass keeps behind the point.
const KEPT: u32 = 2;

// Constants of the transforms, times 2¹³.
const C_0_298: i32 = 2_446;
const C_0_390: i32 = 3_196;
const C_0_541: i32 = 4_433;
const C_0_765: i32 = 6_270;
const C_0_899: i32 = 7_373;
const C_1_175: i32 = 9_633;
const C_1_501: i32 = 12_299;
const C_1_847: i32 = 15_137;
const C_1_961: i32 = 16_069;
const C_2_053: i32 = 16_819;
const C_2_562: i32 = 20_995;
const C_3_072: i32 = 25_172;

/// Divides by 2^`bits` and rounds half up.
const fn descale(value: i32, bits: u32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// Rotations of the odd part, which both transforms share.
fn rotated([a, b, c, d]: [i32; 4]) -> [i32; 4] {
    let both = (a + c + b + d) * C_1_175;
    let (z3, z4) = (both - (a + c) * C_1_961, both - (b + d) * C_0_390);
    let (z1, z2) = (-(a + d) * C_0_899, -(b + c) * C_2_562);
    [a * C_0_298 + z1 + z3, b * C_2_053 + z2 + z4, c * C_3_072 + z2 + z3, d * C_1_501 + z1 + z4]
}

/// The forward transform (jfdctint.c); results are 8 times the coefficients.
fn forward(block: &mut [i32; 64]) {
    for (stride, step, first) in [(SIDE, 1, true), (1, SIDE, false)] {
        for line in 0..SIDE {
            let at = |index: usize| line * stride + index * step;
            let v: [i32; 8] = std::array::from_fn(|index| block[at(index)]);
            let sums = [v[0] + v[7], v[1] + v[6], v[2] + v[5], v[3] + v[4]];
            let differences = [v[3] - v[4], v[2] - v[5], v[1] - v[6], v[0] - v[7]];
            let even = [sums[0] + sums[3], sums[1] + sums[2], sums[1] - sums[2], sums[0] - sums[3]];
            let bits = if first { BITS - KEPT } else { BITS + KEPT };
            let whole = |value: i32| if first { value << KEPT } else { descale(value, KEPT) };
            let z1 = (even[2] + even[3]) * C_0_541;
            let odd = rotated(differences);
            let out = [
                whole(even[0] + even[1]),
                descale(odd[3], bits),
                descale(z1 + even[3] * C_0_765, bits),
                descale(odd[2], bits),
                whole(even[0] - even[1]),
                descale(odd[1], bits),
                descale(z1 - even[2] * C_1_847, bits),
                descale(odd[0], bits),
            ];
            out.into_iter().enumerate().for_each(|(index, value)| block[at(index)] = value);
        }
    }
}

/// The inverse transform (jidctint.c).
fn inverse(block: &mut [i32; 64]) {
    for (stride, step, bits) in [(1, SIDE, BITS - KEPT), (SIDE, 1, BITS + KEPT + 3)] {
        for line in 0..SIDE {
            let at = |index: usize| line * stride + index * step;
            let v: [i32; 8] = std::array::from_fn(|index| block[at(index)]);
            let z1 = (v[2] + v[6]) * C_0_541;
            let (t2, t3) = (z1 - v[6] * C_1_847, z1 + v[2] * C_0_765);
            let (t0, t1) = ((v[0] + v[4]) << BITS, (v[0] - v[4]) << BITS);
            let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
            let odd = rotated([v[7], v[5], v[3], v[1]]);
            for index in 0..4 {
                block[at(index)] = descale(even[index] + odd[3 - index], bits);
                block[at(7 - index)] = descale(even[index] - odd[3 - index], bits);
            }
        }
    }
}
