//! The vertical axis: where it begins, ends, and has its lines.

/// A vertical axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ticks {
    /// Where it begins.
    pub low: f64,
    /// Where it ends; above `low`.
    pub high: f64,
    step: f64,
}

/// Less than 7 steps leave room for the eye.
pub(super) const MOST_STEPS: u32 = 6;

/// Rounding may leave a quotient so far above or below a whole number.
const SLACK: f64 = 1e-9;

impl Ticks {
    /// An axis in percent that holds every interval (low and high, 0 to 1) from one round number to another; from 0
    /// where that costs less than half of the height.
    pub(super) fn new(intervals: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let percent = intervals.into_iter().map(|(low, high)| (low * 100.0, high * 100.0));
        Self::of_percent(percent, MOST_STEPS)
    }

    /// The same for intervals in percent, in at most so many steps.
    pub fn of_percent(intervals: impl IntoIterator<Item = (f64, f64)>, most_steps: u32) -> Self {
        let widest = if most_steps < 5 { 50.0 } else { 20.0 };
        let all = Ticks { low: 0.0, high: 100.0, step: widest };
        let Some((least, most)) = ends(intervals) else { return all };
        let fits = |step: f64| {
            let (low, high) = ((least / step).floor() * step, ((most / step).ceil() * step).min(100.0));
            // An interval of no height cannot be drawn.
            (low < high && (high - low) / step <= f64::from(most_steps)).then_some(Ticks { low, high, step })
        };
        [1.0, 2.0, 5.0, 10.0, 20.0, widest].into_iter().find_map(fits).unwrap_or(all)
    }

    /// An axis that holds every number from one round number to another, in at most so many steps; from 0 where that
    /// costs less than half of the height, or where all numbers are equal.
    pub fn of_numbers(numbers: impl IntoIterator<Item = f64>, most_steps: u32) -> Self {
        let (least, most) = match ends(numbers.into_iter().map(|number| (number, number))) {
            Some((least, most)) if least < most => (least, most),
            Some((only, _)) if only != 0.0 => (only.min(0.0), only.max(0.0)),
            _ => (0.0, 1.0),
        };
        let power = 10_f64.powf(((most - least) / f64::from(most_steps)).log10().floor());
        let rounded = |step: f64| {
            let (low, high) = ((least / step + SLACK).floor() * step, (most / step - SLACK).ceil() * step);
            Ticks { low, high, step }
        };
        let fits = |ticks: &Ticks| (ticks.high - ticks.low) / ticks.step <= f64::from(most_steps) + SLACK;
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| rounded(factor * power));
        steps.into_iter().find(fits).unwrap_or_else(|| rounded(20.0 * power))
    }

    /// A value as it stands at the axis: with the decimals that tell it from its neighbours.
    pub fn label(self, value: f64) -> String {
        let decimals = (-self.step.log10() - SLACK).ceil().max(0.0) as usize;
        // No minus before a zero.
        let value = if value.abs() < self.step / 2.0 { 0.0 } else { value };
        format!("{value:.decimals$}")
    }

    /// The values with a line.
    pub fn values(self) -> impl Iterator<Item = f64> {
        let steps = ((self.high - self.low) / self.step + 1e-9).floor() as u32;
        (0..=steps).map(move |step| self.low + f64::from(step) * self.step)
    }
}

/// The lowest and the highest end of intervals; 0 for the lowest where that costs less than half of the height.
fn ends(intervals: impl IntoIterator<Item = (f64, f64)>) -> Option<(f64, f64)> {
    let ends = intervals.into_iter().reduce(|(low, high), (lower, higher)| (low.min(lower), high.max(higher)));
    ends.map(|(least, most)| (if least >= 0.0 && least < most / 2.0 { 0.0 } else { least }, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_round_and_holds_every_interval() {
        let ticks = |low: f64, high: f64| Ticks::new([(low, high), (high, high)]);
        assert_eq!(ticks(0.871, 0.923), Ticks { low: 87.0, high: 93.0, step: 1.0 });
        assert_eq!(ticks(0.871, 0.923).values().collect::<Vec<_>>(), [87.0, 88.0, 89.0, 90.0, 91.0, 92.0, 93.0]);
        assert_eq!(ticks(0.2, 0.83), Ticks { low: 0.0, high: 100.0, step: 20.0 });
        assert_eq!(ticks(0.6, 0.999), Ticks { low: 60.0, high: 100.0, step: 10.0 });
        for nothing in [vec![], vec![(0.0, 0.0)], vec![(1.0, 1.0)]] {
            assert_eq!(Ticks::new(nothing), Ticks { low: 0.0, high: 100.0, step: 20.0 });
        }
    }

    #[test]
    fn numbers_of_any_size_have_round_labels() {
        let labels = |numbers: &[f64], steps| {
            let ticks = Ticks::of_numbers(numbers.iter().copied(), steps);
            ticks.values().map(|value| ticks.label(value)).collect::<Vec<_>>()
        };
        assert_eq!(labels(&[2.31, 0.12], 6), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(labels(&[0.1, 0.001], 5), ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]);
        assert_eq!(labels(&[0.1, 0.001], 2), ["0.00", "0.05", "0.10"]);
        assert_eq!(labels(&[0.00003, 0.00001], 3), ["0.00000", "0.00001", "0.00002", "0.00003"]);
        assert_eq!(labels(&[0.1, 0.1], 2), ["0.00", "0.05", "0.10"]);
        assert_eq!(labels(&[700.0, 1300.0], 4), ["600", "800", "1000", "1200", "1400"]);
        assert_eq!(labels(&[-0.4, 0.6], 6), ["-0.4", "-0.2", "0.0", "0.2", "0.4", "0.6"]);
        assert_eq!(labels(&[0.0], 2), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(&[], 2), ["0.0", "0.5", "1.0"]);
    }
}
