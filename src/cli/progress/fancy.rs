//! Live rows on a terminal: a bar over all stages, a row for each running one, and a line that stays for each that
//! ended. Nothing is shown in the first quarter second: a run with nothing to do leaves no flicker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use atflow::event::{RunEvent, Status};
use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{lost, waiting_for};
use crate::ui;

/// Nothing is drawn before this.
const PATIENCE: Duration = Duration::from_millis(250);

/// Rows for running stages; of more only the number is shown.
const MAX_ROWS: usize = 8;

/// The display on a terminal.
pub(crate) struct Fancy {
    verbose: bool,
    started: Instant,
    bars: MultiProgress,
    all: ProgressBar,
    rows: HashMap<String, ProgressBar>,
    hidden: usize,
}

impl Fancy {
    pub(super) fn new(verbose: bool) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let all = bars.add(ProgressBar::new(0));
        all.set_style(style_of("{wide_bar:.cyan/dim} {pos}/{len} stages  {elapsed}  {msg}"));
        Fancy { verbose, started: Instant::now(), bars, all, rows: HashMap::new(), hidden: 0 }
    }

    pub(super) fn event(&mut self, event: RunEvent) {
        if self.started.elapsed() > PATIENCE && self.bars.is_hidden() {
            self.show();
        }
        match event {
            RunEvent::RunStarted { wanted } => self.all.set_length(wanted as u64),
            RunEvent::StageStarted { stage, reason, .. } => {
                self.show();
                if self.rows.len() < MAX_ROWS {
                    let row = self.bars.insert_before(&self.all, ProgressBar::new(0));
                    row.set_style(style_of("{spinner:.cyan} {prefix:.bold} {elapsed:.dim}  {wide_msg}"));
                    row.set_prefix(stage.clone());
                    row.set_message(reason);
                    row.enable_steady_tick(Duration::from_millis(200));
                    self.rows.insert(stage, row);
                } else {
                    self.hidden += 1;
                    self.all.set_message(format!("and {} more running", self.hidden));
                }
            }
            RunEvent::StageWaiting { stage, holder, patience } => {
                self.show();
                self.above(&format!("{} {stage}  {}", style("…").dim(), waiting_for(holder.as_ref(), patience)));
            }
            RunEvent::StageProgress { stage, done, total, message } => {
                if let Some(row) = self.rows.get(&stage) {
                    let percent = if total > 0 {
                        format!("{:3.0} %  ", 100.0 * done as f64 / total as f64)
                    } else {
                        String::new()
                    };
                    row.set_message(format!("{percent}{message}"));
                }
            }
            RunEvent::StageLog { stage, line } if self.verbose => {
                self.above(&format!("{} {line}", style(format!("{stage} |")).dim()))
            }
            RunEvent::StageLog { .. } => {}
            RunEvent::StageFinished { stage, status, seconds, summary, .. } => {
                self.finished(&stage, status, seconds, &summary)
            }
            RunEvent::Fetching { stage, done, total } => {
                self.show();
                self.all.set_message(format!("fetching {stage}  {} of {}", ui::bytes(done), ui::bytes(total)));
                if done == total {
                    self.all.set_message("");
                }
            }
            RunEvent::StageReopened { stage, output } => {
                self.all.set_position(self.all.position().saturating_sub(1));
                self.warn(&lost(&stage, &output));
            }
            RunEvent::Warning(message) => self.warn(&message),
        }
    }

    fn warn(&self, message: &str) {
        self.above(&format!("{} {message}", style("warning:").yellow().bold()));
    }

    fn finished(&mut self, stage: &str, status: Status, seconds: f64, summary: &str) {
        match self.rows.remove(stage) {
            Some(row) => {
                row.finish_and_clear();
                self.bars.remove(&row);
            }
            None if status == Status::Ran => self.hidden = self.hidden.saturating_sub(1),
            None => {}
        }
        self.all.inc(1);
        let time = style(ui::duration(seconds)).dim();
        match status {
            Status::Ran => self.above(&format!("{} {stage}  {time}  {summary}", style("✓").green())),
            Status::Failed => self.above(&format!("{} {stage}  {time}", style("✗").red())),
            Status::Cached | Status::Skipped => {}
        }
    }

    /// A line that stays, above the live rows.
    pub(super) fn above(&self, text: &str) {
        self.bars.suspend(|| crate::report::eprint_drawn(&format!("{}\n", text.trim_end())));
    }

    pub(super) fn finish(&mut self) {
        for (_, row) in self.rows.drain() {
            row.finish_and_clear();
        }
        self.all.finish_and_clear();
    }

    fn show(&mut self) {
        if self.bars.is_hidden() {
            self.bars.set_draw_target(ProgressDrawTarget::stderr());
            self.all.enable_steady_tick(Duration::from_millis(500));
        }
    }
}

fn style_of(template: &str) -> ProgressStyle {
    // The templates are constants of this file; one that is wrong shows as the default bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
