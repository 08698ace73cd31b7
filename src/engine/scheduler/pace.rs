//! Pace of a running stage: images a second, and the time that the rest takes.
//!
//! Both follow the last seconds, because the start of a stage is slower than the rest and epochs differ.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Length of the window that the pace is measured over.
const WINDOW: Duration = Duration::from_secs(20);
/// Minimum interval between two samples in the window.
const SPACING: Duration = Duration::from_secs(1);
/// Minimum length of a measurement. A shorter one says little.
const SHORTEST: Duration = Duration::from_millis(500);

/// Progress at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// Units done.
    pub(super) done: u64,
    /// Images processed, if the stage counts them.
    pub(super) images: Option<u64>,
}

/// Pace at one moment; `None` as long as it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Pace {
    pub(super) images_per_second: Option<f64>,
    pub(super) seconds_left: Option<f64>,
}

/// Samples of the last seconds, oldest first.
#[derive(Debug, Default)]
pub(super) struct Paces(VecDeque<Sample>);

impl Paces {
    /// Adds a sample and returns the pace up to it; `total` is the number of units in all.
    ///
    /// A stage that starts over, with fewer units done than before, is measured from there.
    pub(super) fn after(&mut self, now: Sample, total: u64) -> Pace {
        if self.0.back().is_some_and(|last| last.done > now.done || last.images > now.images) {
            self.0.clear();
        }
        while self.0.len() > 1 && self.0.get(1).is_some_and(|next| now.at - next.at >= WINDOW) {
            self.0.pop_front();
        }
        let pace = self.0.front().map_or_else(Pace::default, |first| pace_between(*first, now, total));
        if self.0.back().is_none_or(|last| now.at - last.at >= SPACING) {
            self.0.push_back(now);
        }
        pace
    }
}

fn pace_between(first: Sample, now: Sample, total: u64) -> Pace {
    let elapsed = now.at - first.at;
    if elapsed < SHORTEST {
        return Pace::default();
    }
    let seconds = elapsed.as_secs_f64();
    // A stage that has counted none so far tells none.
    let images = now.images.map(|now| (now - first.images.unwrap_or(0)) as f64 / seconds);
    let done = now.done - first.done;
    let left = (total >= now.done && done > 0).then(|| (total - now.done) as f64 * seconds / done as f64);
    Pace { images_per_second: images, seconds_left: left }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paces(samples: &[(f64, u64, u64)], total: u64) -> Vec<(Option<f64>, Option<f64>)> {
        let (start, mut paces) = (Instant::now(), Paces::default());
        let pace = |&(at, done, images): &(f64, u64, u64)| {
            let at = start + Duration::from_secs_f64(at);
            let Pace { images_per_second, seconds_left } =
                paces.after(Sample { at, done, images: Some(images) }, total);
            (images_per_second.map(f64::round), seconds_left.map(f64::round))
        };
        samples.iter().map(pace).collect()
    }

    #[test]
    fn a_steady_stage_is_told_by_its_images_and_its_rest() {
        let found = paces(&[(0.0, 0, 0), (0.1, 1, 64), (1.0, 10, 640), (2.0, 20, 1280)], 100);
        assert_eq!(found, [(None, None), (None, None), (Some(640.0), Some(9.0)), (Some(640.0), Some(8.0))]);
    }

    #[test]
    fn a_resumed_stage_is_not_credited_with_what_was_there() {
        assert_eq!(paces(&[(0.0, 900, 0), (1.0, 910, 100)], 1000)[1], (Some(100.0), Some(9.0)));
    }

    #[test]
    fn the_last_seconds_count() {
        let slow_then_fast: Vec<(f64, u64, u64)> = (0..60)
            .map(|second| (f64::from(second), 0, if second < 30 { 0 } else { (second - 30) as u64 * 10 }))
            .collect();
        assert_eq!(paces(&slow_then_fast, 10).last(), Some(&(Some(10.0), None)));
    }

    #[test]
    fn a_stage_that_starts_over_is_measured_anew() {
        let found = paces(&[(0.0, 0, 0), (5.0, 50, 500), (6.0, 0, 0), (7.0, 1, 10)], 100);
        assert_eq!(found[2..], [(None, None), (Some(10.0), Some(99.0))]);
    }
}
