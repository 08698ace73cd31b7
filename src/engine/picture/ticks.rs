//! The vertical axis of shares: where it begins, ends, and has its lines.

/// The vertical axis, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ticks {
    /// Where it begins.
    pub(super) low: f64,
    /// Where it ends; above `low`.
    pub(super) high: f64,
    step: f64,
}

impl Ticks {
    /// An axis that holds every interval (low and high, 0 to 1) from one round number to another; from 0 where that
    /// costs less than half of the height.
    pub(super) fn new(intervals: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let all = Ticks { low: 0.0, high: 100.0, step: 20.0 };
        let ends = intervals.into_iter().reduce(|(low, high), (lower, higher)| (low.min(lower), high.max(higher)));
        let Some((least, most)) = ends.map(|(low, high)| (low * 100.0, high * 100.0)) else { return all };
        let least = if least < most / 2.0 { 0.0 } else { least };
        let fits = |step: f64| {
            let (low, high) = ((least / step).floor() * step, ((most / step).ceil() * step).min(100.0));
            // Less than 7 steps leave room for the eye; an interval of no height cannot be drawn.
            (low < high && (high - low) / step <= 6.0).then_some(Ticks { low, high, step })
        };
        [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find_map(fits).unwrap_or(all)
    }

    /// The percentages with a line.
    pub(super) fn values(self) -> impl Iterator<Item = f64> {
        let steps = ((self.high - self.low) / self.step + 1e-9).floor() as u32;
        (0..=steps).map(move |step| self.low + f64::from(step) * self.step)
    }
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
}
