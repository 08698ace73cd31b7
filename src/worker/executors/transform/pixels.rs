//! Saturation and patch shuffle: transforms on bytes. Knows neither sets nor random numbers.

use atflow::stage_kinds::Assembly;

/// Returns the saturation of each byte: v' = sign(2v−1) |2v−1|^(2/level) / 2 + 1/2 (Zhang & Zhu 2019, section 3.2).
///
/// The result is clamped to [0, 1] and rounded to the nearest byte. `level` is above 0.
pub fn saturation(level: f64) -> [u8; 256] {
    std::array::from_fn(|byte| {
        let signed = 2.0 * byte as f64 / 255.0 - 1.0;
        let value = signed.signum() * signed.abs().powf(2.0 / level) / 2.0 + 0.5;
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

/// Reorders the k × k patches of an image (C × H × W bytes); k divides height and width.
///
/// Patch `order[i]` of `source` becomes patch i of `target`, both counted along rows.
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

/// Returns the row-wise patch order that arranges `order` as `assembly` says.
///
/// With columns, patch `order[0]` goes to the upper left, `order[1]` below it.
pub fn assembled(order: &[usize], k: usize, assembly: Assembly) -> Vec<usize> {
    match assembly {
        Assembly::Rows => order.to_vec(),
        Assembly::Columns => (0..order.len()).map(|place| order[place % k * k + place / k]).collect(),
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
        // Two channels of 4 × 4; each pixel encodes its channel and patch.
        let piece = |y: usize, x: usize| y / 2 * 2 + x / 2;
        let image = |order: [usize; 4]| -> Vec<u8> {
            let pixels = (0..2).flat_map(|c| (0..4).flat_map(move |y| (0..4).map(move |x| (c, y, x))));
            pixels.map(|(c, y, x)| (10 * c + order[piece(y, x)] + 100 * (y % 2) + 50 * (x % 2)) as u8).collect()
        };
        let mut out = vec![0; 32];
        shuffle_patches(&image([0, 1, 2, 3]), &mut out, [2, 4, 4], 2, &[2, 0, 3, 1]);
        assert_eq!(out, image([2, 0, 3, 1]));
    }

    /// The authors' code joins k patches to a column, then the columns: without a shuffle the grid is transposed.
    #[test]
    fn columns_transpose_the_grid() {
        let order: Vec<usize> = (0..9).collect();
        assert_eq!(assembled(&order, 3, Assembly::Rows), order);
        assert_eq!(assembled(&order, 3, Assembly::Columns), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    }
}
