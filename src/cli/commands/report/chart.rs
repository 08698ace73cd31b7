//! Line charts as inline SVG: they use the colours of the page, so they work in light and dark mode.

use std::fmt::Write as _;

use atflow::picture::Ticks;

/// A line of a chart.
pub(super) struct Line<'a> {
    /// Its name in the legend.
    pub name: String,
    /// Its points, by ascending x.
    pub points: Vec<(f64, f64)>,
    /// Dashes tell lines of one colour apart.
    pub dash: &'a str,
    /// Index of its colour.
    pub colour: usize,
}

/// A chart.
pub(super) struct Chart<'a> {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis is.
    pub x: &'a str,
    /// Whether the vertical axis is a share, 0 to 1, shown in percent.
    pub is_share: bool,
    /// The lines.
    pub lines: Vec<Line<'a>>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 10.0;
/// The vertical axis has at most so many steps.
const MOST_STEPS: u32 = 5;

/// Number of colours; `style.css` has them as `--line-0` and so on.
pub(super) const COLOURS: usize = 8;

impl Chart<'_> {
    /// Draws the chart.
    pub(super) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let (x_low, x_high) = range(points().map(|(x, _)| x));
        // A share is drawn in percent.
        let factor = if self.is_share { 100.0 } else { 1.0 };
        let axis = match self.is_share {
            true => Ticks::of_percent([(0.0, 100.0)], MOST_STEPS),
            false => Ticks::of_numbers(points().map(|(_, y)| y), MOST_STEPS),
        };
        let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| HEIGHT - BOTTOM - (y - axis.low) / (axis.high - axis.low) * (HEIGHT - BOTTOM - TOP);
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escaped(&self.title)
        );
        for tick in axis.values() {
            let (label, y) = (axis.label(tick), y_at(tick));
            _ = write!(
                svg,
                "<path class=\"rule\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for tick in ticks(x_low, x_high).into_iter().filter(|tick| tick.fract() == 0.0) {
            _ = write!(
                svg,
                "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{tick:.0}</text>",
                x_at(tick),
                HEIGHT - BOTTOM + 16.0,
            );
        }
        _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 3.0,
            escaped(self.x)
        );
        for line in &self.lines {
            let path: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{:.1} {:.1}", x_at(*x), y_at(factor * y))).collect();
            let colour = line.colour % COLOURS;
            match path.as_slice() {
                [] => {}
                [only] => {
                    let (x, y) = only.split_once(' ').unwrap_or_default();
                    _ = write!(svg, "<circle r=\"3\" cx=\"{x}\" cy=\"{y}\" fill=\"var(--line-{colour})\"/>");
                }
                _ => {
                    _ = write!(
                        svg,
                        "<path class=\"line\" stroke=\"var(--line-{colour})\" stroke-dasharray=\"{}\" d=\"M{}\"/>",
                        line.dash,
                        path.join("L")
                    );
                }
            }
        }
        svg + "</svg>"
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    match (low, high) {
        (low, high) if low < high => (low, high),
        (low, _) if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

/// Returns round numbers across a range, some five of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Returns a text with the characters that mean something in HTML replaced.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_differ_little_have_the_decimals_that_tell_them_apart() {
        let line = Line { name: "lr".into(), points: vec![(1.0, 0.003), (2.0, 0.001)], dash: "", colour: 0 };
        let of = |is_share| Chart { title: "rate".into(), x: "epoch", is_share, lines: vec![] };
        let svg = Chart { lines: vec![line], ..of(false) }.svg();
        for label in [">0.000<", ">0.001<", ">0.002<", ">0.003<"] {
            assert!(svg.contains(label), "{label} is missing in {svg}");
        }
        let svg = of(true).svg();
        assert!(svg.contains(">0<") && svg.contains(">20<") && svg.contains(">100<"), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(1.0, 5.0), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(ticks(1.0, 30.0), [10.0, 20.0, 30.0]);
    }
}
