//! The names of curves beside their samples: right of the plot, or in rows below it.

use super::drawing::{Align, Drawing, Spot};
use super::marker;
use super::style::{FAINT, INK, LINE};
use super::text::Face;
use crate::stage_kinds::LegendPlace;

/// Entries wrap at this width.
const TEXT_WIDTH: f32 = 230.0;
/// A sample of a curve with the gap to its name.
const SAMPLE: f32 = 34.0;
/// Between the plot and what stands right of it.
const GAP: f32 = 22.0;
/// Between two entries below the plot.
const BETWEEN: f32 = 16.0;
/// Between the plot's last text and the rows below it.
const ABOVE: f32 = 6.0;

/// A legend that is laid out.
pub(super) struct Legend {
    entries: Vec<Entry>,
    place: LegendPlace,
}

/// What a name stands beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// A curve with its mark.
    Curve(usize),
    /// All dashed lines.
    Dashed,
    /// All solid lines.
    Solid,
    /// The marks of all lines.
    Mark,
}

struct Entry {
    sample: Sample,
    lines: Vec<String>,
    width: f32,
    /// Where it stands in the rows below the plot.
    at: Spot,
}

impl Legend {
    /// The legend of these names. `room` is how wide plot and legend may be together; without a place of its own the
    /// legend stands beside a plot that keeps half of it.
    pub(super) fn new(names: &[(Sample, &str)], face: Face, place: Option<LegendPlace>, room: Option<f32>) -> Self {
        let most = room.map_or(TEXT_WIDTH, |room| TEXT_WIDTH.min(room - SAMPLE));
        let entry = |&(sample, name): &(Sample, &str)| Entry::new(sample, face.wrap(name, most), face);
        let entries = names.iter().map(entry).collect();
        let mut legend = Legend { entries, place: place.unwrap_or(LegendPlace::Right) };
        if let (None, Some(room)) = (place, room)
            && legend.width_beside() > room / 2.0
        {
            legend.place = LegendPlace::Below;
        }
        legend
    }

    /// How much it takes right of the plot.
    pub(super) fn width_beside(&self) -> f32 {
        let widest = self.entries.iter().map(|entry| entry.width).fold(0.0, f32::max);
        if self.place == LegendPlace::Right && widest > 0.0 { GAP + SAMPLE + widest } else { 0.0 }
    }

    /// How high the plot must be for it.
    pub(super) fn height_beside(&self) -> f32 {
        let height = self.entries.iter().map(Entry::height).sum();
        if self.place == LegendPlace::Right { height } else { 0.0 }
    }

    /// Fills rows of this width below the plot.
    pub(super) fn flow(&mut self, width: f32) {
        let (mut x, mut y, mut tall) = (0.0, ABOVE, 0.0_f32);
        for entry in &mut self.entries {
            let wide = SAMPLE + entry.width;
            if x > 0.0 && x + wide > width {
                (x, y, tall) = (0.0, y + tall, 0.0);
            }
            entry.at = (x, y);
            x += wide + BETWEEN;
            tall = tall.max(entry.height());
        }
    }

    /// How much it takes below the plot, once it flows.
    pub(super) fn height_below(&self) -> f32 {
        let lowest = self.entries.iter().map(|entry| entry.at.1 + entry.height()).fold(0.0, f32::max);
        if self.place == LegendPlace::Below { lowest } else { 0.0 }
    }

    /// Draws it beside the plot, whose top right corner this is, or below the point `below`.
    pub(super) fn draw(&self, canvas: &mut Drawing, face: Face, (right, top): Spot, below: Spot) {
        let (left, mut y) = (right + GAP, top + 4.0);
        for entry in &self.entries {
            match self.place {
                LegendPlace::None => {}
                LegendPlace::Below => {
                    entry.draw(canvas, face, (below.0 + entry.at.0, below.1 + entry.at.1 + LINE / 2.0));
                }
                LegendPlace::Right => {
                    entry.draw(canvas, face, (left, y));
                    y += entry.height();
                }
            }
        }
    }
}

impl Entry {
    fn new(sample: Sample, lines: Vec<String>, face: Face) -> Self {
        let width = lines.iter().map(|line| face.width(line)).fold(0.0, f32::max);
        Entry { sample, lines, width, at: (0.0, 0.0) }
    }

    fn height(&self) -> f32 {
        self.lines.len() as f32 * LINE
    }

    /// Draws it with the middle of its first line at a height.
    fn draw(&self, canvas: &mut Drawing, face: Face, (left, y): Spot) {
        let (line, middle) = ([(left, y), (left + SAMPLE - 10.0, y)], (left + (SAMPLE - 10.0) / 2.0, y));
        match self.sample {
            Sample::Curve(series) => {
                canvas.line(&line, marker::color(series), 1.8);
                marker::draw(canvas, series, middle);
            }
            Sample::Dashed => canvas.dashes(&line, FAINT, 1.4),
            Sample::Solid => canvas.line(&line, FAINT, 1.8),
            Sample::Mark => marker::draw_faint(canvas, middle),
        }
        for (index, line) in self.lines.iter().enumerate() {
            let at = (left + SAMPLE, y + 4.7 + index as f32 * LINE);
            canvas.text(face, line, at, Align::Left, INK);
        }
    }
}
