//! Time that a run still takes: its estimate at the start, corrected by what has ended and by the pace of what runs.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::event::{RunEstimate, RunEvent};

/// Time left of a run, kept up to date by its events.
#[derive(Debug, Default)]
pub struct TimeLeft {
    /// Seconds of each instance that has not ended; `None` if it never ran at this size.
    stages: BTreeMap<String, Option<f64>>,
    /// Seconds of work per second of the run, by the estimate.
    parallel: f64,
    running: BTreeMap<String, Running>,
    is_known: bool,
}

#[derive(Debug)]
struct Running {
    started: Instant,
    /// Seconds left as the instance last told, and when.
    told: Option<(Instant, f64)>,
}

impl TimeLeft {
    /// Takes note of an event.
    pub fn note(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunEstimated(RunEstimate { stages, wall }) => {
                self.stages.clone_from(stages);
                let work: f64 = stages.values().flatten().sum();
                self.parallel = if *wall > 0.0 { (work / wall).max(1.0) } else { 1.0 };
                self.is_known = true;
            }
            RunEvent::StageStarted { stage, .. } => {
                self.running.insert(stage.clone(), Running { started: Instant::now(), told: None });
            }
            RunEvent::StageProgress { stage, progress } => {
                if let (Some(running), Some(left)) = (self.running.get_mut(stage), progress.seconds_left) {
                    running.told = Some((Instant::now(), left));
                }
            }
            RunEvent::StageFinished { stage, .. } => {
                self.stages.remove(stage);
                self.running.remove(stage);
            }
            _ => {}
        }
    }

    /// Returns the seconds left; `None` if nothing is known of any instance that has not ended.
    pub fn seconds(&self) -> Option<f64> {
        let rests = self.stages.iter().map(|(name, estimate)| self.rest(name, *estimate));
        let known: Vec<f64> = rests.flatten().collect();
        if !self.is_known || known.is_empty() {
            return None;
        }
        // The longest instance of those that run cannot be sped up by others.
        let longest = known.iter().copied().fold(0.0, f64::max);
        Some((known.iter().sum::<f64>() / self.parallel).max(longest))
    }

    /// Returns the number of instances to come of which no duration is known.
    pub fn never_ran(&self) -> usize {
        self.stages.iter().filter(|(name, estimate)| self.rest(name, **estimate).is_none()).count()
    }

    fn rest(&self, name: &str, estimate: Option<f64>) -> Option<f64> {
        match self.running.get(name) {
            Some(Running { told: Some((when, left)), .. }) => Some((left - when.elapsed().as_secs_f64()).max(0.0)),
            Some(Running { started, told: None }) => {
                estimate.map(|estimate| (estimate - started.elapsed().as_secs_f64()).max(0.0))
            }
            None => estimate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Status;
    use crate::protocol::StageProgress;
    use crate::stage_kinds::StageKind;

    fn started(stage: &str) -> RunEvent {
        RunEvent::StageStarted { stage: stage.to_owned(), kind: StageKind::Train, reason: String::new() }
    }

    fn ended(stage: &str) -> RunEvent {
        RunEvent::StageFinished {
            stage: stage.to_owned(),
            status: Status::Ran,
            seconds: 1.0,
            summary: String::new(),
            failure: None,
        }
    }

    #[test]
    fn time_goes_down_as_stages_end_and_follows_what_they_tell() {
        let mut left = TimeLeft::default();
        assert_eq!((left.seconds(), left.never_ran()), (None, 0));
        let stages = [("a", Some(60.0)), ("b", Some(60.0)), ("c", Some(20.0)), ("new", None)];
        let stages = stages.map(|(name, seconds)| (name.to_owned(), seconds)).into_iter().collect();
        left.note(&RunEvent::RunEstimated(RunEstimate { stages, wall: 70.0 }));
        assert_eq!((left.seconds(), left.never_ran()), (Some(70.0), 1));
        left.note(&started("a"));
        left.note(&ended("a"));
        assert_eq!(left.seconds(), Some(60.0), "two at once, and the longer one is the rest");
        left.note(&started("b"));
        let progress = StageProgress { seconds_left: Some(1000.0), ..StageProgress::default() };
        left.note(&RunEvent::StageProgress { stage: "b".to_owned(), progress });
        assert_eq!(left.seconds().map(f64::round), Some(1000.0), "it is slower this time");
        left.note(&ended("b"));
        left.note(&ended("c"));
        assert_eq!((left.seconds(), left.never_ran()), (None, 1));
    }
}
