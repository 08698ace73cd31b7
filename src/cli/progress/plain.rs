//! Plain lines on standard error, for logs and pipes: what starts, what ends, and a sign of life of what takes long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use atflow::event::{RunEvent, Status};

use super::frame::pace_words;
use super::{lost, waiting_for};
use crate::report::eprint;
use crate::ui;

/// How often a running stage says how far it is.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The display without a terminal.
pub(crate) struct Plain {
    verbose: bool,
    spoke: HashMap<String, Instant>,
}

impl Plain {
    pub(super) fn new(verbose: bool) -> Self {
        Plain { verbose, spoke: HashMap::new() }
    }

    pub(super) fn event(&mut self, event: RunEvent) {
        match event {
            RunEvent::RunStarted { .. } | RunEvent::RunEstimated(_) => {}
            RunEvent::StageStarted { stage, reason, .. } => {
                eprint(&format!("start   {stage}  ({reason})\n"));
                self.spoke.insert(stage, Instant::now());
            }
            RunEvent::StageWaiting { stage, holder, patience } => {
                eprint(&format!("wait    {stage}  ({})\n", waiting_for(holder.as_ref(), patience)));
            }
            RunEvent::StageProgress { stage, progress } => {
                if let Some(spoke) = self.spoke.get_mut(&stage)
                    && spoke.elapsed() >= SIGN_OF_LIFE
                {
                    let words = format!("        {stage}  {}  {}", progress.message, pace_words(&progress));
                    eprint(&format!("{}\n", words.trim_end()));
                    *spoke = Instant::now();
                }
            }
            RunEvent::StageLog { stage, line } if self.verbose => eprint(&format!("        {stage} | {line}\n")),
            RunEvent::StageLog { .. } => {}
            RunEvent::StageFinished { stage, status, seconds, summary, .. } => match status {
                Status::Ran => eprint(&format!("done    {stage}  {}  {summary}\n", ui::duration(seconds))),
                Status::Failed => eprint(&format!("failed  {stage}  {}\n", ui::duration(seconds))),
                Status::Skipped if self.verbose => eprint(&format!("skipped {stage}\n")),
                Status::Cached if self.verbose => eprint(&format!("cached  {stage}  {summary}\n")),
                Status::Skipped | Status::Cached => {}
            },
            RunEvent::Fetching { stage, done, total } => {
                if done == total {
                    eprint(&format!("fetched {stage}  {}\n", ui::bytes(total)));
                    return;
                }
                let spoke = self.spoke.entry(stage.clone()).or_insert_with(Instant::now);
                if spoke.elapsed() >= SIGN_OF_LIFE {
                    eprint(&format!("        {stage}  fetching {} of {}\n", ui::bytes(done), ui::bytes(total)));
                    *spoke = Instant::now();
                }
            }
            RunEvent::StageReopened { stage, output } => eprint(&format!("warning: {}\n", lost(&stage, &output))),
            RunEvent::Warning(message) => eprint(&format!("warning: {message}\n")),
        }
    }
}
