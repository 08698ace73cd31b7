//! Progress of trainings, where runs share work through a bucket. It is fetched before a training starts, and sent
//! while the training runs: another machine continues what this one had to leave.
//!
//! Progress only saves work, so nothing here fails a stage. Whoever may write into the bucket may forge it. So it is
//! not used where only signed results count.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::jobs::Running;
use super::progress_sender::Leaving;
use super::{MESSAGE_WAIT, Scheduler};
use crate::action::ActionKey;
use crate::event::RunEvent;
use crate::external_inputs::causes;
use crate::spec::InstanceId;

/// Longest wait for last sendings when a run ends. Whoever stops a machine does not wait for long.
const LAST_SENDING: Duration = Duration::from_secs(5);

impl Scheduler<'_> {
    /// Fetches the progress that another machine left of a training. Returns the number of its epochs, if that could be
    /// seen.
    pub(super) fn fetch_progress(&mut self, id: InstanceId, key: ActionKey) -> Option<u32> {
        let cache = self.context.cache.clone();
        cache.shared()?;
        let fetched = self.fetch_aside(id, move |tell| {
            cache.fetch_partial(key, &mut |done, total| match total {
                Some(total) => tell(done, total),
                None => ControlFlow::Continue(()),
            })
        });
        // Where it goes on from there, the worker says so in the log.
        match fetched {
            Ok(there) => there,
            Err(error) => {
                let (stage, why) = (self.name(id), causes(&error).join(": "));
                self.emit(RunEvent::Warning(format!("whether another machine began {stage} could not be seen: {why}")));
                None
            }
        }
    }

    /// Sends the progress of a training that was stopped, and keeps its lease until that is done.
    pub(super) fn leave(&mut self, running: &mut Running) {
        if let Some(progress) = running.progress.take() {
            progress.send_last();
            self.leaving.push(Leaving::new(progress, running.lease.take()));
        }
    }

    /// Takes note of a training whose progress is being removed.
    pub(super) fn leave_done(&mut self, running: &mut Running) {
        if let Some(progress) = running.progress.take() {
            self.leaving.retain(|leaving| !leaving.has_ended());
            self.leaving.push(Leaving::new(progress, None));
        }
    }

    /// Waits until all progress is sent or removed, for a short time at most.
    pub(super) fn wait_for_progress(&mut self) {
        let deadline = Instant::now() + LAST_SENDING;
        while self.leaving.iter().any(|leaving| !leaving.has_ended()) {
            if Instant::now() >= deadline || self.interrupt.requests() > 1 {
                break;
            }
            std::thread::sleep(MESSAGE_WAIT / 5);
        }
        self.leaving.clear();
    }
}
