//! How a run is shown: JSON lines for programs, live rows on a terminal, plain lines elsewhere. Each takes
//! [`RunEvent`]s and knows nothing else.

mod bytes;
mod fancy;
mod frame;
mod jsonl;
mod plain;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atflow::cache::Holder;
use atflow::event::{RunEvent, Status};
use atflow::plain::plain;
use atflow::protocol::StageProgress;

use crate::args::RunArgs;
use crate::report::{eprint, eprint_drawn, stage_failure};
use crate::ui;
pub(crate) use bytes::bar_of_bytes;
pub(crate) use frame::{left_words, pace_words};
pub(crate) use jsonl::{RunFacts, SoFar, likely_mistakes, line_schema, run_finished, schema_of};

/// The display of one run.
pub(crate) struct Progress {
    display: Display,
    /// The run's cache, which the logs of its stages are in.
    cache: PathBuf,
}

enum Display {
    Json(jsonl::JsonLines),
    Fancy(fancy::Fancy),
    Plain(plain::Plain),
    Quiet,
}

impl Progress {
    /// The display that fits where output goes and what was asked for.
    pub(crate) fn new(args: &RunArgs) -> Self {
        let cache = &args.changes.cache.cache;
        match args {
            RunArgs { json: true, .. } => Self::of(Display::Json(jsonl::JsonLines::default()), cache),
            RunArgs { quiet: true, .. } => Self::quiet(cache),
            _ => Self::for_people(args.verbose, cache),
        }
    }

    fn of(display: Display, cache: &Path) -> Self {
        Progress { display, cache: cache.to_owned() }
    }

    /// The display of nothing but failures and warnings.
    pub(crate) fn quiet(cache: &Path) -> Self {
        Self::of(Display::Quiet, cache)
    }

    /// The display for people, `verbose` with logs.
    pub(crate) fn for_people(verbose: bool, cache: &Path) -> Self {
        let display = if console::user_attended_stderr() {
            Display::Fancy(fancy::Fancy::new(verbose))
        } else {
            Display::Plain(plain::Plain::new(verbose))
        };
        Self::of(display, cache)
    }

    /// How far the run is that is shown to a program; nothing for people.
    pub(crate) fn so_far(&self) -> Option<SoFar> {
        match &self.display {
            Display::Json(json) => Some(json.so_far()),
            _ => None,
        }
    }

    /// Shows one fact. Failures are told in full wherever people read; what other programs say does nothing to a
    /// terminal.
    pub(crate) fn event(&mut self, event: RunEvent) {
        let event = if matches!(self.display, Display::Json(_)) { event } else { shown(event) };
        if let RunEvent::StageFinished { stage, status: Status::Failed, failure: Some(failure), .. } = &event {
            let words = stage_failure(stage, failure, &self.cache);
            match &mut self.display {
                Display::Fancy(fancy) => fancy.above(&words),
                _ => eprint_drawn(&words),
            }
        }
        match &mut self.display {
            Display::Json(json) => json.event(&event),
            Display::Fancy(fancy) => fancy.event(event),
            Display::Plain(plain) => plain.event(event),
            Display::Quiet => match event {
                RunEvent::Warning(message) => eprint(&format!("warning: {message}\n")),
                RunEvent::StageReopened { stage, output } => eprint(&format!("warning: {}\n", lost(&stage, &output))),
                _ => {}
            },
        }
    }

    /// Shows a line on how the run is run, where people read.
    pub(crate) fn line(&mut self, text: &str) {
        let text = format!("{}\n", plain(text));
        match &mut self.display {
            Display::Fancy(fancy) => fancy.above(&text),
            Display::Plain(_) => eprint(&text),
            Display::Json(_) | Display::Quiet => {}
        }
    }

    /// Returns what to do if the program has to end at once: programs get a last line, and a terminal loses the live
    /// rows.
    pub(crate) fn last_words(&self) -> Box<dyn Fn() + Send + Sync> {
        match &self.display {
            Display::Json(json) => {
                let so_far = json.so_far();
                Box::new(move || run_finished(&so_far.summary(), None, &RunFacts::default()))
            }
            Display::Fancy(fancy) => {
                let screen = fancy.screen();
                Box::new(move || screen.clear())
            }
            Display::Plain(_) | Display::Quiet => Box::new(|| ()),
        }
    }

    /// Clears what is live.
    pub(crate) fn finish(&mut self) {
        if let Display::Fancy(fancy) = &mut self.display {
            fancy.finish();
        }
    }
}

/// The fact as people may see it.
fn shown(event: RunEvent) -> RunEvent {
    let plain = |text: String| match plain(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(shown) => shown,
    };
    match event {
        RunEvent::RunStarted { .. } | RunEvent::RunEstimated(_) => event,
        RunEvent::StageStarted { stage, kind, reason } => {
            RunEvent::StageStarted { stage: plain(stage), kind, reason: plain(reason) }
        }
        RunEvent::StageWaiting { stage, holder, patience } => {
            let holder = holder.map(|holder| Holder { host: plain(holder.host.clone()), ..holder });
            RunEvent::StageWaiting { stage: plain(stage), holder, patience }
        }
        RunEvent::StageProgress { stage, progress } => {
            let message = plain(progress.message.clone()).replace('\n', " ");
            RunEvent::StageProgress { stage: plain(stage), progress: StageProgress { message, ..progress } }
        }
        RunEvent::StageLog { stage, line } => RunEvent::StageLog { stage: plain(stage), line: plain(line) },
        RunEvent::StageFinished { stage, status, seconds, summary, failure } => {
            RunEvent::StageFinished { stage: plain(stage), status, seconds, summary: plain(summary), failure }
        }
        RunEvent::StageReopened { stage, output } => {
            RunEvent::StageReopened { stage: plain(stage), output: plain(output) }
        }
        RunEvent::Fetching { stage, done, total } => RunEvent::Fetching { stage: plain(stage), done, total },
        RunEvent::Warning(message) => RunEvent::Warning(plain(message)),
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
