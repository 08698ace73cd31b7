//! A rectangle with a horizontal and a vertical axis.

use super::drawing::{Align, Drawing, Spot};
use super::style::{AXIS, FAINT, GRID, LINE};
use super::text::Face;
use super::ticks::Ticks;
use crate::stage_kinds::Scale;

/// Rows of labels under the horizontal axis: a label that has no room in the first takes the second, or is left out.
const LABEL_ROWS: usize = 2;

/// Where a plot stands, and what its axes are.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) left: f32,
    pub(super) top: f32,
    /// Width and height.
    pub(super) size: (f32, f32),
    /// The first and the last value of the horizontal axis.
    pub(super) ends: (f64, f64),
    pub(super) scale: Scale,
    pub(super) ticks: Ticks,
}

/// A label of the horizontal axis.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) text: String,
    /// The value that it stands at.
    pub(super) value: f64,
    /// The row it stands in, if there is room for it.
    pub(super) row: Option<usize>,
}

impl Plot {
    pub(super) fn right(&self) -> f32 {
        self.left + self.size.0
    }

    pub(super) fn bottom(&self) -> f32 {
        self.top + self.size.1
    }

    /// Where a value stands along the horizontal axis.
    pub(super) fn x(&self, value: f64) -> f32 {
        let spaced = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log2 => value.log2(),
        };
        let (first, last) = (spaced(self.ends.0), spaced(self.ends.1));
        // A little room left and right keeps marks off the axis; a single value stands in the middle.
        let room = 0.03;
        let share = if last > first { (spaced(value) - first) / (last - first) } else { 0.5 };
        self.left + self.size.0 * (room + (1.0 - 2.0 * room) * share as f32)
    }

    /// Where a value stands along the vertical axis.
    pub(super) fn y(&self, value: f64) -> f32 {
        let share = (value - self.ticks.low) / (self.ticks.high - self.ticks.low);
        self.top + self.size.1 * (1.0 - share as f32)
    }

    /// Gives each label a row that keeps it clear of its neighbours.
    pub(super) fn labels<'a>(&self, labels: impl IntoIterator<Item = (&'a str, f64)>, face: Face) -> Vec<Label> {
        let mut ends = [f32::NEG_INFINITY; LABEL_ROWS];
        let place = |(text, value): (&str, f64)| {
            let (middle, half) = (self.x(value), face.width(text) / 2.0);
            let row = ends.iter().position(|&end| middle - half > end);
            if let Some(row) = row {
                ends[row] = middle + half + 8.0;
            }
            Label { text: text.to_owned(), value, row }
        };
        labels.into_iter().map(place).collect()
    }

    /// Draws the axes with their values.
    pub(super) fn draw_axes(&self, canvas: &mut Drawing, face: Face, labels: &[Label]) {
        let (left, right, bottom) = (self.left, self.right(), self.bottom());
        for value in self.ticks.values() {
            let y = self.y(value);
            canvas.line(&[(left, y), (right, y)], GRID, 1.0);
            canvas.text(face, &self.ticks.label(value), (left - 8.0, y + 4.7), Align::Right, FAINT);
        }
        canvas.line(&[(left, bottom), (right, bottom)], AXIS, 1.0);
        for label in labels {
            let x = self.x(label.value);
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], AXIS, 1.0);
            if let Some(row) = label.row {
                canvas.text(face, &label.text, (x, bottom + 19.0 + row as f32 * LINE), Align::Centre, FAINT);
            }
        }
    }

    /// Where a point stands.
    pub(super) fn spot(&self, x: f64, y: f64) -> Spot {
        (self.x(x), self.y(y))
    }
}

/// How many rows labels take.
pub(super) fn rows(labels: &[Label]) -> f32 {
    labels.iter().filter_map(|label| label.row).max().map_or(0, |row| row + 1) as f32
}
