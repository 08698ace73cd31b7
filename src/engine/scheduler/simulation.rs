//! A run in a time of its own, for tests: what would run or be recorded on threads is done when the test says so.
//!
//! Everything else is what runs do: leases, lookups, recording, news.

use std::fs;
use std::mem::take;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::engine_threads::Held;
use super::messages::Message;
use super::{Interrupt, Options, Scheduler};
use crate::event::RunEvent;
use crate::plan::PlanContext;
use crate::protocol::Job;

/// Run whose stages take as long as the test says.
pub(crate) struct SimulatedRun<'a> {
    scheduler: Scheduler<'a>,
    held: Arc<Mutex<Held>>,
}

impl<'a> SimulatedRun<'a> {
    /// Starts a run; nothing runs yet.
    pub(crate) fn start(
        context: PlanContext<'a>,
        options: &'a Options,
        interrupt: &'a Interrupt,
        observer: &'a mut dyn FnMut(RunEvent),
    ) -> Self {
        let mut scheduler = Scheduler::new(context, options, interrupt, observer);
        let held = scheduler.threads.hold();
        scheduler.live.mute();
        scheduler.begin().unwrap();
        SimulatedRun { scheduler, held }
    }

    /// Goes on until it waits. Returns the stages that it starts, and when it looks at other runs next; `None` if it is
    /// over.
    pub(crate) fn go_on(&mut self) -> Option<(Vec<Job>, Instant)> {
        while self.scheduler.turn().unwrap() {
            if !self.record() {
                let started = take(&mut self.held.lock().unwrap().stages);
                return Some((started, self.scheduler.leases.looks.next()));
            }
        }
        None
    }

    /// Ends a stage well: its outputs say whose they are.
    pub(crate) fn end(&mut self, job: &Job) {
        for (name, path) in &job.outputs {
            fs::write(path, format!("{name} of {}\n", job.stage)).unwrap();
        }
        self.scheduler.receive(Message::EngineDone(job.id, Ok(String::new()))).unwrap();
        self.record();
    }

    /// Records what is to be recorded. Returns whether anything was.
    fn record(&mut self) -> bool {
        let works = take(&mut self.held.lock().unwrap().works);
        let is_any = !works.is_empty();
        for work in works {
            let message = work();
            self.scheduler.receive(message).unwrap();
        }
        is_any
    }
}
