//! The live part of the display as text: a row for each running stage, and a bar over all of them. Draws nothing.

use std::time::Instant;

use atflow::event::{RunEvent, Status};
use atflow::protocol::{ProgressMetrics, StageProgress};
use atflow::results::thousands;
use atflow::time_left::TimeLeft;
use console::{measure_text_width, style, truncate_str};

use crate::ui;

/// Rows for running stages; of more only the number is shown.
const MAX_ROWS: usize = 8;

/// Columns of the bar.
const BAR: usize = 20;

/// State of a run, as a display on a terminal shows it.
#[derive(Default)]
pub(super) struct Frame {
    wanted: usize,
    ended: usize,
    rows: Vec<Row>,
    waiting: Vec<String>,
    fetching: Option<String>,
    time_left: TimeLeft,
    started: Option<Instant>,
    /// Largest number of rows so far: the bar never moves up.
    height: usize,
    is_over: bool,
}

struct Row {
    stage: String,
    started: Instant,
    /// Reason for which it runs, until it tells how far it is.
    reason: String,
    progress: Option<StageProgress>,
}

impl Frame {
    pub(super) fn note(&mut self, event: &RunEvent) {
        self.time_left.note(event);
        match event {
            RunEvent::RunStarted { wanted } => (self.wanted, self.started) = (*wanted, Some(Instant::now())),
            RunEvent::StageStarted { stage, reason, .. } => {
                self.forget(stage);
                let (stage, reason) = (stage.clone(), reason.clone());
                self.rows.push(Row { stage, started: Instant::now(), reason, progress: None });
            }
            RunEvent::StageWaiting { stage, .. } => {
                self.forget(stage);
                self.waiting.push(stage.clone());
            }
            RunEvent::StageProgress { stage, progress } => {
                if let Some(row) = self.rows.iter_mut().find(|row| row.stage == *stage) {
                    row.progress = Some(progress.clone());
                }
            }
            RunEvent::StageFinished { stage, status, .. } => {
                if *status != Status::Cached || !self.waiting.is_empty() {
                    self.forget(stage);
                }
                self.ended += 1;
            }
            RunEvent::StageReopened { .. } => self.ended = self.ended.saturating_sub(1),
            RunEvent::Fetching { stage, done, total } => {
                let words = || format!("fetching {stage}  {} of {}", ui::bytes(*done), ui::bytes(*total));
                self.fetching = (done < total).then(words);
            }
            RunEvent::RunEstimated(_) | RunEvent::StageLog { .. } | RunEvent::Warning(_) => {}
        }
    }

    fn forget(&mut self, stage: &str) {
        self.rows.retain(|row| row.stage != stage);
        self.waiting.retain(|waiting| waiting != stage);
    }

    /// Whether there is anything to show.
    pub(super) fn is_busy(&self) -> bool {
        !self.rows.is_empty() || !self.waiting.is_empty() || self.fetching.is_some() || self.height > 0
    }

    /// Ends the display.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns the text of the frame: no line is wider than `width` columns.
    pub(super) fn text(&mut self, width: usize) -> String {
        let mut lines: Vec<String> = Vec::new();
        let shown = &self.rows[..self.rows.len().min(MAX_ROWS)];
        let name_width = shown.iter().map(|row| measure_text_width(&row.stage)).max().unwrap_or(0).min(width * 2 / 5);
        lines.extend(shown.iter().map(|row| row.text(name_width, width)));
        let more = |count: usize, what: &str| (count > 0).then(|| format!("  and {count} more {what}"));
        lines.extend(more(self.rows.len() - shown.len(), "running"));
        lines.extend(match self.waiting.as_slice() {
            [] => None,
            [stage] => Some(format!("  {stage} waits for another run")),
            stages => Some(format!("  {} stages wait for another run", stages.len())),
        });
        self.height = self.height.max(lines.len());
        lines.resize(self.height, String::new());
        lines.push(self.bar());
        let cut: Vec<String> = lines.iter().map(|line| truncate_str(line, width, "…").into_owned()).collect();
        cut.join("\n")
    }

    fn bar(&self) -> String {
        let full = (BAR * self.ended.min(self.wanted)).checked_div(self.wanted).unwrap_or(0);
        let bar = format!("{}{}", style("━".repeat(full)).cyan(), style("─".repeat(BAR - full)).dim());
        let mut parts = vec![format!("{}/{} stages", self.ended, self.wanted)];
        parts.extend(self.started.map(|started| whole(started.elapsed().as_secs_f64())));
        parts.extend(left_words(self.time_left.seconds(), self.time_left.never_ran()));
        parts.extend(self.fetching.clone());
        format!("{bar} {}", parts.join("  "))
    }
}

/// Words for the time that a run still takes. What never ran at this size makes it longer than is known.
pub(crate) fn left_words(seconds: Option<f64>, never_ran: usize) -> Option<String> {
    let seconds = seconds.filter(|seconds| *seconds >= 0.5).map(whole);
    match (seconds, never_ran) {
        (Some(seconds), 0) => Some(format!("about {seconds} left")),
        (Some(seconds), new) => Some(format!("at least {seconds} left, {new} new")),
        (None, 0) => None,
        (None, new) => Some(format!("{new} new")),
    }
}

