//! How series are told apart: twelve colours and twelve marks, each pair used once in the first 144 series.

use super::drawing::{Color, Drawing, Spot};
use super::style::{FAINT, MARK, WHITE};

/// Colours that stay apart for people with any of the common colour-vision deficiencies: those of Okabe and Ito
/// (<https://jfly.uni-koeln.de/color/>) without yellow, which is too light for lines on white, then those of Paul Tol's
/// `muted` scheme (<https://personal.sron.nl/~pault/>) that are furthest from them. Two of the latter look alike to
/// some; their marks do not.
const COLORS: [Color; 12] = [
    [0x00, 0x72, 0xB2], // blue
    [0xD5, 0x5E, 0x00], // vermilion
    [0x00, 0x9E, 0x73], // bluish green
    [0xCC, 0x79, 0xA7], // reddish purple
    [0x1A, 0x1A, 0x1A], // black
    [0xE6, 0x9F, 0x00], // orange
    [0x56, 0xB4, 0xE9], // sky blue
    [0x88, 0x22, 0x55], // wine
    [0x99, 0x99, 0x33], // olive
    [0x33, 0x22, 0x88], // indigo
    [0x88, 0x88, 0x88], // grey
    [0x11, 0x77, 0x33], // green
];

/// Marks, all drawn as filled polygons.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// Corners on a circle, the first at this many degrees clockwise from the top.
    Regular(u32, f32),
    /// A star of so many points, the first at the top.
    Star(u32),
    /// A cross with bars, turned by this many degrees.
    Cross(f32),
    /// A bar lying or standing.
    Bar(f32, f32),
}

const MARKS: [Mark; 12] = [
    Mark::Regular(40, 0.0), // disc
    Mark::Regular(4, 45.0), // square
    Mark::Regular(3, 0.0),  // triangle
    Mark::Regular(4, 0.0),  // diamond
    Mark::Cross(45.0),      // ×
    Mark::Regular(3, 180.0),
    Mark::Star(5),
    Mark::Cross(0.0), // +
    Mark::Regular(3, 90.0),
    Mark::Bar(1.0, 0.45),
    Mark::Regular(3, 270.0),
    Mark::Star(4),
];

/// The colour of a series.
pub(super) fn color(series: usize) -> Color {
    COLORS[series % COLORS.len()]
}

/// Draws the mark of a series, with a thin white border that keeps it apart from what lies under it.
pub(super) fn draw(canvas: &mut Drawing, series: usize, at: Spot) {
    fill(canvas, series, at, 1.2, WHITE);
    fill(canvas, series, at, 0.0, color(series));
}

/// Draws the outline of a mark: that of a number which somebody else measured.
pub(super) fn draw_hollow(canvas: &mut Drawing, series: usize, at: Spot) {
    fill(canvas, series, at, 0.0, color(series));
    fill(canvas, series, at, -1.2, WHITE);
}

/// Draws a mark that stands for those of all series.
pub(super) fn draw_faint(canvas: &mut Drawing, at: Spot) {
    fill(canvas, 0, at, 0.0, FAINT);
}

fn fill(canvas: &mut Drawing, series: usize, (x, y): Spot, border: f32, color: Color) {
    let outline = outline(series, MARK, border);
    canvas.fill(outline.into_iter().map(|(dx, dy)| (x + dx, y + dy)).collect(), color, 1.0);
}

/// The outline of the mark of a series around the origin, about `size` units in radius and enlarged by `border` on
/// every side.
pub(super) fn outline(series: usize, size: f32, border: f32) -> Vec<(f32, f32)> {
    // From one round of colours to the next the marks are shifted, so that pairs do not repeat.
    let mark = MARKS[(series + series / COLORS.len()) % MARKS.len()];
    let on_circle = |radius: f32, degrees: f32| {
        let angle = degrees.to_radians();
        (radius * angle.sin(), -radius * angle.cos())
    };
    match mark {
        Mark::Regular(corners, first) => {
            // Polygons with few corners need a larger radius to look as large, and a border grows more at sharp
            // corners.
            let (grown, sharp) = match corners {
                3 => (size * 1.25, 2.0),
                4 => (size * 1.2, 1.41),
                _ => (size, 1.0),
            };
            let step = 360.0 / corners as f32;
            (0..corners).map(|corner| on_circle(grown + border * sharp, first + corner as f32 * step)).collect()
        }
        Mark::Star(points) => {
            let step = 180.0 / points as f32;
            let radius = |corner| if corner % 2 == 0 { size * 1.45 + border * 1.8 } else { size * 0.6 + border };
            (0..2 * points).map(|corner| on_circle(radius(corner), corner as f32 * step)).collect()
        }
        Mark::Cross(turn) => {
            let (long, thick) = (size * 1.25 + border, size * 0.38 + border);
            let corners = [(thick, long), (thick, thick), (long, thick)];
            let quarter = |quarter: u32| corners.map(|(x, y)| rotate((x, y), turn + 90.0 * quarter as f32));
            // Counter-clockwise corners, so that the quarters join into one outline.
            (0..4).rev().flat_map(quarter).collect()
        }
        Mark::Bar(width, height) => {
            let (x, y) = (size * width * 1.2 + border, size * height + border);
            vec![(-x, -y), (x, -y), (x, y), (-x, y)]
        }
    }
}

fn rotate((x, y): (f32, f32), degrees: f32) -> (f32, f32) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    (x * cos - y * sin, x * sin + y * cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_series_differ_in_colour_and_in_mark_and_no_pair_repeats() {
        let pairs: Vec<_> = (0..144).map(|series| (color(series), outline(series, 4.0, 0.0))).collect();
        for (index, one) in pairs.iter().enumerate() {
            for other in &pairs[..index] {
                assert_ne!(one, other);
            }
        }
        for (index, one) in pairs[..12].iter().enumerate() {
            assert!(pairs[..index].iter().all(|other| one.0 != other.0 && one.1 != other.1));
        }
    }
}
