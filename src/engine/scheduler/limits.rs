//! Time limits of stages: an overdue stage is asked to give up, then its worker is killed.

use std::time::{Duration, Instant};

use super::Scheduler;
use super::jobs::Running;
use crate::protocol::{Failure, FailureCode};

/// Time that an overdue stage has to give up.
const OVERDUE_GRACE: Duration = Duration::from_secs(5);

impl Scheduler<'_> {
    /// Asks overdue stages to give up, and kills the workers of those that do not.
    pub(super) fn end_overdue(&mut self) {
        for (job, running) in self.jobs.running_mut() {
            let Some(limit) = self.context.graph.instance(running.id).time_limit else { continue };
            match (running.overdue, running.worker) {
                (None, worker) if running.started.elapsed() > limit => {
                    running.overdue = Some(Instant::now());
                    running.cancel.store(true, std::sync::atomic::Ordering::SeqCst);
                    if let Some(worker) = worker {
                        self.workers.cancel(worker, job);
                    }
                }
                (Some(since), Some(worker)) if since.elapsed() > OVERDUE_GRACE => self.workers.kill_one(worker),
                _ => {}
            }
        }
    }

    /// Returns the failure of a stage that exceeded its time limit; `None` for other stages.
    pub(super) fn overdue(&self, running: &Running) -> Option<Failure> {
        running.overdue?;
        let limit = self.context.graph.instance(running.id).time_limit?;
        let message = format!("took longer than its time limit of {}", duration_text(limit));
        Some(Failure { code: FailureCode::Broken, message, causes: Vec::new() })
    }
}

/// Formats a duration as pipelines write it: `90 s`, `10 min`, `2 h`.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        _ if seconds >= 3600.0 && seconds % 3600.0 == 0.0 => format!("{} h", seconds / 3600.0),
        _ if seconds >= 60.0 && seconds % 60.0 == 0.0 => format!("{} min", seconds / 60.0),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_the_largest_unit_that_is_whole() {
        let texts = [0.5, 90.0, 600.0, 7200.0].map(|seconds| duration_text(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["0.5 s", "90 s", "10 min", "2 h"]);
    }
}