/// A duration in whole seconds: a tenth would flicker.
fn whole(seconds: f64) -> String {
    if seconds < 59.5 { format!("{seconds:.0} s") } else { ui::duration(seconds) }
}

impl Row {
    fn text(&self, name_width: usize, width: usize) -> String {
        let name = truncate_str(&self.stage, name_width, "…");
        let pad = " ".repeat(name_width.saturating_sub(measure_text_width(&name)));
        let time = whole(self.started.elapsed().as_secs_f64());
        let mut text = format!("  {}{pad}  {:>5}", style(name).bold(), style(time).dim());
        let Some(progress) = &self.progress else { return format!("{text}  {}", self.reason) };
        if progress.total > 0 {
            text.push_str(&format!("  {:3.0} %", 100.0 * progress.done as f64 / progress.total as f64));
        }
        let words = short(progress);
        let pace = pace_words(progress);
        // What the stage says gives way to its pace, down to half of its length.
        let room = width.saturating_sub(measure_text_width(&text) + measure_text_width(&pace) + 4);
        if pace.is_empty() || room < measure_text_width(&words) / 2 {
            return format!("{text}  {words}");
        }
        format!("{text}  {}  {pace}", truncate_str(&words, room, "…"))
    }
}

/// Words for what a stage says, in brief.
fn short(progress: &StageProgress) -> String {
    match progress.metrics {
        ProgressMetrics { epoch: Some(epoch), epochs: Some(epochs), loss: Some(loss), accuracy, .. } => {
            let accuracy = accuracy.map(|accuracy| format!("  {:.1} %", 100.0 * accuracy)).unwrap_or_default();
            format!("epoch {epoch}/{epochs}  loss {loss:.2}{accuracy}")
        }
        _ => progress.message.clone(),
    }
}

/// Words for the pace of a stage.
pub(crate) fn pace_words(progress: &StageProgress) -> String {
    let images = progress.images_per_second.filter(|images| *images >= 0.05).map(|images| match images {
        images if images < 9.95 => format!("{images:.1} images/s"),
        images => format!("{} images/s", thousands(images.round() as u64)),
    });
    let left = progress.seconds_left.map(|left| format!("{} left", whole(left)));
    images.into_iter().chain(left).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use atflow::event::RunEstimate;
    use atflow::stage_kinds::StageKind;

    fn start(frame: &mut Frame, stage: &str) {
        let (stage, reason) = (stage.to_owned(), "never run".to_owned());
        frame.note(&RunEvent::StageStarted { stage, kind: StageKind::Train, reason });
    }

    fn finish(frame: &mut Frame, stage: &str) {
        let (stage, status, summary) = (stage.to_owned(), Status::Ran, String::new());
        frame.note(&RunEvent::StageFinished { stage, status, seconds: 1.0, summary, failure: None });
    }

    fn lines(frame: &mut Frame, width: usize) -> Vec<String> {
        let text = console::strip_ansi_codes(&frame.text(width)).into_owned();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn a_training_shows_its_epoch_its_pace_and_its_rest_within_80_columns() {
        let mut frame = Frame::default();
        frame.note(&RunEvent::RunStarted { wanted: 4 });
        let stages = [("model/pgd", Some(30.0)), ("tested/pgd", Some(30.0))];
        let stages = stages.map(|(name, seconds)| (name.to_owned(), seconds)).into_iter().collect();
        frame.note(&RunEvent::RunEstimated(RunEstimate { stages, wall: 60.0 }));
        start(&mut frame, "model/pgd");
        assert_eq!(
            lines(&mut frame, 80),
            ["  model/pgd    0 s  never run", "──────────────────── 0/4 stages  0 s  about 60 s left"]
                .map(|line| line.replace("60 s", "1 min 0 s"))
        );
        let metrics = ProgressMetrics {
            images: Some(64_000),
            epoch: Some(3),
            epochs: Some(6),
            loss: Some(0.414),
            accuracy: Some(0.852),
        };
        let message = "epoch 3/6  batch 12/395  loss 0.41  accuracy 85.2 %".to_owned();
        let pace = (Some(1234.4), Some(17.2));
        let progress =
            StageProgress { done: 41, total: 100, message, metrics, images_per_second: pace.0, seconds_left: pace.1 };
        frame.note(&RunEvent::StageProgress { stage: "model/pgd".to_owned(), progress });
        let shown = lines(&mut frame, 80);
        assert_eq!(shown[0], "  model/pgd    0 s   41 %  epoch 3/6  loss 0.41  85.…  1,234 images/s  17 s left");
        assert!(lines(&mut frame, 40).iter().all(|line| measure_text_width(line) <= 40));
    }

    #[test]
    fn the_bar_stays_in_its_line_and_the_rows_are_few() {
        let mut frame = Frame::default();
        frame.note(&RunEvent::RunStarted { wanted: 20 });
        assert!(!frame.is_busy());
        for number in 0..10 {
            start(&mut frame, &format!("stage/{number}"));
        }
        let full = lines(&mut frame, 80);
        assert_eq!((full.len(), full[8].as_str()), (10, "  and 2 more running"));
        for number in 0..10 {
            finish(&mut frame, &format!("stage/{number}"));
        }
        let after = lines(&mut frame, 80);
        assert_eq!(after.len(), 10);
        assert!(after[..9].iter().all(String::is_empty) && after[9].starts_with("━━━━━━━━━━────"), "{after:?}");
    }
}
