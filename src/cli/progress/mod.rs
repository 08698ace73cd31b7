//! How a run is shown: JSON lines for programs, live rows on a terminal, plain lines elsewhere. Each takes [`RunEvent`]s and knows nothing else.

mod fancy;
mod jsonl;
mod plain;

use std::time::Duration;

use atflow::cache::Holder;
use atflow::event::{RunEvent, Status};

use crate::args::RunArgs;
use crate::report::{eprint, stage_failure};
use crate::ui;
pub(crate) use jsonl::{SoFar, Told, run_finished};

/// The display of one run.
pub(crate) enum Progress {
    Json(jsonl::JsonLines),
    Fancy(fancy::Fancy),
    Plain(plain::Plain),
    Quiet,
}

impl Progress {
    /// The display that fits where output goes and what was asked for.
    pub(crate) fn new(args: &RunArgs) -> Self {
        if args.json {
            Progress::Json(jsonl::JsonLines::default())
        } else if args.quiet {
            Progress::Quiet
        } else {
            Self::for_people(args.verbose)
        }
    }

    /// The display for people, `verbose` with logs.
    pub(crate) fn for_people(verbose: bool) -> Self {
        if console::user_attended_stderr() {
            Progress::Fancy(fancy::Fancy::new(verbose))
        } else {
            Progress::Plain(plain::Plain::new(verbose))
        }
    }

    /// How far the run is that is shown to a program; nothing for people.
    pub(crate) fn so_far(&self) -> Option<SoFar> {
        match self {
            Progress::Json(json) => Some(json.so_far()),
            _ => None,
        }
    }

    /// Shows one fact. Failures are told in full wherever people read.
    pub(crate) fn event(&mut self, event: RunEvent) {
        if let RunEvent::StageFinished { stage, status: Status::Failed, failure: Some(failure), .. } = &event {
            let words = stage_failure(stage, failure);
            match self {
                Progress::Fancy(fancy) => fancy.above(&words),
                _ => eprint(&words),
            }
        }
        match self {
            Progress::Json(json) => json.event(&event),
            Progress::Fancy(fancy) => fancy.event(event),
            Progress::Plain(plain) => plain.event(event),
            Progress::Quiet => match event {
                RunEvent::Warning(message) => eprint(&format!("warning: {message}\n")),
                RunEvent::StageReopened { stage, output } => eprint(&format!("warning: {}\n", lost(&stage, &output))),
                _ => {}
            },
        }
    }

    /// Clears what is live.
    pub(crate) fn finish(&mut self) {
        if let Progress::Fancy(fancy) = self {
            fancy.finish();
        }
    }
}

/// What is said of a stage whose output is gone when somebody is to read it.
fn lost(stage: &str, output: &str) -> String {
    format!("output `{output}` of {stage} is gone from the cache; it is made again")
}

/// Whom a stage waits for.
fn waiting_for(holder: Option<&Holder>, patience: Option<Duration>) -> String {
    let whom = match (holder, patience) {
        (Some(holder), _) => format!("{} pid {}, which is at it", holder.host, holder.pid),
        (None, Some(_)) => "a run whose lease cannot be read".to_owned(),
        (None, None) => "another run, which is at it".to_owned(),
    };
    let how_long = patience
        .map(|patience| format!("; taken over after {} without a sign of life", ui::duration(patience.as_secs_f64())));
    format!("waiting for {whom}{}", how_long.unwrap_or_default())
}
