//! When the stages of a run ran: bars in lanes, how many ran at once, the critical path, and what the cache saved.

use super::RunResults;

/// The times of a run, in seconds from its start.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The stages that ran, by their start.
    pub bars: Vec<Bar>,
    /// Number of lanes.
    pub lanes: usize,
    /// End of the last bar.
    pub end: f64,
    /// Stages of the critical path, first to last: the longest chain of stages of which each needs the one before.
    pub critical: Vec<usize>,
    /// Seconds of the critical path.
    pub critical_seconds: f64,
    /// Seconds that all stages together ran.
    pub worked: f64,
    /// Seconds that the results out of the cache once took.
    pub saved: f64,
}

/// A stage that ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Index of the result.
    pub stage: usize,
    /// Start.
    pub start: f64,
    /// End.
    pub end: f64,
    /// Lane, from 0. Bars of one lane do not overlap.
    pub lane: usize,
}

/// Returns the times of a run. A manifest has the end of its stage, the run's record the seconds.
pub fn timeline(results: &RunResults) -> Timeline {
    let moment = |at: &str| at.parse::<jiff::Timestamp>().ok();
    let mut timeline = Timeline::default();
    let mut intervals = Vec::new();
    for (index, stage) in results.stages.iter().enumerate() {
        match (stage.ran, moment(&stage.manifest.made.at)) {
            (Some(seconds), Some(end)) => intervals.push((index, seconds, end)),
            (None, _) => timeline.saved += stage.manifest.made.seconds,
            _ => {}
        }
    }
    let first = intervals.iter().map(|(_, seconds, end)| end.as_duration().as_secs_f64() - seconds);
    let first = first.fold(f64::INFINITY, f64::min);
    // Records of older versions have no start of the run.
    let start = results.run.started.as_deref().and_then(moment).map_or(first, |at| at.as_duration().as_secs_f64());
    for (index, seconds, end) in intervals {
        let end = (end.as_duration().as_secs_f64() - start).max(seconds);
        timeline.bars.push(Bar { stage: index, start: (end - seconds).max(0.0), end, lane: 0 });
        timeline.worked += seconds;
    }
    timeline.bars.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.stage.cmp(&b.stage)));
    timeline.lanes = assign_lanes(&mut timeline.bars);
    timeline.end = timeline.bars.iter().map(|bar| bar.end).fold(0.0, f64::max);
    (timeline.critical, timeline.critical_seconds) = critical_path(results);
    timeline
}

/// Ends and starts of consecutive stages differ by rounding; so much overlap is none, in seconds.
const TOUCH: f64 = 0.005;

/// Puts each bar into the first lane that is free; returns the number of lanes.
fn assign_lanes(bars: &mut [Bar]) -> usize {
    let mut free_at: Vec<f64> = Vec::new();
    for bar in bars {
        let lane = free_at.iter().position(|free| *free <= bar.start + TOUCH);
        bar.lane = lane.unwrap_or_else(|| {
            free_at.push(0.0);
            free_at.len() - 1
        });
        free_at[bar.lane] = bar.end;
    }
    free_at.len()
}

/// Returns the longest chain of stages that ran, each needing the one before, and its seconds.
fn critical_path(results: &RunResults) -> (Vec<usize>, f64) {
    let mut longest: Vec<Option<(f64, Option<usize>)>> = vec![None; results.stages.len()];
    for index in 0..results.stages.len() {
        measure(results, index, &mut longest);
    }
    let last = (0..longest.len())
        .filter(|index| results.stages[*index].ran.is_some())
        .max_by(|a, b| seconds_of(longest[*a]).total_cmp(&seconds_of(longest[*b])).then(b.cmp(a)));
    let chain = std::iter::successors(last, |index| longest[*index].and_then(|(_, before)| before));
    let mut path: Vec<usize> = chain.filter(|index| results.stages[*index].ran.is_some()).collect();
    path.reverse();
    (path, last.map_or(0.0, |last| seconds_of(longest[last])))
}

fn seconds_of(longest: Option<(f64, Option<usize>)>) -> f64 {
    longest.map_or(0.0, |(seconds, _)| seconds)
}

/// Finds the longest chain that ends with a result, after those of its producers.
fn measure(results: &RunResults, index: usize, longest: &mut [Option<(f64, Option<usize>)>]) {
    let mut open = vec![index];
    while let Some(&at) = open.last() {
        let producers = || results.stages[at].producers.values().copied();
        if longest[at].is_some() {
            open.pop();
            continue;
        }
        // Equal contents could join results in a circle: a result that is being measured already does not count.
        let todo: Vec<usize> =
            producers().filter(|producer| longest[*producer].is_none() && !open.contains(producer)).collect();
        if !todo.is_empty() {
            open.extend(todo);
            continue;
        }
        let before = producers()
            .filter(|producer| longest[*producer].is_some())
            .max_by(|a, b| seconds_of(longest[*a]).total_cmp(&seconds_of(longest[*b])).then(b.cmp(a)));
        let seconds = before.map_or(0.0, |before| seconds_of(longest[before]));
        longest[at] = Some((seconds + results.stages[at].ran.unwrap_or(0.0), before));
        open.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(start: f64, end: f64) -> Bar {
        Bar { stage: 0, start, end, lane: 0 }
    }

    #[test]
    fn bars_of_one_lane_do_not_overlap() {
        let mut bars = vec![bar(0.0, 2.0), bar(0.0, 1.0), bar(1.0, 3.0), bar(2.001, 2.5)];
        assert_eq!(assign_lanes(&mut bars), 2);
        let lanes: Vec<usize> = bars.iter().map(|bar| bar.lane).collect();
        assert_eq!(lanes, [0, 1, 1, 0]);
    }
}
