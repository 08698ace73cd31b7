//! Live rows on a terminal, and lines that stay above them for what has ended.
//!
//! The rows are one text, drawn at once ten times a second at most: nothing flickers, and nothing is left behind. The
//! first quarter second shows nothing, so a run with nothing to do leaves no trace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atflow::event::{RunEvent, Status};
use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::frame::Frame;
use super::{lost, waiting_for};
use crate::ui;

/// Nothing is drawn before this.
const PATIENCE: Duration = Duration::from_millis(250);

/// Interval between two frames.
const INTERVAL: Duration = Duration::from_millis(100);

/// Width where the terminal does not tell.
const WIDTH: usize = 80;

/// Display on a terminal.
pub(crate) struct Fancy {
    verbose: bool,
    screen: Screen,
    thread: Option<JoinHandle<()>>,
}

/// What is on the screen; shared with the thread that draws.
#[derive(Clone)]
pub(crate) struct Screen {
    bar: ProgressBar,
    frame: Arc<Mutex<Frame>>,
}

impl Screen {
    fn frame(&self) -> MutexGuard<'_, Frame> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws a frame, unless the run is over. Returns whether there will be more.
    fn draw(&self, started: Instant) -> bool {
        let mut frame = self.frame();
        if frame.is_over() {
            return false;
        }
        if started.elapsed() > PATIENCE && frame.is_busy() {
            if self.bar.is_hidden() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            self.bar.set_message(frame.text(width()));
        }
        true
    }

    /// Removes the rows. Nothing is drawn after it.
    pub(crate) fn clear(&self) {
        self.frame().end();
        self.bar.finish_and_clear();
    }
}

/// Columns of the terminal.
fn width() -> usize {
    console::Term::stderr().size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns)).max(20)
}

impl Fancy {
    pub(super) fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        // The template is a constant; one that is wrong shows as the default.
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let screen = Screen { bar, frame: Arc::default() };
        let (drawing, started) = (screen.clone(), Instant::now());
        let draw = move || {
            while drawing.draw(started) {
                std::thread::sleep(INTERVAL);
            }
        };
        // Without a thread there are no live rows; the lines that stay are there.
        let thread = std::thread::Builder::new().name("display".to_owned()).spawn(draw).ok();
        Fancy { verbose, screen, thread }
    }

    /// Returns what removes the rows, from any thread.
    pub(super) fn screen(&self) -> Screen {
        self.screen.clone()
    }

    pub(super) fn event(&mut self, event: RunEvent) {
        self.screen.frame().note(&event);
        match event {
            RunEvent::StageWaiting { stage, holder, patience } => {
                self.line(&format!("{} {stage}  {}", style("…").dim(), waiting_for(holder.as_ref(), patience)));
            }
            RunEvent::StageLog { stage, line } if self.verbose => {
                self.above(&format!("{} {line}", style(format!("{stage} |")).dim()));
            }
            RunEvent::StageFinished { stage, status, seconds, summary, .. } => {
                let time = style(ui::duration(seconds)).dim();
                match status {
                    Status::Ran => self.line(&format!("{} {stage}  {time}  {summary}", style("✓").green())),
                    Status::Failed => self.line(&format!("{} {stage}  {time}", style("✗").red())),
                    Status::Cached | Status::Skipped => {}
                }
            }
            RunEvent::StageReopened { stage, output } => self.warn(&lost(&stage, &output)),
            RunEvent::Warning(message) => self.warn(&message),
            _ => {}
        }
    }

    fn warn(&self, message: &str) {
        self.above(&format!("{} {message}", style("warning:").yellow().bold()));
    }

    /// Prints a line that stays, above the live rows, cut to the width of the terminal.
    fn line(&self, text: &str) {
        self.above(&console::truncate_str(text.trim_end(), width(), "…"));
    }

    /// Prints text that stays, above the live rows.
    pub(super) fn above(&self, text: &str) {
        self.screen.bar.suspend(|| crate::report::eprint_drawn(&format!("{}\n", text.trim_end())));
    }

    pub(super) fn finish(&mut self) {
        self.screen.clear();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
